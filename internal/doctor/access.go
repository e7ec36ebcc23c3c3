package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// trust judges what the rules that speak of the proxy mean once everybody comes from its
// address.
func (r *Report) trust(f *Facts, reached []Rule) {
	for _, rule := range reached {
		r.mend = r.mend || rule.Method == "trust" || rule.Method == "password" || rule.Method == "peer" || rule.Method == "ident"
		switch {
		case rule.Method == "trust":
			r.find(Error, rule.Line, fmt.Sprintf("whoever reaches the proxy can log in as anyone the line %q names", &rule), "use scram-sha-256")
		case rule.Method == "password":
			r.find(Warning, rule.Line, "method password sends passwords in the clear to the proxy and the server", "use scram-sha-256")
		case (rule.Method == "peer" || rule.Method == "ident") && rule.everybody():
			r.find(Warning, rule.Line, fmt.Sprintf("the line %q asks for the proxy's operating system user, not the client's", &rule), "put a line with scram-sha-256 before it")
		}
	}
	for i := range reached {
		if p, ok := reached[i].prefix(); (ok && !p.IsSingleIP() || reached[i].Address == "all") && reached[i].Method != "reject" {
			r.mend = true
			r.find(Warning, reached[i].Line, fmt.Sprintf("the line %q lets in more addresses than the proxy's", &reached[i]), "name the proxy's address alone")
		}
	}
}

// bypass looks for ways around the proxy.
func (r *Report) bypass(f *Facts) {
	remote := f.listensBeyondLoopback()
	all, replication := false, false // connections from elsewhere are rejected before
	for _, rule := range f.Rules {
		if rule.Error != "" {
			continue
		}
		if rule.Method == "reject" {
			wide := rule.Type == "host" && rule.Address == "all"
			all = all || wide && rule.everybody()
			replication = replication || wide && rule.replication() && slices.Contains(rule.Users, "all")
			continue
		}
		switch {
		case replication && (all || len(rule.Databases) == 1 && rule.replication()), all && !rule.replication():
			if rule.Type == "local" {
				r.bypassLocal(f, &rule)
			}
		case rule.local():
			r.bypassLocal(f, &rule)
		case rule.only(f.Client):
			r.find(Note, rule.Line, fmt.Sprintf("every process on the proxy's machine can log in to the server directly by the line %q", &rule), "let nobody else use that machine")
		case !remote:
			r.find(Note, rule.Line, fmt.Sprintf("the line %q would let clients go around the proxy; the server listens on %s only", &rule, f.Listen), "")
		default:
			r.mend = true
			r.find(Error, rule.Line, fmt.Sprintf("clients can go around the proxy by the line %q", &rule), "remove it, or put a line before it that rejects what does not come from the proxy")
		}
	}
}

func (r *Report) bypassLocal(f *Facts, rule *Rule) {
	if rule.only(f.Client) || f.ServerLeg == Unix && rule.Type == "local" {
		r.find(Note, rule.Line, fmt.Sprintf("other processes on the server's machine can use the line %q as the proxy does", rule), "let nobody else use that machine")
		return
	}
	level := Note
	if rule.Method == "trust" {
		level = Warning
	}
	r.find(level, rule.Line, fmt.Sprintf("processes on the server's machine can go around the proxy by the line %q", rule), "")
}

// listensBeyondLoopback says whether machines other than the server's can connect to it.
func (f *Facts) listensBeyondLoopback() bool {
	for _, a := range strings.Split(f.Listen, ",") {
		a = strings.TrimSpace(a)
		if addr, err := netip.ParseAddr(a); a == "" || a == "localhost" || err == nil && addr.IsLoopback() {
			continue
		}
		return true
	}
	return false
}

func (r *Report) passwords(f *Facts) {
	if f.Encrypts == "md5" {
		r.find(Warning, 0, "password_encryption is md5: new passwords are kept in a form that is easy to guess", "set it to scram-sha-256 and let users set their passwords again")
	}
	if f.Roles != nil && f.Roles.MD5 > 0 {
		r.find(Warning, 0, fmt.Sprintf("roles with an MD5 password: %d", f.Roles.MD5), "set password_encryption to scram-sha-256 and let them set their passwords again")
	}
}

// lines makes the lines pg_hba.conf should begin with: the proxy in, everybody else from the network out.
func (r *Report) lines(f *Facts) {
	kind, at := "local", ""
	switch f.ServerLeg {
	case TLS:
		kind = "hostssl"
	case Plain:
		kind = "host"
	}
	if kind != "local" {
		if !f.Client.IsValid() {
			return
		}
		a := f.Client.Unmap()
		at = netip.PrefixFrom(a, a.BitLen()).String()
	}
	works := slices.ContainsFunc(r.Logins, func(l Login) bool {
		return (l.Result != Fails || f.BadVerifiers != "") && l.Method == "scram-sha-256" && !l.Perhaps
	})
	if works && !r.mend {
		return
	}
	if kind == "local" && slices.ContainsFunc(f.Rules, func(x Rule) bool { return x.Type == "local" && x.Method == "peer" }) {
		r.Add = append(r.Add, line(kind, "all", "postgres", "", "peer")) // or the administrator is locked out
	}
	for _, database := range []string{"all", "replication"} {
		r.Add = append(r.Add, line(kind, database, "all", at, "scram-sha-256"))
	}
	if kind == "local" || f.listensBeyondLoopback() {
		r.Add = append(r.Add, line("host", "all", "all", "all", "reject"), line("host", "replication", "all", "all", "reject"))
	}
}

func line(kind, database, user, at, method string) string {
	return strings.TrimRight(fmt.Sprintf("%-8s %-12s %-8s %-18s %s", kind, database, user, at, method), " ")
}
