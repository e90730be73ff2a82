// SPDX-License-Identifier: EPL-2.0

package client

import "scache/internal/control"

// Receivers asks for the receivers that have limits, in the order of main.cf.
func (c *Client) Receivers() (all []control.Receiver, err error) {
	err = c.collect(control.RequestReceivers, func(entry any) {
		if r, ok := entry.(control.Receiver); ok {
			all = append(all, r)
		}
	})
	return all, err
}
