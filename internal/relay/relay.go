// Package relay is the proxy's sockets. It accepts clients, connects each to
// the PostgreSQL server, passes the bytes of both through a session.Session
// and forwards what that gives back once the entries it waits for are durable.
//
// It promises: in mode BeforeForward no byte of a statement is sent to the
// server before the statement's entry is durable; in BeforeReply no byte of a
// reply is sent to the client before its entries are; when recording fails,
// nothing more is forwarded in any mode. Original bytes are forwarded,
// never re-encoded ones. It never looks into a message: that is session's part.
//
//	accept, TLS, first packets, dialing      one goroutine per connection, deadlines (startup.go, dial.go)
//	login and all that follows               a pair of sockets in one of a few event loops (loop_linux.go, pair.go)
//	CancelRequest                            its own goroutine (cancel.go)
//
// A pair belongs to one loop for life, and only that loop's goroutine touches it
// and its session. An idle pair has no goroutine and no buffer. The event loop
// needs Linux.
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgnotary/pgnotary/internal/clock"
	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/crowd"
	"github.com/pgnotary/pgnotary/internal/proxyproto"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// Mode says which bytes wait for which entries.
type Mode uint8

// The durability modes.
const (
	BeforeForward Mode = iota // bytes to the server wait
	BeforeReply               // bytes to the client wait
	Async                     // nothing waits
)

// Limits that no setting changes.
const (
	maxPending    = 256 << 10 // bytes waiting for one leg before the other is no longer read
	maxBacklog    = 8 << 20   // bytes queued in the recorder before clients are no longer read
	lowBacklog    = 4 << 20   // ... until no more than this is queued
	maxDrain      = 1 << 20   // bytes read and thrown away after a FATAL
	drainTime     = 2 * time.Second
	flushTime     = 60 * time.Second // for a client to take the last bytes
	sweepInterval = 250 * time.Millisecond
)

// Config says how to relay. Zero values of limits mean the defaults named.
type Config struct {
	// Listen is host:port, or the path of a Unix socket, which begins with / or unix:.
	Listen string
	// Upstream is the server: host:port, the path of its Unix socket, or a
	// directory, in which the socket of port 5432 is taken.
	Upstream string
	// TLS serves clients that ask for it; nil answers that there is none. A
	// certificate is replaced at run time through its GetCertificate, which must fill
	// in Leaf, and client certificates are verified by its VerifyConnection.
	TLS *tls.Config
	// ClientCert says which client certificates are needed.
	ClientCert CertPolicy
	// Verifiers ends SCRAM logins here, with a login of its own at the server. nil relays them.
	Verifiers Verifiers
	// ProxySources are load balancers: each of their connections must begin with a
	// PROXY protocol header, whose address is recorded as the client's.
	ProxySources proxyproto.Sources
	// UpstreamTLS is used towards the server; nil speaks in the clear.
	UpstreamTLS *tls.Config
	// Content says how much is kept of results and COPYs, see session.Config; nil keeps the default.
	Content func(user, database string) (results, copies content.Mode)
	// Mode says what waits; the zero value is BeforeForward.
	Mode Mode
	// Loops is the number of event loops; 0 takes half the CPUs, at least one.
	Loops int
	// MaxSessions bounds the sessions open at once; 0 means 1000.
	MaxSessions int
	// MaxUnauthenticated bounds connections whose login is not complete; 0
	// means 128. When it is reached one makes room, see crowd.Crowd.
	MaxUnauthenticated int
	// FirstPacketTimeout and LoginTimeout run from the time of accepting;
	// 0 means 10 s and 60 s. DialTimeout bounds connecting to the server; 0 means 10 s.
	FirstPacketTimeout, LoginTimeout, DialTimeout time.Duration
	// Logger gets diagnostics, which hold no statement; nil means none.
	Logger *slog.Logger
}

func (c *Config) setDefaults() {
	def(&c.FirstPacketTimeout, 10*time.Second)
	def(&c.LoginTimeout, 60*time.Second)
	def(&c.DialTimeout, 10*time.Second)
	def(&c.Loops, max(1, runtime.NumCPU()/2))
	def(&c.MaxSessions, 1000)
	def(&c.MaxUnauthenticated, 128)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T int | time.Duration](limit *T, v T) {
	if *limit <= 0 {
		*limit = v
	}
}

// A Relay serves one listener. Its methods may be called concurrently.
type Relay struct {
	cfg     Config
	rec     Recorder
	log     *slog.Logger
	clock   *clock.Clock
	now     func() int64 // of clock
	ln      net.Listener
	loops   []*loop
	metrics Metrics
	cancels sync.Map                                 // cancelTarget by string
	limits  struct{ refusal, cancel, stale limiter } // of what a stranger can cause

	durable atomic.Int64          // count of durable entries, as last heard
	failed  atomic.Pointer[error] // recording ended for good

	stopping atomic.Bool   // Shutdown was called, or recording failed
	stop     chan struct{} // closed when stopping becomes true
	stopOnce sync.Once
	ended    chan struct{} // closed when every session has ended

	nextLoop atomic.Uint32
	starters starterSet
	crowd    *crowd.Crowd
}

// New listens and prepares to serve. It subscribes to rec.
func New(cfg Config, rec Recorder) (*Relay, error) {
	cfg.setDefaults()
	if cfg.TLS != nil {
		cfg.TLS = clientTLS(cfg.TLS)
	}
	if cfg.UpstreamTLS != nil {
		cfg.UpstreamTLS = serverTLS(cfg.UpstreamTLS, cfg.Upstream)
	}
	r := &Relay{
		cfg: cfg, rec: rec, log: cfg.Logger, clock: clock.New(),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	r.now = r.clock.Now
	r.starters.open = map[*starter]struct{}{}
	r.crowd = crowd.New(cfg.MaxUnauthenticated, &r.metrics.Unauthenticated)
	r.limits.refusal.perSecond = 100
	r.limits.cancel.perSecond = 10
	r.limits.stale.perSecond = 1
	r.durable.Store(rec.Durable())
	ln, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	r.ln = ln
	for range cfg.Loops {
		l, err := newLoop(r)
		if err != nil {
			for _, l := range r.loops {
				l.free()
			}
			return nil, errors.Join(fmt.Errorf("make event loop: %w", err), ln.Close())
		}
		r.loops = append(r.loops, l)
	}
	rec.Subscribe(r.committed)
	return r, nil
}

// Addr returns the address listened on.
func (r *Relay) Addr() net.Addr { return r.ln.Addr() }

// Metrics returns the counters, which go on counting.
func (r *Relay) Metrics() *Metrics { return &r.metrics }

// committed is told by the recorder how far the log is durable. It runs in the
// committer and never waits.
func (r *Relay) committed(durable int64, err error) {
	if err != nil {
		r.fail(err)
		return
	}
	r.durable.Store(durable)
	for _, l := range r.loops {
		l.committed(durable)
	}
}

// fail ends the relay because recording failed: from now on nothing is
// forwarded. Only the first call counts.
func (r *Relay) fail(err error) {
	if !r.failed.CompareAndSwap(nil, &err) {
		return
	}
	r.beginStop()
	for _, l := range r.loops {
		l.wake()
	}
}

func (r *Relay) beginStop() {
	r.stopOnce.Do(func() {
		r.stopping.Store(true)
		close(r.stop)
	})
}

// Serve accepts connections until Shutdown is called or recording fails, and
// returns when every session has ended: nil after Shutdown, otherwise the
// error. It is called once.
func (r *Relay) Serve() error {
	for _, l := range r.loops {
		go l.run()
	}
	accept := make(chan error, 1)
	go func() { accept <- r.accept() }()
	var err error
	select {
	case err = <-accept:
	case <-r.stop:
		r.ln.Close()
		err = <-accept
	}
	r.beginStop()
	r.ln.Close()
	r.crowd.TurnAwaySilent()
	for _, l := range r.loops {
		l.post(l.drain)
	}
	r.starters.wg.Wait()
	for _, l := range r.loops {
		l.post(l.stopWhenEmpty)
		<-l.done
		l.free()
	}
	close(r.ended)
	if f := r.failed.Load(); f != nil {
		return fmt.Errorf("record: %w", *f)
	}
	return err
}

// Shutdown stops accepting, tells idle sessions that the proxy ends, lets the
// others finish until ctx is done and then ends them too. It returns when all
// have ended and their last entries are appended; Serve returns too.
// The error is that of ctx if sessions had to be cut.
func (r *Relay) Shutdown(ctx context.Context) error {
	r.beginStop()
	select {
	case <-r.ended:
		return nil
	case <-ctx.Done():
	}
	r.starters.closeAll()
	for _, l := range r.loops {
		l.post(l.endAll)
	}
	<-r.ended
	return ctx.Err()
}

// fatal is the bytes of a FATAL error in the words of the proxy.
func fatal(code, message, hint string) []byte {
	return wire.AppendError(nil, "FATAL", code, "pgnotary: "+message, hint)
}

// recordingFailed is what clients are told when recording failed.
func recordingFailed(err error) []byte {
	if errors.Is(err, syscall.ENOSPC) {
		return fatal("53100", "the audit log cannot be written: disk full",
			"Nothing runs unrecorded. Free space on the volume of the log and restart pgnotary.")
	}
	return fatal("58030", "the audit log cannot be written",
		"Nothing runs unrecorded. See the diagnostics of pgnotary for the cause.")
}
