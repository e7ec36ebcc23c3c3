package main

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/access"
	"github.com/pgnotary/pgnotary/internal/relay"
	"github.com/pgnotary/pgnotary/internal/web"
)

// handler answers HTTP requests about the proxy.
func (p *proxy) handler() http.Handler {
	var log web.Log = p.view
	if p.witnesses != nil && p.witnesses.policy.HasQuorum() {
		log = servedLog{p.view}
	}
	return web.NewHandler(web.Config{
		Log:     log,
		Entries: p.view,
		Prove: func(ctx context.Context, index int64, withValue bool) ([]byte, error) {
			give := giveNothing
			if withValue {
				give = giveValue
			}
			return proveSoon(ctx, p.view, index, give)
		},
		Tokens:   func() access.Tokens { return *p.web.tokens.Load() },
		Record:   p.recordRead,
		Ready:    p.ready,
		Status:   p.status,
		Metrics:  web.NewMetrics(version(), p.numbers),
		Loopback: p.loopback(),
		Logger:   p.log,
	})
}

// ready says why statements are not accepted or not recorded, nil if they are.
func (p *proxy) ready() error {
	if err := p.ledger.Err(); err != nil {
		return err
	}
	if p.stopping.Load() {
		return errors.New("stopping")
	}
	if p.witnesses != nil && p.witnesses.sync && !p.witnesses.feeder.Quorum(time.Now()) {
		return errors.New("too few witnesses cosign the newest checkpoint, and statements wait for them")
	}
	return nil
}

// openSessions is asked by the ledger too, which may be before there is a relay.
func (p *proxy) openSessions() int {
	if n := p.sessions.Load(); n != nil {
		return int(n.Load())
	}
	return 0
}

func (p *proxy) httpAddr() string {
	if p.http == nil {
		return "off"
	}
	return p.http.Addr().String()
}

// loopback reports whether only this machine can reach the HTTP address.
func (p *proxy) loopback() bool {
	addr, ok := p.http.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// numbers reads the counters of relay and ledger.
func (p *proxy) numbers() web.Numbers {
	m := p.relay.Metrics()
	n := web.Numbers{
		Sessions:        m.SessionsOpen.Load(),
		Unauthenticated: m.Unauthenticated.Load(),
		Connections:     count(&m.Accepted),
		SessionsTotal:   count(&m.SessionsTotal),
		Cancels:         count(&m.Cancels),
		Pauses:          count(&m.Paused),
		Statements:      count(&m.Statements),
		ClientBytes:     count(&m.FromClients),
		ServerBytes:     count(&m.FromServers),
		Refusals:        map[string]uint64{"violation": count(&m.Violations), "fault": count(&m.Panics)},
		Hold:            web.Histogram{Sum: float64(m.HoldNanos.Load()) / 1e9},
		Durable:         p.ledger.Durable(),
		Backlog:         p.ledger.Backlog(),
		LogBytes:        uint64(p.commits.bytes.Load()),
		SealFailures:    p.ledger.SealFailures(),
		Commit:          p.commits.elapsed(),
		BatchEntries:    p.commits.entries(),
	}
	for i, name := range relay.RefusalNames {
		n.Refusals[name] = count(&m.Refused[i])
	}
	for _, bound := range relay.HoldBounds {
		n.Hold.Bounds = append(n.Hold.Bounds, float64(bound)/1e9)
	}
	for i := range m.HoldTimes {
		n.Hold.Counts = append(n.Hold.Counts, count(&m.HoldTimes[i]))
	}
	n.CheckpointSize, _, n.CheckpointTime = p.checkpoint()
	n.Sinks = p.sinks.numbers()
	if p.witnesses != nil {
		n.Witnessed = p.ledger.Witnessed()
		n.Cosignatures = count(&p.witnesses.feeder.Cosignatures)
		n.CosignFailures = count(&p.witnesses.feeder.Failures)
		n.WitnessAlarms = count(&p.witnesses.feeder.Alarms)
	}
	if p.certs != nil {
		n.CertificateExpires = p.certs.Expires()
	}
	return n
}

func count(v *atomic.Int64) uint64 { return uint64(v.Load()) }

// checkpoint returns size and root of the latest checkpoint and when it was
// written, or zeros before there is one.
func (p *proxy) checkpoint() (size int64, root string, written time.Time) {
	signed, err := p.view.Checkpoint()
	if err != nil {
		return 0, "", time.Time{}
	}
	lines := strings.SplitN(string(signed), "\n", 4)
	if len(lines) < 4 {
		return 0, "", time.Time{}
	}
	if size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return 0, "", time.Time{}
	}
	if _, err := base64.StdEncoding.DecodeString(lines[2]); err == nil {
		root = lines[2]
	}
	if info, err := os.Stat(filepath.Join(p.ledger.Dir(), "checkpoint")); err == nil {
		written = info.ModTime()
	}
	return size, root, written
}

// status is what the page shows of health.
func (p *proxy) status() web.Status {
	n := p.numbers()
	s := web.Status{
		Version:        version(),
		Origin:         p.ledger.Origin(),
		Started:        p.started.UTC().Format(time.RFC3339Nano),
		Now:            time.Now().UTC().Format(time.RFC3339Nano),
		Durability:     p.settings.Load().Durability,
		Listen:         p.relay.Addr().String(),
		Upstream:       p.settings.Load().Upstream,
		Entries:        n.Durable,
		Sessions:       n.Sessions,
		SessionsTotal:  n.SessionsTotal,
		Statements:     n.Statements,
		Bytes:          n.ClientBytes + n.ServerBytes,
		CommitMicros:   n.Commit.Mean() * 1e6,
		BatchEntries:   n.BatchEntries.Mean(),
		Backlog:        n.Backlog,
		Sinks:          n.Sinks,
		LogBytes:       n.LogBytes,
		Commits:        web.Counts{Bounds: n.Commit.Bounds, Counts: n.Commit.Counts, Sum: n.Commit.Sum},
		CheckpointSize: n.CheckpointSize,
	}
	for _, count := range n.Refusals {
		s.Refusals += count
	}
	if err := p.ready(); err == nil {
		s.Ready = true
	} else {
		s.Problem = err.Error()
	}
	if p.witnesses != nil {
		s.Witnesses = &web.WitnessCounts{Size: n.Witnessed, Cosignatures: n.Cosignatures, Failures: n.CosignFailures, Alarms: n.WitnessAlarms}
		for _, w := range p.witnesses.policy.Witnesses() {
			s.Witnesses.Keys = append(s.Witnesses.Keys, w.VKey)
		}
	}
	if _, root, written := p.checkpoint(); root != "" {
		s.CheckpointRoot, s.CheckpointTime = root, written.UTC().Format(time.RFC3339Nano)
	}
	return s
}

// Upper bounds of the buckets of commitStats.
const (
	timeBuckets  = 12
	entryBuckets = 11
)

func commitTimes() [timeBuckets]time.Duration {
	const us, ms = time.Microsecond, time.Millisecond
	return [...]time.Duration{50 * us, 100 * us, 200 * us, 400 * us, 800 * us, 1600 * us, 3200 * us, 6400 * us, 12800 * us, 50 * ms, 200 * ms, 1000 * ms}
}

func commitEntries() [entryBuckets]int {
	return [...]int{1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096}
}

// commitStats counts the commits of the ledger. It is written by the committer
// alone and read by anybody.
type commitStats struct {
	times [timeBuckets + 1]atomic.Int64
	nanos atomic.Int64
	sizes [entryBuckets + 1]atomic.Int64
	total atomic.Int64 // entries
	bytes atomic.Int64
}

// Commit implements ledger.Observer.
func (s *commitStats) Commit(entries int, bytes int64, elapsed time.Duration) {
	i := 0
	for times := commitTimes(); i < len(times) && elapsed > times[i]; {
		i++
	}
	s.times[i].Add(1)
	s.nanos.Add(int64(elapsed))
	i = 0
	for sizes := commitEntries(); i < len(sizes) && entries > sizes[i]; {
		i++
	}
	s.sizes[i].Add(1)
	s.total.Add(int64(entries))
	s.bytes.Add(bytes)
}

func (s *commitStats) elapsed() web.Histogram {
	h := web.Histogram{Sum: time.Duration(s.nanos.Load()).Seconds()}
	for _, bound := range commitTimes() {
		h.Bounds = append(h.Bounds, bound.Seconds())
	}
	for i := range s.times {
		h.Counts = append(h.Counts, count(&s.times[i]))
	}
	return h
}

func (s *commitStats) entries() web.Histogram {
	h := web.Histogram{Sum: float64(s.total.Load())}
	for _, bound := range commitEntries() {
		h.Bounds = append(h.Bounds, float64(bound))
	}
	for i := range s.sizes {
		h.Counts = append(h.Counts, count(&s.sizes[i]))
	}
	return h
}
