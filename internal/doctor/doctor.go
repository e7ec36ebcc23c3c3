// Package doctor tells whether logins will work through the proxy, and whether clients
// can go around it, before anyone tries.
//
// Examine collects facts: it connects to the server as the proxy would, looks at the certificates of
// both, and, given credentials, reads the server's version, settings and pg_hba.conf. Diagnose judges them
// and does no I/O. What it says of logins was measured with libpq; see logins.go.
//
// It changes nothing on the server, and looks at no password or verifier, only how many roles have which
// kind, and whether the proxy could read verifiers. It sees the pg_hba.conf that is in the file, loaded or not, and knows nothing of firewalls.
package doctor

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/pgnotary/pgnotary/internal/verifiers"
)

// A Leg is how a connection is made.
type Leg string

// The legs.
const (
	Unix  Leg = "unix"
	Plain Leg = "plain"
	TLS   Leg = "tls"
)

// A Certificate is what is of interest of a server's certificate.
type Certificate struct {
	Subject   string    `json:"subject"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"`
	Signature string    `json:"signature"` // algorithm
	Binding   bool      `json:"binding"`   // SCRAM can bind to it (tls-server-end-point)
}

// Roles counts the roles that may log in by the kind of their password.
type Roles struct {
	SCRAM int `json:"scram"`
	MD5   int `json:"md5"`
	None  int `json:"none"`
}

// Facts is what there is to know about a proxy and its server.
type Facts struct {
	Now      time.Time `json:"-"`
	Upstream string    `json:"upstream"`
	// ServerLeg is how the proxy connects to the server, Client the address the server sees then, not
	// valid for a Unix socket or if the server could not be reached.
	ServerLeg Leg        `json:"server_leg"`
	Client    netip.Addr `json:"client,omitzero"`
	// Unreachable says why the server could not be reached in the way the settings say.
	Unreachable string `json:"unreachable,omitempty"`
	// OffersTLS says whether the server accepts TLS, asked whatever the settings say.
	OffersTLS  bool         `json:"offers_tls"`
	ServerCert *Certificate `json:"server_certificate,omitempty"`
	ProxyCert  *Certificate `json:"proxy_certificate,omitempty"` // shown to clients; nil: they get no TLS
	// Verifiers says where the proxy takes SCRAM verifiers from, "file" or "function", and is empty if
	// logins pass through. Users is how many are in the file, BadVerifiers why they cannot be read.
	Verifiers    string `json:"verifiers,omitempty"`
	Users        int    `json:"verifier_users,omitempty"`
	BadVerifiers string `json:"bad_verifiers,omitempty"`
	AuthUser     string `json:"auth_user,omitempty"`
	// ClientCert is optional, verify-ca or verify-full, and empty if the proxy asks clients for no
	// certificate; UpstreamCert says that the proxy shows one to the server.
	ClientCert   string `json:"client_cert,omitempty"`
	UpstreamCert bool   `json:"upstream_cert,omitempty"`
	// BadCertificate says why the server's certificate does not pass the proxy's check.
	BadCertificate string `json:"bad_certificate,omitempty"`

	// The rest needs credentials.
	Version  string  `json:"version,omitempty"`
	Major    int     `json:"-"`
	Listen   string  `json:"listen_addresses,omitempty"`
	Encrypts string  `json:"password_encryption,omitempty"`
	Roles    *Roles  `json:"roles,omitempty"`
	Rules    []Rule  `json:"-"`
	HBAFile  string  `json:"hba_file,omitempty"`
	Blind    *string `json:"blind,omitempty"` // why the rest is not known; nil if it is
}

// A Level says how much a finding matters.
type Level string

// The levels.
const (
	Error   Level = "error"   // logins fail, or the record can be evaded
	Warning Level = "warning" // it may be so, or it will be
	Note    Level = "note"
)

// A Finding is one thing to know, and what can be done.
type Finding struct {
	Level Level  `json:"level"`
	What  string `json:"what"`
	Do    string `json:"do,omitempty"`
	Line  int    `json:"line,omitempty"` // of pg_hba.conf
}

// A Report is the answer.
type Report struct {
	OK       bool      `json:"ok"` // no finding is an error
	Facts    *Facts    `json:"facts"`
	Logins   []Login   `json:"logins"`
	Findings []Finding `json:"findings"`
	// Add are the lines pg_hba.conf should begin with; empty if it is as it should be.
	Add []string `json:"add"`
	// SQL sets up the function that hands out verifiers, where that would help; else it is empty.
	SQL string `json:"sql,omitempty"`

	mend bool // pg_hba.conf has something that the lines mend
}

func (r *Report) find(level Level, line int, what, do string) {
	r.Findings = append(r.Findings, Finding{Level: level, What: what, Do: do, Line: line})
}

// Diagnose judges facts.
func Diagnose(f *Facts) *Report {
	r := &Report{Facts: f, Logins: []Login{}, Findings: []Finding{}, Add: []string{}}
	r.server(f)
	r.certificates(f)
	r.verifiers(f)
	if f.Blind == nil {
		reached := r.logins(f)
		r.trust(f, reached)
		r.bypass(f)
		r.passwords(f)
		r.lines(f)
	}
	r.OK = true
	for _, x := range r.Findings {
		r.OK = r.OK && x.Level != Error
	}
	return r
}

// verifiers judges the place that verifiers come from.
func (r *Report) verifiers(f *Facts) {
	switch {
	case f.BadVerifiers != "" && f.Verifiers == "function":
		r.find(Error, 0, "the proxy cannot ask the server for verifiers: "+f.BadVerifiers, "run the SQL below in auth-database as a superuser, and give the role a password and auth-passfile")
		r.SQL = verifiers.SetupFor(f.AuthUser)
	case f.BadVerifiers != "":
		r.find(Error, 0, "the proxy cannot "+f.BadVerifiers, "correct auth-file")
	case f.Verifiers == "file" && f.Roles != nil && f.Users < f.Roles.SCRAM:
		r.find(Warning, 0, fmt.Sprintf("auth-file has verifiers of %d users, the server of %d roles: the others cannot log in", f.Users, f.Roles.SCRAM), "write the file anew, or set auth-user instead, which cannot get out of date")
	}
}

func (r *Report) server(f *Facts) {
	if f.Unreachable != "" {
		do := ""
		if f.ServerLeg == TLS && !f.OffersTLS {
			do = "set ssl = on and a certificate on the server, or upstream-tls = \"disable\""
		}
		r.find(Error, 0, "the proxy cannot reach the server: "+f.Unreachable, do)
	}
	if f.Blind != nil {
		r.find(Warning, 0, "pg_hba.conf was not read: "+*f.Blind, "give --admin-dsn with a role that may read pg_hba_file_rules, such as a superuser")
	} else if f.Major < 13 {
		r.find(Warning, 0, "PostgreSQL "+f.Version+" is older than what the proxy is tested with (13)", "")
	}
}

const soon = 30 * 24 * time.Hour

func (r *Report) certificates(f *Facts) {
	if f.BadCertificate != "" {
		r.find(Error, 0, "the proxy does not accept the server's certificate: "+f.BadCertificate, "correct upstream-ca, or the name in upstream")
	}
	r.expiry(f, "the server's", f.ServerCert)
	if !f.sameCert() {
		r.expiry(f, "the proxy's", f.ProxyCert)
	}
	if f.ProxyCert == nil {
		r.find(Warning, 0, "clients get no TLS from the proxy: what they send can be read on the way", "set tls-cert and tls-key")
	}
	if f.ServerLeg == Plain && f.Client.IsValid() && !f.Client.IsLoopback() {
		r.find(Warning, 0, "the connection from the proxy to the server is not encrypted", "set upstream-tls, and give the proxy the server's certificate and key as tls-cert and tls-key")
	}
}

func (r *Report) expiry(f *Facts, who string, c *Certificate) {
	switch {
	case c == nil:
	case f.Now.After(c.NotAfter):
		r.find(Error, 0, who+" certificate has expired on "+c.NotAfter.UTC().Format(time.DateOnly), "renew it")
	case f.Now.Add(soon).After(c.NotAfter):
		r.find(Warning, 0, who+" certificate expires on "+c.NotAfter.UTC().Format(time.DateOnly), "renew it")
	}
}

func (f *Facts) sameCert() bool {
	return f.ProxyCert != nil && f.ServerCert != nil && f.ProxyCert.SHA256 == f.ServerCert.SHA256
}
