package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/relay"
	"github.com/pgnotary/pgnotary/internal/session"
	"github.com/pgnotary/pgnotary/internal/verifiers"
	"github.com/pgnotary/pgnotary/internal/web"
)

// lazyCommit is how long an entry that nobody waits for may stay in memory.
const lazyCommit = 10 * time.Millisecond

// maxShown bounds the values that are read for the page, the API and sinks, which take several times their
// memory: a statement can have a gigabyte, and capture must not end for want of memory because somebody looks at it.
const maxShown = 16 << 20

// serve runs the proxy until ctx ends or recording fails.
func serve(ctx context.Context, s *settings, stderr io.Writer) error {
	spareProcessors()
	// From here on, so that none ends the process while it starts. More of a
	// kind before the first is read mean the same.
	reload, rotate := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	signal.Notify(rotate, syscall.SIGUSR1)
	defer signal.Stop(rotate)
	logger, level := newLogger(stderr, &s.Config)
	p, err := newProxy(s, logger, level)
	if err != nil {
		return err
	}
	return p.run(ctx, reload, rotate)
}

// A proxy is all parts of a running pgnotary: the ledger that records, the
// relay that feeds it, and the web server that shows it.
type proxy struct {
	settings atomic.Pointer[settings] // in force; replaced by reload
	contents map[string][32]byte      // of the files that a reload reads, by setting; of its goroutine
	log      *slog.Logger
	level    *slog.LevelVar
	started  time.Time

	ledger  *ledger.Ledger
	view    *query.Log
	relay   *relay.Relay
	http    net.Listener         // nil if it is off
	certs   *config.Certificates // shown to clients, nil without TLS
	users   *verifiers.File      // nil unless auth-file is set
	asked   *verifiers.Function  // nil unless auth-user is set
	web     httpAccess
	sinks   sinks
	commits commitStats

	witnesses *witnesses // nil without a policy

	sessions atomic.Pointer[atomic.Int64] // the relay's count, once there is a relay
	stopping atomic.Bool                  // draining, or recording failed: not ready
}

// newProxy opens the log, then the sockets. What it opened is closed again if
// it fails; otherwise run closes it.
func newProxy(s *settings, logger *slog.Logger, level *slog.LevelVar) (p *proxy, err error) {
	p = &proxy{log: logger, level: level, started: time.Now()}
	p.settings.Store(s)
	p.contents = s.contents()
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	serverTLS, err := s.UpstreamTLSConfig()
	if err != nil {
		return p, err
	}
	if err := refuseForeign(s.Data); err != nil {
		return p, err
	}
	keys, err := openKeys(s)
	if err != nil {
		return p, err
	}
	if p.witnesses, err = newWitnesses(s, &keys, logger); err != nil {
		return p, err
	}
	if err := p.openLog(&keys); err != nil {
		return p, err
	}
	if err := p.openSinks(s); err != nil {
		return p, err
	}
	sources, err := s.ProxySources()
	if err != nil {
		return p, err
	}
	var files syscall.Rlimit // the Go runtime has raised the soft limit to the hard one
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return p, err
	}
	sessions, err := p.fitFiles(s, files.Cur)
	if err != nil {
		return p, err
	}
	rc := relay.Config{
		Listen:             s.Listen,
		Upstream:           s.Upstream,
		UpstreamTLS:        serverTLS,
		Mode:               relayMode(s.Durability),
		MaxSessions:        sessions,
		MaxUnauthenticated: s.MaxUnauthenticated,
		LoginTimeout:       s.LoginTimeout.Duration,
		ClientCert:         certPolicy(s.ClientCert),
		ProxySources:       sources,
		Content:            contentModes(&s.Config),
		Logger:             logger,
	}
	if s.TLSCert != "" {
		p.certs = new(config.Certificates)
		if err := p.certs.Load(s.TLSCert, s.TLSKey, s.ClientCA); err != nil {
			return p, err
		}
		rc.TLS = p.certs.ServerConfig()
	}
	if err := p.openVerifiers(s, serverTLS, &rc); err != nil {
		return p, err
	}
	var rec relay.Recorder = recorder{p.ledger}
	if p.witnesses != nil && p.witnesses.sync {
		rec = witnessedRecorder{recorder{p.ledger}}
	}
	if p.relay, err = relay.New(rc, rec); err != nil {
		return p, fmt.Errorf("listen for clients: %w", err)
	}
	p.sessions.Store(&p.relay.Metrics().SessionsOpen)
	if s.HTTP != config.HTTPOff {
		if err := p.openAccess(s); err != nil {
			return p, err
		}
		if p.http, err = net.Listen("tcp", s.HTTP); err != nil {
			return p, fmt.Errorf("listen for HTTP: %w", err)
		}
	}
	return p, nil
}

// openLog opens or makes the log and says where it is.
func (p *proxy) openLog(k *keys) (err error) {
	s := p.settings.Load()
	cfg := ledger.Config{
		Dir:         s.Data,
		Origin:      s.Origin,
		SegmentSize: int64(s.SegmentSize),
		SegmentAge:  s.SegmentAge.Duration,
		Immutable:   s.Immutable,
		Retain: ledger.Retain{
			Age: s.Retain.Duration, ValueAge: s.RetainValues.Duration,
			Bytes: int64(s.RetainSize), ValueBytes: int64(s.RetainValuesSize),
		},
		Lazy:       lazyCommit,
		Version:    version(),
		StartFacts: s.facts(),
		Sessions:   p.openSessions,
		Observer:   &p.commits,
		Logger:     p.log,
	}
	cfg.Key, cfg.NextKey, cfg.Origin = k.now, k.next, cmp.Or(s.Origin, k.origin)
	if p.witnesses != nil {
		cfg.Witness = p.witnesses
	}
	if p.ledger, err = ledger.Open(cfg); err != nil {
		return err
	}
	if p.witnesses != nil {
		p.witnesses.attach(p.ledger)
	}
	if p.view, err = query.Open(s.Data); err != nil {
		return fmt.Errorf("open log for reading: %w", err)
	}
	p.view.MaxValue = maxShown
	dir, err := filepath.Abs(s.Data)
	if err != nil {
		return err
	}
	p.log.Info("log opened", slog.String("data", dir), slog.String("key", filepath.Join(dir, "key")),
		slog.String("origin", p.ledger.Origin()), slog.String("vkey", p.ledger.VKey()),
		slog.Int64("entries", p.ledger.Durable()))
	return nil
}

// run serves until ctx ends or recording fails, and closes everything. It
// returns nil only after a stop in order.
func (p *proxy) run(ctx context.Context, reload, rotate <-chan os.Signal) error {
	// The web server outlives ctx, to say "not ready" while sessions end.
	webCtx, stopWeb := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWeb()
	webDone := make(chan error, 1) // one value
	if p.http != nil {
		go func() { webDone <- web.Serve(webCtx, p.http, p.web.tls(), p.handler(), p.log) }()
	}
	relayDone := make(chan error, 1) // one value
	go func() { relayDone <- p.relay.Serve() }()
	p.sinks.run(p.view, p.log)
	p.announce()
	p.checkCertificates()
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()

	for {
		select {
		case <-ctx.Done():
			err := p.drain(relayDone)
			err = errors.Join(err, p.close())
			p.log.Info("stopped", slog.Int64("entries", p.ledger.Durable()))
			return err
		case err := <-relayDone:
			p.stopping.Store(true)
			p.log.Error("the proxy stops: nothing runs unrecorded", slog.Any("error", err))
			return errors.Join(err, p.close())
		case err := <-webDone:
			p.log.Error("web server ended", slog.Any("error", err))
			webDone = nil
		case <-reload:
			p.reload()
			p.checkCertificates()
		case <-hourly.C:
			p.checkCertificates()
		case <-rotate:
			if err := p.ledger.Rotate(); err != nil {
				p.log.Error("no new journal file", slog.Any("error", err))
			}
		}
	}
}

// drain ends the sessions: in order, if they take no longer than the drain timeout.
func (p *proxy) drain(relayDone <-chan error) error {
	// The next signal ends the waiting, not the process: the log ends in order all the same.
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	p.stopping.Store(true)
	p.notify("STOPPING=1")
	timeout := p.settings.Load().DrainTimeout.Duration
	p.log.Info("stopping", slog.Int("sessions", p.openSessions()), slog.Duration("timeout", timeout))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	go func() {
		select {
		case <-again:
			cancel()
		case <-ctx.Done():
		}
	}()
	switch err := p.relay.Shutdown(ctx); {
	case errors.Is(err, context.Canceled):
		p.log.Warn("sessions were cut: a second signal came")
	case err != nil:
		p.log.Warn("sessions were cut: the drain timeout passed", slog.Any("error", err))
	}
	return <-relayDone
}

// close ends the log in order and closes what is open. The relay must have ended.
func (p *proxy) close() error {
	var err error
	if p.asked != nil {
		p.asked.Close()
	}
	if p.ledger != nil {
		err = p.ledger.Close()
	}
	p.sinks.end()
	if p.http != nil {
		if e := p.http.Close(); !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// announce says what runs, once everything does.
func (p *proxy) announce() {
	s := p.settings.Load()
	p.log.Info("listening", slog.String("clients", p.relay.Addr().String()), slog.String("upstream", s.Upstream),
		slog.String("http", p.httpAddr()), slog.Bool("tls", p.certs != nil))
	p.log.Info("durability", slog.String("mode", s.Durability), slog.String("after_a_crash", lossBound(s.Durability)))
	if p.http != nil && !p.loopback() {
		p.log.Warn("the HTTP address can be reached from other machines: its log resources tell them who was active when, though no statement's text",
			slog.String("http", p.httpAddr()), slog.Bool("tls", p.web.certs != nil))
	}
	p.notify("READY=1")
}

// lossBound says what a crash of the machine can take from the log.
func lossBound(mode string) string {
	switch mode {
	case config.Async:
		return fmt.Sprintf("statements of the last %s and of the commit under way may lack their record", lazyCommit)
	case config.BeforeReply:
		return "statements whose reply was not yet sent may lack their record"
	}
	return "no statement that the server saw lacks its record; outcomes of the last " + lazyCommit.String() + " may"
}

// spareProcessors raises GOMAXPROCS so that some of the runtime's processors
// are always idle. Otherwise its monitor takes a processor away from every
// system call of more than 20 µs, which each fdatasync is, and to do so it
// wakes every 20 µs: that took 17 % of all CPU time in a profile. With an idle one
// it waits 10 ms. pgbench -S with 32 clients, two busy cores, one run each: 62 µs
// of CPU per statement with 2, 52 with 4, 49 with 6.
func spareProcessors() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 4) }

// fitFiles returns how many sessions may be open at once: max-sessions, or what
// the limit of open files allows. If it were reached the log could not be written, and
// whoever can connect could end everybody's sessions.
func (p *proxy) fitFiles(s *settings, limit uint64) (int, error) {
	others := relay.MaxStarting(s.MaxUnauthenticated) + web.MaxConns + 100 // 100: log, searches, sinks
	fit := (int64(min(limit, 1<<40)) - int64(others)) / 2
	if fit >= int64(s.MaxSessions) {
		return s.MaxSessions, nil
	}
	needed := slog.Int("needed", 2*s.MaxSessions+others)
	if fit < 1 {
		return 0, withHint(fmt.Errorf("the limit of open files, %d, leaves no room for sessions: %d are needed", limit, needed.Value.Int64()),
			"raise it (ulimit -n, LimitNOFILE), or lower max-unauthenticated and max-sessions")
	}
	p.log.Warn("fewer sessions than max-sessions fit into the limit of open files",
		slog.Int64("sessions", fit), slog.Uint64("limit", limit), needed)
	return int(fit), nil
}

func (p *proxy) notify(state string) {
	if err := notifySystemd(state); err != nil {
		p.log.Warn("cannot tell the service manager", slog.String("state", state), slog.Any("error", err))
	}
}

// reload puts into force what can change without a restart, and records it.
func (p *proxy) reload() {
	changed, err := p.applyReload()
	if err != nil {
		p.log.Error("configuration not reloaded", slog.Any("error", err))
		return
	}
	p.log.Info("configuration reloaded", slog.Any("changed", append([]string{}, changed...)))
}

// applyReload reads configuration and certificates again. On an error in them
// everything stays as it was.
func (p *proxy) applyReload() (changed []string, err error) {
	old := p.settings.Load()
	next, err := old.reload()
	if err != nil {
		return nil, err
	}
	if err := next.Validate(); err != nil {
		return nil, settingsError(err)
	}
	if (old.TLSCert == "") != (next.TLSCert == "") {
		p.log.Warn("turning TLS on or off needs a restart")
		next.TLSCert, next.TLSKey = old.TLSCert, old.TLSKey
	}
	if (old.ClientCA == "") != (next.ClientCA == "") {
		p.log.Warn("asking clients for certificates, or no longer, needs a restart")
		next.ClientCA = old.ClientCA
	}
	if (old.AuthFile == "") != (next.AuthFile == "") {
		p.log.Warn("ending logins by SCRAM here, or no longer, needs a restart")
		next.AuthFile = old.AuthFile
	}
	var users *verifiers.File
	if p.users != nil {
		if users, err = verifiers.OpenFile(next.AuthFile); err != nil {
			return nil, err
		}
	}
	if p.certs != nil {
		if err := p.certs.Load(next.TLSCert, next.TLSKey, next.ClientCA); err != nil {
			return nil, err
		}
	}
	if err := p.reloadAccess(old, next); err != nil {
		return nil, err
	}
	if p.users != nil {
		p.users.Replace(users)
	}
	changed, restart := old.Changed(&next.Config)
	contents := next.contents()
	for key, sum := range contents {
		if sum != p.contents[key] && !slices.Contains(changed, key) && !slices.Contains(restart, key) {
			changed = append(changed, key) // the file it names: a certificate was renewed
		}
	}
	slices.Sort(changed)
	p.contents = contents
	if len(restart) > 0 {
		p.log.Warn("some changed settings need a restart", slog.Any("settings", restart))
	}
	// What cannot change stays as it is in force.
	now := *old
	for _, f := range next.Fields() {
		if f.Live {
			err = errors.Join(err, now.Set(f.Key, f.Value.String()))
		}
	}
	p.settings.Store(&now)
	setLevel(p.level, &now.Config)
	_, emitErr := p.ledger.Emit(&event.Leaf{Kind: event.KindConfig, Facts: append(now.facts(),
		event.Fact{Key: "changed", Val: strings.Join(changed, " ")})}, nil)
	return changed, errors.Join(err, emitErr)
}

// contents returns a hash of each file that is read again at a reload, by the setting that names it.
func (s *settings) contents() map[string][32]byte {
	sums := make(map[string][32]byte)
	for key, name := range map[string]string{
		"tls-cert": s.TLSCert, "client-ca": s.ClientCA, "auth-file": s.AuthFile, "http-tls-cert": s.HTTPTLSCert, "http-tokens": s.HTTPTokens,
	} {
		if name == "" {
			continue
		}
		if b, err := os.ReadFile(name); err == nil { // whoever reads it in earnest says what is wrong
			sums[key] = sha256.Sum256(b)
		}
	}
	return sums
}

// facts are the settings that matter to whoever reads the log.
func (s *settings) facts() []event.Fact {
	var captures []event.Fact
	for i, r := range s.Captures {
		captures = append(captures, event.Fact{Key: fmt.Sprintf("capture_%d", i+1), Val: r.String()})
	}
	return append(captures, []event.Fact{
		{Key: "durability", Val: s.Durability},
		{Key: "listen", Val: s.Listen},
		{Key: "upstream", Val: s.Upstream},
		{Key: "upstream_tls", Val: s.UpstreamTLS},
		{Key: "tls", Val: onOff(s.TLSCert != "")},
		{Key: ledger.WitnessMode, Val: s.witnessMode()},
		{Key: "client_cert", Val: s.clientCert()},
		{Key: "verifiers", Val: s.verifiers()},
		{Key: "proxy_protocol_from", Val: cmp.Or(s.ProxyProtocolFrom, "off")},
	}...)
}

// verifiers says where verifiers come from.
func (s *settings) verifiers() string {
	switch {
	case s.AuthFile != "":
		return "file"
	case s.AuthUser != "":
		return "function"
	}
	return "off"
}

// openVerifiers sets rc up to end logins by SCRAM, if the settings say so.
func (p *proxy) openVerifiers(s *settings, serverTLS *tls.Config, rc *relay.Config) (err error) {
	switch {
	case s.AuthFile != "":
		if p.users, err = verifiers.OpenFile(s.AuthFile); err != nil {
			return fmt.Errorf("auth-file: %w", err)
		}
		rc.Verifiers = p.users
		p.log.Info("verifiers read", slog.Int("users", p.users.Users()))
	case s.AuthUser != "":
		if p.asked, err = verifiers.NewFunction(verifiers.ConfigOf(&s.Config, serverTLS)); err != nil {
			return fmt.Errorf("auth-user: %w", err)
		}
		rc.Verifiers = p.asked
	}
	return nil
}

// clientCert says what client certificates are for.
func (s *settings) clientCert() string {
	if s.ClientCA == "" {
		return "off"
	}
	return s.ClientCert
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func relayMode(durability string) relay.Mode {
	switch durability {
	case config.BeforeReply:
		return relay.BeforeReply
	case config.Async:
		return relay.Async
	}
	return relay.BeforeForward
}

// contentModes returns what the settings say of how much is kept of results and COPYs.
func contentModes(c *config.Config) func(user, database string) (results, copies content.Mode) {
	modes := map[string]content.Mode{config.KeepCount: content.Count, config.KeepDigest: content.Digest, config.KeepFull: content.Full}
	return func(user, database string) (results, copies content.Mode) {
		r := c.CaptureOf(user, database)
		return modes[r.Results], modes[r.Copy]
	}
}

func certPolicy(text string) relay.CertPolicy {
	switch text {
	case config.CertVerifyCA:
		return relay.CertVerifyCA
	case config.CertVerifyFull:
		return relay.CertVerifyFull
	}
	return relay.CertOptional
}

// recorder is the ledger as the relay sees it.
type recorder struct{ *ledger.Ledger }

// NewBlob begins a value too large for memory.
func (r recorder) NewBlob() (session.Blob, error) {
	b, err := r.Ledger.NewBlob()
	if err != nil {
		return nil, err
	}
	return b, nil
}

// AppendBlob queues an entry whose value is a blob that NewBlob returned.
func (r recorder) AppendBlob(leaf []byte, b session.Blob) (int64, error) {
	blob, ok := b.(*ledger.Blob)
	if !ok {
		return 0, fmt.Errorf("append entry: its blob is a %T", b)
	}
	return r.Ledger.AppendBlob(leaf, blob)
}
