// SPDX-License-Identifier: EPL-2.0

package handover

import "scache/internal/fdpass"

// Version 1 of the description, which was written before release 1.0.0. Kinds and descriptors
// of its entries follow from the header: bindings come first, which have none, then sessions,
// then clients, with one each. All batches come over the first socket, and their messages do
// not say how many descriptors they had.

func (e *entryReader) nextOfVersion1() (kind string, descriptors int) {
	switch {
	case e.missing[kindBinding] > 0:
		return kindBinding, 0
	case e.missing[kindSession] > 0:
		return kindSession, 1
	default:
		return kindClient, 1
	}
}

// endpointOfVersion1 returns the endpoint of a binding: its second label.
func endpointOfVersion1(f attributes) (endpoint string) {
	for _, a := range f.list {
		if string(a.Name) == "label" {
			endpoint = string(a.Value)
		}
	}
	return endpoint
}

// batchOfVersion1 returns how many descriptors the next batch should have. One of the entries
// of the kind was read already.
func (e *entryReader) batchOfVersion1(kind string) int {
	return min(e.missing[kind]+1, fdpass.BatchSize)
}
