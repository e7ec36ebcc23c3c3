package relay

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// TestCancelBruteForce guesses cancel keys: each guess is answered like any other, none reaches the server, and
// the log is not flooded, though it says how many there were.
func TestCancelBruteForce(t *testing.T) {
	const guesses = 20_000
	reached := make(chan struct{}, guesses)
	up := fakeServerFunc(t, func(c net.Conn) {
		if b := readStartup(c); len(b) >= 4 && b[0] == 0x04 { // 80877102, not 3.0
			reached <- struct{}{}
		}
		c.Write(login)
		io.Copy(io.Discard, c)
	})
	log := newMemLog(0)
	g := start(t, Config{Upstream: up, Listen: filepath.Join(t.TempDir(), "s")}, log) // a socket: TCP would run out of ports
	dial := func() net.Conn {
		c, err := net.Dial("unix", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(testPatience))
		return c
	}
	victim := dial()
	victim.Write(packet(3<<16, startup30))
	expect(t, victim, string(login))
	waitFor(t, "login", func() bool { return g.Metrics().Unauthenticated.Load() == 0 })
	began := time.Now()
	for range guesses {
		c := dial()
		var key [8]byte
		rand.Read(key[:])
		key[0] |= 0x80 // not the victim's, which is 1, 2
		c.Write(packet(codeCancel, string(key[:])))
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Fatalf("a guess is answered with %q, %v", b, err)
		}
		c.Close()
	}
	seconds := int64(time.Since(began)/time.Second) + 2
	all, err := log.entries()
	if err != nil {
		t.Fatal(err)
	}
	entries, told := int64(0), int64(0)
	for _, l := range all {
		if l.Kind == event.KindViolation {
			n, _ := strconv.ParseInt(fact(l, "suppressed"), 10, 64)
			entries, told = entries+1, told+1+n
		}
	}
	if entries > 10*seconds || entries == 0 || told > guesses {
		t.Errorf("%d entries tell of %d guesses in %d s, want at most 10 a second", entries, told, seconds)
	}
	if n := g.Metrics().CancelsUnknown.Load(); n != guesses {
		t.Errorf("%d guesses counted, want %d", n, guesses)
	}
	if len(reached) > 0 {
		t.Errorf("%d guesses reached the server", len(reached))
	}
	victim.SetDeadline(time.Time{})
	victim.Write(query("select 1"))
	waitFor(t, "the victim's statement", func() bool { return g.Metrics().Statements.Load() == 1 })
}

// TestHalfHandshake begins a TLS handshake and leaves it at that.
func TestHalfHandshake(t *testing.T) {
	for _, ahead := range [][]byte{packet(codeSSL, ""), {0x16, 3, 1, 2, 0, 1}} {
		t.Run(strconv.Itoa(len(ahead)), func(t *testing.T) {
			t.Parallel() // both wait for the end of their time, which has room for a slow machine
			log := newMemLog(0)
			g := start(t, Config{Upstream: "127.0.0.1:1", TLS: testCertificate(t), FirstPacketTimeout: 2 * time.Second}, log)
			c := dialLogin(t, g, ahead, nil)
			if b, _ := io.ReadAll(c); len(b) > 1 {
				t.Errorf("got %q", b)
			}
			entry(t, log, event.KindViolation)
			waitFor(t, "no connection left", func() bool { return g.Metrics().Unauthenticated.Load() == 0 })
		})
	}
}

// TestSlowLogins has clients that never answer the server: their time is limited.
func TestSlowLogins(t *testing.T) {
	g := start(t, Config{Upstream: fakeServer(t, authentication(3, "")), LoginTimeout: 2 * time.Second}, newMemLog(0))
	for range 20 {
		dialLogin(t, g, packet(3<<16, startup30), nil)
	}
	waitFor(t, "all out of time", func() bool {
		return g.Metrics().Refused[RefusedTimeout].Load() == 20 && g.Metrics().Unauthenticated.Load() == 0
	})
}

// TestShutdownInLogin ends the proxy while a login that it ends itself waits for the client.
func TestShutdownInLogin(t *testing.T) {
	good := newAccount(t, "right")
	g := start(t, Config{Upstream: fakeServerFunc(t, (&scramServer{account: good}).serve), Verifiers: users{verifier: good.verifier}}, newMemLog(0))
	c := dialLogin(t, g, packet(3<<16, startup30), nil)
	expect(t, c, string(authentication(10, offer)))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	g.Shutdown(ctx)
	if err := <-g.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if l := entry(t, g.log, event.KindDisconnect); fact(*l, "reason") != "shutdown" {
		t.Errorf("disconnect: %v", l.Facts)
	}
}
