// SPDX-License-Identifier: EPL-2.0

package postfixtest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scache/internal/postfixtest"
)

// program imports package attr from outside this module. It asks
// verify(8), a server of Postfix that knows which addresses accept mail.
const program = `package main

import (
	"fmt"
	"net"
	"os"

	"scache/attr"
)

func main() {
	conn, err := net.Dial("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	out, in := attr.NewEncoder(conn), attr.NewDecoder(conn)
	if os.Args[2] == "announced" {
		if _, err := in.Decode(); err != nil { // the protocol of verify(8)
			panic(err)
		}
	}
	out.String("request", "query")
	out.String("address", "user@example.test")
	if err := out.End(); err != nil {
		panic(err)
	}
	reply, err := in.Decode()
	if err == nil {
		err = reply.Expect("status", "recipient_status", "reason")
	}
	if err != nil {
		panic(err)
	}
	status, err := reply[1].Int()
	if err != nil {
		panic(err)
	}
	fmt.Printf("status=%s, %d: %s\n", reply[0].Value, status, reply[2].Value)
}
`

// TestAttr_inAnotherProgram builds a program outside this module, as the documentation of
// package attr says. The program asks a daemon of Postfix.
func TestAttr_inAnotherProgram(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t)
	here, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.go": program,
		"go.mod": "module example.test/program\n\ngo 1.26\n\n" +
			"require scache v0.0.0\n\nreplace scache => " + here + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-mod=mod", "-o", "program", ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	i, err := postfixtest.NewInstance(postfixtest.Config{Master: "verify unix - - y - 1 verify\n"})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	speaks := "announced"
	if version, err := exec.Command("postconf", "-dh", "mail_version").Output(); err != nil {
		t.Fatal(err)
	} else if major, minor := 0, 0; len(version) > 0 {
		fmt.Sscanf(string(version), "%d.%d", &major, &minor)
		if major < 3 || major == 3 && minor < 6 {
			speaks = "silent"
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "program"),
		filepath.Join(i.Dir, "queue/private/verify"), speaks).CombinedOutput()
	if want := "status=0, 3: Address verification in progress\n"; err != nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, strings.TrimSpace(string(out)), want)
	}
}
