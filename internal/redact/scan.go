package redact

import (
	"bytes"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

const (
	maxDepth  = 4       // literals in literals that are looked into
	maxInside = 1 << 20 // bytes of a literal that has to be unescaped to be looked into
	maxNested = 256     // bytes of a password in a literal; a SCRAM verifier has 133
)

// A word is a token that means something here.
type word uint8

const (
	wordOther  word = iota
	wordDefine      // CREATE, ALTER, IMPORT
	wordRole        // ROLE, GROUP
	wordUser
	wordMapping
	wordOptions // SERVER, FOREIGN
	wordSecret  // PASSWORD and the like
	wordLanguage
	wordConnection
	wordFormat
	wordQuote // quote_literal, quote_nullable
)

func wordOf(b []byte) word {
	switch len(b) {
	case 4:
		if equalFold(b, "user") {
			return wordUser
		} else if equalFold(b, "role") {
			return wordRole
		}
	case 5:
		if equalFold(b, "alter") {
			return wordDefine
		} else if equalFold(b, "group") {
			return wordRole
		}
	case 6:
		if equalFold(b, "create") || equalFold(b, "import") {
			return wordDefine
		} else if equalFold(b, "server") {
			return wordOptions
		} else if equalFold(b, "format") {
			return wordFormat
		}
	case 7:
		if equalFold(b, "mapping") {
			return wordMapping
		} else if equalFold(b, "foreign") {
			return wordOptions
		}
	case 8:
		if equalFold(b, "password") {
			return wordSecret
		} else if equalFold(b, "language") {
			return wordLanguage
		}
	default:
		return longWord(b)
	}
	return wordOther
}

func longWord(b []byte) word {
	switch {
	case equalFold(b, "sslpassword"), equalFold(b, "oauth_client_secret"):
		return wordSecret
	case equalFold(b, "connection"):
		return wordConnection
	case equalFold(b, "quote_literal"), equalFold(b, "quote_nullable"):
		return wordQuote
	}
	return wordOther
}

// A clause is the kind of statement a token stands in.
type clause uint8

const (
	inOther   clause = iota
	inRole           // CREATE or ALTER of a role: PASSWORD is a clause
	inOptions        // of something with OPTIONS (password '...')
)

// A finder looks for passwords in one text and the literals in it.
type finder struct {
	standard bool
	unsure   bool
	set      sqllex.Charset
}

// A place is where in a statement the scan is.
type place struct {
	begin  sqllex.Lexer // at the first token of the statement
	in     clause
	prev   word
	secret bool // PASSWORD was said: what follows it is one
	code   code
	args   args
}

// scan appends the passwords of b. whole is false if b does not lex to its end.
func (f *finder) scan(dst []Span, b []byte, depth int) (spans []Span, whole bool) {
	l := sqllex.Lexer{B: b, Standard: f.standard || depth > 0, Set: f.set}
	s := place{begin: l}
	careful := f.unsure || depth > 0
	for {
		t := l.Next()
		if careful && l.Wavering || f.unsure && l.Adrift {
			return dst, true
		}
		switch t.Kind {
		case sqllex.End:
			return dst, true
		case sqllex.Bad:
			if s.secret && t.In < t.Out {
				dst = append(dst, Span{t.In, t.Out})
			}
			return dst, false
		case sqllex.String:
			dst = f.literal(dst, &l, t, &s, depth)
		default:
			dst = s.token(dst, &l, t)
		}
	}
}

// token takes note of a token that is no literal.
func (s *place) token(dst []Span, l *sqllex.Lexer, t sqllex.Token) []Span {
	w, text := wordOther, l.B[t.In:t.Out]
	s.args.token(t, text)
	switch t.Kind {
	case sqllex.Word:
		w = wordOf(text)
		switch {
		case s.prev == wordDefine && (w == wordRole || w == wordUser):
			s.in = inRole
		case s.prev == wordDefine && w == wordOptions, s.prev == wordUser && s.in == inRole && w == wordMapping:
			s.in = inOptions
		}
		s.secret = s.in != inOther && w == wordSecret
	case sqllex.Name:
		if s.secret && s.in == inRole && len(text) > 0 { // PASSWORD "x": the server refuses it
			dst = append(dst, Span{t.In, t.Out})
		}
		s.secret = s.in == inOptions && wordOf(text) == wordSecret && bytes.Equal(text, bytes.ToLower(text))
	case sqllex.Mark:
		// PASSWORD = 'x': the server refuses it
		s.secret = s.secret && s.in == inRole && text[0] == '='
		if text[0] == ';' {
			*s = place{begin: *l}
		}
	default:
		s.secret = false
	}
	s.prev = w
	return dst
}

// literal takes note of a literal: it is a password, or holds one, or neither.
func (f *finder) literal(dst []Span, l *sqllex.Lexer, t sqllex.Token, s *place, depth int) []Span {
	prev := s.prev
	s.prev = wordOther
	if s.secret || s.args.secret(l) {
		if t.In < t.Out {
			dst = append(dst, Span{t.In, t.Out})
		}
		return dst
	}
	inside := l.B[t.In:t.Out]
	if depth == maxDepth || suspicious(inside) < 0 || s.foreign() {
		return dst
	}
	text, pos, ok := f.unescape(t.Form, inside, l)
	if !ok {
		return dst
	}
	from := len(dst)
	var hole hole
	if dst, ok = connection(dst, text, prev == wordConnection); !ok {
		dst, _ = f.scan(dst, text, depth+1)
		hole = f.hole(text)
	}
	s.args.begin(hole)
	kept := dst[:from]
	for _, p := range dst[from:] {
		if pos != nil {
			p = Span{int(pos[p.From]), int(pos[p.To])}
		}
		p = Span{p.From + t.In, p.To + t.In}
		if len := p.To - p.From; len <= maxNested && bytes.IndexByte(l.B[p.From:p.To], '\n') < 0 {
			kept = append(kept, p)
		}
	}
	return kept
}

// code says what the literals of a statement may be.
type code uint8

const (
	codeUnknown code = iota
	codeSQL          // SQL or PL/pgSQL, whose lexical rules are the same
	codeForeign      // the source of a language with other rules
)

// foreign says whether the statement names a language that is neither SQL nor PL/pgSQL. The name
// may come before or after the body, so it reads the whole statement, once.
func (s *place) foreign() bool {
	if s.code != codeUnknown {
		return s.code == codeForeign
	}
	s.code = codeSQL
	for l, named := s.begin, false; ; {
		t := l.Next()
		text := l.B[t.In:t.Out]
		switch {
		case t.Kind == sqllex.End || t.Kind == sqllex.Bad || t.Kind == sqllex.Mark && text[0] == ';':
			return s.code == codeForeign
		case named && t.Kind != sqllex.Mark && !equalFold(text, "plpgsql") && !equalFold(text, "sql"):
			s.code = codeForeign
		}
		named = t.Kind == sqllex.Word && wordOf(text) == wordLanguage
	}
}
