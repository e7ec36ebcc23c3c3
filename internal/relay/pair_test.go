package relay

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// These tests script both peers byte by byte.

func message(typ byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))
	return append(b, body...)
}

// short keeps what a failing test prints within bounds.
func short(b []byte) string {
	if len(b) > 200 {
		return string(b[:200]) + "..."
	}
	return string(b)
}

func query(sql string) []byte { return message('Q', sql+"\x00") }

var answer1 = append(message('C', "SELECT 1\x00"), message('Z', "I")...)

// dialRig connects and logs in.
func dialRig(t testing.TB, g *rig) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(testPatience))
	c.Write(packet(3<<16, startup30))
	expect(t, c, string(login))
	return c
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %d bytes %q, %v, want %d %q", n, short(got[:n]), err, len(want), short([]byte(want)))
	}
}

// quiet checks that nothing comes for a while.
func quiet(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	defer c.SetReadDeadline(time.Now().Add(testPatience))
	var b [100]byte
	if n, err := c.Read(b[:]); n > 0 || !errors.Is(err, errDeadline) {
		t.Fatalf("got %q, %v, want silence", b[:n], err)
	}
}

var errDeadline = errWouldBlock.(interface{ Unwrap() error }).Unwrap()

// scripted is a server whose connections the test holds, logged in.
func scripted(t testing.TB) (addr string, conns chan net.Conn) {
	conns = make(chan net.Conn, 10)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	return fakeServerFunc(t, func(c net.Conn) {
		readStartup(c)
		c.Write(login)
		c.SetDeadline(time.Now().Add(testPatience))
		conns <- c
		<-done
	}), conns
}

// TestHeld checks who waits for an entry that is not durable.
func TestHeld(t *testing.T) {
	tests := []struct {
		mode           Mode
		server, client bool // waits
	}{
		{BeforeForward, true, false},
		{BeforeReply, false, true},
		{Async, false, false},
	}
	for _, tt := range tests {
		log := newMemLog(0)
		up, conns := scripted(t)
		g := start(t, Config{Upstream: up, Mode: tt.mode}, log)
		c := dialRig(t, g)
		s := <-conns
		log.hold()
		q := query("select 1")
		c.Write(q)
		if tt.server {
			quiet(t, s)
			log.stuck.Store(false)
		}
		expect(t, s, string(q))
		if !tt.client {
			log.stuck.Store(false)
		}
		s.Write(answer1)
		if tt.client {
			quiet(t, c)
			log.stuck.Store(false)
		}
		expect(t, c, string(answer1))

		// A statement still held when the client goes is complete: it runs.
		log.hold()
		n := log.count.Load()
		c.Write(q)
		waitFor(t, "the statement's entry", func() bool { return log.count.Load() > n })
		c.Close()
		log.stuck.Store(false)
		if b, err := io.ReadAll(s); err != nil || !bytes.Equal(b, q) {
			t.Errorf("mode %d: after the client went the server got %q, %v", tt.mode, b, err)
		}
	}
}

// TestStartupHeld: the server hears nothing of a session that is not recorded.
func TestStartupHeld(t *testing.T) {
	log := newMemLog(0)
	got := make(chan byte, 1)
	up := fakeServerFunc(t, func(c net.Conn) {
		var b [1]byte
		io.ReadFull(c, b[:])
		got <- b[0]
	})
	g := start(t, Config{Upstream: up}, log)
	log.hold()
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(packet(3<<16, startup30))
	select {
	case <-got:
		t.Error("the server got the start-up packet before it was recorded")
	case <-time.After(100 * time.Millisecond):
	}
	log.stuck.Store(false)
	<-got
}

// TestByteByByte sends each byte alone, with and without TLS.
func TestByteByByte(t *testing.T) {
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up, TLS: testCertificate(t)}, newMemLog(0))
	for _, direct := range []bool{false, true} {
		var c net.Conn
		var err error
		if direct {
			c, err = tls.Dial("tcp", g.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
		} else {
			c, err = net.Dial("tcp", g.Addr().String())
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		q := append(query("select 1"), query("select 2")...)
		drip := func(to net.Conn, b []byte) {
			for i := range b {
				to.Write(b[i : i+1])
			}
		}
		drip(c, append(packet(3<<16, startup30), q...))
		expect(t, c, string(login))
		s := <-conns
		expect(t, s, string(q))
		drip(s, append(answer1, answer1...))
		expect(t, c, string(answer1)+string(answer1))
	}
}

// TestSlowServer has a TLS client send more than anybody takes: when the server
// reads again, what lies in the TLS layer must go on, too.
func TestSlowServer(t *testing.T) {
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up, TLS: testCertificate(t)}, newMemLog(0))
	c, err := tls.Dial("tcp", g.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(packet(3<<16, startup30))
	expect(t, c, string(login))
	s := <-conns
	// Not multiples of a record or of a buffer.
	for _, size := range []int{1, 100, 3<<20 + 12345, 7<<20 + 1} {
		all := bytes.Repeat(query("select "+strings.Repeat("x", 9990)), 1+size/10000)
		go c.Write(all)
		time.Sleep(100 * time.Millisecond)
		expect(t, s, string(all))
		for range 1 + size/10000 {
			s.Write(answer1)
		}
		expect(t, c, strings.Repeat(string(answer1), 1+size/10000))
	}
}

// TestPanic ends one session, and only that.
func TestPanic(t *testing.T) {
	log := newMemLog(0)
	log.panicOn = "bomb"
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up}, log)
	c, other := dialRig(t, g), dialRig(t, g)
	s, s2 := <-conns, <-conns
	c.Write(query("bomb"))
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("client got %q", short(b))
	}
	other.Write(query("select 1"))
	// Which of the two is the other's server is not known.
	got := make(chan string, 2)
	for _, s := range []net.Conn{s, s2} {
		go func() {
			b := make([]byte, 100)
			n, _ := s.Read(b)
			got <- string(b[:n])
		}()
	}
	if a := <-got + <-got; a != string(query("select 1")) {
		t.Errorf("servers got %q", a)
	}
	waitFor(t, "one session left", func() bool { return g.Metrics().SessionsOpen.Load() == 1 })
	all, err := log.entries()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range all {
		if l.Kind == event.KindViolation && fact(l, "reason") == "internal error" && fact(l, "session") != "" {
			n++
		}
	}
	if n != 1 || g.Metrics().Panics.Load() != 1 {
		t.Errorf("%d entries, %d counted, want 1 and 1", n, g.Metrics().Panics.Load())
	}
}

// TestPipelined has statements become durable one by one.
func TestPipelined(t *testing.T) {
	for _, inline := range []bool{false, true} {
		pipelined(t, inline)
	}
}

func pipelined(t *testing.T, inline bool) {
	log := newMemLog(0)
	log.inline = inline
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up}, log)
	c := dialRig(t, g)
	s := <-conns
	var all []byte
	for i := range 2000 {
		q := query("select " + strings.Repeat("x", i%500))
		all = append(all, q...)
	}
	go func() {
		for b := all; len(b) > 0; {
			n := min(len(b), 700)
			c.Write(b[:n])
			b = b[n:]
		}
	}()
	expect(t, s, string(all))
	for range 2000 {
		s.Write(answer1)
	}
	expect(t, c, strings.Repeat(string(answer1), 2000))
}

func TestRecordingFails(t *testing.T) {
	for _, mode := range []Mode{BeforeForward, BeforeReply, Async} {
		for _, tt := range []struct {
			err  error
			code string
		}{{errors.New("input/output error"), "58030"}, {syscall.ENOSPC, "53100"}} {
			log := newMemLog(0)
			up, conns := scripted(t)
			g := start(t, Config{Upstream: up, Mode: mode}, log)
			c, idle := dialRig(t, g), dialRig(t, g)
			s := <-conns
			<-conns
			log.hold()
			q := query("select 1")
			c.Write(q)
			if mode == BeforeForward {
				quiet(t, s)
			} else {
				expect(t, s, string(q))
				if mode == BeforeReply {
					s.Write(answer1)
					quiet(t, c)
				}
			}
			log.fail(tt.err)
			for _, c := range []net.Conn{c, idle} {
				got, err := io.ReadAll(c)
				if err != nil {
					t.Error(err)
				}
				if len(got) == 0 || got[0] != 'E' {
					t.Fatalf("mode %d: got %q, want nothing but the error", mode, got)
				}
				checkReply(t, string(got), tt.code)
				c.Close()
			}
			if b, _ := io.ReadAll(s); len(b) > 0 {
				t.Errorf("mode %d: server got %q", mode, short(b))
			}
			if err := <-g.served; !errors.Is(err, tt.err) {
				t.Errorf("serve returned %v", err)
			}
		}
	}
}

func TestAppendFails(t *testing.T) {
	log := newMemLog(0)
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up}, log)
	c := dialRig(t, g)
	s := <-conns
	log.mu.Lock()
	log.err = syscall.EIO
	log.mu.Unlock()
	c.Write(query("select 1"))
	got, _ := io.ReadAll(c)
	c.Close()
	checkReply(t, string(got), "58030")
	if b, _ := io.ReadAll(s); len(b) > 0 {
		t.Errorf("server got %q", short(b))
	}
	if err := <-g.served; !errors.Is(err, syscall.EIO) {
		t.Errorf("serve returned %v", err)
	}
}

// TestViolation: what came before the offence runs, the rest does not, and a
// client that goes on sending still gets the error.
func TestViolation(t *testing.T) {
	for _, mode := range []Mode{BeforeForward, BeforeReply} {
		log := newMemLog(0)
		up, conns := scripted(t)
		g := start(t, Config{Upstream: up, Mode: mode}, log)
		c := dialRig(t, g)
		s := <-conns
		c.Write(append(query("select 1"), "\xff\x00\x00\x00\x04rest"...))
		for range 10 { // well within drainTime, on a slow machine too
			c.Write(make([]byte, 10_000))
			time.Sleep(time.Millisecond)
		}
		if b, err := io.ReadAll(s); err != nil || !bytes.Equal(b, query("select 1")) {
			t.Errorf("mode %d: server got %q, %v", mode, short(b), err)
		}
		got, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		checkReply(t, string(got), "08P01")
		if g.Metrics().Violations.Load() != 1 {
			t.Errorf("counted %d violations", g.Metrics().Violations.Load())
		}
	}
}

// TestServerSpeaksNonsense ends both sides.
func TestServerSpeaksNonsense(t *testing.T) {
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up}, newMemLog(0))
	c := dialRig(t, g)
	s := <-conns
	s.Write([]byte("\xff\x00\x00\x00\x04"))
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	checkReply(t, string(got), "08P01")
	if b, _ := io.ReadAll(s); len(b) > 0 {
		t.Errorf("server got %q", short(b))
	}
}

// TestClientDies: the server sees the end in the middle of a statement, and
// what it still says is recorded.
func TestClientDies(t *testing.T) {
	for _, reset := range []bool{false, true} {
		log := newMemLog(0)
		up, conns := scripted(t)
		g := start(t, Config{Upstream: up}, log)
		c := dialRig(t, g)
		s := <-conns
		q := query("select 1")
		c.Write(q)
		expect(t, s, string(q))
		if reset {
			c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
		if b, err := io.ReadAll(s); err != nil || len(b) > 0 {
			t.Errorf("reset %v: server got %q, %v, want the end", reset, b, err)
		}
		s.Write(answer1)
		s.Close()
		waitFor(t, "session ended", func() bool { return g.Metrics().SessionsOpen.Load() == 0 })
		all, err := log.entries()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, l := range all {
			found = found || l.Kind == event.KindOutcome && len(l.Tags) == 1
		}
		if last := all[len(all)-1]; !found || last.Kind != event.KindDisconnect {
			t.Errorf("reset %v: outcome recorded: %v; last entry %s", reset, found, last.Kind)
		}
	}
}

// TestSlowClient bounds what is kept for a client that does not read.
func TestSlowClient(t *testing.T) {
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up}, newMemLog(0))
	c := dialRig(t, g)
	s := <-conns
	c.Write(query("select 1"))
	expect(t, s, string(query("select 1")))
	row := message('D', strings.Repeat("x", 1000))
	var sent atomic.Int64
	const rows = 64 << 10
	go func() {
		for range rows {
			n, err := s.Write(row)
			if err != nil {
				return
			}
			sent.Add(int64(n))
		}
		s.Write(answer1)
	}()
	last := int64(-1)
	for n := sent.Load(); n != last && n > 0 || n == 0; n = sent.Load() {
		last = n
		time.Sleep(200 * time.Millisecond)
	}
	if last >= int64(rows*len(row)) {
		t.Errorf("the server could send everything")
	}
	n, err := io.CopyN(io.Discard, c, int64(rows*len(row)))
	if err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	expect(t, c, string(answer1))
}

func TestLoginTimeout(t *testing.T) {
	up := fakeServer(t, []byte("R\x00\x00\x00\x08\x00\x00\x00\x03"))
	g := start(t, Config{Upstream: up, LoginTimeout: 300 * time.Millisecond}, newMemLog(0))
	checkReply(t, talk(t, g, packet(3<<16, startup30)), "57014")
}

// TestBacklog stops reading clients while the recorder is far behind.
func TestBacklog(t *testing.T) {
	log := newMemLog(0)
	up, conns := scripted(t)
	g := start(t, Config{Upstream: up, Mode: Async}, log)
	c := dialRig(t, g)
	s := <-conns
	log.hold()
	log.mu.Lock()
	log.backlog = maxBacklog + 1
	log.mu.Unlock()
	q := query("select 1")
	c.Write(q)
	quiet(t, s)
	log.stuck.Store(false)
	log.Append(bytes.Clone([]byte("{}")), nil)
	expect(t, s, string(q))
	if g.Metrics().Paused.Load() == 0 {
		t.Error("no pause was counted")
	}
}

// TestNoAllocation runs statements between bare peers and counts allocations
// in the whole process.
func TestNoAllocation(t *testing.T) {
	for i, mode := range []Mode{BeforeForward, BeforeReply, BeforeForward} {
		log := newMemLog(0)
		log.keep, log.inline = false, i == 2
		up, conns := scripted(t)
		g := start(t, Config{Upstream: up, Mode: mode}, log)
		c := dialRig(t, g)
		s := <-conns
		q, buf := query("select 1"), make([]byte, 1000)
		round := func() {
			c.Write(q)
			if _, err := io.ReadFull(s, buf[:len(q)]); err != nil {
				t.Fatal(err)
			}
			s.Write(answer1)
			if _, err := io.ReadFull(c, buf[:len(answer1)]); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 {
			round()
		}
		// The whole process is counted, and others may be about to end: what a statement itself allocates is in each try.
		const rounds, tries = 500, 20
		least := math.Inf(1)
		for try := 0; try < tries && least > allowedAllocs; try++ {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range rounds {
				round()
			}
			runtime.ReadMemStats(&after)
			least = min(least, float64(after.Mallocs-before.Mallocs)/rounds)
		}
		if least > allowedAllocs {
			t.Errorf("mode %d: %.2f allocations per statement, want at most %v", mode, least, allowedAllocs)
		}
	}
}
