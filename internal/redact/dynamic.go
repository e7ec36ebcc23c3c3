package redact

import "github.com/pgnotary/pgnotary/internal/sqllex"

// A hole is where the text of a literal leaves out a password, for an expression to fill in. Zero
// is none.
type hole int

// holeEnd: the literal ends at PASSWORD. A positive hole is the argument of format that %L
// behind PASSWORD stands for.
const holeEnd hole = -1

// hole looks at the last PASSWORD clause of the SQL text in a literal.
func (f *finder) hole(text []byte) hole {
	l := sqllex.Lexer{B: text, Standard: true, Set: f.set}
	s := place{begin: l}
	for {
		t := l.Next()
		switch {
		case l.Wavering || t.Kind == sqllex.Bad:
			return 0
		case t.Kind == sqllex.End && s.secret:
			return holeEnd
		case t.Kind == sqllex.End:
			return 0
		case s.secret && t.Kind == sqllex.Mark && text[t.From] == '%':
			return argument(text, t.From)
		}
		s.token(nil, &l, t)
	}
}

// argument returns the number of the argument that the specifier at p of a format string
// stands for, if it is one that makes a literal: %L, %3$L, %-20L.
func argument(text []byte, p int) hole {
	next := hole(1)
	for i := 0; i <= p; i++ {
		if text[i] != '%' {
			continue
		}
		at, n := i, hole(0)
		for i++; i < len(text) && sqllex.Digit(text[i]) && n < 1000; i++ {
			n = n*10 + hole(text[i]-'0')
		}
		arg := next
		if i < len(text) && text[i] == '$' {
			arg = n
			i++
		} else if i == at+1 && i < len(text) && text[i] == '%' {
			continue
		}
		for i < len(text) && (text[i] == '-' || sqllex.Digit(text[i])) {
			i++
		}
		if i == len(text) || text[i] == '*' {
			return 0
		}
		next = arg + 1
		if at == p && text[i] == 'L' {
			return arg
		}
	}
	return 0
}

// args follows an expression that fills a hole:
//
//	format('... PASSWORD %L', 'secret')
//	'... PASSWORD ' || quote_literal('secret')
//
// Only a literal that is all of that argument counts: both functions make it a literal
// again, so it is never code.
type args struct {
	step  step
	hole  hole
	arg   hole // of format that is being read
	depth int  // of parentheses in it
	fresh bool // at the beginning of the argument
}

type step uint8

const (
	stepNone   step = iota
	stepFormat      // format
	stepOpen        // format (
	stepArgs        // format ( '...PASSWORD %L'
	stepEnd         // '...PASSWORD '
	stepBar         // '...PASSWORD ' |
	stepBars        // '...PASSWORD ' ||
	stepQuote       // '...PASSWORD ' || quote_literal
	stepInner       // '...PASSWORD ' || quote_literal (
)

// token takes note of a token that is no literal.
func (a *args) token(t sqllex.Token, text []byte) {
	mark := byte(0)
	if t.Kind == sqllex.Mark {
		mark = text[0]
	}
	w := wordOther
	if t.Kind == sqllex.Word {
		w = wordOf(text)
	}
	switch {
	case a.step == stepArgs:
		a.inArgs(mark)
	case a.step == stepFormat && mark == '(':
		a.step = stepOpen
	case a.step == stepEnd && mark == '|':
		a.step = stepBar
	case a.step == stepBar && mark == '|':
		a.step = stepBars
	case a.step == stepBars && w == wordQuote:
		a.step = stepQuote
	case a.step == stepQuote && mark == '(':
		a.step = stepInner
	case w == wordFormat:
		a.step = stepFormat
	default:
		a.step = stepNone
	}
}

func (a *args) inArgs(mark byte) {
	a.fresh = false
	switch {
	case mark == '(':
		a.depth++
	case mark == ')' && a.depth == 0:
		a.step = stepNone
	case mark == ')':
		a.depth--
	case mark == ',' && a.depth == 0:
		a.arg++
		a.fresh = true
	}
}

// begin takes note of a literal with that hole.
func (a *args) begin(h hole) {
	switch {
	case a.step == stepOpen && h > 0:
		*a = args{step: stepArgs, hole: h}
	case a.step == stepArgs:
	case h == holeEnd:
		*a = args{step: stepEnd}
	}
}

// secret says whether the literal that l has just read fills the hole.
func (a *args) secret(l *sqllex.Lexer) bool {
	fits := a.step == stepInner || a.step == stepArgs && a.fresh && a.arg == a.hole
	a.fresh = false
	if a.step != stepArgs && a.step != stepOpen {
		a.step = stepNone
	}
	if !fits {
		return false
	}
	ahead := *l
	t := ahead.Next()
	return t.Kind == sqllex.Mark && (l.B[t.From] == ')' || l.B[t.From] == ',' && a.step == stepArgs)
}
