package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// keepAlive finds dead peers within about two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

// An upstream is a connection to the server, ready for its first packet.
type upstream struct {
	conn net.Conn // the socket
	tls  *tls.Conn
	raw  *rawConn // under tls
}

// leaf returns the certificate the server showed.
func (u *upstream) leaf() *x509.Certificate { return u.tls.ConnectionState().PeerCertificates[0] }

// ServerCertificate connects to the server and returns the certificate it shows, nil if it is
// spoken to without TLS.
func (r *Relay) ServerCertificate() (*x509.Certificate, error) {
	up, err := r.dial()
	if err != nil {
		return nil, err
	}
	defer up.conn.Close()
	if up.tls == nil {
		return nil, nil
	}
	return up.leaf(), nil
}

// dial connects to the server and agrees on TLS if that is configured.
func (r *Relay) dial() (upstream, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.DialTimeout)
	defer cancel()
	network, addr := "tcp", r.cfg.Upstream
	if strings.HasPrefix(addr, "/") {
		network = "unix"
		if info, err := os.Stat(addr); err == nil && info.IsDir() {
			addr = filepath.Join(addr, ".s.PGSQL.5432")
		}
	}
	d := net.Dialer{KeepAliveConfig: keepAlive}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return upstream{}, fmt.Errorf("connect to server: %w", err)
	}
	up := upstream{conn: conn}
	if r.cfg.UpstreamTLS == nil {
		return up, nil
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if err := up.startTLS(ctx, r.cfg.UpstreamTLS); err != nil {
		conn.Close()
		return upstream{}, fmt.Errorf("start TLS with server: %w", err)
	}
	conn.SetDeadline(time.Time{})
	return up, nil
}

// startTLS asks for TLS. Exactly one byte is read before the handshake, so
// nothing that was sent in the clear can pass for protected; the text of an
// error the server may send instead is not looked at, since anybody
// could have sent it.
func (u *upstream) startTLS(ctx context.Context, cfg *tls.Config) error {
	if _, err := u.conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return fmt.Errorf("send SSLRequest: %w", err)
	}
	var answer [1]byte
	if _, err := u.conn.Read(answer[:]); err != nil {
		return fmt.Errorf("read answer to SSLRequest: %w", err)
	}
	switch answer[0] {
	case 'S':
	case 'N':
		return errors.New("the server does not offer TLS")
	default:
		return fmt.Errorf("the server answered SSLRequest with byte 0x%02x", answer[0])
	}
	u.raw = &rawConn{Conn: u.conn}
	u.tls = tls.Client(u.raw, cfg)
	if err := u.tls.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return nil
}

// takeFD turns a connection into its bare non-blocking descriptor, which the
// Go poller does not know, and closes c.
func takeFD(c net.Conn) (int, error) {
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("get descriptor: %w", err)
	}
	fd := -1
	var errno syscall.Errno
	err = raw.Control(func(from uintptr) {
		n, _, e := syscall.Syscall(syscall.SYS_FCNTL, from, syscall.F_DUPFD_CLOEXEC, 0)
		fd, errno = int(n), e
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor: %w", err)
	}
	return fd, nil
}
