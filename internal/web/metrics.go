package web

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Numbers are the counts of relay and ledger at one moment. Totals count
// since the start of the process.
type Numbers struct {
	Sessions           int64             // client connections open now
	Unauthenticated    int64             // of these, before the end of their login
	Connections        uint64            // accepted
	SessionsTotal      uint64            // of these, with a server connection
	Statements         uint64            // admissions of statements recorded
	ClientBytes        uint64            // received from clients
	ServerBytes        uint64            // received from the server
	Refusals           map[string]uint64 // sessions refused or ended by the proxy, by reason
	Cancels            uint64            // cancel requests forwarded
	Pauses             uint64            // times clients were not read because the log was behind
	Hold               Histogram         // seconds bytes were held for their record
	Durable            int64             // durable entries
	Backlog            int64             // bytes queued and not yet durable
	LogBytes           uint64            // written to journal files
	SealFailures       uint64            // times a journal file could not be sealed
	CheckpointSize     int64
	CheckpointTime     time.Time // zero before the first
	Witnessed          int64     // entries that enough witnesses cosigned
	Cosignatures       uint64    // received from witnesses
	CosignFailures     uint64    // requests to witnesses that brought none
	WitnessAlarms      uint64    // times a witness began to disagree with the log
	Commit             Histogram // seconds of write and sync of a batch
	BatchEntries       Histogram // entries of a batch
	CertificateExpires time.Time // zero without TLS
	Sinks              []Sink
}

// A Histogram counts observations in buckets.
type Histogram struct {
	Bounds []float64 // upper bounds, ascending
	Counts []uint64  // per bucket, not cumulative; one more than Bounds, for the rest
	Sum    float64   // of all observations
}

// Mean returns the mean observation, 0 if there is none.
func (h Histogram) Mean() float64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	if n == 0 {
		return 0
	}
	return h.Sum / float64(n)
}

// NewMetrics returns the handler of /metrics. It calls numbers, which may be
// called concurrently, once per request.
func NewMetrics(version string, numbers func() Numbers) http.Handler {
	reg := newRegistry(version, numbers)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg})
}

func newRegistry(version string, numbers func() Numbers) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pgnotary_build_info", Help: "Always 1; the version is in the label.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	reg.MustRegister(info, newCollector(numbers),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// collector turns Numbers into metrics when it is asked, so that the capture
// path only adds to plain counters.
type collector struct {
	numbers    func() Numbers
	series     []series
	histograms []histogram
	refusals   *prometheus.Desc
	sinks      []sinkSeries
}

type sinkSeries struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Sink) float64
}

type series struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Numbers) float64
}

type histogram struct {
	desc  *prometheus.Desc
	value func(*Numbers) Histogram
}

func newCollector(numbers func() Numbers) *collector {
	c := &collector{
		numbers:  numbers,
		refusals: prometheus.NewDesc("pgnotary_refusals_total", "Sessions refused or ended by the proxy, by reason.", []string{"reason"}, nil),
	}
	c.gauge("pgnotary_sessions", "Client connections open.", func(n *Numbers) float64 { return float64(n.Sessions) })
	c.gauge("pgnotary_sessions_unauthenticated", "Client connections before the end of their login.", func(n *Numbers) float64 { return float64(n.Unauthenticated) })
	c.counter("pgnotary_connections_total", "Client connections accepted.", func(n *Numbers) float64 { return float64(n.Connections) })
	c.counter("pgnotary_sessions_total", "Client connections that got a connection to the server.", func(n *Numbers) float64 { return float64(n.SessionsTotal) })
	c.counter("pgnotary_cancel_requests_total", "Cancel requests forwarded to the server.", func(n *Numbers) float64 { return float64(n.Cancels) })
	c.counter("pgnotary_pauses_total", "Times clients were not read because the log was behind.", func(n *Numbers) float64 { return float64(n.Pauses) })
	c.counter("pgnotary_statements_total", "Statements recorded.", func(n *Numbers) float64 { return float64(n.Statements) })
	c.counter("pgnotary_client_bytes_total", "Bytes received from clients.", func(n *Numbers) float64 { return float64(n.ClientBytes) })
	c.counter("pgnotary_server_bytes_total", "Bytes received from the server.", func(n *Numbers) float64 { return float64(n.ServerBytes) })
	c.gauge("pgnotary_log_entries", "Durable entries of the log.", func(n *Numbers) float64 { return float64(n.Durable) })
	c.gauge("pgnotary_log_backlog_bytes", "Bytes queued and not yet durable.", func(n *Numbers) float64 { return float64(n.Backlog) })
	c.counter("pgnotary_log_written_bytes_total", "Bytes written to journal files.", func(n *Numbers) float64 { return float64(n.LogBytes) })
	c.counter("pgnotary_seal_failures_total", "Times a journal file could not be sealed; it stays, and is tried again.", func(n *Numbers) float64 { return float64(n.SealFailures) })
	c.gauge("pgnotary_checkpoint_entries", "Entries covered by the latest signed checkpoint.", func(n *Numbers) float64 { return float64(n.CheckpointSize) })
	c.gauge("pgnotary_checkpoint_timestamp_seconds", "When the latest checkpoint was signed, Unix time; 0 before the first.", func(n *Numbers) float64 { return unix(n.CheckpointTime) })
	c.gauge("pgnotary_witnessed_entries", "Entries covered by the latest checkpoint that enough witnesses cosigned; 0 without witnesses.", func(n *Numbers) float64 { return float64(n.Witnessed) })
	c.counter("pgnotary_cosignatures_total", "Cosignatures received from witnesses.", func(n *Numbers) float64 { return float64(n.Cosignatures) })
	c.counter("pgnotary_cosignature_failures_total", "Requests to witnesses that brought no cosignature.", func(n *Numbers) float64 { return float64(n.CosignFailures) })
	c.counter("pgnotary_witness_alarms_total", "Times a witness began to disagree with the log: fork or rollback.", func(n *Numbers) float64 { return float64(n.WitnessAlarms) })
	c.gauge("pgnotary_certificate_expiry_timestamp_seconds", "When the certificate shown to clients expires, Unix time; 0 without TLS.", func(n *Numbers) float64 { return unix(n.CertificateExpires) })
	c.sink("pgnotary_sink_lag_entries", "Entries not known to be delivered to a receiver.", prometheus.GaugeValue, func(s *Sink) float64 { return float64(s.Lag) })
	c.sink("pgnotary_sink_lag_seconds", "Age of the oldest entry not known to be delivered to a receiver, 0 if there is none.", prometheus.GaugeValue, func(s *Sink) float64 { return s.Behind })
	c.sink("pgnotary_sink_sent_total", "Records delivered to a receiver.", prometheus.CounterValue, func(s *Sink) float64 { return float64(s.Sent) })
	c.sink("pgnotary_sink_failures_total", "Attempts to send to a receiver that failed.", prometheus.CounterValue, func(s *Sink) float64 { return float64(s.Failures) })
	c.sink("pgnotary_sink_shortened_total", "Records sent to a receiver without all of their content.", prometheus.CounterValue, func(s *Sink) float64 { return float64(s.Shortened) })
	c.histogram("pgnotary_hold_seconds", "Time bytes were held back until their record was durable.", func(n *Numbers) Histogram { return n.Hold })
	c.histogram("pgnotary_commit_seconds", "Time to write and sync a batch of entries.", func(n *Numbers) Histogram { return n.Commit })
	c.histogram("pgnotary_commit_entries", "Entries of a batch.", func(n *Numbers) Histogram { return n.BatchEntries })
	return c
}

func (c *collector) gauge(name, help string, value func(*Numbers) float64) {
	c.series = append(c.series, series{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, value})
}

func (c *collector) counter(name, help string, value func(*Numbers) float64) {
	c.series = append(c.series, series{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, value})
}

func (c *collector) sink(name, help string, kind prometheus.ValueType, value func(*Sink) float64) {
	c.sinks = append(c.sinks, sinkSeries{prometheus.NewDesc(name, help, []string{"sink"}, nil), kind, value})
}

func (c *collector) histogram(name, help string, value func(*Numbers) Histogram) {
	c.histograms = append(c.histograms, histogram{prometheus.NewDesc(name, help, nil, nil), value})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range c.series {
		ch <- s.desc
	}
	for _, h := range c.histograms {
		ch <- h.desc
	}
	for _, s := range c.sinks {
		ch <- s.desc
	}
	ch <- c.refusals
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	n := c.numbers()
	for _, s := range c.series {
		ch <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(&n))
	}
	for _, h := range c.histograms {
		ch <- constHistogram(h.desc, h.value(&n))
	}
	for i := range n.Sinks {
		for _, s := range c.sinks {
			ch <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(&n.Sinks[i]), n.Sinks[i].Name)
		}
	}
	for reason, count := range n.Refusals {
		ch <- prometheus.MustNewConstMetric(c.refusals, prometheus.CounterValue, float64(count), reason)
	}
}

// constHistogram makes the cumulative counts Prometheus wants. The counters
// are read one by one while they grow, so the total is their sum, not a counter of its own.
func constHistogram(desc *prometheus.Desc, h Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var total uint64
	for i, count := range h.Counts {
		total += count
		if i < len(h.Bounds) {
			buckets[h.Bounds[i]] = total
		}
	}
	return prometheus.MustNewConstHistogram(desc, total, h.Sum, buckets)
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
