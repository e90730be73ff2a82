// SPDX-License-Identifier: EPL-2.0

package cache

// A pool keeps some unused values for reuse: a session that is found is most often
// saved again.
type pool[T any] struct{ free []*T }

const poolSize = 256

// get returns a zero value.
func (p *pool[T]) get() *T {
	n := len(p.free)
	if n == 0 {
		return new(T)
	}
	x := p.free[n-1]
	p.free = p.free[:n-1]
	return x
}

// put zeroes x and keeps it for reuse. The caller must hold no other reference.
func (p *pool[T]) put(x *T) {
	*x = *new(T)
	if len(p.free) < poolSize {
		p.free = append(p.free, x)
	}
}
