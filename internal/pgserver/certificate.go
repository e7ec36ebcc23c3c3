package pgserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"time"
)

// An Authority signs throwaway certificates, valid for a day.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// NewAuthority makes an authority with a new key.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	a := &Authority{key: key}
	a.cert = template("throwaway authority")
	a.cert.IsCA, a.cert.BasicConstraintsValid, a.cert.KeyUsage = true, true, x509.KeyUsageCertSign
	a.pem, err = a.sign(a.cert, key.Public())
	return a, err
}

// PEM returns the authority's own certificate.
func (a *Authority) PEM() []byte { return a.pem }

// Server returns, in PEM, a certificate with its key for localhost and 127.0.0.1.
func (a *Authority) Server() (cert, key []byte, err error) {
	c := template("localhost")
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	return a.issue(c)
}

// Client returns, in PEM, a certificate with its key for a client of that name.
func (a *Authority) Client(name string) (cert, key []byte, err error) {
	c := template(name)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(c)
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func (a *Authority) issue(c *x509.Certificate) (cert, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	if cert, err = a.sign(c, own.Public()); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func (a *Authority) sign(c *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// MakeCertificate returns, in PEM, a new authority's certificate and a server
// certificate with its key for localhost and 127.0.0.1.
func MakeCertificate() (ca, cert, key []byte, err error) {
	a, err := NewAuthority()
	if err != nil {
		return nil, nil, nil, err
	}
	cert, key, err = a.Server()
	return a.pem, cert, key, err
}

func (s *Server) makeCertificate() error {
	ca, cert, key, err := MakeCertificate()
	if err != nil {
		return err
	}
	s.CAFile, s.CertFile, s.KeyFile = filepath.Join(s.Dir, "ca.crt"), filepath.Join(s.Dir, "server.crt"), filepath.Join(s.Dir, "server.key")
	for path, data := range map[string][]byte{s.CAFile: ca, s.CertFile: cert, s.KeyFile: key} {
		if err := s.who.writeFile(path, data); err != nil {
			return err
		}
	}
	return nil
}
