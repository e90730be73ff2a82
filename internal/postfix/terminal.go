// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal collects what commands of Postfix write to their standard error. They write
// there only if that is a terminal, and otherwise to the log, which may not work with the very
// error that they report.
type terminal struct {
	main, stderr *os.File
	text         chan string
}

// openTerminal returns a terminal that no process is controlled by.
func openTerminal() (*terminal, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	t := &terminal{main: os.NewFile(uintptr(fd), "terminal"), text: make(chan string, 1)}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.main.Close()
		return nil, os.NewSyscallError("ioctl TIOCSPTLCK", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		t.stderr, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.main.Close()
		return nil, err
	}
	go func() {
		text, _ := io.ReadAll(io.LimitReader(t.main, 1<<20)) // EIO is the end
		t.text <- string(text)
	}()
	return t, nil
}

// close returns the lines about errors. Processes in the background may still have the
// terminal open; they are not waited for.
func (t *terminal) close() (reasons []string) {
	t.stderr.Close()
	t.main.SetReadDeadline(time.Now().Add(terminalDelay))
	text := <-t.text
	t.main.Close()
	for line := range strings.Lines(text) {
		for _, word := range []string{"fatal: ", "error: ", "warning: "} {
			if strings.Contains(line, word) {
				reasons = append(reasons, strings.TrimSpace(line))
				break
			}
		}
	}
	return reasons[max(0, len(reasons)-maxReasons):]
}

// terminalDelay is how long what was written may take to arrive.
const terminalDelay = 100 * time.Millisecond
