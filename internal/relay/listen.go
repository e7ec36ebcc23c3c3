package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/proxyproto"
)

// listen opens a TCP address, or a Unix socket for a name that begins with /
// or unix:. A socket file nobody listens on any more is replaced.
func listen(addr string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix && !strings.HasPrefix(addr, "/") {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		return ln, nil
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("listen for clients: %s is in use", path)
		}
		os.Remove(path) // if this fails, so does listening
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return ln, nil
}

// accept takes connections until the listener is closed.
func (r *Relay) accept() error {
	for {
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
		c.SetDeadline(s.at.Add(r.cfg.FirstPacketTimeout)) // before anybody can evict it by an earlier one
		s.evict = r.starters.add(s, r.metrics.Unauthenticated.Add(1) > int64(r.cfg.MaxUnauthenticated))
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

// A starterSet is the connections that are not yet, and may never be, pairs.
type starterSet struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[*starter]struct{}
	cut  bool // closeAll was called
}

// add registers s. If there are too many, the oldest connection that has not
// sent its first packet is returned, to be turned away; s itself if there is none other.
func (t *starterSet) add(s *starter, tooMany bool) (evict *starter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wg.Add(1)
	if tooMany {
		evict = s
		for o := range t.open {
			if o.silent && (evict == s || o.at.Before(evict.at)) {
				evict = o
			}
		}
		evict.silent = false
	}
	s.silent = evict != s
	t.open[s] = struct{}{}
	return evict
}

// spoke notes that the client's first packet is there: it is not evicted any
// more. It reports false if it was evicted already.
func (t *starterSet) spoke(s *starter) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := s.silent
	s.silent = false
	return was
}

func (t *starterSet) remove(s *starter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, s)
	t.wg.Done()
}

// closeWaiting cuts connections that have not sent their first packet.
func (t *starterSet) closeWaiting() { t.close(func(s *starter) bool { return s.silent }) }

// closeAll cuts every connection, those to the server included.
func (t *starterSet) closeAll() {
	t.mu.Lock()
	t.cut = true
	t.mu.Unlock()
	t.close(func(*starter) bool { return true })
}

func (t *starterSet) close(which func(*starter) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.open {
		if which(s) {
			s.conn.Close()
			if s.other != nil {
				s.other.Close()
			}
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
