package scram_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/scram"
)

func keyPair(t *testing.T, pub, priv any, alg x509.SignatureAlgorithm) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), SignatureAlgorithm: alg,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}
}

func ecdsaPair(t *testing.T, curve elliptic.Curve, alg x509.SignatureAlgorithm) tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair(t, k.Public(), k, alg)
}

func TestEndPoint(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s256 := func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }
	s384 := func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }
	s512 := func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }
	for _, row := range []struct {
		pair tls.Certificate
		hash func([]byte) []byte
	}{
		{ecdsaPair(t, elliptic.P256(), x509.ECDSAWithSHA256), s256},
		{ecdsaPair(t, elliptic.P384(), x509.ECDSAWithSHA384), s384},
		{ecdsaPair(t, elliptic.P521(), x509.ECDSAWithSHA512), s512},
		{keyPair(t, rsaKey.Public(), rsaKey, x509.SHA256WithRSA), s256},
		{keyPair(t, rsaKey.Public(), rsaKey, x509.SHA384WithRSAPSS), s384},
		{keyPair(t, rsaKey.Public(), rsaKey, x509.SHA512WithRSA), s512},
		{keyPair(t, pub, priv, x509.PureEd25519), nil},
	} {
		c, err := x509.ParseCertificate(row.pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		got, ok := scram.EndPoint(c)
		if ok != (row.hash != nil) || ok && string(got) != string(row.hash(c.Raw)) {
			t.Errorf("EndPoint of a certificate signed with %v = %x, %v", c.SignatureAlgorithm, got, ok)
		}
		// Old signatures can be read, but Go makes none.
		for _, old := range []x509.SignatureAlgorithm{x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1} {
			c.SignatureAlgorithm = old
			if got, ok := scram.EndPoint(c); !ok || string(got) != string(s256(c.Raw)) {
				t.Errorf("EndPoint of a certificate signed with %v = %x, %v", old, got, ok)
			}
		}
	}
}
