// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"scache/internal/client"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// server and exporter are the binaries under test.
var server, exporter string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		if testing.Short() {
			return m.Run() // without the tests that use the binaries
		}
		dir, err := os.MkdirTemp("", "scache-exporter-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o755)
		server, exporter = filepath.Join(dir, "scache"), filepath.Join(dir, "scache_exporter")
		for path, pkg := range map[string]string{
			server: "scache/cmd/scache", exporter: "scache/cmd/scache_exporter",
		} {
			if err := postfixtest.Build(path, pkg); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := postfixtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(port)
}

// start starts the exporter, as Postfix's own user if there is one, and returns its address.
func start(t *testing.T, options ...string) string {
	t.Helper()
	address := freePort(t)
	options = append([]string{"--web.listen-address", address}, options...)
	cmd := postfixtest.Command(exporter, options...)
	if u, err := user.Lookup("postfix"); err == nil && os.Geteuid() == 0 {
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testenv.Eventually(t, "the exporter answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return address
}

func get(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", address, resp.Status, err, text)
	}
	return string(text)
}

func want(t *testing.T, got string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(got, text) {
			t.Errorf("no %q in:\n%s", text, got)
		}
	}
}

// system makes the files of a Postfix instance that the exporter reads.
func system(t *testing.T, name, settings string) (dir, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "scache-exporter-"+name+"-") // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	if err := os.Mkdir(filepath.Join(dir, "private"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "queue_directory = " + dir + "\nmulti_instance_name = " + name + "\n" + settings
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "private", "scache")
}

// TestMetrics_serverThatDoesNotAnswer is down after a second, and the others are up.
func TestMetrics_serverThatDoesNotAnswer(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	good, err := postfixtest.StartMaster(server, "multi_instance_name = good")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	stock, err := postfixtest.StartMaster(postfixtest.NeedPostfix(t), "multi_instance_name = stock")
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	dead, _ := system(t, "dead", "")
	slow, path := system(t, "slow", "")
	l, err := net.Listen("unix", path) // like that of a throttled server: clients wait
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Chmod(path, 0o777)

	address := start(t, "-c", filepath.Dir(filepath.Dir(good.Socket)),
		"-c", filepath.Dir(filepath.Dir(stock.Socket)), "-c", dead, "-c", slow, "-c", "/nosuch",
		"--collect.hits")
	err = client.Ask(good.Socket, time.Minute, func(c *client.Client) error {
		_, err := c.FindDestination("smtp\nx\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	text := get(t, "http://"+address+"/metrics")
	if took := time.Since(begun); took > 20*time.Second { // one second, and what a busy machine takes
		t.Errorf("it took %v", took)
	}
	want(t, text, `scache_up{postfix_instance="good"} 1`,
		`scache_up{postfix_instance="stock"} 0`, `scache_up{postfix_instance="dead"} 0`,
		`scache_up{postfix_instance="slow"} 0`, `scache_up{postfix_instance="nosuch"} 0`,
		`scache_build_info{postfix_instance="good",version="test"} 1`,
		`scache_exporter_build_info{version="test"} 1`,
		`scache_lookups_total{level="destination",postfix_instance="good",result="miss"} 1`,
		`scache_request_duration_seconds_count{postfix_instance="good"} `,
		"go_goroutines ", "process_open_fds ",
		`scache_scrape_duration_seconds{postfix_instance="slow"}`,
		`scache_label_events_total{event="miss",label="smtp\\nx\\n",`+
			`level="destination",postfix_instance="good"} 1`)
	want(t, get(t, "http://"+address+"/"), "scache_exporter", `href="/metrics"`)
}

// TestMetrics_manyConnections has a connection cache that answers after a while, and more
// clients than the exporter accepts. They share what it asks for, and it answers later.
func TestMetrics_manyConnections(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	dir, path := system(t, "slow", "")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o777)
	var scrapes atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			scrapes.Add(1)
			io.Copy(io.Discard, conn) // until the exporter has waited for long enough
			conn.Close()
		}
	}()
	defer l.Close()
	address := start(t, "-c", dir)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 300}}
	defer client.CloseIdleConnections()
	var answered atomic.Int32
	var done sync.WaitGroup
	for range 300 {
		done.Go(func() {
			resp, err := client.Get("http://" + address + "/metrics")
			if err != nil {
				return // one of those that are too many
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err == nil && strings.Contains(string(text), `scache_up{postfix_instance="slow"} 0`) {
				answered.Add(1)
			}
		})
	}
	done.Wait()
	if answered.Load() < maxConnections/2 || scrapes.Load() > answered.Load()/2 {
		t.Errorf("got %d answers after asking the cache %d times, want most of %d, and few",
			answered.Load(), scrapes.Load(), maxConnections)
	}
	want(t, get(t, "http://"+address+"/metrics"), `scache_up{postfix_instance="slow"} 0`)
}

// TestMetrics_textThatIsNotUTF8 is the name of an instance, and ends nothing.
func TestMetrics_textThatIsNotUTF8(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	odd, _ := system(t, "odd", "multi_instance_name = postfix-\xff\n")
	good, _ := system(t, "good", "")
	address := start(t, "-c", odd, "-c", good)
	for range 2 {
		want(t, get(t, "http://"+address+"/metrics"),
			`scache_up{postfix_instance="postfix-\\xff"} 0`, `scache_up{postfix_instance="good"} 0`)
	}
}

// TestConnections_bounded has three connections where two may be, of which one has no
// request, and then none.
func TestConnections_bounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	wait := func(http.ResponseWriter, *http.Request) { <-release }
	s := httptest.NewUnstartedServer(http.HandlerFunc(wait))
	bound := connections{limit: 2}
	active := make(chan bool, 10)
	s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		if bound.changed(conn, state); state == http.StateNew || state == http.StateActive {
			active <- state == http.StateActive
		}
	}
	s.Start()
	defer s.Close()
	dial := func(request string) net.Conn {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(time.Minute))
		if <-active; request != "" {
			fmt.Fprint(conn, request)
			<-active
		}
		return conn
	}
	isClosed := func(conn net.Conn) bool {
		n, err := conn.Read(make([]byte, 1))
		return n == 0 && (err == io.EOF || errors.Is(err, syscall.ECONNRESET))
	}
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	first := dial(request)
	second := dial("")
	third := dial(request)
	if !isClosed(second) {
		t.Error("a connection without a request was not closed")
	}
	if !isClosed(dial("")) {
		t.Error("a connection was not closed, although all others had requests")
	}
	close(release)
	for i, conn := range []net.Conn{first, third} {
		line, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(line, " 200 ") || err != nil {
			t.Errorf("request %d: got %q, %v, want an answer", i, line, err)
		}
	}
}

func TestNewServer_bounds(t *testing.T) {
	t.Parallel()
	s := newServer(nil)
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 ||
		s.IdleTimeout == 0 || s.ConnState == nil {
		t.Errorf("got no bound for one of %+v", s)
	}
}

func TestPasswords(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	dir, _ := system(t, "one", "")
	config := filepath.Join(dir, "web.yml")
	// The password is "secret".
	const users = "basic_auth_users:\n" +
		"  prometheus: $2y$05$SqXvZF9jBjtMOrKsdGCmNeHRP4cQy2lDkyrxA6sy3xOOXXcdXSmPW\n"
	if err := os.WriteFile(config, []byte(users), 0o644); err != nil {
		t.Fatal(err)
	}
	address := start(t, "-c", dir, "--web.config.file", config)
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
}

// TestListen_socketOfSystemd has systemd's own tool listen, and start the exporter when a client
// connects.
func TestListen_socketOfSystemd(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const tool = "systemd-socket-activate"
	if _, err := exec.LookPath(tool); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: this test needs %s", tool)
	}
	dir, _ := system(t, "one", "")
	address := freePort(t)
	cmd := postfixtest.Command(tool, "-l", address, exporter, "--web.systemd-socket", "-c", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	testenv.Eventually(t, "the socket is there", func() bool {
		text, err := os.ReadFile("/proc/net/tcp")
		_, port, _ := net.SplitHostPort(address)
		n, _ := strconv.Atoi(port)
		return err == nil && strings.Contains(string(text), fmt.Sprintf(":%04X 00000000:0000 0A", n))
	})
	want(t, get(t, "http://"+address+"/metrics"), `scache_up{postfix_instance="one"} 0`)
}

func TestOptions(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for args, code := range map[string]int{
		"--version": 0, "--help": 0, "--nonsense": 2, "surplus": 2,
		"--web.listen-address=256.0.0.1:1": 1,
	} {
		cmd := exec.Command(exporter, strings.Fields(args)...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code || len(out) == 0 {
			t.Errorf("%s: got exit status %d, want %d: %s", args, got, code, out)
		}
	}
}

// TestPrometheus has a real one scrape two instances while mail flows.
func TestPrometheus(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	if _, err := exec.LookPath("prometheus"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: this test needs prometheus: %v", err)
	}
	postfixtest.NeedPostfix(t)
	sink, err := postfixtest.StartSink()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	options := []string{}
	var instances []*postfixtest.Instance
	for _, name := range []string{"postfix-in", "postfix-out"} {
		main := map[string]string{
			"relayhost":                          fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
			"smtp_connection_cache_destinations": "127.0.0.1",
			"multi_instance_name":                name,
		}
		i, err := postfixtest.NewInstance(postfixtest.Config{Scache: server, Chroot: "y", Main: main})
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		if err := i.Start(); err != nil {
			t.Fatal(err)
		}
		instances = append(instances, i)
		options = append(options, "-c", filepath.Join(i.Dir, "etc"))
	}
	address := start(t, options...)
	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 1s}\n"+
		"scrape_configs: [{job_name: scache, static_configs: [{targets: ['%s']}]}]\n", address)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	listen := freePort(t)
	prometheus := postfixtest.Command("prometheus",
		"--config.file", filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", listen)
	if err := prometheus.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { prometheus.Process.Kill(); prometheus.Wait() }()

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	sent := 0
	rates := map[string]string{}
	// Mail flows until both have been scraped often enough for a rate.
	testenv.Eventually(t, "a hit rate of both instances", func() bool {
		sent += 50
		for _, i := range instances {
			if err := i.Send(ctx, 50, 2, "recipient@example.test"); err != nil {
				t.Fatal(err)
			}
			if err := i.WaitSent(ctx, sent); err != nil {
				t.Fatal(err)
			}
		}
		const query = `sum by (postfix_instance) (rate(scache_lookups_total{result="hit"}[1m]))` +
			` / sum by (postfix_instance) (rate(scache_lookups_total[1m])) > 0`
		rates = ask(t, listen, query)
		return len(rates) == 2
	})
	for name, rate := range rates {
		if r, err := strconv.ParseFloat(rate, 64); r < 0.3 || r > 1 || err != nil {
			t.Errorf("%s: hit rate %s", name, rate)
		}
	}
	if up := ask(t, listen, "scache_up"); up["postfix-in"] != "1" || up["postfix-out"] != "1" {
		t.Errorf("up: %v", up)
	}
}

// ask returns the values of a query by instance, and nothing while there is no answer.
func ask(t *testing.T, address, query string) map[string]string {
	t.Helper()
	values := map[string]string{}
	resp, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return values // it is not up yet
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return values
	}
	for _, r := range answer.Data.Result {
		values[r.Metric["postfix_instance"]] = fmt.Sprint(r.Value[1])
	}
	return values
}
