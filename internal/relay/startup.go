package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/pgnotary/pgnotary/internal/crowd"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/session"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// A starter is a connection until it is a pair in a loop, in a goroutine of
// its own.
type starter struct {
	relay   *Relay
	conn    net.Conn // the socket
	client  string
	at      time.Time // of accepting
	entrant *crowd.Entrant
	other   net.Conn // a connection to the server; guarded by starterSet.mu

	rw    net.Conn // conn, or TLS over it
	tls   *tls.Conn
	raw   *rawConn          // under tls
	peer  *x509.Certificate // of the client, verified; nil if it showed none
	facts []event.Fact
}

// A refusal ends a connection before it has a session.
type refusal struct {
	why           int // one of Refused...
	code, message string
	hint          string
	at            []byte // the offending bytes
	v2            bool   // the client speaks protocol 2 or older
	silent        bool   // no answer
}

func (f *refusal) Error() string { return f.message }

// errSilent ends a connection that needs neither answer nor entry.
var errSilent = errors.New("nothing to say")

// run serves the connection up to the hand-over to a loop, or to its end.
func (s *starter) run() {
	r := s.relay
	handedOver := false
	defer func() {
		if v := recover(); v != nil {
			r.metrics.Panics.Add(1)
			r.log.Error("internal error, connection ended", "client", s.client, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			r.recordViolation(0, s.client, "internal error", "XX000", nil, 0)
		}
		if !handedOver {
			s.conn.Close()
			r.crowd.Leave(s.entrant)
		}
		r.starters.remove(s)
	}()
	s.rw = s.conn
	err := s.serve(&handedOver)
	var f *refusal
	if errors.As(err, &f) {
		s.refuse(f)
	}
}

// What a client that was turned away is told.
const (
	tooMany     = "too many connections are logging in"
	tooManyHint = "Try again, or raise max-unauthenticated of pgnotary."
)

// turnedAway is the refusal for it.
func (s *starter) turnedAway() *refusal {
	return &refusal{why: RefusedLimit, code: "53300", message: tooMany, hint: tooManyHint, silent: s.raw != nil && s.tls == nil}
}

// serve negotiates and then does what the client asks for.
func (s *starter) serve(handedOver *bool) error {
	err := s.proxied()
	var packet []byte
	var request wire.Request
	if err == nil {
		packet, request, err = s.negotiate()
	}
	if !s.relay.crowd.Waiting(s.entrant, 0, false) {
		return s.turnedAway() // whatever else went wrong
	}
	if err != nil {
		return err
	}
	if request == wire.CancelRequest {
		s.relay.cancel(s, packet)
		return nil
	}
	return s.open(packet, handedOver)
}

// negotiate reads packets until one says what the connection is for: at most
// one request for TLS and one for GSSAPI encryption come before.
func (s *starter) negotiate() (packet []byte, request wire.Request, err error) {
	var askedTLS, askedGSS bool
	head := make([]byte, 4)
	for first := true; ; first = false {
		if err := s.readHead(head); err != nil {
			return nil, 0, err
		}
		if first && head[0] == 0x16 {
			if err := s.startTLS(head, true); err != nil {
				return nil, 0, err
			}
			askedTLS, askedGSS = true, true // inside direct TLS neither may be asked for
			continue
		}
		n, err := wire.FirstLen(head)
		if err != nil {
			if isHTTP(head) {
				return nil, 0, s.violation(head, "an HTTP request", true)
			}
			return nil, 0, s.violation(head, "invalid length of start-up packet", false)
		}
		packet = append(make([]byte, 0, n), head...)[:n]
		if n, err := io.ReadFull(s.rw, packet[len(head):]); err != nil {
			return nil, 0, s.readFailed(err, packet[:len(head)+n])
		}
		request, code, err := wire.First(packet)
		if err != nil {
			return nil, 0, s.violation(packet, "malformed start-up packet", false)
		}
		switch request {
		case wire.CancelRequest:
			return packet, request, nil
		case wire.StartupMessage:
			return packet, request, checkVersion(code, packet)
		}
		if err := s.answer(request, &askedTLS, &askedGSS); err != nil {
			return nil, 0, err
		}
	}
}

// readHead reads the length word every first packet begins with: no more, since
// what is too short or too long to be a packet is to be refused at once.
func (s *starter) readHead(head []byte) error {
	n, err := io.ReadFull(s.rw, head)
	switch {
	case err == nil:
		return nil
	case n == 0 && errors.Is(err, io.EOF):
		s.relay.metrics.Silent.Add(1)
		return errSilent
	}
	return s.readFailed(err, head[:n])
}

// readFailed says what the failure of a read means. at is what came before.
func (s *starter) readFailed(err error, at []byte) error {
	if s.relay.stopping.Load() {
		return shuttingDown()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &refusal{
			why: RefusedTimeout, code: "57014", at: at,
			message: fmt.Sprintf("no start-up packet within %v", s.relay.cfg.FirstPacketTimeout),
		}
	}
	return &refusal{why: RefusedProtocol, code: "08P01", message: "connection ended within the start-up packet", at: at, silent: true}
}

// answer answers a request for encryption.
func (s *starter) answer(request wire.Request, askedTLS, askedGSS *bool) error {
	asked, ours := askedTLS, s.relay.cfg.TLS != nil
	if request == wire.GSSENCRequest {
		asked, ours = askedGSS, false // it would make the session opaque
	}
	if *asked || s.tls != nil {
		return s.violation(nil, "more than one "+request.String(), false)
	}
	*asked = true
	if s.unread() {
		return s.violation(nil, "unencrypted data after "+request.String(), false)
	}
	answer := []byte{'N'}
	if ours {
		answer[0] = 'S'
	}
	if _, err := s.rw.Write(answer); err != nil {
		return errSilent
	}
	if ours {
		return s.startTLS(nil, false)
	}
	return nil
}

// startTLS serves a TLS handshake; pre is what was read of it already. After
// it, direct or not, the client may still have sent no request.
func (s *starter) startTLS(pre []byte, direct bool) error {
	r := s.relay
	if r.cfg.TLS == nil {
		return &refusal{why: RefusedTLS, code: "08P01", message: "direct TLS without a certificate here", silent: true}
	}
	s.raw = &rawConn{Conn: s.conn, pre: append([]byte(nil), pre...)}
	c := tls.Server(s.raw, r.cfg.TLS)
	ctx, cancel := context.WithDeadline(context.Background(), s.at.Add(r.cfg.FirstPacketTimeout))
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		r.metrics.TLSFailed.Add(1)
		return &refusal{why: RefusedTLS, code: "08P01", message: "TLS handshake failed: " + err.Error(), silent: true}
	}
	state := c.ConnectionState()
	if direct && state.NegotiatedProtocol != alpn {
		r.metrics.TLSFailed.Add(1)
		return &refusal{why: RefusedTLS, code: "08P01", message: "direct TLS without the ALPN protocol " + alpn, silent: true}
	}
	s.tls, s.rw = c, c
	s.facts = tlsFacts(s.facts, state)
	if len(state.PeerCertificates) > 0 {
		s.peer = state.PeerCertificates[0]
	}
	if direct {
		s.facts = append(s.facts, event.Fact{Key: "tls_direct", Val: "true"})
	}
	return nil
}

// unread reports whether the client has sent more than was read: what follows
// a request for encryption must come after the answer.
func (s *starter) unread() bool {
	raw, err := s.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	found := false
	_ = raw.Control(func(fd uintptr) { // fails on a closed connection: nothing was found
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		found = err == nil && n > 0
	})
	return found
}

func checkVersion(version uint32, packet []byte) error {
	major := wire.Major(version)
	if major == 3 {
		return nil
	}
	return &refusal{
		why: RefusedProtocol, code: "0A000", at: packet, v2: major < 3,
		message: fmt.Sprintf("protocol version %d.%d is not supported, only 3.0 to 3.2", major, wire.Minor(version)),
	}
}

func (s *starter) violation(at []byte, message string, silent bool) error {
	return &refusal{why: RefusedProtocol, code: "08P01", message: message, at: at, silent: silent}
}

func shuttingDown() *refusal {
	return &refusal{why: RefusedShutdown, code: "57P03", message: "pgnotary is shutting down"}
}

func isHTTP(head []byte) bool {
	return strings.Contains("GET |HEAD|POST|PUT |OPTI|CONN|DELE|PRI ", string(head))
}

// open begins the session, connects to the server and gives both connections
// to a loop.
func (s *starter) open(packet []byte, handedOver *bool) error {
	r := s.relay
	if r.stopping.Load() {
		return shuttingDown()
	}
	defer r.metrics.SessionsOpen.Add(-1) // undone below
	if r.metrics.SessionsOpen.Add(1) > int64(r.cfg.MaxSessions) {
		return &refusal{
			why: RefusedLimit, code: "53300", message: "too many sessions", at: nil,
			hint: "Close sessions, or raise max-sessions of pgnotary.",
		}
	}
	p := &pair{relay: r, id: newID(), addr: s.client, connect: -1, entrant: s.entrant, shift: r.clock.Shift(r.now())}
	p.sess = session.New(session.Config{ID: p.id, Client: s.client, Facts: s.facts, Log: p, Content: r.cfg.Content})
	fwd, err := p.sess.Start(r.now(), packet)
	if err != nil {
		return s.startFailed(p, err)
	}
	if err := s.checkCertificate(p.sess); err != nil {
		return s.startFailed(p, err)
	}
	p.first = append([]byte(nil), fwd...)
	p.connect = p.sess.Last()
	if r.cfg.Mode == BeforeForward && p.connect >= 0 {
		r.rec.Want(p.connect)
	}
	up, err := r.dial()
	if err != nil {
		r.metrics.Refused[RefusedUpstream].Add(1)
		r.log.Error("cannot reach the server", "session_id", sessionID(p.id), "error", err)
		s.closeSession(p, "upstream_unreachable")
		s.tell(fatal("08006", "cannot reach the PostgreSQL server", "See the diagnostics of pgnotary for the cause."), drainTime)
		return errSilent
	}
	switch {
	case r.cfg.Verifiers != nil:
		if err := s.endSCRAM(p, up); err != nil {
			up.conn.Close()
			return err
		}
	case up.tls != nil && s.raw != nil && !up.leaf().Equal(s.raw.shown):
		p.sess.Unbindable(unbindableHint)
	}
	if err := s.handOver(p, up); err != nil {
		if r.stopping.Load() { // it was cut
			s.closeSession(p, "shutdown")
			return errSilent
		}
		r.log.Error("cannot take over connection", "session_id", sessionID(p.id), "error", err)
		s.closeSession(p, "internal_error")
		return errSilent
	}
	*handedOver = true
	r.metrics.SessionsOpen.Add(1)
	r.metrics.SessionsTotal.Add(1)
	p.loop.post(func() { p.loop.adopt(p) })
	return nil
}

// handOver gives p the bare sockets. From here on nobody else has them.
func (s *starter) handOver(p *pair, up upstream) (err error) {
	r := s.relay
	p.client = leg{side: 0, tls: s.tls, raw: s.raw}
	p.server = leg{side: 1, tls: up.tls, raw: up.raw}
	if s.tls != nil {
		s.tls.SetDeadline(time.Time{})
	}
	if p.server.fd, err = takeFD(up.conn); err != nil {
		return err
	}
	if p.client.fd, err = takeFD(s.conn); err != nil {
		syscall.Close(p.server.fd)
		return err
	}
	p.deadline = r.now() + int64(r.cfg.LoginTimeout-time.Since(s.at))
	p.loop = r.loops[int(r.nextLoop.Add(1))%len(r.loops)]
	return nil
}

// startFailed ends a connection whose start-up packet the session refused.
func (s *starter) startFailed(p *pair, err error) error {
	r := s.relay
	var v *session.Violation
	if !errors.As(err, &v) {
		r.fail(err)
		r.metrics.Refused[RefusedRecording].Add(1)
		s.closeSession(p, "recording_failed")
		s.tell(recordingFailed(err), drainTime)
		return errSilent
	}
	s.closeSession(p, r.refused(v, p.id, s.client, true))
	s.tell(fatalOf(v), drainTime)
	return errSilent
}

func (s *starter) closeSession(p *pair, why string) {
	if err := p.sess.Close(s.relay.now(), why); err != nil {
		s.relay.fail(err)
	}
}

// alsoClose has c closed with the client's connection when the relay is cut short.
func (s *starter) alsoClose(c net.Conn) {
	t := &s.relay.starters
	t.mu.Lock()
	defer t.mu.Unlock()
	s.other = c
	if t.cut {
		c.Close()
	}
}

// refuse records why the connection ends and tells the client.
func (s *starter) refuse(f *refusal) {
	r := s.relay
	r.metrics.Refused[f.why].Add(1)
	if suppressed, ok := r.limits.refusal.allow(r.now()); ok && f.why != RefusedShutdown {
		r.recordViolation(0, s.client, f.message, f.code, f.at, suppressed)
		r.log.Warn("connection refused", "client", s.client, "reason", f.message)
	}
	r.crowd.Leave(s.entrant)
	drain := drainTime
	if f.why == RefusedLimit {
		drain /= 8 // there may be many
	}
	switch {
	case f.silent:
		s.tell(nil, drain)
	case f.v2:
		s.tell(wire.AppendErrorV2(nil, "FATAL:  pgnotary: "+f.message), drain)
	default:
		s.tell(fatal(f.code, f.message, f.hint), drain)
	}
}

// tell sends a last message and closes the connection so that a client that
// is still sending gets it rather than a reset.
func (s *starter) tell(message []byte, drain time.Duration) {
	if s.relay.starters.reach(MaxStarting(s.relay.cfg.MaxUnauthenticated) * 3 / 4) {
		drain = 10 * time.Millisecond // others wait to be accepted
	}
	s.conn.SetDeadline(time.Now().Add(drain))
	if s.rw == nil {
		s.rw = s.conn
	}
	if len(message) > 0 {
		if _, err := s.rw.Write(message); err != nil {
			return
		}
	}
	if s.tls != nil {
		s.tls.CloseWrite() // a failure shows at the socket
	}
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, s.conn, maxDrain)
	}
}
