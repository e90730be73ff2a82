// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"fmt"
	"io"
	"net"

	"scache/internal/client"
	"scache/internal/fdpass"
)

// Dial connects to the server at this path, which announces its protocol.
func Dial(path string) (*client.Client, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	c, err := NewClient(fdpass.New(conn), true)
	if err != nil {
		conn.Close()
	}
	return c, err
}

// NewClient returns a client on a connection. If the server announces its protocol, as servers
// of Postfix 3.6 and later do, NewClient waits for that: then the server has accepted the
// connection.
func NewClient(conn client.Conn, announced bool) (*client.Client, error) {
	const announcement = "protocol\x00connection_cache_protocol\x00\x00"
	if announced {
		got := make([]byte, len(announcement))
		if _, err := io.ReadFull(conn, got); err != nil {
			return nil, err
		}
		if string(got) != announcement {
			return nil, fmt.Errorf("got %q, want %q", got, announcement)
		}
	}
	return client.Detect(conn), nil
}
