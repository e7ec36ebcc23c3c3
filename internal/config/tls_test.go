package config

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

// pemFiles writes a fresh authority, and a certificate it signed for
// localhost and 127.0.0.1.
func pemFiles(t *testing.T) (ca, cert, key string) {
	t.Helper()
	caPEM, certPEM, keyPEM, err := pgserver.MakeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca, cert, key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, data := range map[string][]byte{ca: caPEM, cert: certPEM, key: keyPEM} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca, cert, key
}

// TestUpstreamTLS holds that the modes check what libpq's of the same name do.
func TestUpstreamTLS(t *testing.T) {
	ca, cert, key := pemFiles(t)
	otherCA, _, _ := pemFiles(t)
	var certs Certificates
	server := Default()
	server.TLSCert, server.TLSKey = cert, key
	if err := certs.Load(server.TLSCert, server.TLSKey, ""); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, mode, ca, upstream string
		ok                       bool
	}{
		{"require", TLSRequire, "", "localhost:5432", true},
		{"require, another name", TLSRequire, "", "db.example:5432", true},
		{"require with its authority", TLSRequire, ca, "db.example:5432", true},
		{"require with another authority", TLSRequire, otherCA, "localhost:5432", false},
		{"verify-ca", TLSVerifyCA, ca, "localhost:5432", true},
		{"verify-ca, another name", TLSVerifyCA, ca, "db.example:5432", true},
		{"verify-ca, another authority", TLSVerifyCA, otherCA, "localhost:5432", false},
		{"verify-full", TLSVerifyFull, ca, "localhost:5432", true},
		{"verify-full by address", TLSVerifyFull, ca, "127.0.0.1:5432", true},
		{"verify-full, another name", TLSVerifyFull, ca, "db.example:5432", false},
		{"verify-full, another authority", TLSVerifyFull, otherCA, "localhost:5432", false},
		{"verify-full, the system's authorities", TLSVerifyFull, "", "localhost:5432", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			c.UpstreamTLS, c.UpstreamCA, c.Upstream = tt.mode, tt.ca, tt.upstream
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			conf, err := c.UpstreamTLSConfig()
			if err != nil {
				t.Fatal(err)
			}
			if err := handshake(t, certs.ServerConfig(), conf); (err == nil) != tt.ok {
				t.Errorf("handshake = %v, want success: %t", err, tt.ok)
			}
		})
	}
}

// handshake returns what the client made of the server.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a net.Pipe has no room for the alert of a client that refuses
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := ln.Accept(); err == nil {
			_ = tls.Server(conn, server).HandshakeContext(ctx) // fails as well where the client refuses
			_ = conn.Close()
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	err = tls.Client(conn, client).HandshakeContext(ctx)
	_ = conn.Close()
	<-done
	return err
}

func TestNoUpstreamTLS(t *testing.T) {
	c := Default()
	if conf, err := c.UpstreamTLSConfig(); conf != nil || err != nil {
		t.Errorf("UpstreamTLSConfig with TLS disabled = %v, %v, want nil, nil", conf, err)
	}
}

// TestCertificatesKeepTheOld holds that a certificate that cannot be loaded
// leaves the one in force.
func TestCertificatesKeepTheOld(t *testing.T) {
	_, cert, key := pemFiles(t)
	c := Default()
	c.TLSCert, c.TLSKey = cert, key
	var certs Certificates
	if !certs.Expires().IsZero() {
		t.Errorf("Expires before the first certificate = %s, want zero", certs.Expires())
	}
	if err := certs.Load(c.TLSCert, c.TLSKey, ""); err != nil {
		t.Fatal(err)
	}
	old, expires := certs.current.Load(), certs.Expires()
	if !expires.After(time.Now()) {
		t.Errorf("Expires = %s, want a time to come", expires)
	}
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := certs.Load(c.TLSCert, c.TLSKey, ""); err == nil {
		t.Error("Load of a broken key = nil, want an error")
	}
	if certs.current.Load() != old {
		t.Error("a failed Load replaced the certificate")
	}
}

func TestCheck(t *testing.T) {
	ca, cert, key := pemFiles(t)
	dir := t.TempDir()
	tests := []struct {
		name   string
		change func(*Config)
		ok     bool
	}{
		{"nothing there yet", func(c *Config) { c.Data = filepath.Join(dir, "a", "b") }, true},
		{"data below a file", func(c *Config) { c.Data = filepath.Join(ca, "data") }, false},
		{"certificate", func(c *Config) { c.TLSCert, c.TLSKey = cert, key }, true},
		{"certificate of another key", func(c *Config) { c.TLSCert, c.TLSKey = ca, key }, false},
		{"authority", func(c *Config) { c.UpstreamTLS, c.UpstreamCA = TLSVerifyCA, ca }, true},
		{"authority missing", func(c *Config) { c.UpstreamTLS, c.UpstreamCA = TLSVerifyCA, ca+"x" }, false},
		{"password file missing", func(c *Config) { c.AuthUser, c.AuthPassfile = "pgnotary_auth", ca+"x" }, false},
		{"authority without certificate", func(c *Config) { c.UpstreamTLS, c.UpstreamCA = TLSVerifyCA, key }, false},
	}
	for _, tt := range tests {
		c := Default()
		c.Data = dir
		tt.change(&c)
		if err := c.Check(); (err == nil) != tt.ok {
			t.Errorf("%s: Check() = %v, want success: %t", tt.name, err, tt.ok)
		}
	}
}

// TestClientCertificates holds that only certificates of the authorities in force pass, and that these can be replaced.
func TestClientCertificates(t *testing.T) {
	first, err := pgserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	second, err := pgserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	_, cert, key := pemFiles(t)
	c := Default()
	c.TLSCert, c.TLSKey, c.ClientCA = cert, key, filepath.Join(t.TempDir(), "clients.pem")
	use := func(pem []byte) {
		t.Helper()
		if err := os.WriteFile(c.ClientCA, pem, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(pem, key []byte, err error) *tls.Config {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(pem, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}} // 1.2: the client hears of a refusal
	}
	use(first.PEM())
	var certs Certificates
	if err := certs.Load(c.TLSCert, c.TLSKey, c.ClientCA); err != nil {
		t.Fatal(err)
	}
	conf := certs.ServerConfig()
	check := func(name string, client *tls.Config, ok bool) {
		t.Helper()
		if err := handshake(t, conf, client); (err == nil) != ok {
			t.Errorf("%s: handshake = %v, want success: %t", name, err, ok)
		}
	}
	ofFirst, ofSecond := shows(first.Client("a")), shows(second.Client("a"))
	check("none", &tls.Config{InsecureSkipVerify: true}, true)
	check("of the authority", ofFirst, true)
	check("of another", ofSecond, false)
	check("a server's", shows(first.Server()), false)
	use(second.PEM())
	if err := certs.Load(c.TLSCert, c.TLSKey, c.ClientCA); err != nil {
		t.Fatal(err)
	}
	check("of the old authority", ofFirst, false)
	check("of the new authority", ofSecond, true)
	use([]byte("none"))
	if err := certs.Load(c.TLSCert, c.TLSKey, c.ClientCA); err == nil {
		t.Error("a file without certificates is loaded")
	}
	check("after a failure", ofSecond, true)
}
