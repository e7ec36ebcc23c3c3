package redact

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// secret is, or is a part of, every password of the tests.
const secret = "s3cr3t"

// A sample is a text and what is left of it.
type sample struct {
	name, sql, want string
	refused         bool // the server refuses the text
	off             bool // standard_conforming_strings
	encoding        string
}

func samples() []sample {
	scram := "SCRAM-SHA-256$4096:s3cr3tabc==$" + strings.Repeat("A", 43) + "=:" + strings.Repeat("B", 43) + "="
	return slices.Concat(roleSamples(scram), optionSamples(), nestedSamples(), []sample{
		{name: "GUC, off", sql: `ALTER ROLE bob PASSWORD 's3cr3t\'s'`, want: `ALTER ROLE bob PASSWORD '***'`, off: true},
		{name: "GUC, on", sql: `ALTER ROLE bob PASSWORD 's3cr3t\' VALID UNTIL 'infinity'`, want: `ALTER ROLE bob PASSWORD '***' VALID UNTIL 'infinity'`},
		{name: "GUC, off and a literal before", sql: `SELECT 'it\'s'; ALTER ROLE bob PASSWORD 's3cr3t'`, want: `SELECT 'it\'s'; ALTER ROLE bob PASSWORD '***'`, off: true},
		{name: "GUC, off, doubled backslash", sql: `SELECT 'a\\'; ALTER ROLE bob PASSWORD 's3cr3t'`, want: `SELECT 'a\\'; ALTER ROLE bob PASSWORD '***'`, off: true},
		{name: "SJIS trail byte", sql: "SELECT '\x83\x5c'; ALTER ROLE bob PASSWORD 's3cr3t'", want: "SELECT '\x83\x5c'; ALTER ROLE bob PASSWORD '***'", off: true, encoding: "SJIS"},
		{name: "SJIS in an escape literal", sql: "ALTER ROLE bob PASSWORD E's3cr3t\x83\x5c' VALID UNTIL 'infinity'", want: "ALTER ROLE bob PASSWORD E'***' VALID UNTIL 'infinity'", encoding: "Shift_JIS"},
		{name: "SJIS half-width kana", sql: "ALTER ROLE bob PASSWORD E's3cr3t\xb1\\' x'", want: "ALTER ROLE bob PASSWORD E'***'", encoding: "SJIS"},
		{name: "SJIS in a name", sql: "SELECT 1 AS \x83\x5c; ALTER ROLE bob PASSWORD 's3cr3t'", want: "SELECT 1 AS \x83\x5c; ALTER ROLE bob PASSWORD '***'", encoding: "SJIS"},
		{name: "BIG5 trail byte", sql: "ALTER ROLE bob PASSWORD E's3cr3t\xa5\x5c' VALID UNTIL 'infinity'", want: "ALTER ROLE bob PASSWORD E'***' VALID UNTIL 'infinity'", encoding: "BIG5"},
		{name: "GBK trail byte", sql: "ALTER ROLE bob PASSWORD E's3cr3t\x95\x5c' VALID UNTIL 'infinity'", want: "ALTER ROLE bob PASSWORD E'***' VALID UNTIL 'infinity'", encoding: "GBK"},
		{name: "GB18030, four bytes", sql: "ALTER ROLE bob PASSWORD E's3cr3t\x81\x30\x81\x30\x95\x5c' VALID UNTIL 'infinity'", want: "ALTER ROLE bob PASSWORD E'***' VALID UNTIL 'infinity'", encoding: "GB18030"},
		{name: "UTF8 is no such encoding", sql: "ALTER ROLE bob PASSWORD E's3cr3t\xc3\xa9\\' x'", want: "ALTER ROLE bob PASSWORD E'***'", encoding: "UTF8"},
	})
}

func roleSamples(scram string) []sample {
	return []sample{
		{name: "create role", sql: `CREATE ROLE r1 LOGIN PASSWORD 's3cr3t'`, want: `CREATE ROLE r1 LOGIN PASSWORD '***'`},
		{name: "create user", sql: `create user r1 with encrypted password 's3cr3t' createdb`, want: `create user r1 with encrypted password '***' createdb`},
		{name: "create group", sql: `CREATE GROUP r1 PASSWORD 's3cr3t'`, want: `CREATE GROUP r1 PASSWORD '***'`},
		{name: "alter user", sql: `ALTER USER bob PASSWORD 's3cr3t' VALID UNTIL 'infinity'`, want: `ALTER USER bob PASSWORD '***' VALID UNTIL 'infinity'`},
		{name: "psql's password command", sql: `ALTER USER bob PASSWORD '` + scram + `'`, want: `ALTER USER bob PASSWORD '***'`},
		{name: "current user", sql: `ALTER ROLE CURRENT_USER PASSWORD 's3cr3t'`, want: `ALTER ROLE CURRENT_USER PASSWORD '***'`},
		{name: "role called password", sql: `CREATE ROLE password; ALTER ROLE password SUPERUSER PASSWORD 's3cr3t'`, want: `CREATE ROLE password; ALTER ROLE password SUPERUSER PASSWORD '***'`},
		{name: "role called mapping", sql: `CREATE USER mapping PASSWORD 's3cr3t'`, want: `CREATE USER mapping PASSWORD '***'`},
		{name: "no password", sql: `ALTER ROLE bob PASSWORD NULL`, want: `ALTER ROLE bob PASSWORD NULL`},
		{name: "empty password", sql: `ALTER ROLE bob PASSWORD ''`, want: `ALTER ROLE bob PASSWORD ''`},
		{name: "doubled quote", sql: `ALTER ROLE bob PASSWORD 'it''s s3cr3t'; SELECT 'x'`, want: `ALTER ROLE bob PASSWORD '***'; SELECT 'x'`},
		{name: "backslash", sql: `ALTER ROLE bob PASSWORD 's3cr3t\'; SELECT 'x'`, want: `ALTER ROLE bob PASSWORD '***'; SELECT 'x'`},
		{name: "escape literal", sql: `ALTER ROLE bob PASSWORD E'it\'s s3cr3t\\'; SELECT 'x'`, want: `ALTER ROLE bob PASSWORD E'***'; SELECT 'x'`},
		{name: "unicode literal", sql: `ALTER ROLE bob PASSWORD U&'s3cr3t\0061'`, want: `ALTER ROLE bob PASSWORD U&'***'`},
		{name: "unicode literal with its own escape", sql: `ALTER ROLE bob PASSWORD U&'s3cr3t!0061' UESCAPE '!' LOGIN`, want: `ALTER ROLE bob PASSWORD U&'***' UESCAPE '!' LOGIN`},
		{name: "dollar quotes", sql: `ALTER ROLE bob PASSWORD $$s3cr3t'$$ LOGIN`, want: `ALTER ROLE bob PASSWORD $$***$$ LOGIN`},
		{name: "dollar quotes with a tag", sql: `ALTER ROLE bob PASSWORD $a$s3cr3t $$ $b$a$ LOGIN`, want: `ALTER ROLE bob PASSWORD $a$***$a$ LOGIN`},
		{name: "two lines", sql: "ALTER ROLE bob PASSWORD 's3c' \n -- it goes on\n 'r3t s3cr3t' LOGIN", want: "ALTER ROLE bob PASSWORD '***' LOGIN"},
		{name: "two literals", sql: `ALTER ROLE bob PASSWORD 'x' 's3cr3t'`, want: `ALTER ROLE bob PASSWORD '***' '***'`, refused: true},
		{name: "comments", sql: "ALTER/**/ROLE -- 'a\nbob/*/* ' */ PASSWORD */PASSWORD--'\n/*'*/'s3cr3t'", want: "ALTER/**/ROLE -- 'a\nbob/*/* ' */ PASSWORD */PASSWORD--'\n/*'*/'***'"},
		{name: "comment in an operator", sql: "SELECT 1+--'\n1 */*'*/ 1; ALTER ROLE bob PASSWORD 's3cr3t'", want: "SELECT 1+--'\n1 */*'*/ 1; ALTER ROLE bob PASSWORD '***'"},
		{name: "several statements", sql: `SELECT 1; CREATE ROLE r1 PASSWORD 's3cr3t1'; ; ALTER ROLE r1 PASSWORD 's3cr3t2'; SELECT 'password';`, want: `SELECT 1; CREATE ROLE r1 PASSWORD '***'; ; ALTER ROLE r1 PASSWORD '***'; SELECT 'password';`},
		{name: "dollar in a name", sql: `SELECT 1 AS a$$; ALTER ROLE bob PASSWORD 's3cr3t'; SELECT 2 AS b$$`, want: `SELECT 1 AS a$$; ALTER ROLE bob PASSWORD '***'; SELECT 2 AS b$$`},
		{name: "dollar after a number", sql: `SELECT 1.5e3$$; ALTER ROLE bob PASSWORD 'no'; $$; ALTER ROLE bob PASSWORD 's3cr3t'`, want: `SELECT 1.5e3$$; ALTER ROLE bob PASSWORD '***'; $$; ALTER ROLE bob PASSWORD '***'`, refused: true},
		{name: "quoted name", sql: `ALTER ROLE "b''ob" RENAME TO "PASSWORD 'x"; ALTER ROLE bob PASSWORD 's3cr3t'`, want: `ALTER ROLE "b''ob" RENAME TO "PASSWORD 'x"; ALTER ROLE bob PASSWORD '***'`},
		{name: "bit strings", sql: `SELECT X'1f', B'01'; ALTER ROLE bob PASSWORD 's3cr3t'`, want: `SELECT X'1f', B'01'; ALTER ROLE bob PASSWORD '***'`},
		{name: "not a literal the grammar takes", sql: `ALTER ROLE bob PASSWORD N's3cr3t'`, want: `ALTER ROLE bob PASSWORD N'***'`, refused: true},
		{name: "in double quotes", sql: `ALTER ROLE bob PASSWORD "s3cr3t"`, want: `ALTER ROLE bob PASSWORD "***"`, refused: true},
		{name: "with an equals sign", sql: `ALTER ROLE bob PASSWORD = 's3cr3t'`, want: `ALTER ROLE bob PASSWORD = '***'`, refused: true},
		{name: "unterminated", sql: `ALTER ROLE bob PASSWORD 's3cr3t`, want: `ALTER ROLE bob PASSWORD***`, refused: true},
		{name: "unterminated dollar quotes", sql: `ALTER ROLE bob PASSWORD $x$s3cr3t$y$`, want: `ALTER ROLE bob PASSWORD***`, refused: true},
		{name: "out of step", sql: `SELECT 'x ; ALTER ROLE bob PASSWORD 's3cr3t'`, want: `SELECT 'x ; ALTER ROLE bob PASSWORD***`, refused: true},
		{name: "unterminated comment", sql: `ALTER ROLE bob PASSWORD 's3cr3t'; /* /* */`, want: `ALTER ROLE bob PASSWORD***`, refused: true},
		{name: "unterminated name", sql: `ALTER ROLE bob PASSWORD 's3cr3t'; SELECT "`, want: `ALTER ROLE bob PASSWORD***`, refused: true},
	}
}

func optionSamples() []sample {
	const wrapper = `FOREIGN DATA WRAPPER free OPTIONS `
	return []sample{
		{name: "create user mapping", sql: `CREATE USER MAPPING FOR bob SERVER far OPTIONS (user 'bob', password 's3cr3t')`, want: `CREATE USER MAPPING FOR bob SERVER far OPTIONS (user 'bob', password '***')`},
		{name: "alter user mapping", sql: `ALTER USER MAPPING FOR alice SERVER far OPTIONS (SET password 's3cr3t', ADD sslpassword E's3cr3t')`, want: `ALTER USER MAPPING FOR alice SERVER far OPTIONS (SET password '***', ADD sslpassword E'***')`},
		{name: "quoted option", sql: `CREATE USER MAPPING FOR bob SERVER far OPTIONS ("user" 'bob', "password" 's3cr3t')`, want: `CREATE USER MAPPING FOR bob SERVER far OPTIONS ("user" 'bob', "password" '***')`},
		{name: "server", sql: `CREATE SERVER s1 ` + wrapper + `(host 'db', PASSWORD $$s3cr3t$$, oauth_client_secret 's3cr3t')`, want: `CREATE SERVER s1 ` + wrapper + `(host 'db', PASSWORD $$***$$, oauth_client_secret '***')`},
		{name: "alter server", sql: `ALTER SERVER wide OPTIONS (ADD password 's3cr3t')`, want: `ALTER SERVER wide OPTIONS (ADD password '***')`},
		{name: "foreign data wrapper", sql: `ALTER FOREIGN DATA WRAPPER free OPTIONS (password 's3cr3t')`, want: `ALTER FOREIGN DATA WRAPPER free OPTIONS (password '***')`},
		{name: "column called password", sql: `CREATE FOREIGN TABLE ft (password "char", p text DEFAULT 'x') SERVER wide OPTIONS (password 's3cr3t')`, want: `CREATE FOREIGN TABLE ft (password "char", p text DEFAULT 'x') SERVER wide OPTIONS (password '***')`},
		{name: "subscription", sql: `CREATE SUBSCRIPTION s1 CONNECTION 'host=db password=s3cr3t user=u' PUBLICATION p WITH (connect = false)`, want: `CREATE SUBSCRIPTION s1 CONNECTION 'host=db password=*** user=u' PUBLICATION p WITH (connect = false)`},
		{name: "subscription, quoted password", sql: `CREATE SUBSCRIPTION s1 CONNECTION 'password = ''s3 cr\''s3cr3t'' user=u' PUBLICATION p WITH (connect = false)`, want: `CREATE SUBSCRIPTION s1 CONNECTION 'password = ''***'' user=u' PUBLICATION p WITH (connect = false)`},
		{name: "subscription, password only", sql: `CREATE SUBSCRIPTION s1 CONNECTION 'password=s3cr3t' PUBLICATION p WITH (connect = false)`, want: `CREATE SUBSCRIPTION s1 CONNECTION 'password=***' PUBLICATION p WITH (connect = false)`},
		{name: "subscription, URI", sql: `CREATE SUBSCRIPTION s1 CONNECTION 'postgresql://me:s3cr3t?@db:5432/app?sslmode=require&sslpassword=s3cr3t&port=1' PUBLICATION p WITH (connect = false)`, want: `CREATE SUBSCRIPTION s1 CONNECTION 'postgresql://me:***@db:5432/app?sslmode=require&sslpassword=***&port=1' PUBLICATION p WITH (connect = false)`},
		{name: "dblink", sql: `PREPARE q AS SELECT dblink_connect('c', E'host=db\tpassword=s3cr3t')`, want: `PREPARE q AS SELECT dblink_connect('c', E'host=db\tpassword=***')`},
		{name: "dblink, URI", sql: `PREPARE q AS SELECT dblink_exec('postgres://me:s3cr3t@db', 'DELETE FROM t')`, want: `PREPARE q AS SELECT dblink_exec('postgres://me:***@db', 'DELETE FROM t')`},
		{name: "no password in it", sql: `SELECT 'postgres://db/password', 'host=db', 'https://me:x@web/'`, want: `SELECT 'postgres://db/password', 'host=db', 'https://me:x@web/'`},
		{name: "not a connection string", sql: `SELECT 'password=x', 'a=b and password=y', 'user=1, password=f()', 'the password = none'`, want: `SELECT 'password=x', 'a=b and password=y', 'user=1, password=f()', 'the password = none'`},
	}
}

func nestedSamples() []sample {
	return []sample{
		{name: "DO", sql: "DO $$ BEGIN CREATE ROLE r1 LOGIN PASSWORD 's3cr3t'; EXCEPTION WHEN duplicate_object THEN RAISE NOTICE 'it''s'; END $$", want: "DO $$ BEGIN CREATE ROLE r1 LOGIN PASSWORD '***'; EXCEPTION WHEN duplicate_object THEN RAISE NOTICE 'it''s'; END $$"},
		{name: "DO in quotes", sql: `DO 'BEGIN ALTER ROLE bob PASSWORD ''it''''s s3cr3t''; END'`, want: `DO 'BEGIN ALTER ROLE bob PASSWORD ''***''; END'`},
		{name: "DO in an escape literal", sql: `DO E'BEGIN\n ALTER ROLE bob PASSWORD \'s3cr\x33t s3cr3t\'; END'`, want: `DO E'BEGIN\n ALTER ROLE bob PASSWORD \'***\'; END'`},
		{name: "DO in a unicode literal", sql: `DO U&'BEGIN ALTER ROLE bob P!0041SSWORD ''s3cr3t''; /* password */ END' UESCAPE '!'`, want: `DO U&'BEGIN ALTER ROLE bob P!0041SSWORD ''***''; /* password */ END' UESCAPE '!'`},
		{name: "EXECUTE", sql: `DO $$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ''s3cr3t'''; EXECUTE $x$ALTER ROLE bob PASSWORD 's3cr3t'$x$; END $$`, want: `DO $$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ''***'''; EXECUTE $x$ALTER ROLE bob PASSWORD '***'$x$; END $$`},
		{name: "format", sql: `DO $$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L VALID UNTIL %L', 'bob', 's3cr3t', 'infinity'); END $$`, want: `DO $$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L VALID UNTIL %L', 'bob', '***', 'infinity'); END $$`},
		{name: "format by number", sql: `SELECT format('ALTER ROLE %2$I PASSWORD %1$L', 's3cr3t', 'bob')`, want: `SELECT format('ALTER ROLE %2$I PASSWORD %1$L', '***', 'bob')`},
		{name: "format, per cent sign", sql: `SELECT format('SELECT 5 %% 3, %s; ALTER ROLE %I PASSWORD %-9L', lower('A, B'), 'bob', 's3cr3t')`, want: `SELECT format('SELECT 5 %% 3, %s; ALTER ROLE %I PASSWORD %-9L', lower('A, B'), 'bob', '***')`},
		{name: "format, an expression", sql: `SELECT format('ALTER ROLE %I PASSWORD %L', 'bob', lower('DROP')), format('x %L', 'y')`, want: `SELECT format('ALTER ROLE %I PASSWORD %L', 'bob', lower('DROP')), format('x %L', 'y')`},
		{name: "quote_literal", sql: `DO $$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ' || quote_literal('s3cr3t') || ' LOGIN'; END $$`, want: `DO $$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ' || quote_literal('***') || ' LOGIN'; END $$`},
		{name: "function", sql: `CREATE FUNCTION f() RETURNS void LANGUAGE 'plpgsql' AS 'BEGIN ALTER ROLE bob PASSWORD ''s3cr3t''; END'`, want: `CREATE FUNCTION f() RETURNS void LANGUAGE 'plpgsql' AS 'BEGIN ALTER ROLE bob PASSWORD ''***''; END'`},
		{name: "alter system", sql: `SELECT 'ALTER SYSTEM SET primary_conninfo = ''host=db password=s3cr3t'''`, want: `SELECT 'ALTER SYSTEM SET primary_conninfo = ''host=db password=***'''`},
	}
}

func (s sample) options() Options {
	return Options{StandardConforming: !s.off, Encoding: s.encoding}
}

func replaced(sql string, o Options) string {
	return string(Replace(nil, []byte(sql), Passwords(nil, []byte(sql), o)))
}

func TestPasswords(t *testing.T) {
	for _, s := range samples() {
		got := replaced(s.sql, s.options())
		if got != s.want {
			t.Errorf("%s:\n     %q\n got %q\nwant %q", s.name, s.sql, got, s.want)
		}
		if strings.Contains(got, secret) {
			t.Errorf("%s: the password is still in %q", s.name, got)
		}
		if again := replaced(got, s.options()); again != got {
			t.Errorf("%s: redacted twice it is %q", s.name, again)
		}
	}
}

// TestHides holds what whoever wants to hide a statement could try: nothing of it is replaced.
func TestHides(t *testing.T) {
	for _, row := range []struct{ name, sql string }{
		{"type called password", `SELECT password 'DROP'`},
		{"column", `UPDATE users SET password = 'x' WHERE password 'y'`},
		{"other statement", `ALTER ROLE bob LOGIN; SELECT password 'DROP TABLE t'`},
		{"dynamic SQL that looks like a connection string", `DO $$ BEGIN EXECUTE 'UPDATE t SET ' || 'password=evil()'; END $$`},
		{"perl before its code", `DO LANGUAGE plperl $x$ # CREATE ROLE x PASSWORD '` + "\n" + `evil(); # ' $x$`},
		{"perl behind its code", `CREATE FUNCTION f() RETURNS void AS $x$ my $x = "CREATE ROLE a PASSWORD '" . evil() . "'"; $x$ LANGUAGE "plperl"`},
		{"code between quotes, in literals with backslashes", `DO $$ BEGIN PERFORM 'a\'; ALTER ROLE bob PASSWORD 'b'; PERFORM evil(); END $$`},
		{"password with a line break in a body", "DO $$ BEGIN ALTER ROLE bob PASSWORD 'a\nb'; END $$"},
		{"long password in a body", "DO $$ BEGIN ALTER ROLE bob PASSWORD '" + strings.Repeat("x", maxNested+1) + "'; END $$"},
		{"code as an argument of format", `DO $$ BEGIN EXECUTE format('ALTER ROLE bob PASSWORD %L; %s', x, 'DROP TABLE t'); END $$`},
		{"width from an argument of format", `DO $$ BEGIN EXECUTE format('%*s ALTER ROLE bob PASSWORD %L; %s', 3, 'DROP TABLE t', 'x'); END $$`},
		{"code behind a password", `DO $$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ' || 'NULL; DROP TABLE t'; END $$`},
		{"list of assignments in dynamic SQL", `DO $$ BEGIN EXECUTE 'UPDATE t SET ' || E'user=1,\n password=evil()'; END $$`},
		{"cast of a quoted literal", `DO $$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ' || quote_literal('a' || evil('b')); END $$`},
	} {
		if got := replaced(row.sql, Options{StandardConforming: true}); got != row.sql {
			t.Errorf("%s: %q\nbecomes %q", row.name, row.sql, got)
		}
	}
}

// TestUnsure holds that where the two readings of a text differ nothing is replaced from there
// on, and that until there, and where they agree, everything is.
func TestUnsure(t *testing.T) {
	for sql, want := range map[string]string{
		`ALTER ROLE a PASSWORD 'x'; SELECT '\'; ALTER ROLE a PASSWORD 'y'; --'`: `ALTER ROLE a PASSWORD '***'; SELECT '\'; ALTER ROLE a PASSWORD 'y'; --'`,
		`ALTER ROLE a PASSWORD 'x\'; DROP TABLE t; --'`:                         `ALTER ROLE a PASSWORD 'x\'; DROP TABLE t; --'`,
		"ALTER ROLE a PASSWORD E'\x83\\'; DROP TABLE t; --'":                    "ALTER ROLE a PASSWORD E'\x83\\'; DROP TABLE t; --'",
		"ALTER ROLE a VALID UNTIL E'\x83\\' PASSWORD '; DROP TABLE t; --'":      "ALTER ROLE a VALID UNTIL E'\x83\\' PASSWORD '; DROP TABLE t; --'",
		"ALTER ROLE a VALID UNTIL E'\\\x83\\' PASSWORD '; DROP TABLE t; --'":    "ALTER ROLE a VALID UNTIL E'\\\x83\\' PASSWORD '; DROP TABLE t; --'",
		"ALTER ROLE a VALID UNTIL 'é' PASSWORD 'é'":                             "ALTER ROLE a VALID UNTIL 'é' PASSWORD '***'",
		`SELECT E'\'', '\n'; ALTER ROLE a PASSWORD 'x'`:                         `SELECT E'\'', '\n'; ALTER ROLE a PASSWORD '***'`,
		`ALTER ROLE a PASSWORD 'x`:                                              `ALTER ROLE a PASSWORD***`,
	} {
		for _, on := range []bool{true, false} {
			for _, encoding := range []string{"UTF8", "SJIS", "JOHAB"} {
				if got := replaced(sql, Options{StandardConforming: on, Unsure: true, Encoding: encoding}); got != want {
					t.Errorf("%q, %v, %s: %q, want %q", sql, on, encoding, got, want)
				}
			}
		}
	}
}

func TestEncodings(t *testing.T) {
	for name, want := range map[string]sqllex.Charset{
		"SJIS": sqllex.CharsetSJIS, "Shift_JIS": sqllex.CharsetSJIS, "windows-932": sqllex.CharsetSJIS, "SHIFT_JIS_2004": sqllex.CharsetSJIS,
		"big5": sqllex.CharsetTwo, "WIN950": sqllex.CharsetTwo, "GBK": sqllex.CharsetTwo, "uhc": sqllex.CharsetTwo, "JOHAB": sqllex.CharsetJOHAB,
		"GB18030": sqllex.CharsetGB18030, "UTF8": sqllex.CharsetSafe, "": sqllex.CharsetSafe, "EUC_JIS_2004": sqllex.CharsetSafe, "a name longer than any there is": sqllex.CharsetSafe,
	} {
		if got := sqllex.CharsetOf(name); got != want {
			t.Errorf("sqllex.CharsetOf(%q) = %d, want %d", name, got, want)
		}
	}
	if w := sqllex.CharsetJOHAB.Width([]byte("\x8fab"), 0); w != 3 {
		t.Errorf("JOHAB character has %d bytes, want 3", w)
	}
}

const ordinary = `SELECT o.id, o.total_amount, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.status = $1 AND o.shipped_at > now() - interval '3 days' AND c.url <> 'http://example.org' ORDER BY 2 DESC LIMIT 50`

func TestNoAllocation(t *testing.T) {
	o := Options{StandardConforming: true, Encoding: "SHIFT_JIS_2004"}
	spans := make([]Span, 0, 8)
	for _, sql := range []string{ordinary, strings.Repeat("w", 1000), `SELECT password FROM users WHERE x = 'y'`, `ALTER ROLE bob PASSWORD 's3cr3t'`} {
		b := []byte(sql)
		if n := testing.AllocsPerRun(100, func() { spans = Passwords(spans[:0], b, o) }); n != 0 {
			t.Errorf("%q: %v allocations", sql, n)
		}
	}
}

func BenchmarkOrdinary(b *testing.B) {
	sql := []byte(ordinary)
	b.SetBytes(int64(len(sql)))
	for b.Loop() {
		Passwords(nil, sql, Options{StandardConforming: true, Encoding: "UTF8"})
	}
}

func BenchmarkAlterRole(b *testing.B) {
	sql, spans := []byte(`ALTER ROLE bob WITH LOGIN PASSWORD 's3cr3t' VALID UNTIL 'infinity'`), make([]Span, 0, 4)
	b.SetBytes(int64(len(sql)))
	for b.Loop() {
		Passwords(spans, sql, Options{StandardConforming: true, Encoding: "UTF8"})
	}
}

func BenchmarkLongBody(b *testing.B) {
	sql := []byte("DO $$ BEGIN " + strings.Repeat("PERFORM f('it''s', password); ", 1000) + "END $$")
	b.SetBytes(int64(len(sql)))
	for b.Loop() {
		Passwords(nil, sql, Options{StandardConforming: true, Encoding: "UTF8"})
	}
}

func FuzzPasswords(f *testing.F) {
	for _, s := range samples() {
		f.Add([]byte(s.sql), !s.off, false, s.encoding)
	}
	f.Fuzz(func(t *testing.T, sql []byte, on, unsure bool, encoding string) {
		o := Options{StandardConforming: on, Unsure: unsure, Encoding: encoding}
		before := bytes.Clone(sql)
		prefix := []Span{{7, 8}}
		spans := Passwords(prefix, sql, o)
		if !bytes.Equal(before, sql) || len(spans) < 1 || spans[0] != prefix[0] {
			t.Fatalf("Passwords(%q) changed its arguments", before)
		}
		at := 0
		for _, s := range spans[1:] {
			if s.From < at || s.To <= s.From || s.To > len(sql) {
				t.Fatalf("Passwords(%q) = %v", sql, spans)
			}
			at = s.To
		}
		if len(spans) > 1 && suspicious(sql) < 0 {
			t.Errorf("Passwords(%q) = %v without a suspicious word", sql, spans)
		}
		if suspicious(sql) < 0 && bytes.Contains(bytes.ToLower(sql), []byte("password")) {
			t.Errorf("the word in %q was overlooked", sql)
		}
	})
}

// FuzzLex holds that tokens cover a text from end to end, and that what is between them is
// white space and comments.
func FuzzLex(f *testing.F) {
	for _, s := range samples() {
		f.Add([]byte(s.sql), !s.off, s.encoding)
	}
	f.Fuzz(func(t *testing.T, sql []byte, on bool, encoding string) {
		l := sqllex.Lexer{B: sql, Standard: on, Set: sqllex.CharsetOf(encoding)}
		for at := 0; ; {
			k := l.Next()
			if k.From < at || k.To < k.From || k.To > len(sql) || k.In > k.Out || k.In < k.From || k.Out > k.To {
				t.Fatalf("token %+v at %d in %q", k, at, sql)
			}
			if between := bytes.TrimSpace(sql[at:k.From]); len(between) > 0 && between[0] != '-' && between[0] != '/' {
				t.Fatalf("%q was skipped in %q", between, sql)
			}
			if at = k.To; k.Kind == sqllex.End || k.Kind == sqllex.Bad {
				return
			}
			if k.To == k.From {
				t.Fatalf("empty token %+v in %q", k, sql)
			}
		}
	})
}
