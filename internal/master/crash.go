// SPDX-License-Identifier: EPL-2.0

package master

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of the Go runtime itself, such as no more threads or memory, end the process without
// a chance to log them: the runtime writes them to standard error, which master(8) discards.
// So it also writes them to a file in data_directory, which the next process logs.

// maxCrashLines bounds how many lines of a crash are logged: the reason, and the top of the
// stack.
const maxCrashLines = 20

// recordCrashes logs what the previous process has written to the crash file, and has the
// runtime write there. It is for use outside of the jail. uid is the user that this process
// becomes, or -1: only files of that user are touched. Where there can be no such file,
// nothing is lost but the message.
func (p *Process) recordCrashes(directory string, uid int) {
	name := strings.ReplaceAll(cmp.Or(p.Options.ServiceName, p.name), "/", "_")
	f, err := openAs(uid, filepath.Join(directory, "scache-"+name+".crash"))
	if err != nil {
		p.Log.Debug("no crash file: %v", err)
		return
	}
	defer f.Close() // the runtime has a copy
	text, _ := io.ReadAll(io.LimitReader(f, 1<<16))
	text = bytes.TrimSpace(text)
	if len(text) > 0 {
		for i, line := range strings.SplitN(string(text), "\n", maxCrashLines+1) {
			if i < maxCrashLines && line != "" {
				p.Log.Warning("the previous process has crashed: %s", line)
			}
		}
	}
	if err := f.Truncate(0); err != nil {
		p.Log.Debug("crash file: %v", err)
		return
	}
	for range 3 { // it copies the descriptor, which may fail for a moment
		if err = debug.SetCrashOutput(f, debug.CrashOptions{}); err == nil {
			return
		}
	}
	p.Log.Debug("crash file: %v", err)
}

// openAs opens or creates a file with the rights of a user. The directory may belong to that
// user, who could put a link there: root must not follow it.
func openAs(uid int, path string) (*os.File, error) {
	if uid > 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(uid); err != nil {
			return nil, err
		}
		defer syscall.Setfsuid(os.Geteuid())
	}
	const flags = os.O_RDWR | os.O_CREATE | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return f, nil
}
