// SPDX-License-Identifier: EPL-2.0

// Tests of the command as a person uses it: the scripts in testdata, of testscript.

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:      "testdata",
		Deadline: time.Now().Add(2 * time.Minute),
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(tool)+":"+env.Getenv("PATH"))
			env.Setenv("GOCOVERDIR", os.Getenv("GOCOVERDIR"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "serving": serving, "stop": stop},
	})
}

// exits CODE TEXT ARGUMENT... runs scachectl, which ends with this exit code, prints
// nothing, and says this text as an error.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := exec.Command(tool, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	out, errOut, _ := run(cmd)
	if cmd.ProcessState.ExitCode() != code || !strings.Contains(errOut, args[1]) || out != "" {
		ts.Fatalf("exit code %d, %q, %q", cmd.ProcessState.ExitCode(), out, errOut)
	}
}

// serving SOCKET waits until a server answers there.
func serving(ts *testscript.TestScript, neg bool, args []string) {
	var said string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, errOut, ok := run(exec.Command(tool, "--socket", ts.MkAbs(args[0]), "status"))
		if ok {
			return
		}
		said = errOut
	}
	ts.Check(fmt.Errorf("nobody serves: %s", said))
}

// stop ends what runs in the background.
func stop(ts *testscript.TestScript, neg bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(unix.SIGTERM))
	}
}
