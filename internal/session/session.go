// Package session follows one session of the PostgreSQL wire protocol: it
// takes the bytes of both directions, says which entries to record and gives
// the bytes back that may pass on.
//
// It does no I/O, starts no goroutine and knows no clock, so that a session
// can be replayed, table-tested and fuzzed in memory. It forwards the bytes it
// was given, never an encoding of its own, except for the start-up packet and
// NegotiateProtocolVersion of a client newer than the proxy. What cannot be
// followed is refused, not passed on in hope.
//
//	phase     client may send                          ends with
//	auth      p while the server asks; else as ready   first ReadyForQuery
//	ready     every frontend message but p             Terminate, violation, Close
//	closing   nothing that counts; maybe before login  Close
//	dead      nothing; nothing is given back           Close
//
// Order rules everything: each frontend message that gets a reply stands in a
// queue (queue.go), and each backend message belongs to its head. An admission
// is recorded before the message is given back by FromClient, an outcome before
// the reply is given back by FromServer, so whoever forwards only needs to
// wait for the entry Last names.
//
// Source: PostgreSQL documentation, "Frontend/Backend Protocol".
package session

import (
	"strings"

	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/event"
)

// A Log takes the entries a session makes. The session calls it in the order
// the entries have in the log; value is only valid during the call.
type Log interface {
	// Emit records an entry; a nil value means it has none. It returns the
	// entry's index in the log.
	Emit(l *event.Leaf, value []byte) (index int64, err error)
	// NewBlob begins a value too large for memory.
	NewBlob() (Blob, error)
	// EmitBlob records an entry whose value is a blob the relay has synced.
	EmitBlob(l *event.Leaf, b Blob) (index int64, err error)
}

// A Blob is a large value on its way into the log.
type Blob interface {
	// Write appends to the value.
	Write(p []byte) (int, error)
	// Sync ends the value and makes it durable; it may take long and is
	// called by the relay, never by the session.
	Sync() error
	// Abort throws an unfinished value away.
	Abort()
}

// Config is what a session is told at its beginning.
type Config struct {
	ID     uint64       // random, not zero
	Client string       // client address: "host:port" or "unix"
	Facts  []event.Fact // about the connection: tls, tls_cipher, sni ...
	Log    Log
	// Content says how much is kept of the rows of results, and of the data of
	// COPYs. nil counts rows and has a digest of the data.
	Content func(user, database string) (results, copies content.Mode)
}

// A Violation says why a session must end: the relay sends a FATAL
// ErrorResponse with it to the client and closes both connections. The
// entry about it is already emitted: violation, or auth of a login that is refused.
type Violation struct {
	Code    string // SQLSTATE
	Message string
	Hint    string // empty for none
}

func (v *Violation) Error() string { return v.Message }

// OfLogin reports that the peer kept to the protocol, but may not log in.
func (v *Violation) OfLogin() bool { return strings.HasPrefix(v.Code, "28") }

type phase uint8

const (
	phaseAuth    phase = iota // until the first ReadyForQuery
	phaseReady                // statements
	phaseClosing              // Terminate was forwarded
	phaseDead                 // a violation, or recording failed
)

// A Session follows one session. It is not safe for concurrent use.
type Session struct {
	cfg   Config
	who   event.Who
	now   int64
	seq   uint64
	last  int64 // index of the last entry
	phase phase
	over  bool  // Close was called
	runs  bool  // a text that may EXECUTE was sent
	err   error // what ended recording

	login  login
	client clientSide
	server serverSide

	queue    queue
	names    names
	copy     copyState
	rows     *content.Flow // of the result coming in, unless they are only counted
	results  content.Mode
	copies   content.Mode
	settings settings
	work     work
	tags     tagCache
	leaf     event.Leaf // the leaf being emitted
}

// New begins a session.
func New(cfg Config) *Session {
	s := &Session{cfg: cfg, last: -1, copies: content.Digest}
	s.work.reset()
	return s
}

// Last returns the index of the last entry emitted, -1 if there is none.
func (s *Session) Last() int64 { return s.last }

// Ready reports whether the login is complete.
func (s *Session) Ready() bool { return s.phase == phaseReady || s.login.done }

// Asked reports that the login goes on only when the client has answered the server.
func (s *Session) Asked() bool { return s.login.asked }

// ServerFull reports that the server refused the login because it has no connection left.
func (s *Session) ServerFull() bool { return s.login.full }

// CancelKey returns the body of BackendKeyData, nil before it came.
func (s *Session) CancelKey() []byte { return s.login.key }

// Full reports that so many replies are outstanding that the client must not
// be read until it is false again.
func (s *Session) Full() bool { return s.queue.len() >= maxQueue }

// Idle reports that the session is between transactions and nothing is
// outstanding, so that ending it now undoes nobody's work.
func (s *Session) Idle() bool {
	return s.login.done && s.work.tx == 'I' && s.queue.idle() && len(s.client.held) == s.client.given && s.client.stream.left == 0
}

// Boundary reports that the stream to the client stands between two messages,
// so that an ErrorResponse may be put there.
func (s *Session) Boundary() bool { return s.server.skip == 0 }

// Done reports that Terminate was forwarded: nothing more comes from the client.
func (s *Session) Done() bool { return s.phase == phaseClosing }

// entry returns the leaf to fill in for the next entry.
func (s *Session) entry(kind event.Kind) *event.Leaf {
	s.leaf = event.Leaf{Kind: kind}
	return &s.leaf
}

// emit records the leaf that entry returned, and returns its index. value nil means there is none.
func (s *Session) emit(value []byte) int64 {
	if value != nil {
		s.leaf.HasValue, s.leaf.Size = true, int64(len(value))
	}
	return s.record(value, nil)
}

// record is emit for a leaf that says what it has for a value, perhaps a synced blob. When it has failed once,
// nothing more is recorded, and nothing passes.
func (s *Session) record(value []byte, b Blob) (index int64) {
	if s.err != nil {
		return -1
	}
	s.seq++
	s.leaf.Time, s.leaf.Session, s.leaf.Seq = s.now, s.cfg.ID, s.seq
	var err error
	if b == nil {
		index, err = s.cfg.Log.Emit(&s.leaf, value)
	} else {
		index, err = s.cfg.Log.EmitBlob(&s.leaf, b)
	}
	s.leaf.Msgs, s.leaf.Tags, s.leaf.Types, s.leaf.Facts = nil, nil, nil, nil
	if err != nil {
		s.fail(err)
		return -1
	}
	s.last = index
	return index
}

// fail ends the session because recording failed; whoever passes bytes on looks at s.err.
func (s *Session) fail(err error) { s.phase, s.err = phaseDead, err }

// violate records that a peer broke the protocol and ends the session. at is
// the offending place, of which up to 64 bytes are kept; nil keeps nothing.
func (s *Session) violate(code, message string, at []byte) error {
	s.flush()
	if !s.login.done {
		at = nil // it might be a password
	}
	l := s.entry(event.KindViolation)
	l.Who = &s.who
	l.SQLState = code
	l.Facts = []event.Fact{{Key: "reason", Val: message}}
	if at != nil {
		at = at[:min(len(at), 64)]
	}
	if s.emit(at); s.err != nil {
		return s.err
	}
	s.phase = phaseDead
	return &Violation{Code: code, Message: message}
}
