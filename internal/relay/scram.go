package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"time"

	"github.com/pgnotary/pgnotary/internal/scram"
)

// Verifiers knows the SCRAM verifiers of users. It may be asked concurrently.
type Verifiers interface {
	// Verifier returns the verifier of a user, nil if there is none, and an
	// error if that cannot be found out.
	Verifier(ctx context.Context, user string) (*scram.Verifier, error)
}

// A middle is the scram.Host of one login, which is ended here so that each leg is bound to its
// own certificate. The session sees the dialogue with the client.
type middle struct {
	*starter
	pair *pair
}

// endSCRAM serves a login up to the server's verdict, if the server asks for SCRAM; of any other
// it reads no more than the server's first message.
func (s *starter) endSCRAM(p *pair, up upstream) error {
	r := s.relay
	if r.cfg.Mode != Async && !r.waitDurable(p.connect) {
		return s.startFailed(p, *r.failed.Load())
	}
	s.alsoClose(up.conn)
	deadline := s.at.Add(r.cfg.LoginTimeout)
	s.conn.SetDeadline(deadline)
	up.conn.SetDeadline(deadline)
	wake := func() { s.conn.SetReadDeadline(past); up.conn.SetDeadline(past) }
	if !r.crowd.Becomes(s.entrant, wake) {
		wake()
	}
	server := up.conn
	var shown, seen []byte
	if s.raw != nil && s.raw.shown != nil {
		shown, _ = scram.EndPoint(s.raw.shown)
	}
	if up.tls != nil {
		server = net.Conn(up.tls)
		seen, _ = scram.EndPoint(up.leaf())
	}
	if _, err := server.Write(p.first); err == nil { // else the loop tries again, and sees why
		p.first = nil
		m := scram.NewMiddle(shown, seen)
		defer m.Erase()
		p.early, err = m.Run(s.rw, server, rand.Reader, middle{s, p})
		switch {
		case errors.Is(err, errSilent):
			return err
		case err != nil && !s.waiting(p): // it was turned away
			s.closeSession(p, "too_many_logins")
			return s.turnedAway()
		case err != nil:
			return s.startFailed(p, p.sess.Refuse(r.now(), refusalCode(err), err.Error(), ""))
		}
	}
	if up.tls != nil {
		up.tls.SetDeadline(time.Time{})
	}
	return nil
}

// waiting tells the crowd whom the login waits for.
func (s *starter) waiting(p *pair) bool {
	return s.relay.crowd.Waiting(s.entrant, s.relay.now(), p.sess.Asked())
}

// refusalCode is the SQLSTATE for what went wrong.
func refusalCode(err error) string {
	switch {
	case errors.Is(err, scram.ErrDowngrade), errors.Is(err, scram.ErrBinding):
		return "28000"
	case errors.Is(err, scram.ErrProof), errors.Is(err, scram.ErrSignature), errors.Is(err, scram.ErrRefused):
		return "28P01"
	}
	return "08P01"
}

// ToClient implements scram.Host.
func (m middle) ToClient(frame []byte) error {
	p, r := m.pair, m.relay
	fwd, err := p.sess.FromServer(r.now(), frame)
	if err != nil {
		return m.startFailed(p, err)
	}
	if r.cfg.Mode == BeforeReply && !r.waitDurable(p.sess.Last()) {
		return m.startFailed(p, *r.failed.Load())
	}
	m.waiting(p)
	_, _ = m.rw.Write(fwd) // if it fails, so does reading the answer
	return nil
}

// FromClient implements scram.Host.
func (m middle) FromClient(frame []byte) error {
	if _, err := m.pair.sess.FromClient(m.relay.now(), frame); err != nil {
		return m.startFailed(m.pair, err)
	}
	m.waiting(m.pair)
	if frame[0] != 'p' { // the session lets only Terminate pass
		m.closeSession(m.pair, "terminate")
		return errSilent
	}
	return nil
}

// maxName is the length to which PostgreSQL cuts names, in bytes.
const maxName = 63

// Verifier implements scram.Host.
func (m middle) Verifier() (*scram.Verifier, error) {
	r, user := m.relay, m.pair.sess.User()
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.DialTimeout)
	defer cancel()
	v, err := r.cfg.Verifiers.Verifier(ctx, user[:min(len(user), maxName)])
	if err == nil {
		return v, nil
	}
	r.log.Error("cannot read a user's verifier", "session_id", sessionID(m.pair.id), "error", err)
	return nil, m.startFailed(m.pair, m.pair.sess.Refuse(r.now(), "28000", "cannot read the verifier of this user",
		"See the diagnostics of pgnotary for the cause."))
}

// Found implements scram.Host.
func (m middle) Found(mechanism string, found, fits bool) {
	state := "none"
	if found && fits {
		state = "fits"
	} else if found {
		state = "outdated"
		if _, ok := m.relay.limits.stale.allow(m.relay.now()); ok {
			m.relay.log.Warn("a user's verifier is not the server's, or the server does not let the user log in",
				"session_id", sessionID(m.pair.id), "client", m.client)
		}
	}
	m.pair.sess.LoginFact("verifier", state)
	m.pair.sess.LoginFact("server_mechanism", mechanism)
}
