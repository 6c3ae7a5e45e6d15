package monitor

import (
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"culvert/config"
)

// newMetrics serves what a collector collects, with what Go and the kernel say of the process.
func newMetrics(c prometheus.Collector, to *slog.Logger) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: log.New(quiet{to}, "", 0), ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: 8,
	})
}

// handler is what is served at a place.
func (m *Monitor) handler(at config.Listen, metrics, page bool) http.Handler {
	mux := http.NewServeMux()
	// Health is at both: it is small, and whoever restarts the daemon may reach only one.
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { live(r.Context(), m.source).write(w) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		asked, err := parseWanted(r.URL.Query()["peers"])
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s, _ := m.shared.snapshot()
		ready(s, asked).write(w)
	})
	if metrics {
		mux.Handle("/metrics", m.metrics)
	}
	if page {
		m.servePage(mux)
	} else {
		mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			fmt.Fprint(w, "culvert\n\n/metrics   for Prometheus\n/healthz   whether the process does its work\n/readyz    whether the tunnels are up; ?peers=any, all or NAME,NAME for their sessions\n")
		})
	}
	return guarded(mux, at)
}

// guarded refuses what is no reading, and, on loopback, who calls this by a name that is not loopback's: a page of another origin whose name
// was made to lead here.
func guarded(h http.Handler, at config.Listen) http.Handler {
	loopback := at.Socket == "" && at.Address.Addr().IsLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			header.Set("Allow", "GET, HEAD")
			http.Error(w, "this only reads", http.StatusMethodNotAllowed)
		case loopback && !ownName(r.Host):
			http.Error(w, "call this by 127.0.0.1, [::1] or localhost", http.StatusMisdirectedRequest)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// ownName tells a host of a request that is a name of loopback, with any port: it may have come through a forwarded one.
func ownName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
