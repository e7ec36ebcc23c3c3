package relay

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// packet returns a first packet: length word, code, rest.
func packet(code uint32, rest string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
	return append(binary.BigEndian.AppendUint32(b, code), rest...)
}

const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSS    = 80877104
	startup30  = "user\x00postgres\x00database\x00postgres\x00\x00"
)

// talk sends b and returns all that comes back until the connection ends.
func talk(t *testing.T, g *rig, b []byte) string {
	t.Helper()
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testPatience))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("connection did not end in order: %v, after %q", err, short(got))
	}
	return string(got)
}

func TestFirstBytes(t *testing.T) {
	up := fakeServer(t, nil)
	log := newMemLog(0)
	g := start(t, Config{Upstream: up}, log)
	ssl, gss := packet(codeSSL, ""), packet(codeGSS, "")
	tests := []struct {
		name   string
		send   []byte
		want   string // SQLSTATE of a FATAL error, or the exact reply
		reason string // of the entry; "-" for no entry
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "", "an HTTP request"},
		{"length 0", []byte{0, 0, 0, 0, 0, 3, 0, 0}, "08P01", "invalid length of start-up packet"},
		{"length 7", []byte{0, 0, 0, 7, 0, 3, 0, 0}, "08P01", "invalid length of start-up packet"},
		{"length negative", []byte{0x80, 0, 0, 0, 0, 3, 0, 0}, "08P01", "invalid length of start-up packet"},
		{"length 10005", []byte{0, 0, 0x27, 0x15, 0, 3, 0, 0}, "08P01", "invalid length of start-up packet"},
		{"length 5 and nothing more", []byte{0, 0, 0, 5}, "08P01", "invalid length of start-up packet"},
		{"text", []byte("hello, world"), "08P01", "invalid length of start-up packet"},
		{"protocol 1.0", packet(1<<16, startup30), "EFATAL:  pgnotary: protocol version 1.0 is not supported, only 3.0 to 3.2\n\x00", "protocol version 1.0 is not supported, only 3.0 to 3.2"},
		{"protocol 2.0", packet(2<<16, startup30), "EFATAL:  pgnotary: protocol version 2.0 is not supported, only 3.0 to 3.2\n\x00", "protocol version 2.0 is not supported, only 3.0 to 3.2"},
		{"protocol 4.0", packet(4<<16, startup30), "0A000", "protocol version 4.0 is not supported, only 3.0 to 3.2"},
		{"unknown request", packet(80877105, ""), "0A000", "protocol version 1234.5681 is not supported, only 3.0 to 3.2"},
		{"TLS twice", bytes.Join([][]byte{ssl, ssl}, nil), "08P01", "unencrypted data after SSLRequest"},
		{"start-up behind SSLRequest", append(packet(codeSSL, ""), packet(3<<16, startup30)...), "08P01", "unencrypted data after SSLRequest"},
		{"start-up behind GSSENCRequest", append(packet(codeGSS, ""), packet(3<<16, startup30)...), "08P01", "unencrypted data after GSSENCRequest"},
		{"long SSLRequest", packet(codeSSL, "x"), "08P01", "malformed start-up packet"},
		{"long GSSENCRequest", packet(codeGSS, strings.Repeat("x", 100)), "08P01", "malformed start-up packet"},
		{"direct TLS without a certificate", append([]byte{0x16, 3, 1}, make([]byte, 20)...), "", "direct TLS without a certificate here"},
		{"short cancel key", packet(codeCancel, "pid.abc"), "08P01", "malformed start-up packet"},
		{"long cancel key", packet(codeCancel, strings.Repeat("k", 4+257)), "08P01", "malformed start-up packet"},
		{"unknown cancel key", packet(codeCancel, "pid.key!"), "", "cancel request for no known session"},
		{"unknown long cancel key", packet(codeCancel, strings.Repeat("k", 4+256)), "", "cancel request for no known session"},
		{"three bytes", gss[:3], "57014", "no start-up packet within 2s"},
		{"half a packet", packet(3<<16, startup30)[:12], "57014", "no start-up packet within 2s"},
		{"nothing", nil, "57014", "no start-up packet within 2s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, log := g, log
			if tt.want == "57014" { // its time has room for a slow machine, so all such wait for it at once
				t.Parallel()
				log = newMemLog(0)
				g = start(t, Config{Upstream: up, FirstPacketTimeout: 2 * time.Second}, log)
				defer noConnectionLeft(t, g)
			}
			before := log.count.Load()
			got := talk(t, g, tt.send)
			checkReply(t, got, tt.want)
			all, err := log.entries()
			if err != nil {
				t.Fatal(err)
			}
			if n := int64(len(all)) - before; n != 1 {
				t.Fatalf("made %d entries, want 1", n)
			}
			l := all[before]
			if l.Kind != event.KindViolation || l.Who == nil || !strings.HasPrefix(l.Who.Client, "127.0.0.1:") || l.Facts[0].Val != tt.reason {
				t.Errorf("recorded %s of %v, facts %v; want reason %q", l.Kind, l.Who, l.Facts, tt.reason)
			}
		})
	}
	noConnectionLeft(t, g)
}

func noConnectionLeft(t *testing.T, g *rig) {
	t.Helper()
	waitFor(t, "no connection left", func() bool { return g.Metrics().Unauthenticated.Load() == 0 })
}

// checkReply compares what a client got: want is an SQLSTATE, or exact bytes.
func checkReply(t *testing.T, got, want string) {
	t.Helper()
	if len(want) != 5 {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		return
	}
	at := strings.LastIndex(got, "SFATAL\x00")
	if at < 5 || int(binary.BigEndian.Uint32([]byte(got[at-4:])))+1 != len(got)-at+5 {
		t.Fatalf("got %q, want one FATAL error at the end", got)
	}
	severity, code := wire.ErrorFields([]byte(got[at:]))
	if string(severity) != "FATAL" || string(code) != want || !strings.Contains(got, "Mpgnotary: ") {
		t.Errorf("got %q, want code %s from pgnotary", got, want)
	}
}

func TestEncryptionRequests(t *testing.T) {
	g := start(t, Config{Upstream: fakeServer(t, nil)}, newMemLog(0))
	// In turn: one of each is refused, then a second of either ends it.
	for _, second := range []uint32{codeSSL, codeGSS} {
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(testPatience))
		for _, code := range []uint32{codeSSL, codeGSS} {
			c.Write(packet(code, ""))
			var answer [1]byte
			if _, err := io.ReadFull(c, answer[:]); err != nil || answer[0] != 'N' {
				t.Fatalf("request %d: got %q, %v", code, answer[0], err)
			}
		}
		c.Write(packet(second, ""))
		got, _ := io.ReadAll(c)
		checkReply(t, string(got), "08P01")
	}
}

func TestProbe(t *testing.T) {
	log := newMemLog(0)
	g := start(t, Config{Upstream: "127.0.0.1:1"}, log)
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	waitFor(t, "probe counted", func() bool { return g.Metrics().Silent.Load() == 1 })
	if n := log.count.Load(); n != 0 {
		t.Errorf("a probe made %d entries", n)
	}
}

func TestUpstreamDown(t *testing.T) {
	log := newMemLog(0)
	g := start(t, Config{Upstream: "127.0.0.1:1"}, log)
	checkReply(t, talk(t, g, packet(3<<16, startup30)), "08006")
}

// TestDirectTLS checks the ALPN rule, and that inside TLS nothing asks for encryption.
func TestDirectTLS(t *testing.T) {
	g := start(t, Config{Upstream: fakeServer(t, nil), TLS: testCertificate(t)}, newMemLog(0))
	for _, protos := range [][]string{nil, {"http/1.1"}} {
		c, err := tls.Dial("tcp", g.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protos})
		if err != nil {
			continue // the alert came within the handshake
		}
		c.SetDeadline(time.Now().Add(testPatience))
		c.Write(packet(3<<16, startup30))
		if b, err := io.ReadAll(c); len(b) > 0 {
			t.Errorf("ALPN %v: got %q, %v", protos, b, err)
		}
		c.Close()
	}
	for _, code := range []uint32{codeSSL, codeGSS} {
		c, err := tls.Dial("tcp", g.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(testPatience))
		c.Write(packet(code, ""))
		b, _ := io.ReadAll(c)
		checkReply(t, string(b), "08P01")
	}
	waitFor(t, "failed handshakes", func() bool { return g.Metrics().TLSFailed.Load() >= 2 })
	if n := g.Metrics().TLSFailed.Load(); n != 2 {
		t.Errorf("counted %d failed handshakes, want 2", n)
	}
}
