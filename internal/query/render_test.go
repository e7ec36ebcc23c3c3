package query

import (
	"strings"
	"testing"
)

func TestRendering(t *testing.T) {
	text := func(oid uint32, s string) Param { return Param{OID: oid, Raw: []byte(s)} }
	null := Param{OID: 23, Null: true}
	for _, tt := range []struct {
		sql    string
		params []Param
		want   string // "" for none
	}{
		{"SELECT $1", []Param{text(23, "42")}, "SELECT 42"},
		{"SELECT $1", []Param{{OID: 23, Format: 1, Raw: []byte{0, 0, 0, 42}}}, "SELECT 42"},
		{"SELECT -$1", []Param{text(23, "-42")}, "SELECT -'-42'::int4"},
		{"SELECT $2,$1,$2", []Param{text(25, "it's"), null}, "SELECT NULL,'it''s',NULL"},
		{"SELECT $1", []Param{text(0, `a\b`)}, `SELECT  E'a\\b'`},
		{"SELECT $1::date", []Param{text(1082, "2026-01-02")}, "SELECT '2026-01-02'::date::date"},
		{"SELECT $1", []Param{text(1007, "{1,2}")}, "SELECT '{1,2}'::int4[]"},
		{"SELECT $1", []Param{text(99999, "x")}, "SELECT 'x'"},
		{"SELECT $1, $1", []Param{text(16, "t")}, "SELECT true, true"},
		{"SELECT '$1', \"$1\", $$ $1 $$, a$1 -- $1\n, $1 /* $1 */", []Param{text(25, "x")}, "SELECT '$1', \"$1\", $$ $1 $$, a$1 -- $1\n, 'x' /* $1 */"},
		{"SELECT $1", nil, ""},
		{"SELECT $3", []Param{null}, ""},
		{"SELECT $0", []Param{null}, ""},
		{"SELECT '", []Param{null}, ""},
		{`SELECT '\', $1, ' '`, []Param{null}, ""}, // depends on standard_conforming_strings
		{strings.Repeat("$1", 1<<10), []Param{text(25, strings.Repeat("x", 1<<11))}, ""},
	} {
		s := Statement{HasText: true, Text: tt.sql, Params: tt.params}
		if got, ok := s.Rendering(); ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%.80s is rendered as %q, %t, want %q", tt.sql, got, ok, tt.want)
		}
	}
}
