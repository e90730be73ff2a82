// SPDX-License-Identifier: EPL-2.0

// Command scache_exporter exports the status of the connection caches of Postfix to
// Prometheus.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/spf13/pflag"

	"scache/internal/metrics"
)

// version is set by the build.
var version = "unknown"

// defaultAddress can be reached from this machine only. For others, --web.config.file sets
// passwords and TLS.
const defaultAddress = "127.0.0.1:10154"

const usage = `usage: scache_exporter [options]

scache_exporter serves /metrics. For each request, it asks the connection cache of each
instance of Postfix for its status; a server that does not answer within a second is
shown as down. It needs the rights of Postfix's own user (mail_owner), and no more.

`

func main() {
	f := pflag.NewFlagSet("scache_exporter", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() { fmt.Fprint(os.Stderr, usage, f.FlagUsages()) }
	directories := f.StringArrayP("config", "c", nil,
		"the `directory` of a main.cf; may be repeated (default: $MAIL_CONFIG, or /etc/postfix, "+
			"and the multi_instance_directories there)")
	flags := &web.FlagConfig{
		WebListenAddresses: f.StringArray("web.listen-address", []string{defaultAddress},
			"the `address` to listen on; may be repeated"),
		WebSystemdSocket: f.Bool("web.systemd-socket", false,
			"listen on the sockets that systemd passes instead"),
		WebConfigFile: f.String("web.config.file", "",
			"a `file` with TLS and password settings, in the format of Prometheus' exporter-toolkit"),
	}
	hits := f.Bool("collect.hits", false,
		"also export counters of the 20 busiest destinations and endpoints; "+
			"new labels keep coming, and each is a new series")
	showVersion := f.Bool("version", false, "show the version")
	err := f.Parse(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument: %s", f.Arg(0))
	}
	if err != nil {
		exit(2, err)
	}
	if *showVersion {
		fmt.Println("scache_exporter", version)
		return
	}
	handler, err := newHandler(&metrics.Collector{
		Sources: func() []metrics.Source { return metrics.Systems(*directories) },
		Hits:    *hits,
	})
	if err != nil {
		exit(1, err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	exit(1, web.ListenAndServe(newServer(handler), flags, log))
}

// exit ends the process with an error.
func exit(code int, err error) {
	fmt.Fprintln(os.Stderr, "scache_exporter:", err)
	os.Exit(code)
}

// newHandler returns the handler of /metrics, and of a page at / that leads there.
func newHandler(c prometheus.Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "scache_exporter_build_info", Help: "The version of the exporter; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	registry.MustRegister(c, info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	page, err := web.NewLandingPage(web.LandingConfig{
		Name:        "scache_exporter",
		Description: "The connection caches of Postfix",
		Version:     version,
		Profiling:   "false",
		Links:       []web.LandingLinks{{Address: "/metrics", Text: "Metrics"}},
	})
	if err != nil {
		return nil, err
	}
	serve := promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(registry, serve))
	mux.Handle("GET /{$}", page)
	return mux, nil
}
