// SPDX-License-Identifier: EPL-2.0

package postfixtest

// tracedHere are calls that only this architecture has.
var tracedHere []tracedCall
