// SPDX-License-Identifier: EPL-2.0

package postfix

// Output runs a command of Postfix, such as postmap, and returns its output.
func (s *System) Output(name string, args ...string) (string, error) {
	return s.output(name, args...)
}
