package relay

import (
	"crypto/tls"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestIdleMemory measures what an idle session costs: in the clear, and with TLS on one leg and on both,
// of which what crypto/tls itself keeps is told apart. After records larger than any here crypto/tls keeps a buffer
// of their size, up to 16 KiB, which nobody can take from it.
func TestIdleMemory(t *testing.T) {
	const sessions = 400
	var limit syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if limit.Cur < 6*sessions {
		t.Fatalf("the limit of open files is %d, the test needs %d", limit.Cur, 6*sessions)
	}
	library := idleTLS(t, sessions)
	t.Logf("crypto/tls keeps %d bytes a connection", library)
	for _, tt := range []struct {
		name           string
		client, server bool
		statement      int // bytes
	}{
		{"in the clear", false, false, 10},
		{"in the clear, after a large statement", false, false, 100_000},
		{"TLS with the client", true, false, 10},
		{"TLS with both", true, true, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := idleSessions(t, sessions, tt.client, tt.server, tt.statement)
			own := got
			for _, on := range []bool{tt.client, tt.server} {
				if on {
					own -= library
				}
			}
			t.Logf("an idle session costs %d bytes, %d without crypto/tls", got, own)
			if own > 8<<10 {
				t.Errorf("an idle session costs %d bytes of ours, want at most %d", own, 8<<10)
			}
		})
	}
}

// memory is what the process uses after a collection, in bytes.
func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // finalizers ran after the first
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// idleSessions returns the bytes of one of many sessions that have run a statement and do nothing. Both
// peers are bare descriptors then, without goroutines or TLS, so that only the relay counts.
func idleSessions(t *testing.T, sessions int, clientTLS, serverTLS bool, statement int) int64 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var fds []int
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	log := newMemLog(0)
	log.keep = false
	cfg := Config{Upstream: ln.Addr().String(), MaxSessions: sessions, MaxUnauthenticated: sessions, TLS: testCertificate(t)}
	if serverTLS {
		cfg.UpstreamTLS = &tls.Config{InsecureSkipVerify: true}
	}
	g := start(t, cfg, log)
	one := func() {
		var secure *tls.Config
		if clientTLS {
			secure = &tls.Config{}
		}
		rawClient, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client := rawClient
		if secure != nil {
			rawClient.Write(packet(codeSSL, ""))
			expect(t, rawClient, "S")
			client = tls.Client(rawClient, &tls.Config{InsecureSkipVerify: true})
		}
		client.Write(packet(3<<16, startup30))
		rawServer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		server := rawServer
		if serverTLS {
			expect(t, rawServer, string(packet(codeSSL, "")))
			rawServer.Write([]byte("S"))
			server = tls.Server(rawServer, cfg.TLS)
		}
		readStartup(server)
		server.Write(login)
		expect(t, client, string(login))
		sent := query(strings.Repeat("x", statement))
		client.Write(sent)
		expect(t, server, string(sent))
		server.Write(answer1)
		expect(t, client, string(answer1))
		for _, end := range []net.Conn{rawClient, rawServer} {
			fd, err := takeFD(end)
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
	}
	const first = 50 // pools and maps are there then
	for range first {
		one()
	}
	before := memory()
	for range sessions - first {
		one()
	}
	waitFor(t, "all logged in", func() bool { return g.Metrics().Unauthenticated.Load() == 0 })
	per := (memory() - before) / int64(sessions-first)
	g.Shutdown(t.Context()) //nolint:errcheck // they are idle
	return per
}

// idleTLS returns the bytes that crypto/tls keeps for a connection that was used.
func idleTLS(t *testing.T, connections int) int64 {
	t.Helper()
	conf := clientTLS(testCertificate(t))
	kept, ends := make([]*tls.Conn, 0, connections), make([][2]net.Conn, connections)
	for i := range ends {
		ends[i][0], ends[i][1] = net.Pipe()
	}
	before := memory()
	for i := range ends {
		near, far := ends[i][0], ends[i][1]
		server := tls.Server(far, conf)
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, 100)
			server.Read(b)
			server.Write(b)
		}()
		client.Write(make([]byte, 100))
		client.Read(make([]byte, 100))
		<-done
		kept = append(kept, server)
	}
	per := (memory() - before) / int64(connections)
	runtime.KeepAlive(kept)
	runtime.KeepAlive(ends)
	return per
}
