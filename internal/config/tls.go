package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Check looks at what the settings refer to: certificates, authorities, the
// data directory. It returns all problems, joined, or nil. It changes nothing.
func (c *Config) Check() error {
	var p problems
	if c.TLSCert != "" {
		_, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		p.add("tls-cert", err)
	}
	if c.HTTPTLSCert != "" {
		_, err := tls.LoadX509KeyPair(c.HTTPTLSCert, c.HTTPTLSKey)
		p.add("http-tls-cert", err)
	}
	if c.ClientCA != "" {
		_, err := readPool(c.ClientCA)
		p.add("client-ca", err)
	}
	if c.Sinks != "" {
		_, err := ReadSinks(c.Sinks)
		p.add("sinks", err)
	}
	if _, err := c.UpstreamTLSConfig(); err != nil {
		p = append(p, err)
	}
	if c.AuthPassfile != "" { // what logs in passes over one that is missing
		_, err := os.ReadFile(c.AuthPassfile)
		p.add("auth-passfile", err)
	}
	p.add("data", checkData(c.Data))
	return errors.Join(p...)
}

// checkData looks for the first existing directory on the way to path.
func checkData(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(path)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s is not a directory", path)
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrNotExist):
			return err
		}
		path = filepath.Dir(path)
	}
}

// readPool reads the certificates of authorities.
func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

// Certificates is the certificate shown to those who connect, and the authorities of theirs. Both can
// be replaced while connections are being accepted; all methods may be called concurrently.
type Certificates struct {
	current     atomic.Pointer[tls.Certificate]
	authorities atomic.Pointer[x509.CertPool]
}

// Load reads two PEM files, and one with authorities of client certificates if ca is not empty, and puts
// them into force for handshakes that begin from now on. On an error what is in force stays.
func (t *Certificates) Load(cert, key, ca string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("load certificate %s: %w", cert, err)
	}
	if ca != "" {
		pool, err := readPool(ca)
		if err != nil {
			return fmt.Errorf("load client-ca: %w", err)
		}
		t.authorities.Store(pool)
	}
	t.current.Store(&pair)
	return nil
}

// Leaf returns the certificate in force, nil before Load.
func (t *Certificates) Leaf() *x509.Certificate {
	if pair := t.current.Load(); pair != nil {
		return pair.Leaf
	}
	return nil
}

// Expires returns the end of the certificate's validity.
func (t *Certificates) Expires() time.Time {
	if leaf := t.Leaf(); leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

// ServerConfig returns the TLS settings for connections that are accepted. Clients are asked for a
// certificate if Load has read authorities; one that they did not sign ends the handshake. They are not
// named to the client, so that they can be replaced.
func (t *Certificates) ServerConfig() *tls.Config {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return t.current.Load(), nil
		},
	}
	if t.authorities.Load() != nil {
		conf.ClientAuth = tls.RequestClientCert
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil
			}
			return verify(s.PeerCertificates, t.authorities.Load(), x509.ExtKeyUsageClientAuth)
		}
	}
	return conf
}

// UpstreamTLSConfig returns the TLS settings for connections to the server,
// or nil if it is to be spoken to in the clear.
func (c *Config) UpstreamTLSConfig() (*tls.Config, error) {
	if c.UpstreamTLS == TLSDisable {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(c.Upstream)
	if err != nil {
		return nil, fmt.Errorf("split %q: %w", c.Upstream, err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.UpstreamCA != "" {
		if conf.RootCAs, err = readPool(c.UpstreamCA); err != nil {
			return nil, fmt.Errorf("upstream-ca: %w", err)
		}
	}
	if c.UpstreamCert != "" {
		pair, err := tls.LoadX509KeyPair(c.UpstreamCert, c.UpstreamKey)
		if err != nil {
			return nil, fmt.Errorf("upstream-cert: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	switch c.UpstreamTLS {
	case TLSRequire:
		// As libpq: require with authorities given checks the chain.
		conf.InsecureSkipVerify = true
		if c.UpstreamCA != "" {
			conf.VerifyConnection = verifyChain(conf.RootCAs)
		}
	case TLSVerifyCA:
		conf.InsecureSkipVerify = true // the name is not checked, the chain is, below
		conf.VerifyConnection = verifyChain(conf.RootCAs)
	}
	return conf, nil
}

// verifyChain checks the server's chain against roots, but not its name.
func verifyChain(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the server sent no certificate")
		}
		return verify(state.PeerCertificates, roots, x509.ExtKeyUsageServerAuth)
	}
}

// verify checks a chain, leaf first.
func verify(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(opts)
	return err
}
