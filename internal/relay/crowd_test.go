package relay

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// dialFrom connects from an address of this host; of a Unix socket there is only one.
func dialFrom(t *testing.T, g *rig, from string) net.Conn {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial(g.Addr().Network(), g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(c) })
	c.SetDeadline(time.Now().Add(testPatience))
	return c
}

// hangUp closes a connection without a minute of TIME_WAIT, in which nobody else gets its port: crowds have as many as
// the system gives out.
func hangUp(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// TestHangingLogins has 2,000 clients stop at each place of a login. A client from elsewhere, and one from where they come
// from, logs in at once; each newcomer costs no more than one of them its place; and that is recorded and counted.
func TestHangingLogins(t *testing.T) {
	const hanging, limit = 2000, 128
	first := packet(3<<16, startup30)
	good := newAccount(t, "right")
	for _, tt := range []struct {
		name      string
		ahead     []byte // what each sends
		answer    string // what it gets
		verifiers bool
		session   bool // it has one by then
	}{
		{"silent", nil, "", false, false},
		{"half a packet", first[:20], "", false, false},
		{"behind GSSENCRequest", packet(codeGSS, ""), "N", false, false},
		{"behind SSLRequest", packet(codeSSL, ""), "S", false, false},
		{"half a handshake", []byte{0x16, 3, 1, 2, 0, 1}, "", false, false},
		{"asked for a password", first, string(authentication(3, "")), false, true},
		{"asked for SCRAM", first, string(authentication(10, offer)), true, true},
	} {
		for _, from := range []string{"127.0.0.1", "127.0.0.2", ""} {
			t.Run(tt.name+"/"+from, func(t *testing.T) {
				var asks atomic.Bool
				asks.Store(true)
				up := fakeServerFunc(t, func(c net.Conn) {
					switch {
					case !asks.Load():
						readStartup(c)
						c.Write(login)
					case tt.verifiers:
						(&scramServer{account: good}).serve(c)
					default:
						readStartup(c)
						c.Write(authentication(3, ""))
					}
					io.Copy(io.Discard, c)
				})
				cfg := Config{Upstream: up, TLS: testCertificate(t), MaxUnauthenticated: limit}
				crowd := "127.0.0.1"
				if from == "" {
					cfg.Listen, crowd = filepath.Join(t.TempDir(), "s"), ""
				}
				if tt.verifiers {
					cfg.Verifiers = users{verifier: good.verifier}
				}
				log := newMemLog(0)
				g := start(t, cfg, log)
				m := g.Metrics()
				for range hanging {
					c := dialFrom(t, g, crowd)
					c.Write(tt.ahead)
					expect(t, c, tt.answer)
				}
				waitFor(t, "crowd turned away", func() bool {
					return m.Unauthenticated.Load() == limit && m.Refused[RefusedLimit].Load() == hanging-limit
				})
				asks.Store(false)
				c := dialFrom(t, g, from)
				c.Write(first)
				expect(t, c, string(login))
				waitFor(t, "one more turned away", func() bool {
					return m.Unauthenticated.Load() == limit-1 && m.Refused[RefusedLimit].Load() == hanging-limit+1
				})
				checkTurnedAway(t, log, hanging-limit+1, tt.session)
			})
		}
	}
}

// checkTurnedAway looks for n refusals in the log: each its own, or told as suppressed.
func checkTurnedAway(t *testing.T, log *memLog, n int64, session bool) {
	t.Helper()
	var told, ended int64
	all, err := log.entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		switch {
		case l.Kind == event.KindViolation && l.SQLState == "53300":
			suppressed, _ := strconv.ParseInt(fact(l, "suppressed"), 10, 64)
			told += 1 + suppressed
		case l.Kind == event.KindDisconnect && fact(l, "reason") == "too_many_logins":
			ended++
		}
	}
	if session && ended != n || !session && (told == 0 || told > n) {
		t.Errorf("%d entries tell that %d sessions ended, and of %d connections; want %d", len(all), ended, told, n)
	}
}

// TestCrowdedOrigin has one address open connections as fast as it can. No client from elsewhere is turned away.
func TestCrowdedOrigin(t *testing.T) {
	up := fakeServerFunc(t, func(c net.Conn) {
		if bytes.Contains(readStartup(c), []byte("anna")) {
			c.Write(login)
		} else {
			c.Write(authentication(3, ""))
		}
		io.Copy(io.Discard, c)
	})
	g := start(t, Config{Upstream: up, MaxUnauthenticated: 16}, newMemLog(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for open := []net.Conn(nil); ; {
				select {
				case <-stop:
					return
				default:
				}
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
				c, err := d.Dial("tcp", g.Addr().String())
				if err != nil {
					continue
				}
				defer hangUp(c)
				if i%2 == 0 {
					c.Write(packet(3<<16, startup30))
				}
				if open = append(open, c); len(open) == 64 {
					hangUp(open[0])
					open = open[1:]
				}
			}
		})
	}
	waitFor(t, "full", func() bool { return g.Metrics().Refused[RefusedLimit].Load() > 64 })
	for i := range 40 {
		c := dialFrom(t, g, fmt.Sprintf("127.0.1.%d", 1+i))
		c.Write(packet(3<<16, "user\x00anna\x00\x00"))
		expect(t, c, string(login))
		c.Close()
	}
	close(stop)
	wg.Wait()
}

// TestServerFull has logins hang that hold all connections of a server. Each login that it refuses for that
// makes room for another.
func TestServerFull(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{
		Settings: map[string]string{"max_connections": "8", "superuser_reserved_connections": "2"},
		HBA:      "host all u all scram-sha-256\nhost all all all trust\nlocal all all trust",
	})
	owner, err := pgraw.Login(pg.Addr(), "postgres", "postgres", "")
	if err == nil {
		_, err = owner.Query("CREATE ROLE v LOGIN")
	}
	if err == nil {
		err = owner.Send(pgraw.Msg('X'))
	}
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // until the server has closed it, and has the place again
		_, err = owner.Receive()
	}
	owner.Conn.Close()
	g := start(t, Config{Upstream: pg.Addr()}, newMemLog(0))
	for range 8 {
		c := dialFrom(t, g, "127.0.0.1")
		c.Write(packet(3<<16, "user\x00u\x00database\x00postgres\x00\x00"))
		head := make([]byte, 1)
		if _, err := io.ReadFull(c, head); err != nil || head[0] != 'R' {
			t.Fatalf("%q, %v", head, err)
		}
	}
	for {
		c := dialFrom(t, g, "127.0.0.1")
		c.Write(packet(3<<16, "user\x00v\x00database\x00postgres\x00\x00"))
		head := make([]byte, 1)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if head[0] == 'R' {
			break
		}
		if n := g.Metrics().Refused[RefusedLimit].Load(); n > 4 {
			t.Fatalf("%d made room, and none got in", n)
		}
	}
	if n := g.Metrics().Refused[RefusedLimit].Load(); n < 1 || n > 4 {
		t.Errorf("%d turned away, want some", n)
	}
}

// TestBurst holds that connections that come faster than they can be turned away wait to be accepted: each has a
// descriptor, and without one the log could not be written.
func TestBurst(t *testing.T) {
	g := start(t, Config{Upstream: fakeServer(t, nil), MaxUnauthenticated: 4}, newMemLog(0))
	stop := make(chan struct{})
	most := make(chan int)
	go func() {
		n := 0
		for {
			g.starters.mu.Lock()
			n = max(n, len(g.starters.open))
			g.starters.mu.Unlock()
			select {
			case <-stop:
				most <- n
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	}()
	for range 300 {
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	waitFor(t, "all to be accepted", func() bool { return g.Metrics().Accepted.Load() == 300 })
	close(stop)
	if n := <-most; n > MaxStarting(4) {
		t.Errorf("%d connections were open that are no sessions, want no more than %d", n, MaxStarting(4))
	}
}
