// SPDX-License-Identifier: EPL-2.0

package attr_test

import (
	"fmt"
	"log"
	"net"

	"scache/attr"
)

// A program asks the connection cache of Postfix for a session, as smtp(8) does
// before it delivers. The connection would come from
//
//	net.Dial("unix", "/var/spool/postfix/private/scache")
//
// Here the other end is a goroutine that has no session to give.
func Example() {
	conn, server := net.Pipe()
	go serve(server)

	in, out := attr.NewDecoder(conn), attr.NewEncoder(conn)
	announcement, err := in.Decode()
	if err != nil {
		log.Fatal(err)
	}
	if err := announcement.Expect("protocol"); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the server speaks %s\n", announcement[0].Value)

	out.String("request", "find_endp")
	out.String("label", "smtp\n192.0.2.1\n25\n0\n")
	if err := out.End(); err != nil {
		log.Fatal(err)
	}
	reply, err := in.Decode()
	if err != nil {
		log.Fatal(err)
	}
	if err := reply.Expect("status", "property"); err != nil {
		log.Fatal(err)
	}
	status, err := reply[0].Int()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("status", status)
	// Output:
	// the server speaks connection_cache_protocol
	// status 2
}

// serve is a connection cache without connections.
func serve(conn net.Conn) {
	in, out := attr.NewDecoder(conn), attr.NewEncoder(conn)
	out.String("protocol", "connection_cache_protocol")
	if err := out.End(); err != nil {
		log.Fatal(err)
	}
	for {
		if _, err := in.Decode(); err != nil {
			return
		}
		out.Int("status", 2)
		out.String("property", "")
		if err := out.End(); err != nil {
			return
		}
	}
}
