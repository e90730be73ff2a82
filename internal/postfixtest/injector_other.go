// SPDX-License-Identifier: EPL-2.0

//go:build !amd64

package postfixtest

// tracedHere are calls that other architectures do not have.
var tracedHere []tracedCall
