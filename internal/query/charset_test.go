package query

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func TestCharset(t *testing.T) {
	tests := []struct{ name, encoding, in, want string }{
		{"ASCII", "SJIS", "SELECT 'a\\b'", "SELECT 'a\\b'"},
		{"0x5C as second half", "SJIS", "'\x95\x5c\x83\x5c'", "'表ソ'"},
		{"0x5C as second half", "BIG5", "'\xa5\x5c\xb3\x5c'", "'功許'"},
		{"0x5C as second half", "GBK", "'\xd5\x5c'", "'誠'"},
		{"0x5C as second half", "UHC", "'\xb9\xd9\x5c'", "'바\\'"},
		{"0x5C as second half", "GB18030", "'\xd5\x5c\x81\x30\x81\x30'", "'誠\u0080'"},
		{"half-width kana before a backslash", "SJIS", "\xb1\x5c", "ｱ\\"},
		{"a backslash of two bytes", "SHIFT_JIS_2004", "\x81\x5f", "\\"},
		{"no such character", "SJIS", "a\x85\x40;b", "a\uFFFD@;b"},
		{"cut short", "SJIS", "a\x95", "a\uFFFD"},
		{"cut short", "GB18030", "a\x81\x30\x81", "a\uFFFD0"},
		{"a half before ASCII", "EUC_KR", "\xb0'; DROP", "\uFFFD'; DROP"},
		{"0xFF", "EUC_JP", "\xff\xffa", "\uFFFDa"},
		{"three bytes", "EUC_JP", "\x8f\xb0\xa1\xc6\xfc\x8e\xb1", "丂日ｱ"},
		{"three bytes", "EUC_JIS_2004", "\x8f\xb0\xa1\xc6\xfc", "\uFFFD日"},
		{"four bytes", "EUC_TW", "'\x8e\xa2\xa1\xa1\xc4\xe3'", "'\uFFFD\uFFFD'"},
		{"no GBK", "EUC_CN", "\xd6\xd0\x81\x40", "中\uFFFD@"},
		{"syllables", "JOHAB", "\xd0\x65\x8b\x69", "한글"},
		{"sets", "MULE_INTERNAL", "\x92\xc6\xfc\x81\xe9\x8b\xd0\x91\xd6\xd0\x93\xb0\xa1\x9a\xa0\xa1a", "日éп中가\uFFFDa"},
		{"a set cut short", "MULE_INTERNAL", "\x92\xc6", "\uFFFD"},
		{"one byte", "WIN1251", "\xcf\xf0\xe8", "При"},
		{"one byte", "LATIN9", "\xa4", "€"},
		{"no such byte", "WIN1252", "a\x81b", "a\uFFFDb"},
		{"aliases", "shift_jis", "\x95\x5c", "表"},
		{"aliases", "Windows-1252", "\x80", "€"},
		{"aliases", "iso-8859-15", "\xa4", "€"},
		{"UTF-8", "UTF8", "\xe2\x82\xac\xff", "€\uFFFD"},
		{"UTF-8", "unicode", "\xe2\x82\xac", "€"},
		{"none", "SQL_ASCII", "\xe2\x82\xac\xff", "€\uFFFD"},
		{"none", "", "\xe2\x82\xac", "€"},
		{"not PostgreSQL's", "EBCDIC", "a\xe2\x82", "a\uFFFD\uFFFD"},
		{"NUL", "BIG5", "a\x00\xa5\x5c", "a\x00功"},
	}
	for _, tt := range tests {
		if tt.encoding == "" {
			tt.encoding = "UTF8"
		}
		if got := charsetOf(tt.encoding).text([]byte(tt.in)); got != tt.want {
			t.Errorf("%s: %s %q = %q, want %q", tt.name, tt.encoding, tt.in, got, tt.want)
		}
	}
}

// TestCharsetsOfServer compares every character of one or two bytes with what
// the server makes of it.
func TestCharsetsOfServer(t *testing.T) {
	// How many characters the server has and we do not.
	unknown := map[string]int{
		"UHC": 200, "GB18030": 2100, "EUC_KR": 1, // user-defined ones, and a stamp
		"SHIFT_JIS_2004": 4300, "EUC_JIS_2004": 1900, "JOHAB": 2900,
	}
	var encodings []string
	for name := range singleByte {
		encodings = append(encodings, name)
	}
	encodings = append(encodings,
		"SJIS", "SHIFT_JIS_2004", "EUC_JP", "EUC_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "EUC_CN", "EUC_KR", "JOHAB",
	)
	out, err := pgtest.Server(t).Psql(t.Context(), "postgres", `
CREATE FUNCTION pg_temp.t(b bytea, e text) RETURNS bytea LANGUAGE plpgsql AS
$$BEGIN RETURN convert(b, e::name, 'UTF8'); EXCEPTION WHEN OTHERS THEN RETURN NULL; END$$;
SELECT e || ' ' || encode(b, 'hex') || ' ' || encode(u, 'hex')
FROM (SELECT e, b, pg_temp.t(b, e) u FROM unnest('{`+strings.Join(encodings, ",")+`}'::text[]) e,
  (SELECT decode(to_hex(i), 'hex') b FROM generate_series(128, 255) i UNION ALL
   SELECT decode(to_hex(i), 'hex') FROM generate_series(32768, 65535) i WHERE i % 256 >= 48) x
WHERE length(b) = 1 OR e = upper(e) OFFSET 0) y WHERE u IS NOT NULL;`)
	if err != nil {
		t.Fatal(err)
	}
	missing, known := make(map[string]int), make(map[string]int)
	for line := range strings.Lines(out) {
		var name, raw, want string
		if _, err := fmt.Sscan(line, &name, &raw, &want); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		b, _ := hex.DecodeString(raw)
		w, _ := hex.DecodeString(want)
		got := charsetOf(name).text(b)
		known[name]++
		switch r, _ := utf8.DecodeRune(w); {
		case got == string(w):
		case strings.Contains(got, "\uFFFD"):
			missing[name]++
		case r == utf8.RuneError || '\ue000' <= r && r <= '\uf8ff': // ours tells more
		default:
			t.Errorf("%s %s = %q, the server says %q", name, raw, got, w)
		}
	}
	for _, name := range encodings {
		if known[name] == 0 {
			t.Errorf("%s: the server knows no character", name)
		}
		if missing[name] > unknown[name] {
			t.Errorf("%s: %d of %d characters are not shown, want at most %d", name, missing[name], known[name], unknown[name])
		}
	}
}

func TestEncodingFact(t *testing.T) {
	fact := func(name string) []event.Fact { return []event.Fact{{Key: "encoding", Val: name}} }
	l := &fakeLog{}
	add := func(kind event.Kind, in string, parse, bind int64, value []byte) int64 {
		leaf := event.Leaf{Session: 1, Kind: kind, Who: alice, Parse: parse, Bind: bind}
		if in != "" {
			leaf.Facts = fact(in)
		}
		return l.add(leaf, value)
	}
	q := add(event.KindQuery, "SJIS", 0, 0, queryMsg("SELECT '\x95\x5c'"))
	l.end(q, event.Leaf{SQLState: "42601", Facts: fact("SJIS")}, errorFrame("42601", "\x83\x5c"))
	p := add(event.KindParse, "BIG5", 0, 0, parseFrame("s", "SELECT '\xa5\x5c', $1"))
	b := add(event.KindBind, "GBK", event.Ref(p), 0, bindFrame("", "s", []int{0, 1}, []byte("\xd5\x5c"), []byte("\xd5\x5c")))
	add(event.KindExecute, "", event.Ref(p), event.Ref(b), executeFrame("", 0))
	want := []struct{ text, params, message string }{
		{"SELECT '表'", "[]", "ソ"},
		{"SELECT '功', $1", "[]", ""},
		{"SELECT '功', $1", "[誠 \\xd55c]", ""},
	}
	got := l.search(t, Filter{})
	if len(got) != len(want) {
		t.Fatalf("%d statements, want %d: %q", len(got), len(want), got)
	}
	for i, line := range got {
		var s struct {
			Statement string
			Params    []struct{ Value string }
			Outcome   struct{ Error struct{ Message string } }
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		params := []string{}
		for _, p := range s.Params {
			params = append(params, p.Value)
		}
		if s.Statement != want[i].text || fmt.Sprint(params) != want[i].params || s.Outcome.Error.Message != want[i].message {
			t.Errorf("%s\nwant %q", line, want[i])
		}
	}
	if got := l.search(t, Filter{Text: "功"}); len(got) != 2 {
		t.Errorf("search for text in BIG5 found %q, want two", got)
	}
}

func TestStringsKeepToTheLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"a\u2028b\u2029c\u0085d", `"a\u2028b\u2029c\u0085d"`},
		{"\u009b31m \x1b[31m \x7f", `"\u009b31m \u001b[31m \u007f"`},
		{"\u202eabc\u2066", `"\u202eabc\u2066"`},
		{"\x00\r\n\v\f", `"\u0000\r\n\u000b\u000c"`},
		{"grüße 表 \xff", "\"grüße 表 \uFFFD\""},
	}
	for _, tt := range tests {
		if got := string(appendString(nil, tt.in)); got != tt.want {
			t.Errorf("appendString(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func FuzzCharset(f *testing.F) {
	f.Add("SJIS", []byte("\x95\x5c'"))
	f.Add("GB18030", []byte("\x81\x30\x81"))
	f.Add("MULE_INTERNAL", []byte("\x92\xc6\x9c\x8f\xff"))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		got := charsetOf(name).text(b)
		if !utf8.ValidString(got) {
			t.Fatalf("%s %q = %q: not UTF-8", name, b, got)
		}
		if charsetOf(name) == nil {
			return
		}
		// Each ASCII byte is shown or was half of a character.
		if n := strings.Count(string(b), "'"); n != strings.Count(got, "'") {
			t.Fatalf("%s %q = %q: has another number of quotes", name, b, got)
		}
	})
}
