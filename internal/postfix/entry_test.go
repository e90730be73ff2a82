// SPDX-License-Identifier: EPL-2.0

// Survivors of "make mutants PKG=internal/postfix" are equal in behaviour: how much of a file is
// read at its end, and how often; how many links are followed; for how long commands are waited
// for after their end. Or they need a master.cf that is a mount point: see the tests of scachectl
// in containers.

package postfix

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/testenv"
)

// systemWith returns a system with these files.
func systemWith(t *testing.T, main, master string) *System {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *System) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const odd = "# scache unix x\nsmtp unix - - y - - smtp\n\t-o x=y\n" +
	"scache\t unix -  -\n# scache\n\n  n -\n 1\n   scache  # x\n" +
	"  -o a=b { -o c = d } -oe=f -o { g = { h i } }\n" +
	"scache inet - - y - 1 scache\nlmtp unix - - y - - lmtp"

func TestEntry(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "", odd)
	e, err := s.Entry()
	if err != nil {
		t.Fatal(err)
	}
	if e.Name != "scache" || e.Type != "unix" || e.Unprivileged != "-" || e.Chroot != "n" ||
		e.ProcessLimit != "1" || e.Command != "scache" {
		t.Errorf("%+v", e)
	}
	want := []string{"#", "x", "-o", "a=b", "-o c = d", "-oe=f", "-o", "g = { h i }"}
	if !slices.Equal(e.Arguments, want) {
		t.Errorf("arguments %q, want %q", e.Arguments, want)
	}
	if options := e.Options(); options != nil {
		t.Errorf("options %q behind an argument that is no option", options)
	}
}

// TestAgents has entries of agents, and others that are not valid.
func TestAgents(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "", "smtp unix - - n - - smtp\x00 x\nfew unix - - n - -\n"+
		"bad unix - - n - - smtp {x\n\x00all unix - - n - - smtp\nqmgr unix - - n - - qmgr\n"+
		"private unix - - n - - /x/lmtp -v\n")
	agents, err := s.Agents()
	var got []string
	for _, a := range agents {
		got = append(got, a.Name+" "+a.Protocol+" "+strings.Join(a.Arguments, " "))
	}
	if want := []string{"smtp smtp ", "private lmtp -v"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, want := range []string{
		"line 2: the entry lacks", "line 3: missing '}'", "line 4: the entry lacks",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	const entry, other = "scache unix - - n - 1 scache\n", "scache inet n - n - 1 scache\n"
	for text, want := range map[string][]int{
		entry: nil, entry + other: nil, entry + other + entry: {1, 3},
	} {
		if got := systemWith(t, "", text).Duplicates(); !slices.Equal(got, want) {
			t.Errorf("%q: got lines %v, want %v", text, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for arguments, want := range map[string][]string{
		"-o a=b { -o c = d } -oe=f -o { g = { h i } }": {"a=b", "c = d", "e=f", "g = { h i }"},
		"-vo a=b -c -i 3 -n -o -voe=f c=d":             {"a=b", "e=f"},
		"-o name=${{$compatibility_level} >=level {3.0} ? {5s} : {2s}} -o x=y": {
			"name=${{$compatibility_level} >=level {3.0} ? {5s} : {2s}}", "x=y"},
		"flags=R user=x argv=/bin/y -o a=b": nil,
		"-v -- -o a=b":                      nil,
		"-v -o":                             {""},
		"-":                                 nil,
		"":                                  nil,
	} {
		s := systemWith(t, "", "scache unix - - n - 1 scache "+arguments+"\n")
		e, err := s.Entry()
		if err != nil || !slices.Equal(e.Options(), want) {
			t.Errorf("%s: got %q, want %q, %v", arguments, e.Options(), want, err)
		}
	}
}

func TestCheckEntry_namesTheColumn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ main, master, want string }{
		{"", "scache unix - - y - 1 scache", ""},
		{"default_process_limit = 1\n", "scache unix y y n - - scache", ""},
		{"x = 1\ndefault_process_limit = $x\n", "scache unix - n - 60? - scache", ""},
		{"", "scache unix - - y 0 1 scache", ""},
		{"master_service_disable = inet, SCACHE/unix\n", "scache unix - - y - 1 scache",
			"master(8) ignores scache unix"},
		{"master_service_disable = scache.unix\n", "scache unix - - y - 1 scache", "ignores"},
		{"master_service_disable = unix\n", "scache unix - - y - 1 scache", "ignores"},
		{"master_service_disable = !scache/unix unix\n", "scache unix - - y - 1 scache", ""},
		{"master_service_disable = inet other/unix\n", "scache unix - - y - 1 scache", ""},
		{"master_service_disable = ${\n", "scache unix - - y - 1 scache", "master_service_disable"},
		{"", "scache unix - - y 0? 1 scache\nother unix - - - - 0 y", ""},
		{"", "scache unix - - y - - scache", `maxproc column of scache unix is "-"`},
		{"", "scache unix - - y - - scache", "default_process_limit is 100"},
		{"", "scache unix - - y - 0 scache", `maxproc column of scache unix is "0"`},
		{"default_process_limit = x\n", "scache unix - - y - - scache", "default_process_limit"},
		{"", "scache unix n - y - 1 scache", `private column of scache unix is "n"`},
		{"", "scache unix x - y - 1 scache", `private column of scache unix is "x"`},
		{"", "scache unix - x y - 1 scache", `unpriv column of scache unix is "x"`},
		{"", "scache unix - - x - 1 scache", `chroot column of scache unix is "x"`},
		{"", "scache unix - - y x 1 scache", `wakeup column of scache unix is "x"`},
		{"", "scache unix - - y - x scache", `maxproc column of scache unix is "x"`},
		{"", "scache unix - - y - 1 scache\nother unix - x - - - y",
			`line 2: the unpriv column of other unix is "x"`},
		{"", "scache unix - - y - 1 scache\nother unix - - - - - y {", "line 2: missing '}'"},
		{"", "other unix -\nscache unix - - y - 1 scache", "line 1: the entry lacks columns"},
	} {
		s := systemWith(t, test.main, test.master+"\n")
		e, err := s.Entry()
		if err != nil {
			t.Fatal(err)
		}
		err = s.CheckEntry(e)
		if (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s%s: got %v, want %q", test.main, test.master, err, test.want)
		}
	}
}

func TestSetCommand_changesInItsPlace(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "", odd)
	os.Chmod(s.masterCF(), 0o640)
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetCommand("a/b"); err != nil {
		t.Fatal(err)
	}
	if got, want := s.text(t), strings.Replace(odd, "   scache  # x", "   a/b  # x", 1); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	command, err := s.SavedCommand()
	if command != "scache" || err != nil {
		t.Errorf("saved %q, %v", command, err)
	}
	if err := s.SetCommand(command); err != nil || s.text(t) != odd {
		t.Errorf("%v, back: %q", err, s.text(t))
	}
	if st, err := os.Stat(s.masterCF()); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for range 2 {
		if err := s.DropSaved(); err != nil {
			t.Error(err)
		}
	}
	if command, err := s.SavedCommand(); command != StockCommand || err != nil {
		t.Errorf("without a saved entry: %q, %v", command, err)
	}
}

// TestSavedCommand_isThatOfTheEntry has files that Save has not written, too.
func TestSavedCommand_isThatOfTheEntry(t *testing.T) {
	t.Parallel()
	const entry = "scache unix - - y - 1 other"
	for text, want := range map[string]string{
		entry: "other", entry + " -v\n": "other", "": StockCommand, "# x\n": StockCommand,
		"scache unix - - y - 1\n": StockCommand, entry + "\n" + entry + "\n": StockCommand,
	} {
		s := systemWith(t, "", odd)
		if err := os.WriteFile(s.SavedPath(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := s.SavedCommand(); got != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	s := systemWith(t, "", odd)
	if err := os.MkdirAll(filepath.Join(s.SavedPath(), "directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	if command, err := s.SavedCommand(); err == nil {
		t.Errorf("got %q of a directory, want an error", command)
	}
	if err := s.DropSaved(); err == nil {
		t.Error("got no error for a directory that is not empty, want one")
	}
}

// TestEntry_badArguments has arguments that master(8) does not take.
func TestEntry_badArguments(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "", "x unix - - y - 1 x\nscache unix - - y - 1 scache {\n")
	if e, err := s.Entry(); err == nil || !strings.Contains(err.Error(), "line 2: missing '}'") {
		t.Errorf("got %+v, %v, want an error", e, err)
	}
}

func TestSetCommand_linkStays(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "", odd)
	real := filepath.Join(t.TempDir(), "real")
	if err := os.Rename(s.masterCF(), real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, s.masterCF()); err != nil {
		t.Fatal(err)
	}
	if err := s.SetCommand("x"); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(s.masterCF()); target != real || err != nil {
		t.Errorf("%q, %v", target, err)
	}
	if text, _ := os.ReadFile(real); !strings.Contains(string(text), "   x  # x") {
		t.Errorf("%q", text)
	}
}

// TestAccessStays as it was, to master.cf and to what is kept of it.
func TestAccessStays(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("root is required to give files away")
	}
	s := systemWith(t, "", odd)
	const user, group, mode = 1, 4, 0o640
	// Owner, user 7, group, mask and others: see acl(5), and the kernel's posix_acl_xattr.h.
	acl := []byte("\x02\x00\x00\x00" +
		"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x07\x00\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" +
		"\x20\x00\x00\x00\xff\xff\xff\xff")
	list := unix.Setxattr(s.masterCF(), accessAttributes[1], acl, 0) // not every file system has them
	err := errors.Join(os.Chmod(s.masterCF(), mode), os.Chown(s.masterCF(), user, group))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.Save(), s.SetCommand("other"), s.replace(s.backupPath(), nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.masterCF(), s.SavedPath(), s.backupPath()} {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		if err != nil || st.Uid != user || st.Gid != group || st.Mode&0o777 != mode {
			t.Errorf("%s: owner %d, group %d, mode %o, %v", path, st.Uid, st.Gid, st.Mode, err)
		}
		got := make([]byte, 100)
		n, err := unix.Getxattr(path, accessAttributes[1], got)
		if list == nil && (err != nil || !bytes.Equal(got[:n], acl)) {
			t.Errorf("%s: access control list %q, %v", path, got[:max(n, 0)], err)
		}
	}
	if names, err := os.ReadDir(s.Directory); err != nil || len(names) != 4 {
		t.Errorf("files: %v, %v", names, err)
	}
}

func TestEntry_none(t *testing.T) {
	t.Parallel()
	for master, want := range map[string]string{
		"":                                 "no entry of this service: scache unix",
		"scache inet - - y - 1 scache\n":   "scache unix; the type column of this line is inet",
		"scache\n":                         "no entry",
		"x unix - - y - 1 scache\n":        "master.cf: there is no entry",
		" scache unix - - y - 1 scache\n":  "no entry",
		"#scache unix - - y - 1 scache\n":  "no entry",
		"scache unix - - y - 1\n":          "lacks columns",
		"scache2 unix - - y - 1 scache2\n": "no entry",
	} {
		s := systemWith(t, "", master)
		if _, err := s.Entry(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", master, err)
		}
		if err := s.SetCommand("x"); err == nil || s.text(t) != master {
			t.Errorf("%q: %v, %q", master, err, s.text(t))
		}
	}
}

func TestEntry_anotherService(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "connection_cache_service_name = other\n",
		"scache unix - - y - 1 scache\nother unix - n - - - x\n")
	if e, err := s.Entry(); e.Command != "x" || err != nil {
		t.Errorf("%v, %v", e, err)
	}
	want := []string{"-n", "other", "-t", "unix", "-c"}
	if e, _ := s.Entry(); !slices.Equal(s.DaemonArguments(e), want) {
		t.Errorf("%q", s.DaemonArguments(e))
	}
}

func TestDaemonArguments(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ main, entry, want string }{
		{"", "scache unix - - y - 1 scache -o a=b", "-n scache -t unix -l -u -c -o a=b"},
		{"", "scache unix - - - - 1 scache", "-n scache -t unix -l -u -c"},
		{"compatibility_level = 3.6\n", "scache unix - - - - 1 scache", "-n scache -t unix -l -u"},
		{"compatibility_level = 3.6\n", "scache unix - n n - 0 scache -v", "-n scache -t unix -v"},
	} {
		s := systemWith(t, test.main, test.entry)
		e, err := s.Entry()
		if got := strings.Join(s.DaemonArguments(e), " "); got != test.want || err != nil {
			t.Errorf("%s: %s, %v, want %s", test.entry, got, err, test.want)
		}
	}
}

func TestWithoutEntry(t *testing.T) {
	t.Parallel()
	const text = "# scache unix x\nsmtp unix a\n\t-o x=y\n" +
		"scache unix a\n  -o a=b\n# comment\n\n   -o c=d\nscache inet a\nlmtp unix a\n"
	const left = "# scache unix x\nsmtp unix a\n\t-o x=y\n# comment\n\nscache inet a\nlmtp unix a\n"
	s := &System{Service: "scache"}
	if got := string(s.withoutEntry([]byte(text))); got != left {
		t.Errorf("%q", got)
	}
}

// TestInstalled_binaryThatHangs does not delay the caller that asks for its version.
func TestInstalled_binaryThatHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := systemWith(t, "daemon_directory = "+dir+"\n", "scache unix - - y - 1 "+OurName+"\n")
	if err := os.Mkdir(filepath.Join(dir, filepath.Dir(OurName)), 0o755); err != nil {
		t.Fatal(err)
	}
	err := testenv.WriteProgram(filepath.Join(dir, OurName), "#!/bin/sh\nsleep 100\n")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	path, _, err := s.Installed()
	if err == nil || path != filepath.Join(dir, OurName) || time.Since(start) > time.Minute {
		t.Errorf("%s, %v, after %v", path, err, time.Since(start))
	}
}

// TestRestore finds what an interrupted Forget has left, and what was made of
// it since.
func TestRestore(t *testing.T) {
	t.Parallel()
	const mended = "\nscache unix - - y - 1 other\n"
	without := string((&System{Service: "scache"}).withoutEntry([]byte(odd)))
	for name, test := range map[string]struct {
		whole, now, want, err string
	}{
		"not interrupted":          {"", odd, odd, ""},
		"before the entry was out": {odd, odd, odd, ""},
		"while it was out":         {odd, without, odd, ""},
		"and an entry was put in":  {odd, without + mended, without + mended, ""},
		"and the rest was changed": {odd, without + "\n# mine\n", without + "\n# mine\n",
			"put it back from"},
	} {
		s := systemWith(t, "", test.now)
		if test.whole != "" {
			if err := os.WriteFile(s.backupPath(), []byte(test.whole), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		interrupted, err := s.Restore()
		if interrupted != (test.whole != "") || (err != nil) != (test.err != "") ||
			err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, %v", name, interrupted, err)
		}
		if got := s.text(t); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
		if again, err := s.Restore(); again != (test.err != "") || (err != nil) != (test.err != "") {
			t.Errorf("%s, again: %v, %v", name, again, err)
		}
	}
}

// TestRestore_torn has master.cf written in place, and interrupted behind each byte.
func TestRestore_torn(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "", odd)
	e, err := s.findEntry([]byte(odd))
	if err != nil {
		t.Fatal(err)
	}
	for name, updated := range map[string][]byte{
		"longer":        withCommand([]byte(odd), e, "../../../usr/local/libexec/"+OurName),
		"shorter":       withCommand([]byte(odd), e, "x"),
		"same length":   withCommand([]byte(odd), e, "lmtp-x"),
		"without entry": s.withoutEntry([]byte(odd)),
	} {
		for k := range len(updated) + 1 {
			// In short mode, only what is at the command and its ends.
			if testing.Short() && (k < e.words[6].start || k > e.words[7].end+50) && k < len(updated)-1 {
				continue
			}
			torn := append(slices.Clone(updated[:k]), odd[min(k, len(odd)):]...)
			if err := os.WriteFile(s.masterCF(), torn, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.backupPath(), []byte(odd), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := s.Restore()
			complete := bytes.Equal(torn, updated) && name != "without entry"
			if got := s.text(t); err != nil || got != odd && !complete {
				t.Fatalf("%s, behind byte %d: %v, %q", name, k, err, got)
			}
			if s.Interrupted() {
				t.Fatal("the backup is left")
			}
		}
	}
}

// TestRestore_oldName reads the backup of version 1.0.0.
func TestRestore_oldName(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "", odd)
	err := os.WriteFile(filepath.Join(s.Directory, "master.cf.scache-whole"), []byte(odd), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.masterCF(), s.withoutEntry([]byte(odd)), 0o644); err != nil {
		t.Fatal(err)
	}
	interrupted, err := s.Restore()
	if !interrupted || err != nil || s.text(t) != odd || s.Interrupted() {
		t.Errorf("%v, %v, %q", interrupted, err, s.text(t))
	}
}

func TestOpen_relative(t *testing.T) {
	s := systemWith(t, "", odd)
	t.Chdir(filepath.Dir(s.Directory))
	relative, err := Open(filepath.Base(s.Directory))
	if err != nil || relative.Directory != s.Directory {
		t.Errorf("%v, %v", relative, err)
	}
}

func TestVersion_AtLeast(t *testing.T) {
	t.Parallel()
	for version, want := range map[Version]bool{
		"3.6": true, "3.5.25": false, "3.10.1": true, "4.0": true, "2.11": false, "3.12-20260101": true,
		"": false, "x": false,
	} {
		if got := version.AtLeast(3, 6); got != want {
			t.Errorf("%q: got %v", version, got)
		}
	}
}

// FuzzSetCommand changes the command there and back, in whatever file.
func FuzzSetCommand(f *testing.F) {
	f.Add([]byte(odd))
	f.Add([]byte("scache unix - - y - 1\n\tscache"))
	f.Add([]byte("scache unix - - y - 1 scache { } {\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := &System{Service: "scache"}
		e, err := s.findEntry(text)
		if err != nil {
			return
		}
		w := e.words[columns-1]
		if string(text[w.start:w.end]) != w.text {
			t.Fatalf("%q is not at %d", w.text, w.start)
		}
		again, err := s.findEntry(withCommand(text, e, "x/y"))
		if err != nil || again.words[columns-1].text != "x/y" || len(again.words) != len(e.words) {
			t.Fatalf("%q: %v, %v", text, again, err)
		}
		newEntry(e).Options()
		if left := s.withoutEntry(text); len(left) >= len(text) {
			t.Fatal("nothing was left out")
		}
	})
}
