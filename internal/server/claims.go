// SPDX-License-Identifier: EPL-2.0

package server

import (
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/receivers"
)

// Several instances of Postfix may share a receiver. Each has a server, and the kernel shows
// the connections of all of them. It does not show connections that a server has promised to
// a client, and that the client has yet to open. So a server promises connections only while
// it has claimed the receiver:
//
//  1. it claims the receivers for which clients wait,
//  2. counts connections,
//  3. promises connections to those that it has claimed, as far as there is room,
//  4. and gives up each claim when a count has shown all that it has promised.
//
// A handover includes the claims, as the next process has the promises. The methods are safe for
// concurrent use.
//
// A server that estimates connections claims its listening socket instead, for as long as it runs:
// after a reload, the old process serves on for a while, and the new one knows none of its
// connections before it has the state.
//
// A claim is a socket that is bound to a name in the abstract namespace. That is the same in
// each chroot. It belongs to the network namespace, as connections do, and a process that ends
// leaves nothing there.
type claims struct {
	socket string // the listening socket, as a name to be claimed

	mu      sync.Mutex
	sockets map[string]int // by what is claimed
	number  atomic.Int64   // of sockets
}

// claimBacklog is how many other servers may look at a claim until its owner looks at them.
const claimBacklog = 128

func newClaims(socket string) *claims { return &claims{socket: socket, sockets: map[string]int{}} }

// any reports whether this server has any claim.
func (c *claims) any() bool { return c.number.Load() > 0 }

// copies returns copies of all claims that can be copied.
func (c *claims) copies() (all []handover.Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, fd := range c.sockets {
		if fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			all = append(all, handover.Claim{Receiver: name, FD: fd})
		}
	}
	return all
}

// adopt takes over the claim of another process, and its descriptor.
func (c *claims) adopt(claim *handover.Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, isOurs := c.sockets[claim.Receiver]; isOurs {
		unix.Close(claim.FD)
		return
	}
	c.sockets[claim.Receiver] = claim.FD
	c.number.Store(int64(len(c.sockets)))
}

// claim claims receivers, and returns the names of those that this server has.
func (c *claims) claim(all []receivers.Shared) map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.showClaims()
	claimed := map[string]bool{}
	for _, r := range all {
		if c.claimOne(r.Name) {
			claimed[r.Name] = true
		}
	}
	return claimed
}

// claimSocket claims the listening socket, and reports whether no other process has it.
func (c *claims) claimSocket() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.showClaims()
	return c.claimOne(c.socket)
}

// claimOne claims what has this name, and reports whether no other server has it. The caller
// holds mu.
func (c *claims) claimOne(name string) bool {
	if _, isOurs := c.sockets[name]; isOurs {
		return true
	}
	fd, ofServer := take(claimName(name))
	if ofServer {
		return false
	}
	// Where it cannot be claimed, a connection too many is better than none.
	if fd != fdpass.None {
		c.sockets[name] = fd
		c.number.Store(int64(len(c.sockets)))
	}
	return true
}

// release gives up the claims of receivers to which no connection is promised.
func (c *claims) release(all []receivers.Shared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.showClaims()
	promised := map[string]int{}
	for _, r := range all {
		promised[r.Name] = r.Promised
	}
	for name, fd := range c.sockets {
		if promised[name] == 0 && name != c.socket {
			unix.Close(fd)
			delete(c.sockets, name)
		}
	}
	c.number.Store(int64(len(c.sockets)))
}

// close gives up all claims.
func (c *claims) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.sockets {
		unix.Close(fd)
	}
	clear(c.sockets)
	c.number.Store(0)
}

func claimName(what string) string {
	h := fnv.New64a()
	h.Write([]byte(what))
	return fmt.Sprintf("@scache-receiver-%016x", h.Sum64())
}

// bindName returns a socket with a name in the abstract namespace. It listens, so that others
// see who has it.
func bindName(name string) (fd int, err error) {
	const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	if fd, err = unix.Socket(unix.AF_UNIX, kind, 0); err != nil {
		return fdpass.None, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
		err = unix.Listen(fd, claimBacklog)
	}
	if err != nil {
		unix.Close(fd)
		return fdpass.None, err
	}
	return fd, nil
}

// take binds a socket to a name. If it cannot, it returns no descriptor, and reports whether
// another server has the name.
func take(name string) (fd int, ofServer bool) {
	for range 10 {
		fd, err := bindName(name)
		if err == nil {
			return fd, false
		}
		if err != unix.EADDRINUSE {
			break
		}
		if is, known := isServer(name); known {
			return fdpass.None, is
		}
		time.Sleep(time.Millisecond) // the owner is about to listen, or gone
	}
	return fdpass.None, false
}

// isServer reports whether the process that has bound a name may be a server: then its user is
// root or the user of this process. Processes of other users can bind a name, too. known is
// false if the process does not listen, or has ended.
func isServer(name string) (is, known bool) {
	const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err != nil {
		return true, true
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err {
	case nil:
	case unix.EAGAIN:
		return false, true // its owner does not accept, as a server would
	default:
		return false, false
	}
	peer, err := fdpass.PeerOf(fd)
	return err != nil || peer.UID == 0 || peer.UID == os.Geteuid(), true
}

// showClaims makes room for other servers that look at the claims of this one. The caller
// holds mu.
func (c *claims) showClaims() {
	for _, listener := range c.sockets {
		for {
			fd, err := fdpass.Accept(listener)
			if err != nil {
				break
			}
			unix.Close(fd)
		}
	}
}
