// SPDX-License-Identifier: EPL-2.0

// Tests of the command as a person uses it: the scripts in testdata, of testscript.

package main

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"scache/internal/postfix"
)

// scriptCommands are the commands of scripts beside those of testscript.
var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"exits": exits, "serving": serving, "stop": stop,
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, Cmds: scriptCommands,
	})
}

// TestScripts_ofPostfix runs each script with a private mail system that runs: MAIL_CONFIG is the
// directory of its main.cf, and OURS the command of this server in master.cf.
func TestScripts_ofPostfix(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/postfix/*.txtar")
	if len(files) == 0 || err != nil {
		t.Fatalf("got no scripts, %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			s := newRunningFixture(t)
			testscript.Run(t, testscript.Params{
				Files: []string{file}, RequireExplicitExec: true, Cmds: scriptCommands,
				Setup: func(env *testscript.Env) error {
					env.Setenv("MAIL_CONFIG", s.etc)
					env.Setenv("OURS", postfix.OurName)
					return nil
				},
			})
		})
	}
}

// exits CODE TEXT ARGUMENT... runs scachectl. It wants this exit code, nothing on standard
// output, and this text in the errors; "\n" is a line end.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := exec.Command(tool, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	out, errOut, _ := run(cmd)
	if cmd.ProcessState.ExitCode() != code ||
		!strings.Contains(errOut, strings.ReplaceAll(args[1], `\n`, "\n")) || out != "" {
		ts.Fatalf("got exit code %d, %q, %q, want %q", cmd.ProcessState.ExitCode(), out, errOut, args[:2])
	}
}

// serving SOCKET waits until a server answers there.
func serving(ts *testscript.TestScript, neg bool, args []string) {
	end := time.Now().Add(30 * time.Second)
	for ; ; time.Sleep(10 * time.Millisecond) {
		_, errOut, ok := run(exec.Command(tool, "--socket", ts.MkAbs(args[0]), "status"))
		if ok {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no server answers: %s", errOut)
		}
	}
}

// stop ends what runs in the background.
func stop(ts *testscript.TestScript, neg bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(unix.SIGTERM))
	}
}
