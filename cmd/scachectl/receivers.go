// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/histogram"
	"scache/internal/sockdiag"
)

// mailPorts are those of SMTP, LMTP and submission.
var mailPorts = []uint16{24, 25, 465, 587}

// A shownReceiver is a receiver in JSON.
type shownReceiver struct {
	control.Receiver
	Waited histogram.Values `json:"waited"`
}

// An openRemote is an address with the number of connections to it.
type openRemote struct {
	Address netip.Addr `json:"address"`
	Open    int        `json:"open"`
}

func newReceiversCommand(c *site) *cobra.Command {
	asJSON, kernel := false, false
	cmd := withoutArgs("receivers", "Show receivers with limits: connections, and clients that wait",
		func(cmd *cobra.Command) error {
			if kernel {
				return showRemotes(cmd, asJSON)
			}
			all, err := c.receivers()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), all)
			}
			return receiversTable(all).print(cmd.OutOrStdout(), 0)
		})
	cmd.Long = `receivers shows each entry of connection_cache_receivers: how many connections this
machine has to it (open), how many of them are in the cache (idle), how many it allows
(limit), how many clients wait for one, and for how long clients have waited: half of
them, and 99 percent, at most. NEW/MIN is how many connections have begun within the last
minute.

Overflows are clients whose time was over, and which have connected although there was no
room: raise connection_cache_protocol_timeout, or the limit. Refused are clients that were
told to connect and did not within a second.

Numbers with a tilde are estimated: the kernel does not tell the server.

With --all, connections of this machine to the ports of mail, by remote address, whether
there are limits or not: they show whom to limit. That does not ask the server.`
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print JSON; times are in seconds")
	flags.BoolVar(&kernel, "all", false, "show connections to the ports of mail by remote address")
	return cmd
}

func (c *site) receivers() (all []shownReceiver, err error) {
	err = c.ask(func(cl *client.Client) (err error) {
		all, err = receiversOf(cl)
		return err
	})
	return all, err
}

func receiversOf(cl *client.Client) ([]shownReceiver, error) {
	all := []shownReceiver{} // not null
	list, err := cl.Receivers()
	for _, r := range list {
		waited, _ := histogram.Parse(r.Waited) // of a false server, none
		all = append(all, shownReceiver{r, waited})
	}
	return all, err
}

func receiversTable(all []shownReceiver) *table {
	t := newTable("RECEIVER|>OPEN|>IDLE|>LIMIT|>WAITING|>HALF|>99%|" +
		">NEW/MIN|>OVERFLOWS|>REFUSED|LIMITS")
	for _, r := range all {
		open, limit, half, most := strconv.FormatInt(r.Open, 10), "-", "-", "-"
		if r.Estimate {
			open = "~" + open
		}
		if r.Limit > 0 {
			limit = strconv.FormatInt(r.Limit, 10)
		}
		if r.Waited.Count() > 0 {
			half = r.Waited.Quantile(0.5).String()
			most = r.Waited.Quantile(0.99).String()
		}
		t.add(r.Name, open, r.Idle, limit, r.Waiting, half, most, r.NewPerMinute, r.Overflows,
			r.Refused, r.Limits)
	}
	return t
}

// showRemotes prints how many connections to mail servers the kernel knows.
func showRemotes(cmd *cobra.Command, asJSON bool) error {
	socket, err := sockdiag.Open()
	if err != nil {
		return err
	}
	defer socket.Close()
	open := map[netip.Addr]int{}
	err = socket.Dump(mailPorts, func(c sockdiag.Connection) { open[c.Remote.Addr()]++ })
	if err != nil {
		return err
	}
	all := []openRemote{}
	for address, n := range open {
		all = append(all, openRemote{address, n})
	}
	slices.SortFunc(all, func(a, b openRemote) int {
		return cmp.Or(cmp.Compare(b.Open, a.Open), a.Address.Compare(b.Address))
	})
	if asJSON {
		return writeJSON(cmd.OutOrStdout(), all)
	}
	t := newTable("REMOTE|>OPEN")
	for _, r := range all {
		t.add(r.Address, r.Open)
	}
	return t.print(cmd.OutOrStdout(), 0)
}
