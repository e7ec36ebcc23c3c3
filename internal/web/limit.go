package web

import (
	"net"
	"sync"
)

// MaxConns is how many connections are open at once. More wait: whoever can reach
// the HTTP address must not use up the files that the log and the sessions need.
const MaxConns = 256

// A limitedListener accepts while there are slots.
type limitedListener struct {
	net.Listener
	free   slots
	closed chan struct{}
	once   sync.Once
}

func limited(ln net.Listener) *limitedListener {
	return &limitedListener{Listener: ln, free: make(slots, MaxConns), closed: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, free: l.free}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A limitedConn gives its slot back when it is closed.
type limitedConn struct {
	net.Conn
	free slots
	once sync.Once
}

func (c *limitedConn) Close() error {
	defer c.once.Do(func() { <-c.free })
	return c.Conn.Close()
}
