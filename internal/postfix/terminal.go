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

// A terminal collects what commands of Postfix write to their standard error. They write errors
// there only if it is a terminal, and otherwise to the log. The log may not work because of the
// error that they report.
type terminal struct {
	main, stderr *os.File
	text         chan string
}

// openTerminal returns a terminal that is not the controlling terminal of any process.
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

// close returns the lines about errors. It does not wait for processes in the background that
// may still have the terminal open.
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

// terminalDelay is how long it may take until written text arrives.
const terminalDelay = 100 * time.Millisecond
