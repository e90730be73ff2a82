// SPDX-License-Identifier: EPL-2.0

package mailconf

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"scache/internal/testenv"
)

// names are parameters that postconf knows, accepts any value for, and shows.
var names = []string{"mydestination", "relay_domains", "mynetworks", "myorigin", "relayhost",
	"mail_name"}

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
		return []string{errs.String()}, false
	}
	lines := strings.Split(out.String(), "\n")
	return lines[:len(names)], true
}

// compare asks both about every name in a main.cf.
func compare(t *testing.T, dir, text string) {
	t.Helper()
	// Without them, postconf has defaults of its own.
	text = "myhostname=host.example\n" + strings.Join(names, "=\n") + "=\n" + text
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

// expressions are forms worth trying, good and bad, and what Postfix 3.7 makes of them in
// brackets; an empty text is an error. They are written with mail_name = F, and with
// relay_domains empty.
var expressions = recorded(`
$mail_name => [F]
a${mail_name}b$(mail_name)c => [aFbFc]
${ mail_name } => [F]
${mail_name?yes}${relay_domains?yes} => [yes]
${mail_name?{ yes }} => [ yes ]
${mail_name ? yes } => [ yes ]
${mail_name? {yes} } => [yes]
${relay_domains:no}${relay_domains:{no}} => [nono]
${myorigin?set}${mydestination?set}${mydestination:empty} => [setset]
${mail_name?{a}:{b}}${relay_domains?{a} : b } => [a b ]
${mail_name?a:b} => [a:b]
${mail_name?a{b}c} => [a{b}c]
${mail_name?a}b} => [ab}]
$(mail_name?(a}b)) => [(a}b)]
$(mail_name?{a}:{b}) => [a]
$$mail_name$$$mail_name => [$mail_name$F]
$undefined${undefined?a}${undefined:b} => [b]
$mail_name.$mail_name-x => [F.F-x]
${mail_name?$$} => [$]
${mail_name?{$mail_name${relay_domains:{z}}}} => [Fz]
${?a}${:b}${ } => [b]
${mail_name?}${mail_name:}${mail_name??b}${mail_name?:b}${relay_domains::b} => [?b:b:b]
${{a} == {a}}${{a}=={b}} => [true]
${{a}!={b}?{y}:{n}}${{a} == {b} ? y : n} => [y]
${{a} == {b} : n} => [ n]
${{10}<{9}?{y}:{n}}${{10x}<{9}?{y}:{n}}${{-1}<{1}?{y}:{n}} => [nyy]
${{0010} == {10}}${{ a } == {a}}${{1 } == { 1}} => [true]
${{} == {}}${{} < {1}}${{3} <= {3}}${{b} >= {a}}${{b} > {a}} => [truetruetruetruetrue]
${{3.6} <=level {3.10}}${{3.6} >level {3.10}} => [true]
${{5} ==level {5.0.0}}${{ 3.6} !=level {3.10}} => [truetrue]
${{$mail_name} == {$myorigin} ? {$mail_name}} => []
${mail_name?{a}:{$}} => [a]
${ {a} != {b} } => [true]
$({a} != {b}) => [true]
$ => error
a$.b => error
$-mail_name => error
${} => error
${mail_name => error
$(mail_name} => error
${mail_name?{a} => error
${mail_name?{a}b} => error
${mail_name?{a}:{b}c} => error
${mail_name:{a}?{b}} => error
${mail_name x} => error
${mail-name} => error
${$mail_name} => error
${{a}} => error
${{a} ~ {b}} => error
${{a} == b} => error
${{a} <= level {b}} => error
${{a}=={b}x} => error
${{$}=={a}} => error
${{x} <level {3}} => error
${{3.6.1.2} <level {3}} => error
${{99999999999999999999} > {1}} => error
$mydestination => error
${{1}=={2}?{y}:{n}}${{2}=={2}?{y}:{n}}${{3}=={2}?{y}:{n}} => [nyn]
${{3.5.25}==level{3.6}?{y}:{n}} => [n]
${{3.6}==level{3.6}?{y}:{n}} => [y]
${{3.6.1}==level{3.6}?{y}:{n}} => [n]
${{1}!={2}?{y}:{n}}${{2}!={2}?{y}:{n}}${{3}!={2}?{y}:{n}} => [yny]
${{3.5.25}!=level{3.6}?{y}:{n}} => [y]
${{3.6}!=level{3.6}?{y}:{n}} => [n]
${{3.6.1}!=level{3.6}?{y}:{n}} => [y]
${{1}<{2}?{y}:{n}}${{2}<{2}?{y}:{n}}${{3}<{2}?{y}:{n}} => [ynn]
${{3.5.25}<level{3.6}?{y}:{n}} => [y]
${{3.6}<level{3.6}?{y}:{n}} => [n]
${{3.6.1}<level{3.6}?{y}:{n}} => [n]
${{1}<={2}?{y}:{n}}${{2}<={2}?{y}:{n}}${{3}<={2}?{y}:{n}} => [yyn]
${{3.5.25}<=level{3.6}?{y}:{n}} => [y]
${{3.6}<=level{3.6}?{y}:{n}} => [y]
${{3.6.1}<=level{3.6}?{y}:{n}} => [n]
${{1}>{2}?{y}:{n}}${{2}>{2}?{y}:{n}}${{3}>{2}?{y}:{n}} => [nny]
${{3.5.25}>level{3.6}?{y}:{n}} => [n]
${{3.6}>level{3.6}?{y}:{n}} => [n]
${{3.6.1}>level{3.6}?{y}:{n}} => [y]
${{1}>={2}?{y}:{n}}${{2}>={2}?{y}:{n}}${{3}>={2}?{y}:{n}} => [nyy]
${{3.5.25}>=level{3.6}?{y}:{n}} => [n]
${{3.6}>=level{3.6}?{y}:{n}} => [y]
${{3.6.1}>=level{3.6}?{y}:{n}} => [y]
${{99999999999999999999} >level {1}} => error
${{1} <level {2.x}} => error
${{b}<{a}?{y}:{n}}${{10}<{9x}?{y}:{n}} => [ny]
`)

func recorded(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		e, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " => ")
		if value == "error" {
			value = ""
		}
		all[e] = value
	}
	return all
}

// since reports whether the Postfix that is installed is of this version or a later
// one.
func since(t *testing.T, level string) bool {
	t.Helper()
	out, err := exec.Command("postconf", "-dh", "mail_version").Output()
	if err != nil {
		t.Fatal(err)
	}
	order, err := compareLevels(strings.TrimSpace(string(out)), level)
	if err != nil {
		t.Fatal(err)
	}
	return order >= 0
}

func TestExpand_asPostconf(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	levels := since(t, "3.6")
	for i, e := range slices.Sorted(maps.Keys(expressions)) {
		if strings.Contains(e, "level") && !levels {
			continue // this Postfix does not know that
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel() // postconf waits a second before it dies
			compare(t, t.TempDir(), withExpression(e))
		})
	}
}

// withExpression returns a main.cf with one of expressions.
func withExpression(e string) string {
	return "mail_name = F\nmyorigin = $relay_domains\nmydestination = [" + e + "]\n"
}

// TestExpand_asRecorded needs no Postfix.
func TestExpand_asRecorded(t *testing.T) {
	t.Parallel()
	for e, want := range expressions {
		c := parsed(t, "relay_domains =\n"+withExpression(e))
		got, err := c.String("mydestination")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s is %q, %v, want %q", e, got, err, want)
		}
	}
}

// TestExpand_endsLoops has values that refer to themselves in every way.
func TestExpand_endsLoops(t *testing.T) {
	t.Parallel()
	for _, e := range []string{
		"$x", "${x}", "$(x)", "${x?$x}", "${x?{$x}:{a}}", "${none:$x}", "${none?{a}:{$x}}",
		"${{$x}=={a}}", "${{a}=={$x}}", "${{a}=={a}?$x}", "${domain_to_utf8{$x}}", "$y",
	} {
		c := parsed(t, "x = "+e+"\ny = $x\n")
		_, err := c.String("x")
		if err == nil || !strings.Contains(err.Error(), "unreasonable nesting") {
			t.Errorf("x = %s: got %v, want an error", e, err)
		}
	}
}

// domains are expressions with a function, and what Postfix 3.11 makes of them; an
// empty one is an error. They are written with relay_domains = STRAßE.de.
var domains = map[string]string{
	"${domain_to_ascii{bücher.example}}":                         "xn--bcher-kva.example",
	"${domain_to_utf8{xn--bcher-kva.example}}":                   "bücher.example",
	"${ domain_to_ascii { bücher.example } }":                    "xn--bcher-kva.example",
	"$(domain_to_ascii{bücher.example})":                         "xn--bcher-kva.example",
	"${domain_to_ascii{$relay_domains}}":                         "xn--strae-oqa.de",
	"${domain_to_ascii{${relay_domains?{bücher.example}}}}":      "xn--bcher-kva.example",
	"${{${domain_to_ascii{bücher.x}}}=={xn--bcher-kva.x}?{y}:n}": "y",
	"${domain_to_ascii?{a}:{b}}":                                 "b",
	"${domain_to_ascii{BÜCHER。example}}":                         "xn--bcher-kva.example",
	"${domain_to_ascii{bü_cher.example}}":                        "xn--b_cher-3ya.example",
	"${domain_to_ascii{aüb--x.example}}":                         "xn--ab--x-kva.example",
	"${domain_to_ascii{ab\u200bc.example}}":                      "abc.example",
	"${domain_to_ascii{a\u200db.example}}":                       "xn--ab-m1t.example",
	"${domain_to_ascii{אבaא.example}}":                           "xn--a-zhcbc.example",
	"${domain_to_ascii{-FOO..a b@}}":                             "-FOO..a b@",
	"${domain_to_utf8{FOO_bar.Example}}":                         "foo_bar.example",
	"${domain_to_utf8{ü..@x y}}":                                 "ü..@x y",
	"x${domain_to_utf8{}}":                                       "x",

	"${domain_to_ascii{}}":                    "",
	"${domain_to_ascii{-bücher.example}}":     "",
	"${domain_to_ascii{bücher-.example}}":     "",
	"${domain_to_ascii{bücher..example}}":     "",
	"${domain_to_ascii{bücher.example.}}":     "",
	"${domain_to_ascii{foo@bücher.example}}":  "",
	"${domain_to_ascii{ü x}}":                 "",
	"${domain_to_ascii{ü.xn--zz}}":            "",
	"${domain_to_utf8{192.0.2.1}}":            "",
	"${domain_to_utf8{-a.b}}":                 "",
	"${domain_to_utf8{a b}}":                  "",
	"${domain_to_utf8{xn--zzzzzzzz-zz.a}}":    "",
	"${domain_to_ascii{bücher}?{yes}:{no}}":   "",
	"${domain_to_ascii{a}{b}}":                "",
	"${domain_to_ascii{a}b}":                  "",
	"${domain_to_utf8 x}":                     "",
	"${nosuch{a}}${mail_name{a}}":             "",
	"${domain_to_utf8{${domain_to_ascii{}}}}": "",
	"${domain_to_ascii{a\u0080b.example}}":    "",
}

func TestExpand_functions(t *testing.T) {
	t.Parallel()
	for e, want := range domains {
		c := parsed(t, "relay_domains = STRAßE.de\nmydestination = "+e+"\n")
		if got, err := c.String("mydestination"); got != want || (err == nil) != (want != "") {
			t.Errorf("%s is %q, %v, want %q", e, got, err, want)
		}
	}
}

// TestExpand_lengthsOfDomains has labels and names that are as long as they may be, and longer.
func TestExpand_lengthsOfDomains(t *testing.T) {
	t.Parallel()
	label := strings.Repeat("x", 63)
	longest := strings.Repeat(label+".", 3) + label // 255 bytes
	for domain, valid := range map[string]bool{
		label: true, label + "x": false, longest: true, longest[:254] + ".x": false,
	} {
		c := parsed(t, "mydestination = ${domain_to_utf8{"+domain+"}}\n")
		if got, err := c.String("mydestination"); (err == nil) != valid || valid && got != domain {
			t.Errorf("%d bytes: got %q, %v, valid %v", len(domain), got, err, valid)
		}
	}
}

func TestExpand_functionsAsPostconf(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	if !since(t, "3.11") {
		t.Skip("this Postfix knows no functions; TestExpand_functions has what a later one says")
	}
	for i, e := range slices.Sorted(maps.Keys(domains)) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			compare(t, t.TempDir(), "relay_domains = STRAßE.de\nmydestination = "+e+"\n")
		})
	}
}

// TestPostconf_askedForTheUnknown has a postconf of a version that does not exist.
func TestPostconf_askedForTheUnknown(t *testing.T) {
	t.Parallel()
	commands := t.TempDir()
	c := parsed(t, "max_idle = ${seconds{3 minutes}}\ncommand_directory = "+commands+"\n")
	if err := c.Override("syslog_name = a"); err != nil {
		t.Fatal(err)
	}
	if value, err := c.Time("max_idle"); err == nil {
		t.Errorf("without postconf: %v", value)
	}
	var log []string
	c.AskPostconf(func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) })
	if _, err := c.Time("max_idle"); err == nil ||
		!strings.Contains(err.Error(), "unknown function") ||
		!strings.Contains(err.Error(), "no such file") {
		t.Errorf("with no such command: %v", err)
	}
	script := `#!/bin/sh
case "$*" in
"-c ` + c.settings["config_directory"].value + ` -o syslog_name=a ` +
		`-o lmtp_lhlo_name=\${seconds{3 minutes}} -xh lmtp_lhlo_name") echo '180s' ;;
*) echo "postconf: warning: odd" >&2; echo "postconf: fatal: $*" >&2; exit 1 ;;
esac
`
	if err := testenv.WriteProgram(filepath.Join(commands, "postconf"), script); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if value, err := c.Time("max_idle"); value != 3*time.Minute || err != nil {
			t.Errorf("got %v, %v", value, err)
		}
	}
	if len(log) != 1 || !strings.Contains(log[0], "max_idle") || !strings.Contains(log[0], `"180s"`) {
		t.Errorf("log: %q", log)
	}
	c.set("mail_owner", "${x", "test")
	if _, err := c.String("mail_owner"); err == nil ||
		!strings.Contains(err.Error(), "truncated macro") ||
		!strings.Contains(err.Error(), "postconf: fatal: ") {
		t.Errorf("where postconf fails, too: %v", err)
	}
}

// TestPostconf_realOneIsAsked has the real one asked, for what this package only
// pretends not to understand.
func TestPostconf_realOneIsAsked(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	c := parsed(t,
		"mydestination = x\nrelay_domains = ${mydestination?{$mydestination.$myorigin}}\nmyorigin = a\n")
	if err := os.WriteFile(filepath.Join(c.settings["config_directory"].value, "master.cf"), nil,
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Override("myorigin = b"); err != nil {
		t.Fatal(err)
	}
	if value, err := c.postconf(c.settings["relay_domains"].value); value != "x.b" || err != nil {
		t.Errorf("got %q, %v", value, err)
	}
}

// TestExpand_randomFilesAsPostconf makes files out of lines, comments,
// continuations and nested expressions, some of them broken.
func TestExpand_randomFilesAsPostconf(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), levels: since(t, "3.6")}
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
	names  []string
	levels bool // may be compared
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
			fmt.Fprintf(&b, "%s%s=%s%s%s", names[setting], g.pick("", " ", "\t"), g.pick("", " ", "  "),
				g.text(3), g.pick("\n", " \n", "\r\n", "\n\n"))
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
		return "${" + braced() + g.pick("==", "!=", "<", "<=", ">", ">=") + braced() + g.pick("?", ":") +
			braced() + "}"
	case 11:
		if !g.levels {
			break
		}
		return "${{" + g.pick("3.6", "3.10", "2", "x") + "}" + sp() + g.pick("==", "<", ">=") +
			"level {" + g.pick("3.5", "3.10") + "} ?" + braced() + ":" + braced() + "}"
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
