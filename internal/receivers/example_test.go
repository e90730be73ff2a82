// SPDX-License-Identifier: EPL-2.0

package receivers_test

import (
	"fmt"
	"log"
	"net/netip"
	"time"

	"scache/internal/receivers"
)

// Two agents deliver to a receiver that allows one connection.
func Example() {
	rules, err := receivers.Parse("{ bigmail, 192.0.2.0/24, connections=1 }")
	if err != nil {
		log.Fatal(err)
	}
	set := receivers.New(receivers.Config{Rules: rules, Wait: 4 * time.Second})
	now, endpoint := time.Second, "smtp\n192.0.2.1\n25\n0\n"
	carryOut := func(d receivers.Decisions) {
		for _, a := range d.Answers {
			if a.Give == "" {
				fmt.Printf("%v: not found\n", a.Client.Owner)
				continue
			}
			// Here, the server takes the session out of the cache, and sends it.
			fmt.Printf("%v: found\n", a.Client.Owner)
			set.Served(a.Client, now, true)
		}
		if d.Count {
			fmt.Println("count connections")
		}
	}

	// Both ask, when the cache has nothing for them. The first one causes a count.
	first, second := &receivers.Client{Owner: "first"}, &receivers.Client{Owner: "second"}
	for _, c := range []*receivers.Client{first, second} {
		verdict, d := set.FindEndpoint(c, now, []byte(endpoint))
		fmt.Printf("%v: waits: %t\n", c.Owner, verdict == receivers.Wait)
		carryOut(d)
	}

	// The kernel shows no connection: the first one may connect.
	snapshot := set.NewSnapshot(now)
	carryOut(set.Apply(snapshot, now))

	// It does, and the kernel shows that.
	now += 10 * time.Millisecond
	snapshot = set.NewSnapshot(now)
	snapshot.Add(netip.MustParseAddrPort("192.0.2.1:25"), 1)
	carryOut(set.Apply(snapshot, now))

	// It saves the session, which is for the second one.
	now += 70 * time.Millisecond
	if keep, _, d := set.Save(first, now, []byte(endpoint), []byte("reuse_count=0\n")); keep {
		carryOut(d)
		// Here, the server puts the session into the cache.
		carryOut(set.Saved(first, now, endpoint))
	}

	// Output:
	// first: waits: true
	// count connections
	// second: waits: true
	// first: not found
	// second: found
}
