// SPDX-License-Identifier: EPL-2.0

package fdpass

// created, if not nil, is called with each descriptor that this package creates or receives.
// Only tests set it, to find out where one that is left open has come from.
var created func(fd int)

// OnCreate has f called with each descriptor that this package creates or receives, before
// the caller gets it. It is for TestMain: it must be called before all other functions.
func OnCreate(f func(fd int)) { created = f }

// trace tells tests about a new descriptor.
func trace(fd int) {
	if created != nil {
		created(fd)
	}
}
