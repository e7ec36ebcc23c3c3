package relay

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/session"
)

// alpn is the protocol name that keeps other protocols' TLS traffic out.
const alpn = "postgresql"

// clientTLS prepares c for the connections of clients. Sessions are never resumed, as with
// PostgreSQL itself, so each handshake shows a certificate, which rawConn.shown keeps.
func clientTLS(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{alpn}
	c.DynamicRecordSizingDisabled = true
	c.SessionTicketsDisabled = true
	get := c.GetCertificate
	if get == nil {
		only := c.Certificates[0]
		if only.Leaf == nil {
			only.Leaf, _ = x509.ParseCertificate(only.Certificate[0]) // if it fails, so do all handshakes
		}
		get = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &only, nil }
	}
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(hello)
		if raw, ok := hello.Conn.(*rawConn); ok && err == nil {
			raw.shown = cert.Leaf
		}
		return cert, err
	}
	c.Certificates = nil
	return c
}

func serverTLS(c *tls.Config, upstream string) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{alpn}
	c.DynamicRecordSizingDisabled = true
	if host, _, err := net.SplitHostPort(upstream); err == nil && c.ServerName == "" && !strings.HasPrefix(upstream, "/") {
		c.ServerName = host
	}
	return c
}

// errWouldBlock is what a leg's Read returns when the socket is empty. It is a
// temporary net.Error, so crypto/tls keeps what it has of a record and goes on
// at the next Read.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "no data yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }
func (wouldBlock) Unwrap() error   { return os.ErrDeadlineExceeded }

// A rawConn is the connection under a tls.Conn: the real one during the
// handshake, and afterwards the bare socket of a leg in an event loop. There
// Read never waits and Write only collects records for the loop to send.
type rawConn struct {
	net.Conn                   // nil once attached
	pre      []byte            // read already, before Conn
	shown    *x509.Certificate // what the peer was shown; nil on the server's leg

	fd     int
	loop   *loop
	budget int // calls of recv allowed before the next readiness event
}

// readBudget bounds how long one TLS leg may keep its loop per event.
const readBudget = 8

// attach moves c from its connection to the socket fd, owned by l.
func (c *rawConn) attach(fd int, l *loop) { c.Conn, c.shown, c.fd, c.loop = nil, nil, fd, l }

func (c *rawConn) Read(b []byte) (int, error) {
	if len(c.pre) > 0 {
		n := copy(b, c.pre)
		c.pre = c.pre[n:]
		return n, nil
	}
	if c.loop == nil {
		return c.Conn.Read(b)
	}
	if c.budget <= 0 {
		return 0, errWouldBlock
	}
	n, errno := recv(c.fd, b)
	switch {
	case errno == syscall.EAGAIN:
		c.budget = 0
		return 0, errWouldBlock
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	c.budget--
	if n < len(b) {
		c.budget = 0 // the socket is empty: no need to ask it
	}
	return n, nil
}

func (c *rawConn) Write(b []byte) (int, error) {
	if c.loop == nil {
		return c.Conn.Write(b)
	}
	c.loop.records = append(c.loop.records, b...)
	return len(b), nil
}

// SetWriteDeadline does nothing once attached, where an alert never waits. crypto/tls calls none
// of the other methods then.
func (c *rawConn) SetWriteDeadline(t time.Time) error {
	if c.Conn != nil {
		return c.Conn.SetWriteDeadline(t)
	}
	return nil
}

// tlsFacts says what a client's TLS is, for its connect entry.
func tlsFacts(facts []event.Fact, s tls.ConnectionState) []event.Fact {
	facts = append(facts,
		event.Fact{Key: "tls", Val: strings.Replace(tls.VersionName(s.Version), " ", "v", 1)}, // as PostgreSQL writes it
		event.Fact{Key: "tls_cipher", Val: tls.CipherSuiteName(s.CipherSuite)})
	facts = addFact(facts, "tls_alpn", s.NegotiatedProtocol)
	facts = addFact(facts, "sni", s.ServerName)
	if len(s.PeerCertificates) > 0 {
		cert := s.PeerCertificates[0]
		sum := sha256.Sum256(cert.Raw)
		facts = addFact(facts, "tls_client", cert.Subject.String())
		facts = addFact(facts, "tls_client_issuer", cert.Issuer.String())
		facts = addFact(facts, "tls_client_sha256", hex.EncodeToString(sum[:]))
	}
	return facts
}

// maxFact bounds what a stranger can put into a fact, in bytes.
const maxFact = 128

func addFact(facts []event.Fact, key, val string) []event.Fact {
	if val == "" {
		return facts
	}
	return append(facts, event.Fact{Key: key, Val: val[:min(len(val), maxFact)]})
}

// CertPolicy says what client certificates are for. They are verified by
// Config.TLS; the words are those of pg_hba.conf.
type CertPolicy uint8

// The policies.
const (
	CertOptional   CertPolicy = iota // recorded, if a client has one
	CertVerifyCA                     // a client must have one
	CertVerifyFull                   // and its common name must be the user's
)

// checkCertificate refuses a login without the certificate it needs.
func (s *starter) checkCertificate(sess *session.Session) error {
	switch policy := s.relay.cfg.ClientCert; {
	case policy == CertOptional:
		return nil
	case s.peer == nil:
		return sess.Refuse(s.relay.now(), "28000", "connection requires a valid client certificate", "")
	case policy == CertVerifyFull && s.peer.Subject.CommonName != sess.User():
		return sess.Refuse(s.relay.now(), "28000", "the client's certificate is not one of this user", "Its common name must be the name of the user.")
	}
	return nil
}

// unbindableHint is for a client whose login binds to the certificate it sees.
const unbindableHint = "Give pgnotary the server's certificate and key, or set auth-file or auth-user, or connect with channel_binding=disable."

// isEnd reports that err is a peer's end of stream rather than a failure.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
