package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatalf("Default().Validate() = %v, want nil", err)
	}
}

func TestDecodeErrors(t *testing.T) {
	tests := []struct {
		name, in      string
		what, excerpt string
		similar       string
	}{
		{
			name: "unknown key", in: "data = 'd'\nlisen = 'x'\n",
			what: `f.toml:2:1: unknown key "lisen"`, excerpt: "  2 | lisen = 'x'\n    | ^", similar: "listen",
		},
		{
			name: "unknown key, nothing near", in: "colour = 'x'\n",
			what: `f.toml:1:1: unknown key "colour"`, excerpt: "  1 | colour = 'x'\n    | ^",
		},
		{
			name: "table", in: "\n[server]\nlisten = 'x'\n",
			what: `f.toml:2:2: unknown key "server"`, excerpt: "  2 | [server]\n    |  ^",
		},
		{
			name: "number for a string", in: "listen = 5\n",
			what: "f.toml:1:10: found integer where a string belongs", excerpt: "  1 | listen = 5\n    |          ^",
		},
		{
			name: "string for a number", in: "max-sessions = 'a'\n",
			what: "f.toml:1:16: found string where a number belongs", excerpt: "  1 | max-sessions = 'a'\n    |                ^",
		},
		{
			name: "string for a switch", in: "immutable = 'yes'\n",
			what: "f.toml:1:13: found string where true or false belongs", excerpt: "  1 | immutable = 'yes'\n    |             ^",
		},
		{
			name: "bad size", in: "segment-size = '1 parsec'\n",
			what: `f.toml:1:16: "1 parsec" is not a size such as 64MiB`, excerpt: "  1 | segment-size = '1 parsec'\n    |                ^",
		},
		{
			name: "time span without unit", in: "login-timeout = 30\n",
			what: `f.toml:1:17: "30" is not a time span such as 15m, 24h or 90d`, excerpt: "  1 | login-timeout = 30\n    |                 ^",
		},
		{
			name: "twice", in: "listen = 'a'\nlisten = 'b'\n",
			what: "f.toml:2:1: key listen is already defined", excerpt: "  2 | listen = 'b'\n    | ^",
		},
		{
			name: "not TOML", in: "listen 127.0.0.1\n",
			what: "f.toml:1:8: expected '=' after key", excerpt: "  1 | listen 127.0.0.1\n    |        ^",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			_, err := c.decode("f.toml", []byte(tt.in))
			got, ok := errors.AsType[*FileError](err)
			if !ok {
				t.Fatalf("decode(%q) = %v, want a *FileError", tt.in, err)
			}
			if got.Error() != tt.what || got.Excerpt != tt.excerpt || got.Similar != tt.similar {
				t.Errorf("decode(%q) = %q, %q, %q, want %q, %q, %q", tt.in,
					got.Error(), got.Excerpt, got.Similar, tt.what, tt.excerpt, tt.similar)
			}
			rest := Default()
			rest.Data = c.Data // in one of the files, and right
			if diff := cmp.Diff(rest, c); diff != "" {
				t.Errorf("decode took what is wrong:\n%s", diff)
			}
		})
	}
}

// TestFileMistakes has all mistakes of a file told at once, and the rest read.
func TestFileMistakes(t *testing.T) {
	c := Default()
	keys, err := c.decode("f.toml", []byte("listen = 5\nretain = 7\ndurabilty = 'x'\nhttp = 'off'\n"+
		"segment-size = 'huge'\nretain-values = 8\n[[capture]]\ndatabse = 'x'\nresults = 'full'\n"))
	want := "f.toml:1:10: found integer where a string belongs\n" +
		"f.toml:2:10: \"7\" is not a time span such as 15m, 24h or 90d\n" +
		"f.toml:5:16: \"huge\" is not a size such as 64MiB\n" +
		"f.toml:6:17: \"8\" is not a time span such as 15m, 24h or 90d\n" +
		"f.toml:3:1: unknown key \"durabilty\"\n" +
		"f.toml:8:1: unknown key \"capture.databse\""
	if err == nil || err.Error() != want {
		t.Errorf("decode told\n%v\nwant\n%s", err, want)
	}
	if c.HTTP != "off" || len(c.Captures) != 1 || c.Captures[0].Results != "full" || c.Listen != Default().Listen {
		t.Errorf("decode did not read what is right: %+v, keys %v", c, keys)
	}
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pgnotary.toml")
	text := "upstream = '/run/postgresql/.s.PGSQL.5432'\nsegment-size = 1048576\nsegment-age = '90m'\nmax-sessions = 7\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Default()
	keys, err := c.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"upstream", "segment-size", "segment-age", "max-sessions"}; !cmp.Equal(keys, want) {
		t.Errorf("ReadFile keys = %q, want %q", keys, want)
	}
	want := Default()
	want.Upstream = "/run/postgresql/.s.PGSQL.5432"
	want.SegmentSize = 1 << 20
	want.SegmentAge = Duration{90 * time.Minute}
	want.MaxSessions = 7
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("ReadFile (-want +got):\n%s", diff)
	}
	if _, err := c.ReadFile(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadFile(missing) = %v, want ErrNotExist", err)
	}
}

// TestPrintReadsBack holds that what --check prints is a configuration file
// that gives the same settings.
func TestPrintReadsBack(t *testing.T) {
	c := Default()
	c.Origin, c.TLSCert, c.TLSKey = `odd "name"`, "a.pem", `b\c.pem`
	c.LoginTimeout = Duration{90 * time.Second}
	var out strings.Builder
	if err := c.Print(&out, map[string]string{"listen": "default"}); err != nil {
		t.Fatal(err)
	}
	var back Config
	if _, err := back.decode("printed", []byte(out.String())); err != nil {
		t.Fatalf("decode(%q) = %v", out.String(), err)
	}
	if diff := cmp.Diff(c, back); diff != "" {
		t.Errorf("printed settings read back (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string // each line of the error
	}{
		{"address without port", func(c *Config) { c.Listen = "localhost" }, `listen: "localhost" is not host:port`},
		{"listen on a socket", func(c *Config) { c.Listen = "/run/pgnotary/.s.PGSQL.6432" }, ""},
		{"listen on a socket with a path too long", func(c *Config) { c.Listen = "/" + strings.Repeat("x", 107) }, "listen: the path of a Unix socket has at most 107 bytes, this has 108"},
		{"upstream with a path too long", func(c *Config) { c.Upstream = "/" + strings.Repeat("x", 107) }, "upstream: the path of a Unix socket has at most 107 bytes, this has 108"},
		{"port by name", func(c *Config) { c.HTTP = "localhost:http" }, `http: "localhost:http" has no port number between 0 and 65535`},
		{"http off", func(c *Config) { c.HTTP = "off" }, ""},
		{"upstream port 0", func(c *Config) { c.Upstream = "h:0" }, `upstream: "h:0" does not name a host and a port`},
		{"upstream socket", func(c *Config) { c.Upstream = "/run/x" }, ""},
		{"TLS over a socket", func(c *Config) { c.Upstream, c.UpstreamTLS = "/run/x", TLSRequire }, "upstream-tls must be disable: upstream is a Unix socket, and PostgreSQL speaks no TLS there"},
		{"loop", func(c *Config) { c.Upstream = c.Listen }, "upstream is the same address as listen: the proxy would connect to itself"},
		{"http on listen", func(c *Config) { c.HTTP = c.Listen }, "http is the same address as listen"},
		{"key without certificate", func(c *Config) { c.TLSKey = "k" }, "tls-cert and tls-key belong together: only one of them is set"},
		{"mode", func(c *Config) { c.Durability = "fast" }, `durability is "fast", not one of before-forward, before-reply, async`},
		{"verify-ca without CA", func(c *Config) { c.UpstreamTLS = TLSVerifyCA }, "upstream-ca must be set for upstream-tls verify-ca: any certificate of a public authority would do otherwise"},
		{"CA without TLS", func(c *Config) { c.UpstreamCA = "f" }, "upstream-ca is set, but upstream-tls is disable: the server would not be checked"},
		{"client authorities without TLS", func(c *Config) { c.ClientCA = "f" }, "client-ca is set, but tls-cert is not: clients show certificates only over TLS"},
		{"client certificates without authorities", func(c *Config) { c.ClientCert = CertVerifyFull }, "client-cert is verify-full, but client-ca does not say which certificates are good"},
		{"client certificate mode", func(c *Config) { c.ClientCert = "always" }, `client-cert is "always", not one of optional, verify-ca, verify-full` + "\nclient-cert is always, but client-ca does not say which certificates are good"},
		{"load balancers", func(c *Config) { c.ProxyProtocolFrom = "10.0.0.0/8, fd00::5,192.0.2.7" }, ""},
		{"load balancer by name", func(c *Config) { c.ProxyProtocolFrom = "lb.internal" }, `proxy-protocol-from: parse source "lb.internal": not an address or network`},
		{"certificate for the server without TLS", func(c *Config) { c.UpstreamCert, c.UpstreamKey = "c", "k" }, "upstream-cert is set, but upstream-tls is disable: the server would not see it"},
		{"certificate for the server without key", func(c *Config) { c.UpstreamCert, c.UpstreamTLS = "c", TLSRequire }, "upstream-cert and upstream-key belong together: only one of them is set"},
		{"two places for verifiers", func(c *Config) { c.AuthFile, c.AuthUser = "f", "u" }, "auth-file and auth-user are both set: verifiers come from one place"},
		{"password for nobody", func(c *Config) { c.AuthPassfile = "f" }, "auth-passfile is set, but auth-user is not: it would not be used"},
		{"origin", func(c *Config) { c.Origin = "a b" }, `origin: "a b" has a character that a checkpoint cannot hold: ' '`},
		{"numbers", func(c *Config) {
			c.SegmentSize, c.SegmentAge, c.MaxSessions = 1, Duration{}, 0
		}, "segment-size 1B is not between 64KiB and 1TiB\nsegment-age 0s is less than a second\nmax-sessions 0 is less than 1"},
		{"all at once", func(c *Config) { c.Data, c.LogFormat, c.DrainTimeout = "", "xml", Duration{-1} }, "data must name a directory\n" + `log-format is "xml", not one of text, json` + "\ndrain-timeout -1ns is below zero"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			tt.change(&c)
			got := ""
			if err := c.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("Validate() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestUpstreamHost(t *testing.T) {
	for upstream, want := range map[string][2]string{
		"db:5433": {"db", "5433"}, "[::1]:5432": {"::1", "5432"}, "/run/postgresql/.s.PGSQL.5433": {"/run/postgresql", "5433"}, "/run/postgresql": {"/run/postgresql", "5432"},
	} {
		c := Default()
		c.Upstream = upstream
		if host, port := c.UpstreamHost(); host != want[0] || port != want[1] {
			t.Errorf("UpstreamHost of %s = %s, %s, want %s, %s", upstream, host, port, want[0], want[1])
		}
	}
}

func TestChanged(t *testing.T) {
	a, b := Default(), Default()
	b.TLSCert, b.Listen, b.LogLevel = "x", "127.0.0.1:1", "warn"
	live, restart := a.Changed(&b)
	if !cmp.Equal(live, []string{"tls-cert", "log-level"}) || !cmp.Equal(restart, []string{"listen"}) {
		t.Errorf("Changed() = %q, %q, want [tls-cert log-level], [listen]", live, restart)
	}
}

func TestSet(t *testing.T) {
	c := Default()
	if err := c.Set("segment-size", "1GiB"); err != nil || c.SegmentSize != 1<<30 {
		t.Errorf("Set(segment-size, 1GiB): %v, size %d, want %d", err, c.SegmentSize, 1<<30)
	}
	if err := c.Set("colour", "red"); err == nil {
		t.Error("Set(colour) = nil, want an error")
	}
	if err := c.Set("max-sessions", "many"); err == nil || err.Error() != `max-sessions: "many" is not a number` {
		t.Errorf("Set(max-sessions, many) = %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("listen = '127.0.0.1:1'\nsegment-size = '3MiB'\n"))
	f.Add([]byte(`data = "a\u0001\u007f\"\\\U0001F600"`))
	f.Add([]byte("[a]\nb = 1979-05-27T07:32:00Z\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := Default()
		if _, err := c.decode("f", in); err != nil {
			if !cmp.Equal(c, Default()) {
				t.Fatalf("decode(%q) failed with %v and changed the settings", in, err)
			}
			return
		}
		// What was read must survive printing and reading again.
		var out strings.Builder
		if err := c.Print(&out, nil); err != nil {
			t.Fatal(err)
		}
		back := Default()
		if _, err := back.decode("printed", []byte(out.String())); err != nil || !cmp.Equal(back, c) {
			t.Fatalf("decode(Print(decode(%q))) = %+v, %v, want %+v", in, back, err, c)
		}
	})
}
