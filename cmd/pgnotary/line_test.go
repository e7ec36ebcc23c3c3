package main

import (
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

func TestLineColours(t *testing.T) {
	ended := func(us int64, committed int8, sqlstate string) *query.Statement {
		s := &query.Statement{Kind: event.KindQuery, HasText: true, Text: "SELECT 1", Outcome: &query.Outcome{Micros: us, Committed: committed, Tags: []string{"SELECT 1"}}}
		if sqlstate != "" {
			s.Outcome.Error = &query.ServerMessage{SQLState: sqlstate, Severity: "ERROR", Message: "no"}
		}
		return s
	}
	plainLine := linePrinter{}.line(ended(15_000_000, -1, "42501"))
	if strings.Contains(plainLine, "\x1b") || !strings.Contains(plainLine, "ERROR 42501") {
		t.Errorf("without colour: %q", plainLine)
	}
	for _, tt := range []struct {
		name string
		s    *query.Statement
		want []string
	}{
		{"fast", ended(900_000, 1, ""), []string{colorDim + "900.000 ms", colorGreen + "SELECT 1"}},
		{"slow", ended(1_000_000, 1, ""), []string{colorSlow + "1000.000 ms"}},
		{"very slow", ended(15_000_000, 1, ""), []string{colorWorst + "15.00 s"}},
		{"failed", ended(1, 0, "42501"), []string{colorRed + "ERROR 42501", colorRed + "SELECT 1"}},
		{"rolled back", ended(1, -1, ""), []string{colorAmber + "SELECT 1 undone"}},
	} {
		got := strings.Join(strings.Fields(linePrinter{color: true}.line(tt.s)), " ")
		for _, want := range tt.want {
			color, text := want[:strings.Index(want, "m")+1], want[strings.Index(want, "m")+1:]
			if !strings.Contains(got, color+text) && !strings.Contains(got, color+" "+text) {
				t.Errorf("%s: %q does not show %q in %q", tt.name, got, text, color)
			}
		}
	}
}

// TestLineWidth holds that lines fit, whatever is in them and whatever the
// width becomes.
func TestLineWidth(t *testing.T) {
	now := 0
	p := linePrinter{width: func() int { return now }}
	for _, text := range []string{strings.Repeat("x", 500), strings.Repeat("語", 300), strings.Repeat("e\u0301", 300), "short", strings.Repeat("a語", 200)} {
		s := &query.Statement{Index: 1, User: "bob", Database: "日本", Kind: event.KindQuery, HasText: true, Text: text}
		for _, now = range []int{80, 100, 101, 119, 120, 150, 333, 80} {
			line := strings.TrimSuffix(p.line(s), "\n")
			if got := columns(line); got > now || text != "short" && got < now-1 {
				t.Errorf("%.20s: line of %d columns on a terminal of %d:\n%s", text, got, now, line)
			}
		}
	}
	now = 30 // too narrow for the head alone
	if line := p.line(&query.Statement{Kind: event.KindQuery, HasText: true, Text: strings.Repeat("x", 50)}); !strings.Contains(line, "xxxxx") {
		t.Errorf("on a narrow terminal nothing is left of the text: %q", line)
	}
}

// TestHarmless holds that JSON goes on meaning the same, and that line ends stay.
func TestHarmless(t *testing.T) {
	for s, want := range map[string]string{
		"a,\"b\nc\"\r\n":        "a,\"b\nc\"\r\n",
		"a\x1b[2Jb\rc":          `a\u001b[2Jb\u000dc`,
		"\u009b31m\u202e\u200f": `\u009b31m\u202e\u200f`,
		"é\tü\U000e0001":        "é\tü" + `\udb40\udc01`,
	} {
		if got := string(harmless([]byte(s))); got != want {
			t.Errorf("harmless(%q) = %q, want %q", s, got, want)
		}
	}
	if got := string(forTerminal(new(strings.Builder), []byte("\x1b"))); got != "\x1b" {
		t.Errorf("to no terminal %q", got)
	}
}

func TestPlain(t *testing.T) {
	for s, want := range map[string]string{
		"":                      "",
		"SELECT  1":             "SELECT  1",
		"é\ufffd\xff":           "é\ufffd\xff",
		"a  b\n\t c":            "a b c",
		"\x00\x1b[1m\x7f":       `\u0000\u001b[1m\u007f`,
		"\u202e\U000e0001":      `\u202e\ue0001`,
		"\U0010ffff\xff":        "\\u10ffff\ufffd",
		" \u00a0x\u0085\u2028y": " x y",
	} {
		if got := plain(s); got != want {
			t.Errorf("plain(%q) = %q, want %q", s, got, want)
		}
	}
}
