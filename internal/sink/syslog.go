package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout  = 10 * time.Second
	sendTimeout  = 30 * time.Second
	syslogSettle = 3 * time.Second
	// Facility 13 is "log audit".
	facility      = 13
	severityError = 3
	severityInfo  = 6
)

// syslog sends RFC 5424 messages over TLS (RFC 5425) or TCP, each with its
// length in front (RFC 6587).
//
// The protocol acknowledges nothing. Send returns once the receiver's kernel
// has everything; what was sent in the last Settle before a connection broke
// is sent again.
type syslog struct {
	address string
	tls     *tls.Config // nil for TCP in the clear
	host    string
	version string

	conn   net.Conn
	raw    *net.TCPConn
	broken chan struct{} // closed when the receiver has closed
}

// NewSyslog returns a target for a syslog receiver at host:port. tlsConfig nil
// means TCP in the clear; host is this machine's name.
func NewSyslog(address string, tlsConfig *tls.Config, host, version string) Target {
	return &syslog{address: address, tls: tlsConfig, host: header(host, 255), version: version}
}

func (s *syslog) Settle() time.Duration { return syslogSettle }

func (s *syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn, s.raw = nil, nil
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// dial connects, if there is no connection that works.
func (s *syslog) dial(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	s.raw, _ = c.(*net.TCPConn)
	if s.tls != nil {
		conf := s.tls.Clone()
		if conf.ServerName == "" {
			if conf.ServerName, _, err = net.SplitHostPort(s.address); err != nil {
				return errors.Join(err, c.Close())
			}
		}
		secure := tls.Client(c, conf)
		hello, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := secure.HandshakeContext(hello); err != nil {
			return errors.Join(err, c.Close())
		}
		c = secure
	}
	s.conn, s.broken = c, make(chan struct{})
	go func(c net.Conn, broken chan struct{}) { // ends with the connection
		defer close(broken)
		var b [64]byte
		for {
			if _, err := c.Read(b[:]); err != nil { // receivers say nothing
				return
			}
		}
	}(c, s.broken)
	return nil
}

func (s *syslog) Send(ctx context.Context, records []Record) error {
	if err := s.dial(ctx); err != nil {
		return err
	}
	var frames []byte
	for i := range records {
		m := s.message(&records[i])
		frames = append(strconv.AppendInt(frames, int64(len(m)), 10), ' ')
		frames = append(frames, m...)
	}
	err := s.write(ctx, frames)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

func (s *syslog) write(ctx context.Context, frames []byte) error {
	deadline := time.Now().Add(sendTimeout)
	_ = s.conn.SetWriteDeadline(deadline) // of a TCP connection it does not fail
	if _, err := s.conn.Write(frames); err != nil {
		return err
	}
	for {
		select {
		case <-s.broken:
			return errors.New("the receiver closed the connection")
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		n, err := s.unacknowledged()
		if n == 0 || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d bytes were not acknowledged within %s", n, sendTimeout)
		}
		if !sleep(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}

// unacknowledged returns the bytes that the receiver's kernel has not yet.
func (s *syslog) unacknowledged() (n int, err error) {
	raw, err := s.raw.SyscallConn()
	if err != nil {
		return 0, err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) { n, ioctlErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n, errors.Join(err, ioctlErr)
}

// message writes a record as RFC 5424 has it:
//
//	<PRI>1 TIME HOST pgnotary - KIND [origin …][meta …] BODY
//
// The body holds the log's origin and the index, in every format.
func (s *syslog) message(r *Record) []byte {
	severity := severityInfo
	if r.Failed {
		severity = severityError
	}
	at := time.Unix(0, r.Time).UTC().Format("2006-01-02T15:04:05.000000Z")
	// sequenceId is of 31 bits, from 1 on.
	m := fmt.Appendf(nil, `<%d>1 %s %s pgnotary - %s [origin software="pgnotary" swVersion="%s"][meta sequenceId="%d"] `,
		facility*8+severity, at, s.host, header(string(r.Kind), 32), param(s.version), r.Index%(1<<31-1)+1)
	return append(m, r.Body...)
}

// header makes a text a field of the header: printable ASCII, not empty.
func header(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// param escapes the value of a parameter of structured data.
func param(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(s)
}
