// SPDX-License-Identifier: EPL-2.0

package postfix_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"scache/internal/postfix"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// recorder is a daemon that writes its arguments to a file, each behind a NUL byte.
const recorder = `#!/bin/sh
record=$(mktemp "${0%/*}/../argv/XXXXXX") || exit
printf '%s\0' "$0" "$@" >"$record.part" && mv "$record.part" "$record.done"
exec sleep 1000
`

// newRecorder returns an instance whose daemons record their arguments. The entries are for
// the command "record".
func newRecorder(t *testing.T, master string) (*postfixtest.Instance, *postfix.System) {
	t.Helper()
	i, s := newInstance(t, master)
	for _, name := range []string{"record", "other"} {
		err := testenv.WriteProgram(filepath.Join(i.Dir, "libexec", name), recorder)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(i.Dir, "argv"), 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(i.Dir, "argv"), 0o777)
	return i, s
}

// recorded connects to a service, and returns what master(8) has given to its daemon.
func recorded(
	t *testing.T, i *postfixtest.Instance, class string, names []string,
) map[string][]string {
	t.Helper()
	for _, name := range names {
		conn, err := net.Dial("unix", filepath.Join(i.Dir, "queue", class, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	all := map[string][]string{}
	for end := time.Now().Add(time.Minute); len(all) < len(names); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("only %d of %d daemons were started", len(all), len(names))
		}
		files, _ := filepath.Glob(filepath.Join(i.Dir, "argv", "*.done"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
			if n := slices.Index(args, "-n"); n >= 0 {
				all[args[n+1]] = args
			}
		}
	}
	return all
}

// arguments returns what may stand behind the command in master.cf, and what master(8) makes of
// it: arguments, or nil where it takes the entry for an error.
func arguments(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/arguments")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		var words []string
		rest := strings.TrimSpace(line)
		for rest != "" && rest != "error" {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			word, _ := strconv.Unquote(quoted)
			words = append(words, word)
			rest = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest[len(quoted):]), "=>"))
		}
		all[words[0]] = words[1:]
		if rest == "error" {
			all[words[0]] = nil
		}
	}
	return all
}

// TestEntries_asRecorded needs no Postfix.
func TestEntries_asRecorded(t *testing.T) {
	t.Parallel()
	for text, want := range arguments(t) {
		s := systemOf(t, "", "a unix - n n - 1 record "+text+"\n")
		all, err := s.Entries()
		if want == nil {
			if err == nil {
				t.Errorf("%q: got %+v, want an error", text, all)
			}
			continue
		}
		if err != nil || len(all) != 1 || !slices.Equal(all[0].Arguments, want) {
			t.Errorf("%q: got %+v, %v, want %q", text, all, err, want)
		}
	}
}

// TestEntries_asMaster compares what this package and master(8) make of arguments.
func TestEntries_asMaster(t *testing.T) {
	t.Parallel()
	g := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	all := slices.Sorted(maps.Keys(arguments(t)))
	pieces := []string{
		"a", "-o ", "b=", " ", " ", "{", "}", "{ ", " }", "\n ", "\t", "$", "{a b}", "\n#c\n ",
		"\r", "\v",
	}
	for range 60 {
		text := ""
		for range g.IntN(12) {
			text += pieces[g.IntN(len(pieces))]
		}
		all = append(all, text)
	}
	var master strings.Builder
	var names []string
	expected := map[string][]string{}
	for n, text := range all {
		name := fmt.Sprintf("a%d", n)
		entry := name + " unix - n n - 1 record " + text + "\n"
		one := systemOf(t, "", entry)
		entries, err := one.Entries()
		if err != nil { // as TestEntries_refusedAsMaster has it
			continue
		}
		if len(entries) != 1 {
			t.Fatalf("%q: %d entries", text, len(entries))
		}
		expected[name] = append([]string{name}, entries[0].Arguments...)
		names = append(names, name)
		master.WriteString(entry)
	}
	i, s := newRecorder(t, master.String())
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	got := recorded(t, i, "private", names)
	entries, err := s.Entries()
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if e.Command != "record" {
			continue
		}
		args := got[e.Name]
		given := args[1 : slices.Index(args, "unix")+1] // before the arguments of the entry
		if rest := args[1+len(given):]; !slices.Equal(rest, e.Arguments) {
			t.Errorf("line %d: got %q, and master(8) gives %q", e.Line, e.Arguments, rest)
		}
		if want := expected[e.Name][1:]; !slices.Equal(e.Arguments, want) {
			t.Errorf("line %d: got %q beside other entries, and %q alone", e.Line, e.Arguments, want)
		}
	}
	if len(names) < 100 {
		t.Errorf("only %d entries were compared", len(names))
	}
}

// systemOf returns a system with these files.
func systemOf(t *testing.T, main, master string) *postfix.System {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := postfix.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEntries_refusedAsMaster has files that master(8) does not start with.
func TestEntries_refusedAsMaster(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t)
	u, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	owner, _ := strconv.Atoi(u.Uid)
	for _, entry := range []string{
		"x unix - n n - 1 record {",
		"x unix - n n - 1 record -o { a = b",
		"x unix - n n - 1 record {a}b",
		"x unix - n n - 1 record {a}{b}",
		"x unix - n n - 1 record { a = b }}",
		"x unix - n n - 1 record -o {a}} -v",
		"x unix - n n - 1", "x unix", "x",
		"x unix q n n - 1 record",
		"x unix - N n - 1 record",
		"x unix - n yes - 1 record",
		"x unix - n n 1s 1 record", "x unix - n n ? 1 record", "x unix - n n 5?? 1 record",
		"x unix - n n - -1 record", "x unix - n n - 1x record", "x unix - n n -1 1 record",
		// These are taken.
		"x unix - n n - 1 record {a}", "x unix y y n 5? 007 record", "x unix n - - 60 0 record",
		"x unix - - - 0? - record", " x unix - n n - 1", "x unix - n n - 1 record } a }",
	} {
		t.Run(entry, func(t *testing.T) {
			t.Parallel()
			i, s := newRecorder(t, entry+"\n")
			cmd := exec.Command(filepath.Join(i.Dir, "libexec/master"), "-w")
			cmd.Env = append(os.Environ(), "MAIL_CONFIG="+s.Directory)
			queue := filepath.Join(i.Dir, "queue")
			for _, dir := range []string{"pid", "private", "public"} {
				os.MkdirAll(filepath.Join(queue, dir), 0o755)
				os.Chown(filepath.Join(queue, dir), owner, -1)
			}
			out, err := cmd.CombinedOutput()
			taken := err == nil
			all, err := s.Entries()
			for _, e := range all {
				if _, wrong := s.Columns(e); err == nil {
					err = wrong
				}
			}
			if (err == nil) != taken {
				t.Errorf("got %v; master(8) takes it: %v; %s %q", err, taken, out, i.Log())
			}
		})
	}
}

// TestDuplicates_asMaster has several entries of one service: master(8) uses the last one with
// the same socket.
func TestDuplicates_asMaster(t *testing.T) {
	t.Parallel()
	const text = "scache unix - n n - 1 record -v\nscache unix y n n - 1 other\n" +
		"scache inet n n n - 1 record\n" +
		"scache unix n n n - 1 record -v -v\n"
	i, s := newRecorder(t, strings.ReplaceAll(text, "scache inet n n n - 1 record\n", ""))
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	entry, err := s.Entry()
	if err != nil || entry.Command != "other" || len(s.Duplicates()) != 2 {
		t.Errorf("%+v, %v, %v", entry, s.Duplicates(), err)
	}
	got := recorded(t, i, "private", []string{"scache"})["scache"]
	if !strings.HasSuffix(got[0], "/other") {
		t.Errorf("master(8) runs %q", got)
	}
	if one := systemOf(t, "", text); len(one.Duplicates()) != 2 || one.Duplicates()[1] != 2 {
		t.Errorf("%v", one.Duplicates())
	}
}
