// SPDX-License-Identifier: EPL-2.0

package mailconf

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// names are parameters that postconf knows, accepts any value for, and shows.
var names = []string{"mydestination", "relay_domains", "mynetworks", "myorigin", "relayhost", "mail_name"}

// postconf returns what Postfix makes of all names, and false if it finds the
// file or any value in it in error.
func postconf(t *testing.T, dir string) ([]string, bool) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("postconf", append([]string{"-c", dir, "-xh"}, names...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if !strings.Contains(errs.String(), "fatal: ") {
			t.Fatalf("postconf: %v: %s", err, errs.String())
		}
		return nil, false
	}
	lines := strings.Split(out.String(), "\n")
	return lines[:len(names)], true
}

// compare asks both about every name in a main.cf.
func compare(t *testing.T, dir, text string) {
	t.Helper()
	text = "myhostname=host.example\n" + strings.Join(names, "=\n") + "=\n" + text // or postconf has defaults of its own
	for name, data := range map[string]string{"main.cf": text, "master.cf": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour) // postconf waits while a file is being edited
	if err := os.Chtimes(filepath.Join(dir, "main.cf"), old, old); err != nil {
		t.Fatal(err)
	}
	c := New("host.example")
	err := c.ReadFile(dir)
	var got []string
	for _, name := range names {
		value, valueErr := c.String(name)
		got, err = append(got, value), errors.Join(err, valueErr)
	}
	want, ok := postconf(t, dir)
	if (err == nil) != ok || ok && !slices.EqualFunc(got, want, sameWords) {
		t.Errorf("got %q, %v\npostconf says %q, %v\n%s", got, err, want, ok, text)
	}
}

// sameWords compares values as postconf shows them: with white space folded.
func sameWords(a, b string) bool {
	return slices.Equal(strings.Fields(a), strings.Fields(b))
}

// expressions are forms worth trying, good and bad.
var expressions = strings.Split(strings.TrimSpace(`
$mail_name
a${mail_name}b$(mail_name)c
${ mail_name }
${mail_name?yes}${relay_domains?yes}
${mail_name?{ yes }}
${mail_name ? yes }
${mail_name? {yes} }
${relay_domains:no}${relay_domains:{no}}
${myorigin?set}${mydestination?set}${mydestination:empty}
${mail_name?{a}:{b}}${relay_domains?{a} : b }
${mail_name?a:b}
${mail_name?a{b}c}
${mail_name?a}b}
$(mail_name?(a}b))
$(mail_name?{a}:{b})
$$mail_name$$$mail_name
$undefined${undefined?a}${undefined:b}
$mail_name.$mail_name-x
${mail_name?$$}
${mail_name?{$mail_name${relay_domains:{z}}}}
${?a}${:b}${ }
${mail_name?}${mail_name:}${mail_name??b}${mail_name?:b}${relay_domains::b}
${{a} == {a}}${{a}=={b}}
${{a}!={b}?{y}:{n}}${{a} == {b} ? y : n}
${{a} == {b} : n}
${{10}<{9}?{y}:{n}}${{10x}<{9}?{y}:{n}}${{-1}<{1}?{y}:{n}}
${{0010} == {10}}${{ a } == {a}}${{1 } == { 1}}
${{} == {}}${{} < {1}}${{3} <= {3}}${{b} >= {a}}${{b} > {a}}
${{3.6} <=level {3.10}}${{3.6} >level {3.10}}${{5} ==level {5.0.0}}${{ 3.6} !=level {3.10}}
${{$mail_name} == {$myorigin} ? {$mail_name}}
${mail_name?{a}:{$}}
${ {a} != {b} }
$({a} != {b})
$
a$.b
$-mail_name
${}
${mail_name
$(mail_name}
${mail_name?{a}
${mail_name?{a}b}
${mail_name?{a}:{b}c}
${mail_name:{a}?{b}}
${mail_name x}
${mail-name}
${$mail_name}
${{a}}
${{a} ~ {b}}
${{a} == b}
${{a} <= level {b}}
${{a}=={b}x}
${{$}=={a}}
${{x} <level {3}}
${{3.6.1.2} <level {3}}
${{99999999999999999999} > {1}}
$mydestination
`), "\n")

func TestExpressionsAsPostconfHasThem(t *testing.T) {
	t.Parallel()
	for i, e := range expressions {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel() // postconf waits a second before it dies
			compare(t, t.TempDir(), "mail_name = F\nmyorigin = $relay_domains\nmydestination = ["+e+"]\n")
		})
	}
}

// TestRandomFilesAsPostconfHasThem makes files out of lines, comments,
// continuations and nested expressions, some of them broken.
func TestRandomFilesAsPostconfHasThem(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0))}
	for i := range 100 {
		text := g.file()
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			compare(t, t.TempDir(), text)
		})
	}
}

// A generator makes settings that refer to names of its own and no others:
// postconf does not survive every loop.
type generator struct {
	*rand.Rand
	names []string
}

func (g *generator) pick(s ...string) string { return s[g.IntN(len(s))] }

func (g *generator) file() string {
	var b strings.Builder
	g.names = []string{"undefined_name"}
	for range 2 + g.IntN(8) {
		setting := g.IntN(len(names))
		switch g.IntN(12) {
		case 0:
			b.WriteString(g.pick("# comment\n", "  # comment\n", "\n", " \t \n", "#\n", "\r\n"))
		case 1: // continues a setting, with the names of the last one
			b.WriteString(g.pick(" ", "\t", "   ") + g.text(2) + "\n")
		case 2:
			if g.IntN(10) == 0 {
				b.WriteString(g.pick("no equals\n", "= x\n", "a b = c\n", "=\n", "{\n"))
			}
		default:
			g.names = append(names[:setting:setting], "undefined_name")
			fmt.Fprintf(&b, "%s%s=%s%s%s", names[setting], g.pick("", " ", "\t"), g.pick("", " ", "  "), g.text(3), g.pick("\n", " \n", "\r\n", "\n\n"))
		}
	}
	return b.String()
}

// text makes a value out of up to three parts, nested at most so deep.
func (g *generator) text(depth int) string {
	var b strings.Builder
	for range g.IntN(4) {
		b.WriteString(g.part(depth))
	}
	return b.String()
}

func (g *generator) part(depth int) string {
	if depth == 0 {
		return g.pick("a", "b c", "10", "9", "3.6", "", "x")
	}
	name := g.pick(g.names...)
	sp := func() string { return g.pick("", "", " ") }
	braced := func() string { return sp() + "{" + g.text(depth-1) + "}" + sp() }
	switch g.IntN(24) {
	case 0:
		return "$" + name
	case 1:
		return "$(" + name + ")"
	case 2:
		return "${" + sp() + name + sp() + "}"
	case 3:
		return "${" + name + sp() + g.pick("?", ":") + g.text(depth-1) + "}"
	case 4:
		return "${" + name + g.pick("?", ":") + braced() + "}"
	case 5, 6:
		return "${" + name + "?" + braced() + ":" + braced() + "}"
	case 7:
		return "${" + name + "?" + braced() + ":" + g.text(depth-1) + "}"
	case 8, 9, 10:
		return "${" + braced() + g.pick("==", "!=", "<", "<=", ">", ">=") + braced() + g.pick("?", ":") + braced() + "}"
	case 11:
		return "${{" + g.pick("3.6", "3.10", "2", "x") + "}" + sp() + g.pick("==", "<", ">=") + "level {" + g.pick("3.5", "3.10") + "} ?" + braced() + ":" + braced() + "}"
	case 12:
		return "$$"
	case 13:
		return "$(" + name + "?" + g.text(depth-1) + ")"
	case 14:
		if g.IntN(6) == 0 {
			return g.pick("$", "${", "$(", "${"+name, "${}", "}", "{", "${"+name+"?{a}b}", "${{a}}", "$-")
		}
		return g.pick("=", ":", "?", "#", "\\", "\"")
	}
	return g.part(0)
}
