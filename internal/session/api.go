package session

import "github.com/pgnotary/pgnotary/internal/event"

// Config is what a session is told at its beginning.
type Config struct {
	ID     uint64       // random, not zero
	Client string       // client address: "host:port" or "unix"
	Facts  []event.Fact // about the connection: tls, tls_cipher, sni ...
	Log    Log
}

// A Violation says why a session must end: the relay sends a FATAL
// ErrorResponse with it to the client and closes both connections. The
// violation entry is already emitted.
type Violation struct {
	Code    string // SQLSTATE
	Message string
	Hint    string // empty for none
}

func (v *Violation) Error() string { return v.Message }

// A Session follows one session. It is not safe for concurrent use.
type Session struct {
	cfg    Config
	last   int64
	ready  bool
	closed bool
}

// New begins a session.
func New(cfg Config) *Session { return &Session{cfg: cfg, last: -1} }

// Start takes the StartupMessage, its length word included, and returns what
// to send to the server in its place.
func (s *Session) Start(now int64, packet []byte) (fwd []byte, err error) { return packet, nil }

// FromClient takes bytes the client sent and returns those to send to the
// server: a slice of p or of the session's buffer, valid until the next call
// of FromClient. What is not returned yet is held.
func (s *Session) FromClient(now int64, p []byte) (fwd []byte, err error) { return p, nil }

// FromServer is FromClient for the other direction.
func (s *Session) FromServer(now int64, p []byte) (fwd []byte, err error) {
	s.ready = true
	return p, nil
}

// Blob returns the value that the relay must Sync before it calls
// FromClient(now, nil), and nothing else of FromClient; nil if there is none.
func (s *Session) Blob() Blob { return nil }

// Last returns the index of the last entry emitted, -1 if there is none.
func (s *Session) Last() int64 { return s.last }

// Ready reports whether the login is complete.
func (s *Session) Ready() bool { return s.ready }

// CancelKey returns the body of BackendKeyData, nil before it came.
func (s *Session) CancelKey() []byte { return nil }

// Full reports that so many replies are outstanding that the client must not
// be read until it is false again.
func (s *Session) Full() bool { return false }

// Boundary reports that the stream to the client stands between two messages,
// so that an ErrorResponse may be put there.
func (s *Session) Boundary() bool { return true }

// Done reports that Terminate was forwarded: nothing more comes from the client.
func (s *Session) Done() bool { return false }

// Close ends the session's record: outcomes for what is outstanding and the
// disconnect entry. Only the first call does something.
func (s *Session) Close(now int64, reason string) error { return nil }
