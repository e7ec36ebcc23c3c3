// Package config turns a TOML file and command-line flags into the settings
// of one running proxy.
//
// Every setting has one name, which is its key in the file and its flag:
//
//	listen     = "127.0.0.1:6432"
//	upstream   = "db.internal:5432"
//	durability = "before-forward"
//
// A flag beats the file, the file beats the default. An unknown key, a key
// that stands twice and a value of the wrong type are errors that show the line and
// point at the place. Validate lists everything that is wrong, not only the first thing.
//
// The package reads the files it is given and opens nothing else. A Config is
// a plain value: not safe for concurrent changes.
package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/proxyproto"
)

// The durability modes: what has to be on disk before what.
const (
	BeforeForward = "before-forward" // the server sees a statement after its record is on disk
	BeforeReply   = "before-reply"   // the client sees a reply after the records of statement and outcome are on disk
	Async         = "async"          // nothing waits; the loss after a crash is bounded
)

// What waits for the witnesses of the policy.
const (
	WitnessAsync = "async" // nothing: checkpoints are cosigned as they come
	WitnessSync  = "sync"  // what waits for the disk waits for a cosigned checkpoint, too
)

// What a start does if too few witnesses answer to know that the log is in its
// newest state.
const (
	UnreachableRefuse = "refuse"
	UnreachableStart  = "start"
)

// How the proxy speaks TLS to the upstream server; the meanings are those of
// libpq's sslmode.
const (
	TLSDisable    = "disable"
	TLSRequire    = "require"
	TLSVerifyCA   = "verify-ca"
	TLSVerifyFull = "verify-full"
)

// What client certificates are for; the words are those of pg_hba.conf.
const (
	CertOptional   = "optional"    // recorded, if the client has one
	CertVerifyCA   = "verify-ca"   // every client must have one
	CertVerifyFull = "verify-full" // and its common name must be the user's
)

// HTTPOff as the HTTP address turns the HTTP server off.
const HTTPOff = "off"

// A Config holds the settings of one proxy. Default says what the values are
// when nobody set them.
type Config struct {
	// Listen is the address clients connect to: host:port, where port 0 picks
	// one, or the absolute path of a Unix socket.
	Listen string `toml:"listen"`
	// Upstream is the PostgreSQL server: host:port, or the absolute path of a
	// Unix socket.
	Upstream string `toml:"upstream"`
	// Data is the data directory. It is created if it does not exist.
	Data string `toml:"data"`
	// Durability is BeforeForward, BeforeReply or Async.
	Durability string `toml:"durability"`
	// HTTP is the address of the page, metrics and log resources, host:port, or HTTPOff.
	HTTP string `toml:"http"`
	// HTTPTLSCert and HTTPTLSKey are PEM files; without them HTTP is spoken in the clear.
	HTTPTLSCert string `toml:"http-tls-cert"`
	HTTPTLSKey  string `toml:"http-tls-key"`
	// HTTPTokens is a file of package access: who may read entries over HTTP.
	// Empty makes one token, kept in the data directory.
	HTTPTokens string `toml:"http-tokens"`
	// Sinks is a file of sinks, see ReadSinks; empty for none.
	Sinks string `toml:"sinks"`

	// TLSCert and TLSKey are PEM files; without them clients get no TLS.
	TLSCert string `toml:"tls-cert"`
	TLSKey  string `toml:"tls-key"`
	// ClientCA is a PEM file with the authorities that sign client certificates; without it clients
	// are not asked for one.
	ClientCA string `toml:"client-ca"`
	// ClientCert is CertOptional, CertVerifyCA or CertVerifyFull.
	ClientCert string `toml:"client-cert"`
	// ProxyProtocolFrom lists the addresses and networks of load balancers, separated by commas.
	ProxyProtocolFrom string `toml:"proxy-protocol-from"`
	// UpstreamTLS is TLSDisable, TLSRequire, TLSVerifyCA or TLSVerifyFull.
	UpstreamTLS string `toml:"upstream-tls"`
	// UpstreamCA is a PEM file with the authorities to trust instead of the system's.
	UpstreamCA string `toml:"upstream-ca"`
	// UpstreamCert and UpstreamKey are the PEM files of a certificate to show to the server.
	UpstreamCert string `toml:"upstream-cert"`
	UpstreamKey  string `toml:"upstream-key"`

	// AuthFile has the SCRAM verifiers of users, and AuthUser may call the function that returns them,
	// in AuthDatabase: logins by SCRAM are then ended by the proxy. AuthPassfile has AuthUser's password,
	// as libpq's passfile.
	AuthFile     string `toml:"auth-file"`
	AuthUser     string `toml:"auth-user"`
	AuthDatabase string `toml:"auth-database"`
	AuthPassfile string `toml:"auth-passfile"`

	// Origin is the log's name in its checkpoints. It matters only when the
	// data directory is made; empty makes pgnotary/<hostname>/<random>.
	Origin string `toml:"origin"`
	// SegmentSize and SegmentAge say when a journal file is full.
	SegmentSize Size     `toml:"segment-size"`
	SegmentAge  Duration `toml:"segment-age"`
	// Retain and RetainValues say how long entries, or their values, are kept at
	// least; 0 for ever. RetainSize and RetainValuesSize bound the bytes of sealed
	// segments, or of their value files.
	Retain           Duration `toml:"retain"`
	RetainValues     Duration `toml:"retain-values"`
	RetainSize       Size     `toml:"retain-size"`
	RetainValuesSize Size     `toml:"retain-values-size"`
	// Immutable asks for the immutable flag (chattr +i) on sealed files; it
	// needs the right CAP_LINUX_IMMUTABLE.
	Immutable bool `toml:"immutable"`

	// SigningKey is the private key of the log: a file of keygen, or ssh-agent:
	// and the fingerprint of an Ed25519 key in the agent at SSH_AUTH_SOCK. Empty: the
	// file key in the data directory, made if it is missing.
	SigningKey string `toml:"signing-key"`
	// NextSigningKey is the key that takes its place at the next start, in the
	// same form. Empty: the file key.next in the data directory, if there is one and SigningKey is empty too.
	NextSigningKey string `toml:"next-signing-key"`
	// Policy is a tlog-policy file: the witnesses that cosign the checkpoints,
	// where they are, and how many are enough. Empty: none.
	Policy string `toml:"policy"`
	// WitnessMode is WitnessAsync or WitnessSync.
	WitnessMode string `toml:"witness-mode"`
	// WitnessUnreachable is UnreachableRefuse or UnreachableStart.
	WitnessUnreachable string `toml:"witness-unreachable"`

	// Captures say whose results and COPYs are kept, and how much of them.
	Captures []Capture `toml:"capture"`

	// MaxSessions is the number of client connections served at once.
	MaxSessions int `toml:"max-sessions"`
	// MaxUnauthenticated is how many of them may be before their login is complete.
	MaxUnauthenticated int `toml:"max-unauthenticated"`
	// LoginTimeout bounds the time from accepting a connection to the end of its login.
	LoginTimeout Duration `toml:"login-timeout"`
	// DrainTimeout bounds how long a stop waits for running sessions.
	DrainTimeout Duration `toml:"drain-timeout"`

	// LogFormat is "text" or "json", LogLevel is "debug", "info", "warn" or
	// "error": the diagnostics on standard error, which hold no statement.
	LogFormat string `toml:"log-format"`
	LogLevel  string `toml:"log-level"`
}

// Default returns the settings in force when nobody says otherwise.
func Default() Config {
	return Config{
		Listen:             "127.0.0.1:6432",
		Upstream:           "127.0.0.1:5432",
		Data:               "pgnotary-data",
		Durability:         BeforeForward,
		HTTP:               "127.0.0.1:6433",
		ClientCert:         CertOptional,
		UpstreamTLS:        TLSDisable,
		AuthDatabase:       "postgres",
		SegmentSize:        64 << 20,
		SegmentAge:         Duration{24 * time.Hour},
		WitnessMode:        WitnessAsync,
		WitnessUnreachable: UnreachableRefuse,
		Immutable:          true,
		MaxSessions:        1000,
		MaxUnauthenticated: 128,
		LoginTimeout:       Duration{60 * time.Second},
		DrainTimeout:       Duration{30 * time.Second},
		LogFormat:          "text",
		LogLevel:           "info",
	}
}

// A Value reads and writes one setting as text. It is what flag libraries ask for.
type Value interface {
	String() string
	Set(text string) error
	Type() string
}

// A Field is one setting of a Config.
type Field struct {
	Key    string // key in the file and name of the flag
	Usage  string // one line, for --help
	Live   bool   // a reload (SIGHUP) puts a new value into force
	Value  Value  // writes through to the Config
	quoted bool   // a string in TOML
}

// Fields returns every setting of c, in the order of the manual.
func (c *Config) Fields() []Field {
	return []Field{
		{Key: "listen", Usage: "address clients connect to: host:port, or the path of a Unix socket", Value: text(&c.Listen, "address"), quoted: true},
		{Key: "upstream", Usage: "PostgreSQL server: host:port, or the path of a Unix socket", Value: text(&c.Upstream, "address"), quoted: true},
		{Key: "data", Usage: "data directory, made if missing", Value: text(&c.Data, "directory"), quoted: true},
		{Key: "durability", Usage: "before-forward, before-reply or async", Value: text(&c.Durability, "mode"), quoted: true},
		{Key: "http", Usage: "address of page, metrics and log resources, or off", Value: text(&c.HTTP, "address"), quoted: true},
		{Key: "http-tls-cert", Usage: "certificate chain of the HTTP address, PEM", Value: text(&c.HTTPTLSCert, "file"), Live: true, quoted: true},
		{Key: "http-tls-key", Usage: "private key of that certificate, PEM", Value: text(&c.HTTPTLSKey, "file"), Live: true, quoted: true},
		{Key: "http-tokens", Usage: "file that says who may read entries over HTTP (default one token, made in the data directory)", Value: text(&c.HTTPTokens, "file"), Live: true, quoted: true},
		{Key: "sinks", Usage: "file that says where else to send what is recorded (docs/sinks.md)", Value: text(&c.Sinks, "file"), quoted: true},
		{Key: "tls-cert", Usage: "certificate chain shown to clients, PEM", Value: text(&c.TLSCert, "file"), Live: true, quoted: true},
		{Key: "tls-key", Usage: "private key of the certificate, PEM", Value: text(&c.TLSKey, "file"), Live: true, quoted: true},
		{Key: "client-ca", Usage: "authorities of client certificates, PEM; asks clients for one", Value: text(&c.ClientCA, "file"), Live: true, quoted: true},
		{Key: "client-cert", Usage: "optional, verify-ca or verify-full, as clientcert in pg_hba.conf", Value: text(&c.ClientCert, "mode"), quoted: true},
		{Key: "proxy-protocol-from", Usage: "load balancers that send PROXY protocol v2: addresses and networks, with commas", Value: text(&c.ProxyProtocolFrom, "list"), quoted: true},
		{Key: "upstream-tls", Usage: "disable, require, verify-ca or verify-full", Value: text(&c.UpstreamTLS, "mode"), quoted: true},
		{Key: "upstream-ca", Usage: "authorities to trust for the server, PEM, instead of the system's", Value: text(&c.UpstreamCA, "file"), quoted: true},
		{Key: "upstream-cert", Usage: "certificate chain to show to the server, PEM", Value: text(&c.UpstreamCert, "file"), quoted: true},
		{Key: "upstream-key", Usage: "private key of upstream-cert, PEM", Value: text(&c.UpstreamKey, "file"), quoted: true},
		{Key: "auth-file", Usage: "SCRAM verifiers of users, as PgBouncer's auth_file: binds each leg to its own certificate", Value: text(&c.AuthFile, "file"), Live: true, quoted: true},
		{Key: "auth-user", Usage: "the same, but asks the server as this role; doctor prints how to set it up", Value: text(&c.AuthUser, "role"), quoted: true},
		{Key: "auth-database", Usage: "database of the function that auth-user calls", Value: text(&c.AuthDatabase, "name"), quoted: true},
		{Key: "auth-passfile", Usage: "password of auth-user, as libpq's passfile (default ~/.pgpass)", Value: text(&c.AuthPassfile, "file"), quoted: true},
		{Key: "origin", Usage: "name of a new log in its checkpoints (default pgnotary/<hostname>/<random>)", Value: text(&c.Origin, "name"), quoted: true},
		{Key: "segment-size", Usage: "start a new journal file after this many bytes", Value: &c.SegmentSize, quoted: true},
		{Key: "segment-age", Usage: "start a new journal file after this time", Value: &c.SegmentAge, quoted: true},
		{Key: "signing-key", Usage: "private key of the log: a file of keygen, or ssh-agent:SHA256:<fingerprint> (default <data>/key, made if missing)", Value: text(&c.SigningKey, "key"), quoted: true},
		{Key: "next-signing-key", Usage: "key that takes its place at the next start, in the same form (default <data>/key.next, if there and no signing-key is given)", Value: text(&c.NextSigningKey, "key"), quoted: true},
		{Key: "policy", Usage: "file (c2sp.org/tlog-policy) with the witnesses that are to cosign the log, and their URLs", Value: text(&c.Policy, "file"), quoted: true},
		{Key: "witness-mode", Usage: "async, or sync: what waits for the disk waits for a quorum of witnesses, too", Value: text(&c.WitnessMode, "mode"), quoted: true},
		{Key: "witness-unreachable", Usage: "what a start does if too few witnesses answer: refuse or start", Value: text(&c.WitnessUnreachable, "answer"), quoted: true},
		{Key: "retain", Usage: "prune entries older than this, as 365d, unless a hold stops it; 0 never", Value: &c.Retain, quoted: true},
		{Key: "retain-values", Usage: "prune values older than this; 0 never", Value: &c.RetainValues, quoted: true},
		{Key: "retain-size", Usage: "prune the oldest entries when segments take more than this; 0 never", Value: &c.RetainSize, quoted: true},
		{Key: "retain-values-size", Usage: "prune the oldest values when they take more than this; 0 never", Value: &c.RetainValuesSize, quoted: true},
		{Key: "immutable", Usage: "make sealed files immutable (chattr +i) where that is possible", Value: (*flag)(&c.Immutable)},
		{Key: "max-sessions", Usage: "client connections served at once", Value: (*count)(&c.MaxSessions)},
		{Key: "max-unauthenticated", Usage: "client connections that may be before the end of their login; above, those that hang make room", Value: (*count)(&c.MaxUnauthenticated)},
		{Key: "login-timeout", Usage: "longest time a login may take", Value: &c.LoginTimeout, quoted: true},
		{Key: "drain-timeout", Usage: "longest time a stop waits for sessions", Value: &c.DrainTimeout, Live: true, quoted: true},
		{Key: "log-format", Usage: "format of diagnostics: text or json", Value: text(&c.LogFormat, "format"), quoted: true},
		{Key: "log-level", Usage: "debug, info, warn or error", Value: text(&c.LogLevel, "level"), Live: true, quoted: true},
	}
}

// Set gives the setting key the value that text stands for.
func (c *Config) Set(key, text string) error {
	fields := c.Fields()
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Key == key })
	if i < 0 {
		return fmt.Errorf("unknown setting %q", key)
	}
	if err := fields[i].Value.Set(text); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Print writes the settings as a configuration file. source, which may be
// nil, says for each key where its value comes from; it becomes a comment.
func (c *Config) Print(w io.Writer, source map[string]string) error {
	for _, f := range c.Fields() {
		line := f.Key + " = " + f.Value.String()
		if f.quoted {
			line = f.Key + " = " + quote(f.Value.String())
		}
		if from := source[f.Key]; from != "" {
			line = fmt.Sprintf("%-44s # %s", line, from)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	for _, r := range c.Captures { // tables come behind all keys
		if _, err := io.WriteString(w, r.toml()); err != nil {
			return err
		}
	}
	return nil
}

// quote writes s as a TOML basic string.
func quote(s string) string {
	out := []byte{'"'}
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case unicode.IsControl(r):
			out = fmt.Appendf(out, `\u%04X`, r)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return string(append(out, '"'))
}

// Changed lists the keys whose values differ between c and d, split by
// whether a reload can put them into force.
func (c *Config) Changed(d *Config) (live, restart []string) {
	other := d.Fields()
	for i, f := range c.Fields() {
		switch {
		case f.Value.String() == other[i].Value.String():
		case f.Live:
			live = append(live, f.Key)
		default:
			restart = append(restart, f.Key)
		}
	}
	if !slices.Equal(c.Captures, d.Captures) {
		restart = append(restart, "capture")
	}
	return live, restart
}

// Validate returns all that is wrong with the settings themselves, joined, or
// nil. It looks at no file; see Check.
func (c *Config) Validate() error {
	var p problems
	if strings.HasPrefix(c.Listen, "/") {
		p.add("listen", checkSocket(c.Listen))
	} else {
		p.add("listen", checkAddress(c.Listen))
	}
	p.add("upstream", checkUpstream(c.Upstream))
	if c.HTTP != HTTPOff {
		p.add("http", checkAddress(c.HTTP))
	}
	if c.Data == "" {
		p.addf("data", "must name a directory")
	}
	p.oneOf("durability", c.Durability, BeforeForward, BeforeReply, Async)
	p.oneOf("witness-mode", c.WitnessMode, WitnessAsync, WitnessSync)
	p.oneOf("witness-unreachable", c.WitnessUnreachable, UnreachableRefuse, UnreachableStart)
	if c.WitnessMode == WitnessSync && c.Policy == "" {
		p.addf("policy", "must be set for witness-mode sync: it says which witnesses to wait for")
	}
	if c.WitnessMode == WitnessSync && c.Durability == Async {
		p.addf("witness-mode", "is sync, but durability is async: nothing would wait")
	}
	p.oneOf("upstream-tls", c.UpstreamTLS, TLSDisable, TLSRequire, TLSVerifyCA, TLSVerifyFull)
	p.oneOf("client-cert", c.ClientCert, CertOptional, CertVerifyCA, CertVerifyFull)
	p.oneOf("log-format", c.LogFormat, "text", "json")
	p.oneOf("log-level", c.LogLevel, "debug", "info", "warn", "error")
	if (c.TLSCert == "") != (c.TLSKey == "") {
		p.addf("tls-cert", "and tls-key belong together: only one of them is set")
	}
	if (c.HTTPTLSCert == "") != (c.HTTPTLSKey == "") {
		p.addf("http-tls-cert", "and http-tls-key belong together: only one of them is set")
	}
	if c.ClientCA != "" && c.TLSCert == "" {
		p.addf("client-ca", "is set, but tls-cert is not: clients show certificates only over TLS")
	}
	if c.ClientCert != CertOptional && c.ClientCA == "" {
		p.addf("client-cert", "is %s, but client-ca does not say which certificates are good", c.ClientCert)
	}
	if _, err := c.ProxySources(); err != nil {
		p.add("proxy-protocol-from", err)
	}
	if c.AuthFile != "" && c.AuthUser != "" {
		p.addf("auth-file", "and auth-user are both set: verifiers come from one place")
	}
	if c.AuthPassfile != "" && c.AuthUser == "" {
		p.addf("auth-passfile", "is set, but auth-user is not: it would not be used")
	}
	if (c.UpstreamCert == "") != (c.UpstreamKey == "") {
		p.addf("upstream-cert", "and upstream-key belong together: only one of them is set")
	}
	if c.UpstreamCert != "" && c.UpstreamTLS == TLSDisable {
		p.addf("upstream-cert", "is set, but upstream-tls is disable: the server would not see it")
	}
	if c.UpstreamTLS != TLSDisable && strings.HasPrefix(c.Upstream, "/") {
		p.addf("upstream-tls", "must be disable: upstream is a Unix socket, and PostgreSQL speaks no TLS there")
	}
	if c.UpstreamCA != "" && c.UpstreamTLS == TLSDisable {
		p.addf("upstream-ca", "is set, but upstream-tls is disable: the server would not be checked")
	}
	if c.UpstreamTLS == TLSVerifyCA && c.UpstreamCA == "" {
		p.addf("upstream-ca", "must be set for upstream-tls verify-ca: any certificate of a public authority would do otherwise")
	}
	if port(c.Listen) != "0" && c.Listen == c.HTTP {
		p.addf("http", "is the same address as listen")
	}
	if port(c.Listen) != "0" && c.Listen == c.Upstream {
		p.addf("upstream", "is the same address as listen: the proxy would connect to itself")
	}
	if len(c.Captures) > maxCaptures {
		p.addf("capture", "stands %d times, more than %d", len(c.Captures), maxCaptures)
	}
	for _, r := range c.Captures {
		r.validate(&p)
	}
	p.add("origin", checkOrigin(c.Origin))
	c.validateNumbers(&p)
	return errors.Join(p...)
}

func (c *Config) validateNumbers(p *problems) {
	if c.SegmentSize < 64<<10 || c.SegmentSize > 1<<40 {
		p.addf("segment-size", "%s is not between 64KiB and 1TiB", c.SegmentSize)
	}
	if c.SegmentAge.Duration < time.Second {
		p.addf("segment-age", "%s is less than a second", c.SegmentAge)
	}
	if c.Retain.Duration < 0 || c.RetainValues.Duration < 0 {
		p.addf("retain", "and retain-values cannot be below zero")
	}
	if c.LoginTimeout.Duration <= 0 {
		p.addf("login-timeout", "%s is not above zero", c.LoginTimeout)
	}
	if c.DrainTimeout.Duration < 0 {
		p.addf("drain-timeout", "%s is below zero", c.DrainTimeout)
	}
	if c.MaxSessions < 1 {
		p.addf("max-sessions", "%d is less than 1", c.MaxSessions)
	}
	if c.MaxUnauthenticated < 1 {
		p.addf("max-unauthenticated", "%d is less than 1", c.MaxUnauthenticated)
	}
}

// UpstreamHost splits Upstream as libpq names a server: host and port, where a host that begins with
// / is the directory of a socket.
func (c *Config) UpstreamHost() (host, port string) {
	if !strings.HasPrefix(c.Upstream, "/") {
		host, port, _ = net.SplitHostPort(c.Upstream) // Validate has seen to it
		return host, port
	}
	dir, file := path.Split(c.Upstream)
	if port, ok := strings.CutPrefix(file, ".s.PGSQL."); ok {
		return strings.TrimSuffix(dir, "/"), port
	}
	return c.Upstream, "5432"
}

// ProxySources returns ProxyProtocolFrom as networks.
func (c *Config) ProxySources() (proxyproto.Sources, error) {
	fields := strings.FieldsFunc(c.ProxyProtocolFrom, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	return proxyproto.ParseSources(fields)
}

// problems collects what is wrong, each with the key it is about.
type problems []error

func (p *problems) add(key string, err error) {
	if err != nil {
		*p = append(*p, fmt.Errorf("%s: %w", key, err))
	}
}

func (p *problems) addf(key, format string, args ...any) {
	*p = append(*p, fmt.Errorf(key+" "+format, args...))
}

func (p *problems) oneOf(key, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		p.addf(key, "is %q, not one of %s", got, strings.Join(allowed, ", "))
	}
}

// maxSocket is the longest path of a Unix socket, in bytes (sun_path of unix(7), less its terminator).
const maxSocket = 107

func checkSocket(path string) error {
	if len(path) > maxSocket {
		return fmt.Errorf("the path of a Unix socket has at most %d bytes, this has %d", maxSocket, len(path))
	}
	return nil
}

func checkAddress(addr string) error {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port", addr)
	}
	if _, err := strconv.ParseUint(portText, 10, 16); err != nil {
		return fmt.Errorf("%q has no port number between 0 and 65535", addr)
	}
	return nil
}

func checkUpstream(addr string) error {
	if strings.HasPrefix(addr, "/") {
		return checkSocket(addr)
	}
	if err := checkAddress(addr); err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(addr); host == "" || port(addr) == "0" {
		return fmt.Errorf("%q does not name a host and a port", addr)
	}
	return nil
}

// checkOrigin holds the name to what a signed note allows.
func checkOrigin(name string) error {
	if len(name) > 200 {
		return fmt.Errorf("is %d bytes long, more than 200", len(name))
	}
	for _, r := range name {
		if unicode.IsSpace(r) || r == '+' || r == unicode.ReplacementChar || unicode.IsControl(r) {
			return fmt.Errorf("%q has a character that a checkpoint cannot hold: %q", name, r)
		}
	}
	return nil
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
