// SPDX-License-Identifier: EPL-2.0

package server

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
)

// TestCloserTakesLeaveOfThoseWhoListen has remote ends that listen, that have said
// something, and that have hung up; few and many.
func TestCloserTakesLeaveOfThoseWhoListen(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, few + 1} {
		for name, test := range map[string]struct {
			goodbye string
			why     cache.End
			before  func(remote int)
			want    string
		}{
			"who listens":             {"QUIT", cache.Expired, func(int) {}, "QUIT\r\n"},
			"who listens, no goodbye": {"", cache.Expired, func(int) {}, ""},
			"who has spoken":          {"QUIT", cache.Expired, func(remote int) { unix.Write(remote, []byte("421 bye\r\n")) }, ""},
			"who has hung up":         {"QUIT", cache.Expired, func(remote int) { unix.Shutdown(remote, unix.SHUT_WR) }, ""},
			"who was seen to be dead": {"QUIT", cache.Dead, func(int) {}, ""},
		} {
			var remotes []int
			var all []cache.Ended
			for range n {
				pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				test.before(pair[0])
				remotes, all = append(remotes, pair[0]), append(all, cache.Ended{FD: pair[1], Why: test.why})
			}
			c := &Closer{Goodbye: test.goodbye, Hits: NewHits(func() time.Duration { return 0 })}
			c.Close(all)
			c.Wait()
			for _, remote := range remotes {
				buf := make([]byte, 100)
				heard, _ := unix.Read(remote, buf)
				if got := string(buf[:max(heard, 0)]); got != test.want {
					t.Errorf("%d, %s: heard %q", n, name, got)
				}
				if end, _ := unix.Read(remote, buf); end > 0 {
					t.Errorf("%d, %s: the connection is open", n, name)
				}
				unix.Close(remote)
			}
		}
	}
}
