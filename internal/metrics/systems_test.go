// SPDX-License-Identifier: EPL-2.0

package metrics

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"scache/internal/postfix"
	"scache/internal/testenv"
)

// TestSystems_namesDiffer although those of directories are the same, and one is given
// twice.
func TestSystems_namesDiffer(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	var directories []string
	for name, main := range map[string]string{
		"a/postfix": "", "b/postfix": "", "c/postfix": "multi_instance_name = own",
	} {
		dir := filepath.Join(top, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(main+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		directories = append(directories, dir, dir+"/")
	}
	got := map[string]int{}
	for _, s := range Systems(directories) {
		got[s.Instance]++
	}
	if len(got) != 3 || got["own"] != 1 || got[top+"/a/postfix"] != 1 || got[top+"/b/postfix"] != 1 {
		t.Errorf("got %v, want own, and two directories", got)
	}
}

// TestSystems_namesThatAreNoText are shown, and differ.
func TestSystems_namesThatAreNoText(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	var directories []string
	for i, name := range []string{"postfix-\xff", "postfix-\xfe", `postfix-\xff`} {
		dir := filepath.Join(top, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := "queue_directory = " + top + "\nmulti_instance_name = " + name + "\n"
		if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		directories = append(directories, dir)
	}
	got := gather(t, &Collector{Sources: func() []Source { return Systems(directories) }})
	want(t, got, 1, `scache_up{postfix_instance="postfix-\\xfe"} 0`,
		`scache_up{postfix_instance="`+top+`/0"} 0`, `scache_up{postfix_instance="`+top+`/2"} 0`)
	want(t, got, 3, `scache_up{`)
}

// TestVersionCache_startsOneProcess for each binary, and one more when it is replaced.
func TestVersionCache_startsOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary, runs := filepath.Join(dir, postfix.OurName), filepath.Join(dir, "runs")
	write := func(path, text string) {
		t.Helper()
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			testenv.WriteProgram(path+".new", text),
			os.Rename(path+".new", path))
		if err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "master.cf"), "scache unix - - n - 1 "+postfix.OurName+"\n")
	write(filepath.Join(dir, "main.cf"), "daemon_directory = "+dir+"\n")
	system, err := postfix.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Hour
	c := versionCache{now: func() time.Time { return time.Now().Add(later) }}
	for i, step := range []struct {
		text, version string
		runs          int
		later         time.Duration
	}{
		{"echo scache 7", "7", 1, time.Hour},
		{"echo scache 8", "8", 2, time.Hour},
		{"exit 1", "unknown", 5, time.Hour}, // it may run the next time
		{"echo scache 9", "9", 8, 0},        // it may just have been replaced
	} {
		write(binary, "#!/bin/sh\necho >>"+runs+"\n"+step.text+"\n")
		later = step.later
		for range 3 {
			if got := c.of(system); got != step.version {
				t.Errorf("step %d: got version %q, want %q", i, got, step.version)
			}
		}
		text, err := os.ReadFile(runs)
		if err != nil || len(text) != step.runs {
			t.Errorf("step %d: got %d runs, %v, want %d", i, len(text), err, step.runs)
		}
	}
	write(filepath.Join(dir, "master.cf"), "scache unix - - n - 1 scache\n")
	if got := c.of(system); got != "" {
		t.Errorf("another server: got version %q, want none", got)
	}
}

// TestSystems_installedBinary is ours only, and has a version even if it does not run: there
// is an alert for that.
func TestSystems_installedBinary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, test := range []struct{ command, binary, want string }{
		{"scache", "", ""},
		{"", "", ""},
		{"x/" + postfix.OurName, "", "unknown"},
		{"x/" + postfix.OurName, "#!/bin/sh\nexit 1\n", "unknown"},
		{"x/" + postfix.OurName, "#!/bin/sh\necho scache 7\n", "7"},
	} {
		os.MkdirAll(filepath.Join(dir, "x", filepath.Dir(postfix.OurName)), 0o755)
		binary := filepath.Join(dir, "x", postfix.OurName)
		os.Remove(binary)
		entry := ""
		if test.command != "" {
			entry = "scache unix - - n - 1 " + test.command + "\n"
		}
		err := errors.Join(os.WriteFile(filepath.Join(dir, "master.cf"), []byte(entry), 0o644),
			os.WriteFile(filepath.Join(dir, "main.cf"), []byte("daemon_directory = "+dir+"\n"), 0o644))
		if test.binary != "" {
			err = errors.Join(err, testenv.WriteProgram(binary, test.binary))
		}
		if err != nil {
			t.Fatal(err)
		}
		if version := Systems([]string{dir})[0].Installed(); version != test.want {
			t.Errorf("%d: got version %q, want %q", i, version, test.want)
		}
	}
}
