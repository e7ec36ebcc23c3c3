package scram

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
)

// EndPoint returns the channel binding data of type tls-server-end-point for
// the certificate a TLS server showed (RFC 5929, 4.1): its hash under the algorithm of
// its signature, with SHA-256 in the place of MD5 and SHA-1. Where that algorithm
// has no one hash, as Ed25519, there is no such binding and ok is false.
func EndPoint(cert *x509.Certificate) (hash []byte, ok bool) {
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
		x509.SHA256WithRSA, x509.DSAWithSHA256, x509.ECDSAWithSHA256, x509.SHA256WithRSAPSS:
		h := sha256.Sum256(cert.Raw)
		return h[:], true
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h := sha512.Sum384(cert.Raw)
		return h[:], true
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h := sha512.Sum512(cert.Raw)
		return h[:], true
	}
	return nil, false
}
