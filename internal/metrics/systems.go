// SPDX-License-Identifier: EPL-2.0

package metrics

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"

	"scache/internal/postfix"
)

// Systems returns the servers of the mail systems in these directories, or, if there
// are none, of the default one and of its other instances. One that cannot be read is
// down.
func Systems(directories []string) []Source {
	directories = distinct(directories)
	if len(directories) == 0 {
		directories = []string{""}
		if system, err := postfix.Open(""); err == nil {
			if present, missing, err := system.Instances(); err == nil {
				directories = distinct(append(present, missing...))
			}
		}
	}
	var all []Source
	number := map[string]int{}
	for _, directory := range directories {
		s := system(directory)
		number[s.Instance]++
		all = append(all, s)
	}
	for i, directory := range directories {
		if number[all[i].Instance] > 1 { // they are told from one another by what is different
			all[i].Instance = directory
		}
	}
	return all
}

// distinct returns each directory once.
func distinct(directories []string) (all []string) {
	for _, directory := range directories {
		if directory = filepath.Clean(directory); !slices.Contains(all, directory) {
			all = append(all, directory)
		}
	}
	return all
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
		Installed: func() string { return installedVersion(system) },
	}
}

// installedVersion returns the version of our binary that the entry names, "unknown" if it
// does not run, or nothing if the entry is another server's.
func installedVersion(system *postfix.System) string {
	_, version, err := system.Installed()
	if errors.Is(err, postfix.ErrNotEnabled) || errors.Is(err, postfix.ErrNoEntry) {
		return ""
	}
	return cmp.Or(version, "unknown")
}
