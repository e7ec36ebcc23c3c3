// Package verb tells what the text of a statement does to transactions and to
// names, as far as its first words say so and nothing else is in it: COMMIT,
// ROLLBACK TO a, PREPARE s AS. What it does not recognise is None, never
// another verb: a caller may rely on what it is told.
//
// It looks at bytes and takes those of any encoding PostgreSQL has; none has
// an ASCII letter, a space or a semicolon as half of a character in front of a
// keyword. It does not allocate. All functions may be called concurrently.
//
// Source: PostgreSQL documentation, "SQL Commands" and "Lexical Structure".
package verb

import (
	"bytes"
	"hash/maphash"
)

// A Kind says what a statement does.
type Kind uint8

// The kinds. A text with more than one statement has none of them.
const (
	None       Kind = iota
	Commit          // COMMIT, END
	Rollback        // ROLLBACK, ABORT: of the whole transaction
	Savepoint       // SAVEPOINT name
	Release         // RELEASE [SAVEPOINT] name
	RollbackTo      // ROLLBACK TO [SAVEPOINT] name
	TwoPhase        // PREPARE TRANSACTION
	Prepare         // PREPARE name ...
	Execute         // EXECUTE name ...
	Deallocate      // DEALLOCATE [PREPARE] name
	Declare         // DECLARE name ...
	Fetch           // FETCH, MOVE ... name
)

// An Ending says whether a text might end transactions by itself, without a
// command tag that says so.
type Ending uint8

// The endings.
const (
	EndsNone   Ending = iota // or it was not looked at
	EndsAlone                // a command that commits a part of its work by itself
	EndsCommit               // by COMMIT only
	EndsAny                  // by COMMIT or ROLLBACK
)

// A Verb is what a text does. The zero Verb says nothing.
type Verb struct {
	Kind Kind
	Ends Ending
	Runs bool // an EXECUTE may be in it, of a prepared statement with any text
	// Name stands for the name of a savepoint, the same for the same name as
	// long as this process runs; 0 if the name cannot be told.
	Name uint32
}

// maxName is how many bytes of a name count.
const maxName = 63

var seed = maphash.MakeSeed()

// Of returns what a text does, and, for Prepare and the kinds behind it, the
// name as it stands there, for Fold. text may end in a NUL. name aliases text.
func Of(text []byte) (v Verb, name []byte) {
	for len(text) > 0 && text[len(text)-1] == 0 {
		text = text[:len(text)-1]
	}
	v.Ends, v.Runs = endingOf(text)
	t := space(text)
	if len(t) == 0 {
		return v, nil
	}
	switch t[0] | 0x20 {
	case 'a', 'c', 'd', 'e', 'f', 'm', 'p', 'r', 's': // no other begins with these
	default:
		return v, nil
	}
	word, rest := nextWord(t)
	switch {
	case is(word, "commit"), is(word, "end"):
		v.Kind = ends(Commit, rest)
	case is(word, "abort"):
		v.Kind = ends(Rollback, rest)
	case is(word, "rollback"):
		rest = optional(optional(rest, "work"), "transaction")
		if to, after := nextWord(space(rest)); is(to, "to") {
			v.Kind, v.Name = point(RollbackTo, optional(after, "savepoint"))
			break
		}
		v.Kind = ends(Rollback, rest)
	case is(word, "savepoint"):
		v.Kind, v.Name = point(Savepoint, rest)
	case is(word, "release"):
		v.Kind, v.Name = point(Release, optional(rest, "savepoint"))
	case is(word, "prepare"):
		v.Kind, name = Prepare, single(rest)
		if is(name, "transaction") {
			v.Kind = TwoPhase
		}
	case is(word, "execute"):
		v.Kind, name = Execute, single(rest)
	case is(word, "declare"):
		v.Kind, name = Declare, single(rest)
	case is(word, "deallocate"):
		v.Kind, name = Deallocate, only(optional(rest, "prepare"))
		if is(name, "all") {
			v.Kind = None
		}
	case is(word, "fetch"), is(word, "move"):
		v.Kind, name = Fetch, last(rest)
	}
	if v.Kind >= Prepare && len(name) == 0 {
		v.Kind = None
	}
	return v, name
}

// Fold appends a name as PostgreSQL keeps it: in lower case unless it was
// quoted, and cut to 63 bytes. ok is false for what depends on more than the
// text, such as letters beyond ASCII.
func Fold(dst, name []byte) (folded []byte, ok bool) {
	if n := len(name); n > 2 && name[0] == '"' && name[n-1] == '"' {
		for _, c := range name[1 : n-1] {
			if c >= 0x80 || c == '"' {
				return dst, false
			}
		}
		return append(dst, name[1:n-1]...), n-2 <= maxName
	}
	for i, c := range name {
		switch {
		case i == maxName || c >= 0x80:
			return dst, false
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst, len(name) > 0
}

// ends returns kind if rest is no more than COMMIT and ROLLBACK may have
// behind them. CHAIN begins another transaction, which the caller sees.
func ends(kind Kind, rest []byte) Kind {
	rest = optional(optional(rest, "work"), "transaction")
	if and, after := nextWord(space(rest)); is(and, "and") {
		chain, after := nextWord(space(optional(after, "no")))
		if !is(chain, "chain") {
			return None
		}
		rest = after
	}
	if !done(rest) {
		return None
	}
	return kind
}

// point returns kind and the savepoint that rest names, None if it is not
// exactly that.
func point(kind Kind, rest []byte) (Kind, uint32) {
	var b [maxName]byte
	folded, ok := Fold(b[:0], only(rest))
	if !ok {
		return None, 0
	}
	return kind, max(1, uint32(maphash.Bytes(seed, folded)))
}

// single returns the name that text begins with if no other statement can
// follow: there is no semicolon but at the end.
func single(text []byte) []byte {
	if i := bytes.IndexByte(text, ';'); i >= 0 && !done(text[i:]) {
		return nil
	}
	name, _ := identifier(space(text))
	return name
}

// only returns the name that text consists of.
func only(text []byte) []byte {
	if name, rest := identifier(space(text)); done(rest) {
		return name
	}
	return nil
}

// last returns the name that text, which is of one statement, ends with: of
// what may stand before it in FETCH, nothing is a name.
func last(text []byte) (name []byte) {
	for {
		if text = space(text); done(text) {
			return name
		}
		if text[0] == '-' || text[0] >= '0' && text[0] <= '9' {
			text, name = text[1:], nil
			continue
		}
		if name, text = identifier(text); name == nil {
			return nil
		}
	}
}

// identifier cuts a name off text, quotes included.
func identifier(text []byte) (name, rest []byte) {
	if len(text) > 0 && text[0] == '"' {
		if i := bytes.IndexByte(text[1:], '"'); i >= 0 && !bytes.HasPrefix(text[i+2:], []byte(`"`)) {
			return text[:i+2], text[i+2:]
		}
		return nil, text
	}
	i := 0
	for i < len(text) && (letter(text[i]) || i > 0 && (text[i] >= '0' && text[i] <= '9' || text[i] == '$')) {
		i++
	}
	if i == 0 || i == 1 && i < len(text) && text[0]|0x20 == 'u' && text[i] == '&' { // U&"name"
		return nil, text
	}
	return text[:i], text[i:]
}

// blank tells space as PostgreSQL 16 and newer see it; to older ones \v is a syntax error.
func blank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }

// done reports that nothing but space, comments and semicolons is left.
func done(text []byte) bool {
	for text = space(text); len(text) > 0 && text[0] == ';'; text = space(text[1:]) {
	}
	return len(text) == 0
}

// space cuts space and comments off the beginning.
func space(text []byte) []byte {
	for {
		for len(text) > 0 && blank(text[0]) {
			text = text[1:]
		}
		if len(text) < 2 || text[0] != '-' && text[0] != '/' {
			return text
		}
		switch {
		case bytes.HasPrefix(text, []byte("--")):
			i := bytes.IndexAny(text, "\r\n")
			if i < 0 {
				return nil
			}
			text = text[i:]
		case bytes.HasPrefix(text, []byte("/*")):
			i := bytes.Index(text[2:], []byte("*/"))
			if i < 0 || bytes.Contains(text[2:i+3], []byte("/*")) { // one in another
				return text
			}
			text = text[i+4:]
		default:
			return text
		}
	}
}

// optional cuts a keyword off if it comes next.
func optional(text []byte, word string) []byte {
	if w, rest := nextWord(space(text)); is(w, word) {
		return rest
	}
	return text
}

// nextWord cuts an identifier off text that is not quoted.
func nextWord(text []byte) (word, rest []byte) {
	i := 0
	for i < len(text) && (letter(text[i]) || i > 0 && (text[i] >= '0' && text[i] <= '9' || text[i] == '$')) {
		i++
	}
	return text[:i], text[i:]
}

// is compares a word with one in lower-case ASCII.
func is(word []byte, with string) bool {
	return len(word) == len(with) && bytes.EqualFold(word, []byte(with))
}
