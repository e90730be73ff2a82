// SPDX-License-Identifier: EPL-2.0

package metrics

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"scache/internal/postfix"
)

// Systems returns the servers of the Postfix instances in these directories, or, if there
// are none, of the default instance and of its multi_instance_directories. The server of
// an instance that cannot be read is down.
func Systems(directories []string) []Source {
	directories = cleaned(directories)
	if len(directories) == 0 {
		directories = []string{""}
		if system, err := postfix.Open(""); err == nil {
			if present, missing, err := system.Instances(); err == nil {
				directories = cleaned(append(present, missing...))
			}
		}
	}
	var all []Source
	number := map[string]int{}
	for _, directory := range directories {
		s := system(directory)
		number[instance(s)]++
		all = append(all, s)
	}
	for i, directory := range directories {
		if number[instance(all[i])] > 1 { // their directories differ
			all[i].Instance = directory
		}
	}
	return all
}

// cleaned returns each directory once, in its shortest form.
func cleaned(directories []string) (all []string) {
	for _, directory := range directories {
		all = append(all, filepath.Clean(directory))
	}
	return distinct(all, func(directory string) string { return directory })
}

// distinct returns the elements without those that have the key of an earlier one.
func distinct[T any](all []T, key func(T) string) (once []T) {
	seen := map[string]bool{}
	for _, x := range all {
		if k := key(x); !seen[k] {
			seen[k] = true
			once = append(once, x)
		}
	}
	return once
}

func system(directory string) Source {
	system, err := postfix.Open(directory)
	if err != nil {
		return Source{Instance: filepath.Base(cmp.Or(directory, postfix.DefaultDirectory))}
	}
	name, _ := system.Config.String("multi_instance_name")
	socket, _ := system.Socket()
	return Source{
		Instance:  cmp.Or(name, filepath.Base(filepath.Clean(system.Directory))),
		Socket:    socket,
		Installed: func() string { return versions.of(system) },
	}
}

// versions are the versions of all binaries that were asked so far.
var versions = versionCache{now: time.Now}

// A versionCache remembers the version of each installed binary while the files that decide
// about it are the same. So a process is started for a new binary, and not for each scrape.
type versionCache struct {
	now func() time.Time

	mu       sync.Mutex
	versions map[string]cachedVersion // by directory
}

type cachedVersion struct {
	files   [3]fileID // main.cf, master.cf, the binary
	path    string    // of the binary
	version string
}

// A fileID changes when a file is replaced or changed. It is zero if there is no file.
type fileID struct {
	device, inode     uint64
	size              int64
	modified, changed time.Time
}

func identify(path string) fileID {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{}
	}
	st := info.Sys().(*syscall.Stat_t)
	return fileID{
		device: uint64(st.Dev), inode: uint64(st.Ino), size: info.Size(),
		modified: info.ModTime(), changed: time.Unix(st.Ctim.Unix()),
	}
}

func identifyAll(directory, binary string) [3]fileID {
	return [3]fileID{
		identify(filepath.Join(directory, "main.cf")),
		identify(filepath.Join(directory, "master.cf")),
		identify(binary),
	}
}

// of returns the version of our binary that the entry names, "unknown" if it does not run,
// or "" if the entry names another server.
func (c *versionCache) of(system *postfix.System) string {
	c.mu.Lock()
	known, found := c.versions[system.Directory]
	c.mu.Unlock()
	if found && known.files == identifyAll(system.Directory, known.path) {
		return known.version
	}
	start := c.now()
	path, version, err := system.Installed()
	if errors.Is(err, postfix.ErrNotEnabled) || errors.Is(err, postfix.ErrNoEntry) {
		return ""
	}
	if err != nil || version == "" {
		return "unknown" // not remembered: it may run the next time
	}
	files := identifyAll(system.Directory, path)
	for _, f := range files {
		if f.changed.After(start.Add(-settled)) {
			return version // the version may be that of the file before
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.versions == nil {
		c.versions = map[string]cachedVersion{}
	}
	c.versions[system.Directory] = cachedVersion{files, path, version}
	return version
}

// settled is how long ago a file must have changed, so that it is known to have changed
// before the binary was run. The time stamps of file systems are coarse.
const settled = time.Second
