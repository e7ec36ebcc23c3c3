package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// alpn is the protocol name that keeps other protocols' TLS traffic out.
const alpn = "postgresql"

func clientTLS(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{alpn}
	c.DynamicRecordSizingDisabled = true
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
	net.Conn        // nil once attached
	pre      []byte // read already, before Conn

	fd     int
	loop   *loop
	budget int // calls of recv allowed before the next readiness event
}

// readBudget bounds how long one TLS leg may keep its loop per event.
const readBudget = 8

// attach moves c from its connection to the socket fd, owned by l.
func (c *rawConn) attach(fd int, l *loop) { c.Conn, c.fd, c.loop = nil, fd, l }

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

// Close and the deadlines do nothing once attached: the leg owns the socket.
func (c *rawConn) Close() error {
	if c.Conn != nil {
		return c.Conn.Close()
	}
	return nil
}

func (c *rawConn) SetDeadline(t time.Time) error {
	if c.Conn != nil {
		return c.Conn.SetDeadline(t)
	}
	return nil
}

func (c *rawConn) SetReadDeadline(t time.Time) error {
	if c.Conn != nil {
		return c.Conn.SetReadDeadline(t)
	}
	return nil
}

func (c *rawConn) SetWriteDeadline(t time.Time) error {
	if c.Conn != nil {
		return c.Conn.SetWriteDeadline(t)
	}
	return nil
}

// tlsFacts says what a client's TLS is, for its connect entry.
func tlsFacts(facts []event.Fact, s tls.ConnectionState) []event.Fact {
	version := map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}[s.Version]
	if version == "" {
		version = tls.VersionName(s.Version)
	}
	facts = append(facts,
		event.Fact{Key: "tls", Val: version},
		event.Fact{Key: "tls_cipher", Val: tls.CipherSuiteName(s.CipherSuite)})
	if s.ServerName != "" {
		facts = append(facts, event.Fact{Key: "sni", Val: s.ServerName})
	}
	if len(s.PeerCertificates) > 0 {
		facts = append(facts, event.Fact{Key: "tls_client", Val: s.PeerCertificates[0].Subject.String()})
	}
	return facts
}

// isEnd reports that err is a peer's end of stream rather than a failure.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
