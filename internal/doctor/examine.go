package doctor

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/scram"
	"github.com/pgnotary/pgnotary/internal/verifiers"
)

// dialTimeout bounds each connection attempt.
const dialTimeout = 10 * time.Second

// Examine collects the facts about a proxy with those settings. admin is the connection string
// of a role that may read pg_hba_file_rules, such as a superuser, on the server; host
// and port may be left out. If it is empty, or the role may not, Facts.Blind says so. Only what makes an
// examination impossible, such as a certificate file that cannot be read, is an error.
func Examine(ctx context.Context, c *config.Config, admin string) (*Facts, error) {
	f := &Facts{Now: time.Now(), Upstream: c.Upstream, ServerLeg: Plain}
	switch {
	case strings.HasPrefix(c.Upstream, "/"):
		f.ServerLeg = Unix
	case c.UpstreamTLS != config.TLSDisable:
		f.ServerLeg = TLS
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("load tls-cert: %w", err)
		}
		if f.ProxyCert, err = certificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	secure, err := c.UpstreamTLSConfig()
	if err != nil {
		return nil, err
	}
	f.probe(ctx, secure)
	f.tryVerifiers(ctx, c, secure)
	f.UpstreamCert = c.UpstreamCert != ""
	if c.ClientCA != "" {
		f.ClientCert = c.ClientCert
	}
	blind := "no credentials were given"
	if admin != "" {
		if err := f.ask(ctx, c, admin); err == nil {
			return f, nil
		} else {
			blind = err.Error()
		}
	}
	f.Blind = &blind
	return f, nil
}

// tryVerifiers reads the file, or asks the function, as the proxy does; of a user that will not be there.
func (f *Facts) tryVerifiers(ctx context.Context, c *config.Config, secure *tls.Config) {
	switch {
	case c.AuthFile != "":
		f.Verifiers = "file"
		if file, err := verifiers.OpenFile(c.AuthFile); err != nil {
			f.BadVerifiers = err.Error()
		} else {
			f.Users = file.Users()
		}
	case c.AuthUser != "":
		f.Verifiers, f.AuthUser = "function", c.AuthUser
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		function, err := verifiers.NewFunction(verifiers.ConfigOf(c, secure))
		if err == nil {
			defer function.Close()
			_, err = function.Verifier(ctx, "pgnotary doctor")
		}
		if err != nil {
			f.BadVerifiers = err.Error()
		}
	}
}

func certificate(der []byte) (*Certificate, error) {
	x, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	sum := sha256.Sum256(der)
	_, binding := scram.EndPoint(x)
	return &Certificate{
		Subject: x.Subject.String(), NotAfter: x.NotAfter.UTC(), SHA256: hex.EncodeToString(sum[:]),
		Signature: x.SignatureAlgorithm.String(), Binding: binding,
	}, nil
}

// sslRequest asks a server for TLS: a packet of 8 bytes with the code 80877103.
const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// probe connects as the proxy does, and asks for TLS in any case.
func (f *Facts) probe(ctx context.Context, secure *tls.Config) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	network := "tcp"
	if f.ServerLeg == Unix {
		network = "unix"
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, f.Upstream)
	if err != nil {
		f.Unreachable = err.Error()
		return
	}
	defer conn.Close()
	if tcp, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		f.Client = tcp.AddrPort().Addr().Unmap()
	}
	if f.ServerLeg == Unix { // PostgreSQL has no TLS there
		return
	}
	deadline, _ := ctx.Deadline()
	answer, err := offersTLS(conn, deadline)
	switch {
	case err != nil:
		f.Unreachable = err.Error()
		return
	case !answer:
		if f.ServerLeg == TLS {
			f.Unreachable = "it does not offer TLS, and upstream-tls asks for it"
		}
		return
	}
	f.OffersTLS = true
	if err := f.handshake(ctx, conn, secure); err != nil {
		if f.ServerLeg == TLS {
			f.Unreachable = err.Error()
		}
	}
}

func offersTLS(conn net.Conn, deadline time.Time) (bool, error) {
	var answer [1]byte
	if err := conn.SetDeadline(deadline); err != nil {
		return false, fmt.Errorf("set deadline: %w", err)
	}
	if _, err := io.WriteString(conn, sslRequest); err != nil {
		return false, fmt.Errorf("ask for TLS: %w", err)
	}
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return false, fmt.Errorf("ask for TLS: %w", err)
	}
	switch answer[0] {
	case 'S', 'N':
		return answer[0] == 'S', nil
	}
	return false, fmt.Errorf("ask for TLS: the answer %q is not PostgreSQL's", answer[0])
}

// handshake takes the certificate whatever it is, and checks it as the proxy does.
func (f *Facts) handshake(ctx context.Context, conn net.Conn, secure *tls.Config) error {
	any := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} // only to look at it: nothing is sent
	if secure != nil {
		any.ServerName, any.NextProtos = secure.ServerName, secure.NextProtos
	}
	any.VerifyConnection = func(s tls.ConnectionState) (err error) {
		f.ServerCert, err = certificate(s.PeerCertificates[0].Raw)
		if secure != nil && err == nil {
			f.BadCertificate = check(s, secure)
		}
		return err
	}
	if err := tls.Client(conn, any).HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return nil
}

// check does what crypto/tls would do with the proxy's settings, and says what is wrong.
func check(s tls.ConnectionState, secure *tls.Config) string {
	if !secure.InsecureSkipVerify {
		options := x509.VerifyOptions{Roots: secure.RootCAs, DNSName: secure.ServerName, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			options.Intermediates.AddCert(c)
		}
		if _, err := s.PeerCertificates[0].Verify(options); err != nil {
			return err.Error()
		}
	}
	if secure.VerifyConnection != nil {
		if err := secure.VerifyConnection(s); err != nil {
			return err.Error()
		}
	}
	return ""
}

const questions = `SELECT json_build_object(
 'version', current_setting('server_version'),
 'number', current_setting('server_version_num')::int,
 'listen', current_setting('listen_addresses'),
 'encrypts', current_setting('password_encryption'),
 'hba', current_setting('hba_file'),
 'client', host(inet_client_addr()),

 'rules', (SELECT json_agg(r) FROM pg_catalog.pg_hba_file_rules r))`

// Reading pg_authid needs a superuser; without it the kinds of passwords stay unknown.
const questionRoles = `SELECT json_build_object(
 'scram', count(*) FILTER (WHERE rolpassword LIKE 'SCRAM-SHA-256$%'),
 'md5', count(*) FILTER (WHERE rolpassword LIKE 'md5%'),
 'none', count(*) FILTER (WHERE rolpassword IS NULL))
FROM pg_catalog.pg_authid WHERE rolcanlogin`

// ask reads what only the server itself can tell.
func (f *Facts) ask(ctx context.Context, c *config.Config, admin string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conf, err := pgconn.ParseConfig(adminDSN(admin, c))
	if err != nil {
		return errors.New("--admin-dsn is not a connection string") // pgconn's text may hold the password
	}
	conf.RuntimeParams["search_path"] = "pg_catalog"
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return fmt.Errorf("connect as %s: %w", conf.User, err)
	}
	defer conn.Close(ctx)
	var answer struct {
		Version, Listen, Encrypts, HBA string
		Number                         int
		Client                         *netip.Addr
		Rules                          []Rule
	}
	if err := query(ctx, conn, questions, &answer); err != nil {
		return fmt.Errorf("read settings and pg_hba.conf: %w", err)
	}
	f.Version, _, _ = strings.Cut(answer.Version, " ")
	f.Major = answer.Number / 10000
	f.Listen, f.Encrypts, f.HBAFile, f.Rules = answer.Listen, answer.Encrypts, answer.HBA, answer.Rules
	if answer.Client != nil && net.JoinHostPort(conf.Host, strconv.Itoa(int(conf.Port))) == f.Upstream {
		f.Client = answer.Client.Unmap() // what the server sees, behind address translation too
	}
	var roles Roles
	if query(ctx, conn, questionRoles, &roles) == nil {
		f.Roles = &roles
	}
	return nil
}

func query(ctx context.Context, conn *pgconn.PgConn, sql string, to any) error {
	res := conn.ExecParams(ctx, sql, nil, nil, nil, nil).Read()
	if res.Err != nil {
		return res.Err
	}
	if len(res.Rows) != 1 {
		return fmt.Errorf("%d rows, want 1", len(res.Rows))
	}
	return json.Unmarshal(res.Rows[0][0], to)
}

// adminDSN adds the server's address to a connection string that is a list; what is in it
// beats what is before it.
func adminDSN(admin string, c *config.Config) string {
	if strings.Contains(admin, "://") {
		return admin
	}
	host, port := c.UpstreamHost()
	return fmt.Sprintf("host=%s port=%s %s", quote(host), quote(port), admin)
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
