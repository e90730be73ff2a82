// SPDX-License-Identifier: EPL-2.0

package postfixtest

import "golang.org/x/sys/unix"

// tracedHere are calls that only this architecture has.
var tracedHere = []tracedCall{{kind: "poll", number: unix.SYS_POLL}}
