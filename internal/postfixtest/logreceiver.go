// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"net"
	"os"
	"sync"
)

// A logReceiver appends datagrams to a file, a line each.
type logReceiver struct {
	conn    *net.UnixConn
	file    *os.File
	reading sync.WaitGroup
}

// startLogReceiver creates the socket, which all may write to, and the file.
func startLogReceiver(socket, file string) (*logReceiver, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		f.Close()
		return nil, err
	}
	l := &logReceiver{conn: conn, file: f}
	if err := os.Chmod(socket, 0o666); err != nil {
		l.close()
		return nil, err
	}
	l.reading.Go(l.read)
	return l, nil
}

func (l *logReceiver) read() {
	line := make([]byte, 64<<10)
	for {
		n, err := l.conn.Read(line[:len(line)-1])
		if err != nil {
			return
		}
		line[n] = '\n'
		l.file.Write(line[:n+1])
	}
}

func (l *logReceiver) close() {
	l.conn.Close()
	l.reading.Wait()
	l.file.Close()
}
