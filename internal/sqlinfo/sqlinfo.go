// Package sqlinfo tells what a text of SQL is about: the class of its
// statements, the relations that it names, and a fingerprint that is the same
// for texts that differ in literals, spacing and comments only.
//
// It is for readers. What it says is derived and never evidence: the text is.
// It follows the structure of PostgreSQL's grammar as far as that decides which
// names are relations, and does not check that a text is valid SQL. Where it
// cannot follow, it says so (Complete) instead of guessing. Views, functions,
// triggers and the search_path are the server's business: a name is reported as
// it is written.
//
// Calls may run concurrently. No text makes them panic, and they take time
// and memory in proportion to its length.
package sqlinfo

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// Engine names the rules that results come from. It changes when results can.
const Engine = "sqlinfo1"

// A Class is what a statement is for, as pgaudit names it.
type Class string

// The classes. FUNCTION is for DO and CALL: which functions an expression
// calls, and what they do, a text does not tell.
const (
	Read     Class = "READ"     // SELECT, VALUES, TABLE, COPY TO
	Write    Class = "WRITE"    // INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM
	Function Class = "FUNCTION" // DO, CALL
	Role     Class = "ROLE"     // GRANT, REVOKE, roles and default privileges
	DDL      Class = "DDL"      // other definitions
	Misc     Class = "MISC"     // the rest: transactions, SET, VACUUM, LOCK ...
)

// Classes returns all classes.
func Classes() []Class { return []Class{Read, Write, Function, Role, DDL, Misc} }

// Info is what is known of a text. Slices are sorted, and nil if empty.
type Info struct {
	Engine      string // the rules it comes from
	Classes     []Class
	Relations   []string // as in SQL: public.users, "Order"
	Fingerprint string   // Engine, a colon and 16 hexadecimal digits; "" without any token
	Complete    bool     // nothing was left unread
}

const (
	// maxDepth bounds parentheses in parentheses.
	maxDepth = 200
	// maxText bounds the bytes that are looked at.
	maxText = 4 << 20
)

// Analyze returns what there is to know of a text of one or more statements.
func Analyze(text string) Info {
	r := &result{complete: len(text) <= maxText}
	toks := r.lex(text[:min(len(text), maxText)])
	for from := 0; from < len(toks); {
		to := r.statementEnd(toks, from)
		if to > from {
			p := newParser(r, toks[from:to])
			p.statement(0, len(p.t), true)
		}
		from = to + 1
	}
	info := Info{Engine: Engine, Complete: r.complete, Fingerprint: fingerprint(toks)}
	for _, c := range Classes() {
		if slices.Contains(r.classes, c) {
			info.Classes = append(info.Classes, c)
		}
	}
	slices.Sort(r.relations)
	info.Relations = slices.Compact(r.relations)
	return info
}

// A result collects what parsers find.
type result struct {
	classes   []Class
	relations []string
	complete  bool
}

func (r *result) class(c Class) {
	if !slices.Contains(r.classes, c) {
		r.classes = append(r.classes, c)
	}
}

// unknown says that something could not be followed.
func (r *result) unknown() { r.complete = false }

// A tok is a token with what parsing needs of it.
type tok struct {
	kind sqllex.Kind
	text string // of a word in lower case, of a name what it means, of a mark the character
}

// lex cuts text into tokens.
func (r *result) lex(text string) []tok {
	toks := make([]tok, 0, len(text)/5+1)
	for l := (sqllex.Lexer{B: []byte(text), Standard: true}); ; {
		t := l.Next()
		switch t.Kind {
		case sqllex.End:
			if l.Wavering { // where a literal ends depends on a setting
				r.unknown()
			}
			return toks
		case sqllex.Bad:
			r.unknown()
			return toks
		case sqllex.Word:
			toks = append(toks, tok{t.Kind, lower(text[t.From:t.To])})
		case sqllex.Name:
			if t.Form == sqllex.FormUnicode {
				r.unknown()
			}
			toks = append(toks, tok{t.Kind, strings.ReplaceAll(text[t.In:t.Out], `""`, `"`)})
		case sqllex.Mark:
			toks = append(toks, tok{t.Kind, text[t.From:t.To]})
		default:
			toks = append(toks, tok{t.Kind, ""})
		}
	}
}

// lower folds ASCII letters, as PostgreSQL does for identifiers in UTF-8.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// statementEnd returns where the statement that begins at from ends: at a
// semicolon that is neither in parentheses nor in a function's body.
func (r *result) statementEnd(toks []tok, from int) int {
	depth, body := 0, 0
	for i := from; i < len(toks); i++ {
		t := &toks[i]
		switch {
		case t.kind == sqllex.Mark && t.text == "(":
			depth++
		case t.kind == sqllex.Mark && t.text == ")":
			depth--
		case t.kind == sqllex.Mark && t.text == ";" && depth <= 0 && body == 0:
			return i
		case t.kind != sqllex.Word:
		case t.text == "begin" && i+1 < len(toks) && toks[i+1].kind == sqllex.Word && toks[i+1].text == "atomic",
			t.text == "case" && body > 0:
			body++
		case t.text == "end" && body > 0:
			body--
		}
	}
	return len(toks)
}

// fingerprint hashes the tokens with their literals and parameters left out,
// and of a list of them all but the first, in parentheses or not.
func fingerprint(toks []tok) string {
	for len(toks) > 0 && toks[len(toks)-1].is(";") {
		toks = toks[:len(toks)-1]
	}
	if len(toks) == 0 {
		return ""
	}
	norm := make([]string, 0, len(toks))
	for i := range toks {
		t := &toks[i]
		switch t.kind {
		case sqllex.String, sqllex.Number:
			n := len(norm)
			if n >= 2 && norm[n-1] == "," && norm[n-2] == "?" {
				norm = norm[:n-1]
				continue
			}
			norm = append(norm, "?")
		case sqllex.Name:
			if plainIdentifier(t.text) {
				norm = append(norm, t.text)
			} else {
				norm = append(norm, quoteIdentifier(t.text))
			}
		default:
			norm = append(norm, t.text)
			if n := len(norm); n >= 7 && t.is(")") && slices.Equal(norm[n-7:n-4], []string{"(", "?", ")"}) &&
				norm[n-4] == "," && slices.Equal(norm[n-3:], []string{"(", "?", ")"}) {
				norm = norm[:n-4]
			}
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(norm, "\x00")))
	return Engine + ":" + hex.EncodeToString(sum[:8])
}

func (t *tok) is(mark string) bool { return t.kind == sqllex.Mark && t.text == mark }

// ParseRelation returns a relation's name as Relations has it: names without
// quotes in lower case. ok is false if s is no name.
func ParseRelation(s string) (name string, ok bool) {
	r := &result{complete: true}
	toks := r.lex(s)
	p := newParser(r, toks)
	name, end := p.name(0)
	return name, r.complete && name != "" && end == len(toks)
}

// Matches reports whether a relation of a statement may be the one that is
// looked for: without a schema in one of the names any schema will do.
func Matches(relation, wanted string) bool {
	return relation == wanted || strings.HasSuffix(relation, "."+wanted) || strings.HasSuffix(wanted, "."+relation)
}

func plainIdentifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || c == '_' || c >= 0x80 || i > 0 && ('0' <= c && c <= '9' || c == '$')) {
			return false
		}
	}
	return s != ""
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
