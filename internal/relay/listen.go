package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgnotary/pgnotary/internal/crowd"
	"github.com/pgnotary/pgnotary/internal/proxyproto"
)

// listen opens a TCP address, or a Unix socket for a name that begins with /
// or unix:. A socket file nobody listens on any more is replaced. As at PostgreSQL's
// own socket everybody may connect: who gets in is decided by the login.
func listen(addr string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix && !strings.HasPrefix(addr, "/") {
		return net.Listen("tcp", addr)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
	} else if info, gone := os.Lstat(path); errors.Is(err, syscall.ECONNREFUSED) && gone == nil && info.Mode()&os.ModeSocket != 0 {
		os.Remove(path) // if this fails, so does listening
	}
	ln, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o777)
	}
	return ln, err
}

// accept takes connections until the listener is closed.
func (r *Relay) accept() error {
	for {
		for r.starters.reach(MaxStarting(r.cfg.MaxUnauthenticated)) && !r.stopping.Load() {
			time.Sleep(time.Millisecond)
		}
		c, err := r.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Temporary() { //nolint:staticcheck // EMFILE and its like pass
				return fmt.Errorf("accept: %w", err)
			}
			r.log.Warn("cannot accept", "error", err)
			select {
			case <-r.stop:
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		r.metrics.Accepted.Add(1)
		if tc, ok := c.(*net.TCPConn); ok {
			tc.SetKeepAliveConfig(keepAlive) // TCP_NODELAY is set already
		}
		s := &starter{relay: r, conn: c, client: clientName(c), at: time.Now()}
		c.SetDeadline(s.at.Add(r.cfg.FirstPacketTimeout)) // before anybody can turn it away by an earlier one
		s.entrant = &crowd.Entrant{From: crowd.OriginOf(c.RemoteAddr()), Waits: r.now(), TurnAway: func() { c.SetReadDeadline(past) }}
		r.starters.add(s)
		r.crowd.Enter(s.entrant)
		go s.run()
	}
}

// clientName is the client's address as it is recorded.
func clientName(c net.Conn) string {
	if _, ok := c.(*net.UnixConn); ok {
		return "unix"
	}
	return c.RemoteAddr().String()
}

// past is a deadline that ends what waits for the peer.
var past = time.Unix(1, 0)

// A starterSet is the connections that are not yet, and may never be, pairs.
type starterSet struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[*starter]struct{}
	cut  bool // closeAll was called
}

// MaxStarting is how many connections that are no sessions have a descriptor at once: those that log in, and those
// that were refused and are still told why.
func MaxStarting(maxUnauthenticated int) int { return max(2*maxUnauthenticated, 64) }

// reach reports whether there are n.
func (t *starterSet) reach(n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open) >= n
}

func (t *starterSet) add(s *starter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wg.Add(1)
	t.open[s] = struct{}{}
}

func (t *starterSet) remove(s *starter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, s)
	t.wg.Done()
}

// closeAll cuts every connection, those to the server included.
func (t *starterSet) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut = true
	for s := range t.open {
		s.conn.Close()
		if s.other != nil {
			s.other.Close()
		}
	}
}

// proxied reads what a load balancer says of the connection, if it comes from one. From there it
// must be said: who could leave it out could be anybody.
func (s *starter) proxied() error {
	from, ok := s.conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !s.relay.cfg.ProxySources.Contains(from.AddrPort().Addr()) {
		return nil
	}
	h, err := proxyproto.Read(s.conn)
	switch {
	case errors.Is(err, io.EOF): // a health check that looks for an open port
		s.relay.metrics.Silent.Add(1)
		return errSilent
	case errors.Is(err, os.ErrDeadlineExceeded):
		return s.readFailed(os.ErrDeadlineExceeded, nil)
	case err != nil:
		return s.violation(nil, err.Error(), true)
	case h.Local:
		return nil // the load balancer speaks for itself
	}
	s.facts = addFact(s.facts, "proxied_by", s.client)
	switch {
	case h.Source.IsValid():
		s.client = h.Source.String()
		s.relay.crowd.Moves(s.entrant, crowd.Origin(h.Source.Addr()))
	case h.SourcePath != "":
		s.client = "unix"
	default:
		s.client = "unknown"
	}
	if h.TLS.On {
		s.facts = addFact(s.facts, "proxied_tls", h.TLS.Version)
		s.facts = addFact(s.facts, "proxied_sni", h.Authority)
		s.facts = addFact(s.facts, "proxied_tls_client", h.TLS.ClientCertCN)
	}
	return nil
}
