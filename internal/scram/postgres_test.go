package scram_test

import (
	"context"
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
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
	"github.com/pgnotary/pgnotary/internal/scram"
)

// A middle is the smallest proxy that ends SCRAM: it shows clients its own
// certificate, and logs in upstream with the keys it recovers.
type middle struct {
	upstream  *pgserver.Server
	verifiers map[string]*scram.Verifier // by user
	cert      tls.Certificate
	direct    []string // "-PLUS" or "" by login: how the upstream leg was bound
}

func read(c *pgraw.Conn, want byte) (kind uint32, body []byte, err error) {
	m, err := c.Receive()
	if err != nil {
		return 0, nil, err
	}
	if m.Type == 'E' {
		return 0, nil, fmt.Errorf("%s: %s", pgraw.Field(m.Body, 'C'), pgraw.Field(m.Body, 'M'))
	}
	if m.Type != want {
		return 0, nil, fmt.Errorf("got %v, want %c", m, want)
	}
	if want == 'R' {
		return binary.BigEndian.Uint32(m.Body), m.Body[4:], nil
	}
	return 0, m.Body, nil
}

// packet reads a packet without a type.
func packet(c net.Conn) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(length[:])-4)
	_, err := io.ReadFull(c, body)
	return append(length[:], body...), err
}

// serve handles one client, whose leg is TLS or not. The error is that of the login.
func (p *middle) serve(conn net.Conn) (err error) {
	defer conn.Close()
	first, err := packet(conn)
	if err != nil {
		return err
	}
	var hash []byte
	if len(first) == 8 {
		if _, err := conn.Write([]byte("S")); err != nil {
			return err
		}
		leaf, err := x509.ParseCertificate(p.cert.Certificate[0])
		if err != nil {
			return err
		}
		hash, _ = scram.EndPoint(leaf)
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{p.cert}})
		if first, err = packet(conn); err != nil {
			return err
		}
	}
	client := pgraw.New(conn)
	server, binding, err := p.dial(first)
	if err != nil {
		return err
	}
	defer server.Close()
	fields := strings.Split(string(first[8:]), "\x00")
	if err := p.login(client, server, fields[1+2*index(fields, "user")/2], hash, binding); err != nil {
		code := "28P01"
		_ = client.Send(pgraw.Msg('E', "SFATAL\x00VFATAL\x00C", code, "\x00M", err.Error(), "\x00\x00"))
		return err
	}
	go func() { _, _ = io.Copy(server.Conn, client.Conn) }()
	for {
		m, err := server.Receive()
		if err != nil {
			return nil
		}
		if err := client.Send(pgraw.Msg(m.Type, m.Body)); err != nil {
			return nil
		}
	}
}

func index(fields []string, name string) int {
	for i, f := range fields {
		if i%2 == 0 && f == name {
			return i
		}
	}
	return 0
}

// dial opens the TLS leg to the server, sends the client's start-up packet and
// returns the hash of the server's certificate.
func (p *middle) dial(startup []byte) (*pgraw.Conn, []byte, error) {
	conn, err := net.Dial("tcp", p.upstream.Addr())
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.Write(pgraw.SSLRequest()); err != nil {
		return nil, nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != 'S' {
		return nil, nil, fmt.Errorf("server answers %q to SSLRequest: %w", answer, err)
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		return nil, nil, err
	}
	hash, _ := scram.EndPoint(secure.ConnectionState().PeerCertificates[0])
	_, err = secure.Write(startup)
	return pgraw.New(secure), hash, err
}

func (p *middle) login(client, server *pgraw.Conn, user string, shown, seen []byte) error {
	if kind, _, err := read(server, 'R'); err != nil || kind != 10 {
		return fmt.Errorf("server asks for authentication %d, not SASL: %w", kind, err)
	}
	v := p.verifiers[user]
	if v == nil {
		v = scram.Mock([]byte("secret"), user, 4096)
	}
	var keys scram.Keys
	defer keys.Erase()
	last, err := p.ask(client, v, shown, &keys)
	if err != nil {
		return err
	}
	flag := scram.FlagNotOffered
	if seen != nil {
		flag = scram.FlagBound
	}
	c, err := scram.NewClient(&keys, v, flag, seen)
	if err != nil {
		return err
	}
	defer c.Erase()
	m, err := c.Start(rand.Reader)
	if err != nil {
		return err
	}
	if err := server.Send(pgraw.Msg('p', c.Mechanism(), 0, int32(len(m)), m)); err != nil {
		return err
	}
	_, body, err := read(server, 'R')
	if err != nil {
		return err
	}
	if m, err = c.First(body); err != nil && !errors.Is(err, scram.ErrVerifier) {
		return err
	}
	if err := errors.Join(err, server.Send(pgraw.Msg('p', m))); err != nil {
		_, _, refusal := read(server, 'R')
		return errors.Join(err, refusal)
	}
	if _, body, err = read(server, 'R'); err != nil {
		return err
	}
	if err := c.Final(body); err != nil {
		return err
	}
	if kind, _, err := read(server, 'R'); err != nil || kind != 0 {
		return fmt.Errorf("no AuthenticationOk but %d: %w", kind, err)
	}
	p.direct = append(p.direct, strings.TrimPrefix(c.Mechanism(), scram.Mechanism))
	return client.Send(pgraw.Msg('R', int32(12), last), pgraw.Msg('R', int32(0)))
}

// ask holds the server's side of the dialogue with the client.
func (p *middle) ask(client *pgraw.Conn, v *scram.Verifier, shown []byte, keys *scram.Keys) ([]byte, error) {
	offer := scram.Mechanism + "\x00\x00"
	if shown != nil {
		offer = scram.MechanismPlus + "\x00" + offer
	}
	if err := client.Send(pgraw.Msg('R', int32(10), offer)); err != nil {
		return nil, err
	}
	_, body, err := read(client, 'p')
	if err != nil {
		return nil, err
	}
	mechanism, rest, _ := strings.Cut(string(body), "\x00")
	s, err := scram.NewServer(v, mechanism, shown)
	if err != nil {
		return nil, err
	}
	m, err := s.First([]byte(rest[4:]), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := client.Send(pgraw.Msg('R', int32(11), m)); err != nil {
		return nil, err
	}
	if _, body, err = read(client, 'p'); err != nil {
		return nil, err
	}
	return s.Final(body, keys)
}

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

const users = `
CREATE ROLE alice LOGIN PASSWORD 'correct horse';
CREATE ROLE expired LOGIN PASSWORD 'correct horse' VALID UNTIL '2001-01-01';
CREATE ROLE changed LOGIN PASSWORD 'before';
`

// TestPostgreSQL logs a real client in to a real server through a middle that never
// sees the password, with PLUS on both legs and different certificates.
func TestPostgreSQL(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{TLS: true, HBA: "local all postgres trust\nhost all postgres all trust\nhostssl all all all scram-sha-256"})
	ctx := t.Context()
	if _, err := pg.Psql(ctx, "postgres", users); err != nil {
		t.Fatal(err)
	}
	out, err := pg.Psql(ctx, "postgres", "SELECT rolname || ' ' || rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL; ALTER ROLE changed PASSWORD 'after'")
	if err != nil {
		t.Fatal(err)
	}
	p := &middle{upstream: pg, verifiers: map[string]*scram.Verifier{}, cert: ecdsaPair(t, elliptic.P384(), x509.ECDSAWithSHA384)}
	for line := range strings.Lines(out) {
		user, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if p.verifiers[user], err = scram.ParseVerifier(text); err != nil {
			t.Fatalf("verifier of %s: %v", user, err)
		}
		if p.verifiers[user].Encode() != text {
			t.Errorf("verifier of %s does not encode as PostgreSQL wrote it", user)
		}
	}
	if len(p.verifiers) != 3 {
		t.Fatalf("%d verifiers, want 3", len(p.verifiers))
	}

	for _, row := range []struct {
		name, user, password, sslmode, binding string
		want                                   error  // of the middle
		text                                   string // in the client's error
	}{
		{"PLUS", "alice", "correct horse", "require", "require", nil, ""},
		{"PLUS if possible", "alice", "correct horse", "require", "prefer", nil, ""},
		{"no binding", "alice", "correct horse", "require", "disable", nil, ""},
		{"client in the clear", "alice", "correct horse", "disable", "disable", nil, ""},
		{"wrong password", "alice", "wrong horse", "require", "require", scram.ErrProof, "28P01"},
		{"unknown user", "mallory", "correct horse", "require", "require", scram.ErrProof, "28P01"},
		{"password expired, which only the server knows", "expired", "correct horse", "require", "require", scram.ErrVerifier, "password authentication failed"},
		{"password changed, old one", "changed", "before", "require", "require", scram.ErrVerifier, "password authentication failed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, served, err := p.connect(ctx, row.user, row.password, row.sslmode, row.binding)
			if row.text == "" {
				if err != nil || got != row.user {
					t.Fatalf("login as %s: current_user %q, %v; proxy: %v", row.user, got, err, served)
				}
				if len(p.direct) == 0 || p.direct[len(p.direct)-1] != "-PLUS" {
					t.Errorf("the server's leg was not bound: %q", p.direct)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.text) || row.want != nil && !errors.Is(served, row.want) {
				t.Errorf("login as %s: %v, want %q; proxy: %v, want %v", row.user, err, row.text, served, row.want)
			}
		})
	}
}

// connect runs one pgx client against p over a pipe. It returns what the server said
// who it is, and the errors of both.
func (p *middle) connect(ctx context.Context, user, password, sslmode, binding string) (current string, served, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conf, err := pgconn.ParseConfig(fmt.Sprintf("host=localhost user=%s password='%s' dbname=postgres sslmode=%s channel_binding=%s", user, password, sslmode, binding))
	if err != nil {
		return "", nil, err
	}
	done := make(chan error, 1)
	conf.Fallbacks = nil
	conf.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	conf.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { done <- p.serve(far) }()
		return near, nil
	}
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return "", <-done, err
	}
	res := conn.ExecParams(ctx, "SELECT current_user", nil, nil, nil, nil).Read()
	if res.Err == nil && len(res.Rows) == 1 {
		current = string(res.Rows[0][0])
	}
	return current, nil, errors.Join(res.Err, conn.Close(ctx))
}

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
