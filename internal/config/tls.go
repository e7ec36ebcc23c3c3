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
	if _, err := c.UpstreamTLSConfig(); err != nil {
		p.add("upstream-ca", err)
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

// Certificates is the certificate shown to those who connect. It can be replaced while
// connections are being accepted; all methods may be called concurrently.
type Certificates struct {
	current atomic.Pointer[tls.Certificate]
}

// Load reads two PEM files and puts them into force for handshakes that begin
// from now on. On an error the certificate in force stays.
func (t *Certificates) Load(cert, key string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("load certificate %s: %w", cert, err)
	}
	t.current.Store(&pair)
	return nil
}

// Expires returns the end of the certificate's validity.
func (t *Certificates) Expires() time.Time {
	if pair := t.current.Load(); pair != nil && pair.Leaf != nil {
		return pair.Leaf.NotAfter
	}
	return time.Time{}
}

// ServerConfig returns the TLS settings for connections that are accepted.
func (t *Certificates) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return t.current.Load(), nil
		},
	}
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
		pem, err := os.ReadFile(c.UpstreamCA)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.UpstreamCA)
		}
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
		opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(opts)
		return err
	}
}
