package doctor

import (
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the expected text anew")

// rules reads lines in the order type, database, user, address, method, options; numbered from 1.
func rules(lines ...string) []Rule {
	var all []Rule
	for i, text := range lines {
		w := strings.Fields(text)
		r := Rule{Line: i + 1, Type: w[0], Databases: strings.Split(w[1], ","), Users: strings.Split(w[2], ",")}
		w = w[3:]
		if r.Type != "local" {
			r.Address, w = w[0], w[1:]
			if p, err := netip.ParsePrefix(r.Address); err == nil {
				r.Address = p.Addr().String()
				mask := make([]byte, p.Addr().BitLen()/8)
				for b := range p.Bits() {
					mask[b/8] |= 0x80 >> (b % 8)
				}
				a, _ := netip.AddrFromSlice(mask)
				r.Netmask = a.String()
			}
		}
		r.Method, r.Options = w[0], w[1:]
		all = append(all, r)
	}
	return all
}

var (
	now     = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	proxyIP = netip.MustParseAddr("10.0.0.5")
	certA   = &Certificate{Subject: "CN=proxy", SHA256: "aa", NotAfter: now.AddDate(1, 0, 0), Signature: "SHA256-RSA", Binding: true}
	certB   = &Certificate{Subject: "CN=db", SHA256: "bb", NotAfter: now.AddDate(1, 0, 0), Signature: "SHA256-RSA", Binding: true}
)

// facts is a proxy on a machine of its own that does everything right, before those rules.
func facts(lines ...string) *Facts {
	return &Facts{
		Now: now, Upstream: "db:5432", ServerLeg: TLS, Client: proxyIP, OffersTLS: true, ServerCert: certA, ProxyCert: certA,
		Version: "18.4", Major: 18, Listen: "*", Encrypts: "scram-sha-256", HBAFile: "/etc/pg_hba.conf", Roles: &Roles{SCRAM: 3}, Rules: rules(lines...),
	}
}

func texts(r *Report) []string {
	var all []string
	for _, x := range r.Findings {
		all = append(all, string(x.Level)+": "+x.What)
	}
	return all
}

func TestRule(t *testing.T) {
	for _, row := range []struct {
		line string
		leg  Leg
		from string
		want match
	}{
		{"host all all 10.0.0.5/32 md5", TLS, "10.0.0.5", surely},
		{"host all all 10.0.0.5/32 md5", Plain, "::ffff:10.0.0.5", surely},
		{"host all all 10.0.0.0/24 md5", TLS, "10.0.0.5", surely},
		{"host all all 10.0.1.0/24 md5", TLS, "10.0.0.5", never},
		{"host all all 10.0.0.5/32 md5", Unix, "", never},
		{"hostssl all all 0.0.0.0/0 md5", Plain, "10.0.0.5", never},
		{"hostnossl all all 0.0.0.0/0 md5", TLS, "10.0.0.5", never},
		{"hostnossl all all 0.0.0.0/0 md5", Plain, "10.0.0.5", surely},
		{"hostgssenc all all 0.0.0.0/0 gss", TLS, "10.0.0.5", never},
		{"hostnogssenc all all ::/0 md5", TLS, "fd00::1", surely},
		{"host all all ::/0 md5", TLS, "10.0.0.5", never},
		{"host all all all md5", TLS, "10.0.0.5", surely},
		{"host all all samehost md5", TLS, "127.0.0.1", surely},
		{"host all all samehost md5", TLS, "10.0.0.5", perhaps},
		{"host all all samenet md5", TLS, "10.0.0.5", perhaps},
		{"host all all .example.org md5", TLS, "10.0.0.5", perhaps},
		{"local all all md5", Unix, "", surely},
	} {
		r := rules(row.line)[0]
		from, _ := netip.ParseAddr(row.from)
		if got := r.admits(row.leg, from); got != row.want {
			t.Errorf("%q admits(%s, %s) = %d, want %d", row.line, row.leg, row.from, got, row.want)
		}
		if r.String() != row.line {
			t.Errorf("String() = %q, want %q", r.String(), row.line)
		}
	}
	bad := Rule{Type: "host", Address: "all", Error: "invalid authentication method"}
	if bad.admits(TLS, proxyIP) != never {
		t.Error("a line with an error admits")
	}
}

func TestDiagnose(t *testing.T) {
	const good = "hostssl all all 10.0.0.5/32 scram-sha-256"
	for _, row := range []struct {
		name   string
		change func(*Facts)
		rules  []string
		ok     bool
		want   []string // beginnings of findings, in order
		add    int
	}{
		{"all is well", nil, []string{good, "host all all all reject"}, true, []string{"note: every process on the proxy's machine"}, 0},
		{"nobody else", nil, []string{good}, true, []string{"note: every process"}, 0},
		{"way around", nil, []string{good, "host all all 10.0.0.0/8 md5"}, false, []string{"note: every process", "error: clients can go around the proxy by the line \"host all all 10.0.0.0/8 md5\""}, 4},
		{"way around is closed", nil, []string{good, "host all all all reject", "host all all 10.9.0.0/16 md5"}, true, []string{"note: every process"}, 0},
		{"way around for replication", nil, []string{good, "host all all all reject", "host replication all 10.9.0.0/16 md5"}, false, []string{"note: every process", "error: clients can go around"}, 4},
		{"rejected for TLS only", nil, []string{good, "hostssl all all all reject", "host all all 10.9.0.0/16 md5"}, false, []string{"note: every process", "error: clients can go around"}, 4},
		{"host name", nil, []string{good, "host all all app.example.org md5"}, false, []string{"note: every process", "error: clients can go around"}, 4},
		{"server is deaf", func(f *Facts) { f.Listen = "localhost,127.0.0.1,::1" }, []string{good, "host all all all md5"}, true, []string{"note: every process", "note: the line \"host all all all md5\" would"}, 0},
		{"no line", nil, []string{"local all postgres peer", "host all all 127.0.0.1/32 trust"}, false, []string{"error: no line of pg_hba.conf lets the proxy in", "note: processes on the server's machine", "warning: processes on the server's machine"}, 4},
		{"trust", nil, []string{"host all all 10.0.0.5/32 trust"}, false, []string{"error: whoever reaches the proxy can log in as anyone", "note: every process"}, 4},
		{"password", nil, []string{"hostssl all all 10.0.0.5/32 password"}, true, []string{"warning: method password", "note: every process"}, 4},
		{"error in the file", func(f *Facts) { f.Rules = append(f.Rules, Rule{Line: 9, Error: "invalid"}) }, []string{good}, false, []string{"error: pg_hba.conf has an error: invalid", "note: every process"}, 0},
		{"other certificate", func(f *Facts) { f.ServerCert = certB }, []string{good}, false, []string{"error: no login through the proxy works with a client's default settings", "note: every process"}, 0},
		{"no certificate for clients", func(f *Facts) { f.ProxyCert = nil }, []string{good}, false, []string{"warning: clients get no TLS", "error: no login through", "note: every process"}, 4},
		{"in the clear", func(f *Facts) { f.ServerLeg = Plain }, []string{"host all all 10.0.0.5/32 scram-sha-256"}, true, []string{"warning: the connection from the proxy", "note: every process"}, 0},
		{"by socket", func(f *Facts) { f.ServerLeg, f.Client = Unix, netip.Addr{} }, []string{"local all postgres peer", "local all all scram-sha-256"}, true, []string{"note: other processes", "note: other processes"}, 5},
		{"by socket, peer", func(f *Facts) { f.ServerLeg, f.Client = Unix, netip.Addr{} }, []string{"local all all peer"}, false, []string{"error: no login through", "warning: the line \"local all all peer\" asks for the proxy's", "note: other processes"}, 5},
		{"own certificate expired", func(f *Facts) { f.ProxyCert = &Certificate{NotAfter: now.Add(-time.Hour), SHA256: "cc", Binding: true} }, []string{"hostssl all all 10.0.0.5/32 md5"}, false, []string{"error: the proxy's certificate has expired on 2026-11-22", "error: no login", "note: every"}, 4},
		{"certificate expires", func(f *Facts) { f.Now = now.AddDate(1, 0, -20) }, []string{good}, true, []string{"warning: the server's certificate expires on 2027-11-22", "note: every"}, 0},
		{"MD5", func(f *Facts) { f.Encrypts, f.Roles = "md5", &Roles{MD5: 2} }, []string{good}, false, []string{"error: no login", "note: every", "warning: password_encryption is md5", "warning: roles with an MD5 password: 2"}, 4},
		{"old server", func(f *Facts) { f.Version, f.Major = "12.22", 12 }, []string{good}, true, []string{"warning: PostgreSQL 12.22 is older", "note: every"}, 0},
		{"other certificate, verifiers", func(f *Facts) { f.ServerCert, f.Verifiers = certB, "function" }, []string{good}, true, []string{"note: every process"}, 0},
		{"function cannot be asked", func(f *Facts) { f.ServerCert, f.Verifiers, f.BadVerifiers = certB, "function", "42883" }, []string{good}, false, []string{"error: the proxy cannot ask the server for verifiers: 42883", "error: no login through", "note: every process"}, 0},
		{"file cannot be read", func(f *Facts) { f.Verifiers, f.BadVerifiers = "file", "read verifiers x" }, []string{good}, false, []string{"error: the proxy cannot read verifiers x", "error: no login through", "note: every process"}, 0},
		{"users missing in the file", func(f *Facts) { f.Verifiers, f.Users = "file", 2 }, []string{good}, true, []string{"warning: auth-file has verifiers of 2 users, the server of 3 roles", "note: every process"}, 0},
		{"no TLS there", func(f *Facts) { f.OffersTLS, f.Unreachable, f.ServerCert = false, "it does not offer TLS", nil }, []string{good}, false, []string{"error: the proxy cannot reach the server: it does not offer TLS", "error: no login", "note: every"}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := facts(row.rules...)
			if row.change != nil {
				row.change(f)
			}
			r := Diagnose(f)
			got := texts(r)
			if r.OK != row.ok || !slices.EqualFunc(got, row.want, strings.HasPrefix) {
				t.Errorf("ok = %v, findings\n %s\nwant %v,\n %s", r.OK, strings.Join(got, "\n "), row.ok, strings.Join(row.want, "\n "))
			}
			if len(r.Add) != row.add {
				t.Errorf("lines to add:\n %s\nwant %d", strings.Join(r.Add, "\n "), row.add)
			}
		})
	}
}

// TestMethods holds the judgement on methods that no test here can try.
func TestMethods(t *testing.T) {
	for line, want := range map[string]string{
		"gss":                                "TLS depends depends fails, plain depends depends fails",
		"sspi":                               "TLS depends depends fails, plain depends depends fails",
		"oauth":                              "TLS depends depends fails, plain fails fails fails",
		"cert":                               "TLS fails fails fails, plain fails fails fails",
		"peer":                               "TLS fails fails fails, plain fails fails fails",
		"ldap":                               "TLS works works fails, plain works works fails",
		"magic":                              "TLS depends depends fails, plain depends depends fails",
		"scram-sha-256":                      "TLS works works works, plain fails fails fails",
		"scram-sha-256 clientcert=verify-ca": "TLS fails fails fails, plain fails fails fails",
	} {
		var got strings.Builder
		for i, l := range Diagnose(facts("hostssl all all 10.0.0.5/32 " + line)).Logins {
			if i == 3 {
				got.WriteString(",")
			}
			if i%3 == 0 {
				got.WriteString(map[Leg]string{TLS: "TLS", Plain: " plain"}[l.Client])
			}
			got.WriteString(" " + string(l.Result))
		}
		if got.String() != want {
			t.Errorf("%s: %s, want %s", line, &got, want)
		}
	}
	for line, want := range map[string]string{ // with verifiers, client certificates, and one for the server
		"cert": "depends depends fails", "scram-sha-256 clientcert=verify-ca": "works works works", "scram-sha-256": "works works works", "md5": "works works works",
	} {
		f := facts("hostssl all all 10.0.0.5/32 " + line)
		f.ServerCert, f.Verifiers, f.ClientCert, f.UpstreamCert = certB, "file", "verify-full", true
		var got []string
		for _, l := range Diagnose(f).Logins {
			if l.Client == TLS {
				got = append(got, string(l.Result))
			} else if l.Result != Fails {
				t.Errorf("%s: %s without TLS, where a client certificate is needed", line, l.Result)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("with verifiers, %s: %s, want %s", line, got, want)
		}
	}
	f := facts("hostssl all all 10.0.0.5/32 scram-sha-256")
	c := *certA
	c.Signature, c.Binding = "Ed25519", false
	f.ProxyCert, f.ServerCert = &c, &c
	for _, l := range Diagnose(f).Logins {
		if l.Client == TLS && (l.Result == Works) != (l.Binding == Disable) {
			t.Errorf("with an Ed25519 certificate channel_binding=%s %s", l.Binding, l.Result)
		}
	}
}

// TestOrder holds that rules behind one that fits everybody are left out, replication apart.
func TestOrder(t *testing.T) {
	f := facts(
		"hostssl all alice samenet scram-sha-256",
		"hostssl replication bob 10.0.0.5/32 scram-sha-256",
		"hostssl all all 10.0.0.5/32 scram-sha-256",
		"hostssl all carol 10.0.0.5/32 trust",
		"hostssl replication all 10.0.0.5/32 scram-sha-256",
		"hostssl all,replication all all trust",
	)
	var got []int
	perhaps := 0
	for _, l := range Diagnose(f).Logins {
		if !slices.Contains(got, l.Line) {
			got = append(got, l.Line)
		}
		if l.Perhaps {
			perhaps++
		}
	}
	if !slices.Equal(got, []int{1, 2, 3, 5}) || perhaps != 6 {
		t.Errorf("lines judged: %v, %d perhaps, want 1 2 3 5 and 6", got, perhaps)
	}
}

func TestPrint(t *testing.T) {
	f := facts(
		"local all postgres peer",
		"hostssl all all 10.0.0.0/24 md5",
		"hostssl all all samenet trust",
		"host all all 192.168.0.0/16 scram-sha-256",
	)
	f.ServerCert, f.Roles = certB, &Roles{SCRAM: 2, MD5: 1}
	f.Rules[1].Users = []string{"alice", "bob"}
	var got strings.Builder
	if err := Diagnose(f).Print(&got); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/report.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	f = facts("hostssl all all 10.0.0.5/32 scram-sha-256")
	f.ServerCert = certB
	got.Reset()
	if err := Diagnose(f).Print(&got); err != nil || !strings.Contains(got.String(), "\n  CREATE FUNCTION pgnotary.verifier(who text)") {
		t.Errorf("where verifiers would help the report is (%v)\n%s", err, &got)
	}
}
