// SPDX-License-Identifier: EPL-2.0

// Command scache_exporter tells Prometheus about the connection caches of Postfix.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/spf13/pflag"

	"scache/internal/metrics"
)

// version is set by the build.
var version = "unknown"

// defaultAddress is for this machine only: a password or TLS are for --web.config.file.
const defaultAddress = "127.0.0.1:10154"

const usage = `usage: scache_exporter [options]

It asks the connection cache of each instance of Postfix for its status, whenever it is
asked for /metrics itself, and gives it a second to answer. It needs the rights of
the mail system's own user, and no more.

`

func main() {
	f := pflag.NewFlagSet("scache_exporter", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() { fmt.Fprint(os.Stderr, usage, f.FlagUsages()) }
	directories := f.StringArrayP("config", "c", nil, "the `directory` of a main.cf; may be repeated (default: $MAIL_CONFIG, or /etc/postfix, and the multi_instance_directories there)")
	flags := &web.FlagConfig{
		WebListenAddresses: f.StringArray("web.listen-address", []string{defaultAddress}, "the `address` to listen on; may be repeated"),
		WebSystemdSocket:   f.Bool("web.systemd-socket", false, "listen on the sockets that systemd gives instead"),
		WebConfigFile:      f.String("web.config.file", "", "the `file` about TLS and passwords, as of Prometheus' exporter-toolkit"),
	}
	hits := f.Bool("collect.hits", false, "tell of the 20 busiest destinations and endpoints, too: their labels are many in the course of time")
	showVersion := f.Bool("version", false, "show the version")
	switch err := f.Parse(os.Args[1:]); {
	case errors.Is(err, pflag.ErrHelp):
		return
	case err == nil && f.NArg() > 0:
		err = fmt.Errorf("unexpected argument: %s", f.Arg(0))
		fallthrough
	case err != nil:
		fmt.Fprintln(os.Stderr, "scache_exporter:", err)
		os.Exit(2)
	}
	if *showVersion {
		fmt.Println("scache_exporter", version)
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	handler, err := newHandler(&metrics.Collector{Sources: func() []metrics.Source { return metrics.Systems(*directories) }, Hits: *hits})
	if err == nil {
		err = web.ListenAndServe(&http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}, flags, log)
	}
	fmt.Fprintln(os.Stderr, "scache_exporter:", err)
	os.Exit(1)
}

// newHandler returns what serves the metrics, and a page for who comes by hand.
func newHandler(c prometheus.Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "scache_exporter_build_info", Help: "The version of the exporter; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	registry.MustRegister(c, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	page, err := web.NewLandingPage(web.LandingConfig{
		Name: "scache_exporter", Description: "The connection caches of Postfix", Version: version, Profiling: "false",
		Links: []web.LandingLinks{{Address: "/metrics", Text: "Metrics"}},
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry})))
	mux.Handle("GET /{$}", page)
	return mux, nil
}
