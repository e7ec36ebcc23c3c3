package relay

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/proxyproto"
)

// entry returns the only entry of a kind, and fails the test if there is another number of them.
func entry(t *testing.T, log *memLog, kind event.Kind) *event.Leaf {
	t.Helper()
	var found []*event.Leaf
	waitFor(t, "entry of kind "+string(kind), func() bool {
		all, err := log.entries()
		if err != nil {
			t.Fatal(err)
		}
		found = nil
		for _, l := range all {
			if l.Kind == kind {
				found = append(found, &l)
			}
		}
		return len(found) > 0
	})
	if len(found) != 1 {
		t.Fatalf("%d entries of kind %s, want 1", len(found), kind)
	}
	return found[0]
}

// dialLogin connects, by TLS if conf is not nil, after sending ahead.
func dialLogin(t *testing.T, g *rig, ahead []byte, conf *tls.Config) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(testPatience))
	c.Write(ahead)
	if conf == nil {
		return c
	}
	c.Write(packet(codeSSL, ""))
	expect(t, c, "S")
	conf = conf.Clone()
	conf.InsecureSkipVerify, conf.ServerName = true, "db.example"
	return tls.Client(c, conf)
}

// proxyHeader is what a load balancer sends ahead for a client at 192.0.2.1:51256, with more behind.
func proxyHeader(more string) []byte {
	body := "\xc0\x00\x02\x01\xc6\x33\x64\x07\xc8\x38\x15\x38" + more
	return []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11" + string([]byte{byte(len(body) >> 8), byte(len(body))}) + body)
}

// TestProxyProtocol has load balancers that say where a connection comes from, and others who only
// claim to be one.
func TestProxyProtocol(t *testing.T) {
	const local = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	const aboutTLS = "\x20\x00\x14\x01\x00\x00\x00\x00\x21\x00\x07TLSv1.3\x22\x00\x02al"
	for _, tt := range []struct {
		name, sources string
		ahead         []byte
		tls           bool
		client        string // as recorded; a beginning
		facts         map[string]string
		refused       string // reason of the violation
	}{
		{"client's address", "127.0.0.0/8", proxyHeader(""), false, "192.0.2.1:51256", map[string]string{"proxied_by": "127.0.0.1:"}, ""},
		{"then TLS", "127.0.0.0/8", proxyHeader(""), true, "192.0.2.1:51256", map[string]string{"proxied_by": "127.0.0.1:", "tls": "TLSv1.3"}, ""},
		{"TLS ended before", "127.0.0.1", proxyHeader(aboutTLS), false, "192.0.2.1:51256", map[string]string{"proxied_tls": "TLSv1.3"}, ""},
		{"the load balancer itself", "127.0.0.1", []byte(local), false, "127.0.0.1:", nil, ""},
		{"no header", "127.0.0.0/8", nil, false, "", nil, "no PROXY protocol header"},
		{"version 1", "127.0.0.0/8", []byte("PROXY TCP4 192.0.2.1 198.51.100.7 51256 5432\r\n"), false, "", nil, "PROXY protocol version 1 is not supported"},
		{"header from elsewhere", "10.0.0.0/8", proxyHeader(""), false, "", nil, "invalid length of start-up packet"},
		{"nobody is trusted", "", proxyHeader(""), false, "", nil, "invalid length of start-up packet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sources, err := proxyproto.ParseSources(strings.Fields(tt.sources))
			if err != nil {
				t.Fatal(err)
			}
			log := newMemLog(0)
			g := start(t, Config{Upstream: fakeServer(t, login), TLS: testCertificate(t), ProxySources: sources}, log)
			var conf *tls.Config
			if tt.tls {
				conf = &tls.Config{}
			}
			c := dialLogin(t, g, tt.ahead, conf)
			c.Write(packet(3<<16, startup30))
			if tt.refused != "" {
				_, _ = io.ReadAll(c)
				if l := entry(t, log, event.KindViolation); !strings.HasPrefix(fact(*l, "reason"), tt.refused) || !strings.HasPrefix(l.Who.Client, "127.0.0.1:") {
					t.Errorf("violation of %s: %v", l.Who.Client, l.Facts)
				}
				return
			}
			expect(t, c, string(login))
			l := entry(t, log, event.KindConnect)
			if !strings.HasPrefix(l.Who.Client, tt.client) {
				t.Errorf("client %s, want %s", l.Who.Client, tt.client)
			}
			for key, want := range tt.facts {
				if !strings.HasPrefix(fact(*l, key), want) {
					t.Errorf("facts %v, want %s %s", l.Facts, key, want)
				}
			}
		})
	}
}

// TestProxyHealthCheck connects as a load balancer that only looks for an open port.
func TestProxyHealthCheck(t *testing.T) {
	log := newMemLog(0)
	sources, _ := proxyproto.ParseSources([]string{"127.0.0.1"})
	g := start(t, Config{Upstream: "127.0.0.1:1", ProxySources: sources}, log)
	dialLogin(t, g, nil, nil).Close()
	waitFor(t, "probe counted", func() bool { return g.Metrics().Silent.Load() == 1 })
	if n := log.count.Load(); n != 0 {
		t.Errorf("a probe made %d entries", n)
	}
}

// TestClientCertificates has clients with and without one, under each policy.
func TestClientCertificates(t *testing.T) {
	ours, err := pgserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	others, err := pgserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ours.PEM())
	client := func(a *pgserver.Authority, name string) *tls.Config {
		cert, key, err := a.Client(name)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{alpn}}
	}
	postgres, alice, stranger := client(ours, "postgres"), client(ours, "alice"), client(others, "postgres")
	for _, tt := range []struct {
		name   string
		policy CertPolicy
		conf   *tls.Config
		want   string // SQLSTATE; "" for a login, "-" for a failed handshake
	}{
		{"optional, none", CertOptional, &tls.Config{}, ""},
		{"optional, no TLS", CertOptional, nil, ""},
		{"optional, good", CertOptional, alice, ""},
		{"optional, of a stranger", CertOptional, stranger, "-"},
		{"verify-ca, good", CertVerifyCA, alice, ""},
		{"verify-ca, none", CertVerifyCA, &tls.Config{}, "28000"},
		{"verify-ca, no TLS", CertVerifyCA, nil, "28000"},
		{"verify-full, the user's", CertVerifyFull, postgres, ""},
		{"verify-full, another's", CertVerifyFull, alice, "28000"},
		{"verify-full, of a stranger", CertVerifyFull, stranger, "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := newMemLog(0)
			conf := testCertificate(t)
			conf.ClientAuth, conf.ClientCAs = tls.VerifyClientCertIfGiven, pool
			g := start(t, Config{Upstream: fakeServer(t, login), TLS: conf, ClientCert: tt.policy}, log)
			c := dialLogin(t, g, nil, tt.conf)
			c.Write(packet(3<<16, startup30))
			switch tt.want {
			case "":
				expect(t, c, string(login))
			case "-":
				if b, err := io.ReadAll(c); err == nil || len(b) > 0 {
					t.Errorf("got %q, %v, want a failed handshake", b, err)
				}
				if l := entry(t, log, event.KindViolation); !strings.Contains(fact(*l, "reason"), "unknown authority") {
					t.Errorf("violation: %v", l.Facts)
				}
				return
			default:
				b, _ := io.ReadAll(c)
				checkReply(t, string(b), tt.want)
				if l := entry(t, log, event.KindAuth); l.SQLState != tt.want || fact(*l, "result") != "refused" || l.Who.User != "postgres" {
					t.Errorf("auth entry of %s: %s, %v", l.Who.User, l.SQLState, l.Facts)
				}
				if l := entry(t, log, event.KindDisconnect); fact(*l, "reason") != "login_refused" {
					t.Errorf("disconnect: %v", l.Facts)
				}
			}
			l := entry(t, log, event.KindConnect)
			want := map[string]string{}
			if tt.conf != nil {
				want = map[string]string{"tls": "TLSv1.3", "sni": "db.example"}
			}
			if tt.conf != nil && len(tt.conf.Certificates) > 0 {
				cert, err := x509.ParseCertificate(tt.conf.Certificates[0].Certificate[0])
				if err != nil {
					t.Fatal(err)
				}
				sum := sha256.Sum256(cert.Raw)
				want["tls_alpn"], want["tls_client"], want["tls_client_issuer"], want["tls_client_sha256"] =
					alpn, "CN="+cert.Subject.CommonName, "CN=throwaway authority", hex.EncodeToString(sum[:])
			}
			for _, key := range []string{"tls", "sni", "tls_alpn", "tls_client", "tls_client_issuer", "tls_client_sha256"} {
				if got := fact(*l, key); got != want[key] {
					t.Errorf("fact %s = %q, want %q", key, got, want[key])
				}
			}
		})
	}
}
