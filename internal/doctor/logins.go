package doctor

import (
	"slices"
	"strings"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/verifiers"
)

// A Result says how a login ends.
type Result string

// The results.
const (
	Works   Result = "works"
	Fails   Result = "fails"
	Depends Result = "depends"
)

// A Binding is libpq's parameter channel_binding. Drivers without such a parameter behave as with
// disable.
type Binding string

// The values.
const (
	Disable Binding = "disable"
	Prefer  Binding = "prefer" // the default
	Require Binding = "require"
)

// A Login says how logins end that pg_hba.conf lets through the proxy.
type Login struct {
	Line      int      `json:"line"` // of pg_hba.conf
	Perhaps   bool     `json:"perhaps,omitempty"`
	Databases []string `json:"databases"`
	Users     []string `json:"users"`
	Method    string   `json:"method"`
	Verifier  string   `json:"verifier,omitempty"` // kind of the role's password, where it matters: scram, md5
	Client    Leg      `json:"client"`             // how the client connects to the proxy
	Binding   Binding  `json:"channel_binding"`
	Result    Result   `json:"result"`
	Why       string   `json:"why,omitempty"`
}

// logins judges every rule that speaks of the proxy, and returns those rules. The server takes the first
// rule that fits, so those behind one for everybody count for replication only, and
// behind one for replication not at all.
func (r *Report) logins(f *Facts) (reached []Rule) {
	var all, replication bool
	for _, rule := range f.Rules {
		if rule.Error != "" {
			r.find(Error, rule.Line, "pg_hba.conf has an error: "+rule.Error, "correct it: until then the server does not load the file")
		}
		m := rule.admits(f.ServerLeg, f.Client)
		if m == never || all && (replication || !rule.replication()) {
			continue
		}
		if m == surely {
			all = all || rule.everybody()
			replication = replication || rule.replication() && slices.Contains(rule.Users, "all")
		}
		reached = append(reached, rule)
		for _, verifier := range passwordKinds(f, rule.Method) {
			for _, client := range f.clientLegs() {
				for _, b := range []Binding{Disable, Prefer, Require} {
					result, why := f.judge(&rule, verifier, client, b)
					r.Logins = append(r.Logins, Login{
						Line: rule.Line, Perhaps: m == perhaps, Databases: rule.Databases, Users: rule.Users, Method: rule.Method,
						Verifier: verifier, Client: client, Binding: b, Result: result, Why: why,
					})
				}
			}
		}
	}
	if len(reached) == 0 {
		r.find(Error, 0, "no line of pg_hba.conf lets the proxy in", "add the lines below")
	} else if !slices.ContainsFunc(r.Logins, func(l Login) bool { return l.Result != Fails && l.Binding == Prefer }) {
		r.find(Error, 0, "no login through the proxy works with a client's default settings", r.remedy(f))
	}
	return reached
}

// remedy says what makes SCRAM work.
func (r *Report) remedy(f *Facts) string {
	if f.ServerLeg == TLS && !f.sameCert() && f.Verifiers == "" && slices.ContainsFunc(r.Logins, func(l Login) bool { return l.scram() }) {
		r.SQL = verifiers.SetupFor("pgnotary_auth")
		return "set auth-user = \"pgnotary_auth\" after running the SQL below as a superuser, or give the proxy the server's certificate and key as tls-cert and tls-key, or put it on the server's machine and connect by Unix socket, or let clients set channel_binding=disable"
	}
	return ""
}

func (l *Login) scram() bool {
	return l.Method == "scram-sha-256" && l.Verifier != "md5" || l.Verifier == "scram"
}

// passwordKinds lists the kinds of passwords that make a difference for a method: PostgreSQL asks by
// SCRAM under method md5 if the role's password is kept so.
func passwordKinds(f *Facts, method string) []string {
	if method != "md5" && method != "scram-sha-256" {
		return []string{""}
	}
	var kinds []string
	if f.Roles == nil || f.Roles.SCRAM > 0 || f.Roles.MD5 == 0 {
		kinds = append(kinds, "scram")
	}
	if f.Roles != nil && f.Roles.MD5 > 0 || f.Roles == nil && method == "md5" {
		kinds = append(kinds, "md5")
	}
	return kinds
}

// clientLegs lists how clients can connect to the proxy.
func (f *Facts) clientLegs() []Leg {
	if f.ProxyCert == nil {
		return []Leg{Plain}
	}
	return []Leg{TLS, Plain}
}

// judge says how a login ends.
func (f *Facts) judge(r *Rule, verifier string, client Leg, b Binding) (Result, string) {
	if client == Plain && f.ClientCert != "" && f.ClientCert != config.CertOptional {
		return Fails, "the proxy asks for a client certificate, which needs TLS"
	}
	if slices.ContainsFunc(r.Options, func(o string) bool { return strings.HasPrefix(o, "clientcert=") }) && !f.UpstreamCert {
		return Fails, "the server asks the proxy for a client certificate; the client's cannot pass through, and upstream-cert is not set"
	}
	if b == Require && client == Plain {
		return Fails, "there is no channel to bind to without TLS"
	}
	scram := verifier == "scram"
	if b == Require && !scram {
		return Fails, "the client refuses a login without channel binding"
	}
	switch r.Method {
	case "trust":
		return Works, "without any credential"
	case "reject":
		return Fails, "the line rejects"
	case "password", "ldap", "radius", "pam", "bsd":
		if client == Plain {
			return Works, "the password crosses the network in the clear"
		}
		return Works, ""
	case "md5":
		if !scram {
			return Works, ""
		}
		return f.judgeSCRAM(client, b)
	case "scram-sha-256":
		if !scram {
			return Fails, "the role has an MD5 password: it must be set again"
		}
		return f.judgeSCRAM(client, b)
	case "peer", "ident":
		return Fails, "it would be the proxy's own operating system user who logs in"
	case "cert":
		if f.UpstreamCert {
			return Depends, "map= and pg_ident.conf must take the proxy's certificate for every user; set client-cert = \"verify-full\""
		}
		return Fails, "the client's certificate cannot pass through, and upstream-cert is not set"
	case "gss", "sspi":
		return Depends, "the server's keytab must hold the host name by which clients reach the proxy; gssencmode=require fails"
	case "oauth":
		if client == Plain {
			return Fails, "a token needs TLS"
		}
		return Depends, "tokens pass through"
	}
	return Depends, "unknown method"
}

// judgeSCRAM says how SCRAM ends when both sides of it speak through the proxy. The client binds to the
// certificate it sees, the proxy's, the server to its own; who can see a certificate and is not
// offered SCRAM-SHA-256-PLUS, or says so, is taken for the victim of a downgrade.
//
//	client  server      certificates  disable  prefer  require
//	TLS     TLS         the same      works    works   works
//	TLS     TLS         two           works    fails   fails
//	TLS     plain/Unix                works    works   fails
//	plain   TLS                       fails    fails   fails
//	plain   plain/Unix                works    works   fails
//
// With verifiers the proxy speaks for each side to the other, and all of it works but what one leg
// alone cannot do.
func (f *Facts) judgeSCRAM(client Leg, b Binding) (Result, string) {
	switch {
	case f.Verifiers == "":
	case f.BadVerifiers != "":
		return Fails, "the proxy has no verifiers"
	case b == Require && !f.ProxyCert.Binding:
		return Fails, "the signature of the certificate (" + f.ProxyCert.Signature + ") has no hash to bind to"
	case client == TLS && b != Disable && f.ProxyCert.Binding:
		return Works, "each leg bound to its own certificate"
	default:
		return Works, ""
	}
	bound := f.ServerLeg == TLS
	switch {
	case !bound && b == Require:
		return Fails, "the server offers no channel binding, since the proxy speaks no TLS with it"
	case !bound:
		return Works, ""
	case client == Plain:
		return Fails, "the server offers channel binding, which libpq refuses without TLS; other drivers may pass"
	case b == Disable:
		return Works, ""
	case !f.sameCert():
		return Fails, "the client binds to the proxy's certificate, the server to its own"
	case !f.ServerCert.Binding:
		return Fails, "the signature of the certificate (" + f.ServerCert.Signature + ") has no hash to bind to"
	}
	return Works, "with channel binding end to end"
}
