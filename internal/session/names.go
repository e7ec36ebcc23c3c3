package session

import (
	"bytes"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/verb"
)

// What protocol-level names stand for: what the client gave them last, since the messages right
// behind mean that, and, until the server has answered, what they meant before, which stays if it
// refuses. Of names made by SQL those of a PREPARE or DECLARE that is a Query of its own are
// known once the server has done it; a name that is not known is legal.

// A named is a prepared statement or a portal.
type named struct {
	parse int64 // index of the entry with its Parse, -1 if unknown
	bind  int64 // portals: index of the entry with its Bind
	types []uint32
	does  verb.Verb // by its text
	of    *named    // portals: the statement with a name that it goes back to
	// unsure says that the name may mean something else: the server refused to give it this meaning, or took it
	// away, or SQL may have. bySQL says that a PREPARE made it.
	unsure, bySQL bool
	nth           uint16 // of the unnamed ones, 1 to 65535 in turn
	answered      bool   // the server has given the name this meaning
	under         *named // until then: what it means for the server, nil if unknown
}

// doubtful reports whether n may not be what the server means.
func (n *named) doubtful() bool { return n.unsure || n.of != nil && n.of.unsure }

// A nameTable is what the names of statements, or of portals, stand for. The unnamed one is kept by
// value since it changes with every statement.
type nameTable struct {
	byName  map[string]*named
	unnamed named
	known   bool   // there is an unnamed one
	sure    bool   // a name was given since all were doubted
	refused uint16 // nth of the newest unnamed one that the server refused or skipped: it may have kept what it had
	pending int32  // times it was given without an answer yet
}

type names struct{ stmts, portals nameTable }

// any is what a text that is not known does.
func (s *Session) any() verb.Verb { return verb.Verb{Ends: verb.EndsAny, Runs: s.runs} }

// maxName is how many bytes of a name count: servers take longer ones for the same if these are.
const maxName = 63

// maxNames bounds the names that are kept. A server needs more memory for each; but a function may have it
// forget them unseen.
const maxNames = 1 << 14

// cut returns what counts of a name.
func cut(name []byte) []byte { return name[:min(len(name), maxName)] }

// find returns what a name stands for, nil if unknown.
func (t *nameTable) find(name []byte) *named {
	switch {
	case len(name) > 0:
		return t.byName[string(cut(name))]
	case t.known:
		return &t.unnamed
	}
	return nil
}

// now returns what a name means as of what the server has answered, nil if unknown.
func (t *nameTable) now(name string) *named {
	n := t.byName[name]
	if n == nil || n.answered {
		return n
	}
	return n.under
}

// give has the name that e is about mean to.
func (t *nameTable) give(e *expect, name []byte, to named) *named {
	if len(name) == 0 {
		to.nth = t.unnamed.nth%0xffff + 1
		e.unnamed, e.nth, t.unnamed, t.known = true, to.nth, to, true
		t.pending++
		return &t.unnamed
	}
	// By what encoding a name is read decides what other name is the same.
	to.unsure = to.unsure || bytes.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf })
	e.name, e.given = string(cut(name)), &named{}
	*e.given = to
	e.given.under = t.now(e.name)
	t.set(e.name, e.given)
	return e.given
}

func (t *nameTable) set(name string, n *named) {
	if t.byName == nil || len(t.byName) >= maxNames {
		t.byName = make(map[string]*named)
	}
	t.byName[name] = n
}

// put has a name mean n for the server, too.
func (t *nameTable) put(name string, n *named) {
	t.drop(name)
	n.answered, t.sure = true, true
	if newer := t.byName[name]; newer == nil || newer == n {
		t.set(name, n)
	} else {
		newer.under = n
	}
}

// drop takes away what a name means for the server. If the client gave it anew since, that stays.
func (t *nameTable) drop(name string) {
	n := t.now(name)
	if n == nil {
		return
	}
	n.unsure = true // for what was sent already
	if newer := t.byName[name]; newer == n {
		delete(t.byName, name)
	} else {
		newer.under = nil
	}
}

// dropUnnamed is drop for the unnamed one.
func (t *nameTable) dropUnnamed() {
	if t.pending == 0 {
		t.known, t.unnamed.of = false, nil
	}
}

// dropAll drops all names but the unnamed one.
func (t *nameTable) dropAll() {
	for name := range t.byName {
		t.drop(name)
	}
}

// doubt marks all names as perhaps changed by SQL.
func (t *nameTable) doubt() {
	if !t.sure {
		return
	}
	t.sure = false
	for name := range t.byName {
		if n := t.now(name); n != nil {
			n.unsure = true
		}
	}
}

// table returns what e, a Parse or Bind, gives its name in, nil for others.
func (n *names) table(e *expect) *nameTable {
	switch e.typ {
	case 'P':
		return &n.stmts
	case 'B':
		return &n.portals
	}
	return nil
}

// gave notes that the server has done e, a Parse or Bind.
func (t *nameTable) gave(e *expect) {
	if e.unnamed {
		t.pending--
	} else {
		t.put(e.name, e.given)
	}
}

// undo takes back what admitting e, which left the queue, changed, since the
// server refused it or skipped it. What the unnamed ones meant before is not
// kept.
func (n *names) undo(e *expect) {
	t := n.table(e)
	switch {
	case t == nil:
	case e.unnamed:
		t.pending--
		t.refused = e.nth
		t.dropUnnamed()
	default:
		e.given.unsure = true
		if t.byName[e.name] != e.given {
			return
		}
		if t.byName[e.name] = e.given.under; e.given.under == nil {
			delete(t.byName, e.name)
		}
	}
}

// closed applies a Close.
func (s *Session) closed(e *expect) {
	t := &s.names.stmts
	if e.portal {
		t = &s.names.portals
	}
	if e.unnamed {
		t.dropUnnamed()
	} else {
		t.drop(e.name)
	}
}

// named follows a Query that is about one name, as its text has it.
func (s *Session) named(e *expect, name []byte) {
	var b [64]byte
	name, ok := verb.Fold(b[:0], name)
	if !ok {
		return
	}
	r, to, what := &s.client.run, (*named)(nil), "statement"
	switch e.does.Kind {
	case verb.Execute:
		to = s.names.stmts.find(name)
	case verb.Fetch:
		to, what = s.names.portals.find(name), "portal"
	default: // it takes effect when its tag comes
		e.name = string(name)
		return
	}
	if to == nil {
		r.tell(what, "unknown")
		return
	}
	e.does.Runs = !s.refer(e, to, what) || e.does.Runs && !to.bySQL // PREPARE takes no text that ends transactions
	r.parse, r.bind = to.parse, to.bind
}

// refer notes what e goes back to, and reports whether that is certain: else the entry says so, or, if it turns
// out later, the outcome.
func (s *Session) refer(e *expect, to *named, what string) (certain bool) {
	if to.doubtful() {
		s.client.run.tell(what, "uncertain")
		e.does = s.any()
		return false
	}
	e.of = to
	return true
}

// doubt has the outcome say that what was sent right may have been overtaken by what the server did before it.
func (s *Session) doubt(e *expect) {
	t, r := &s.names.stmts, &s.work.cur
	if e.typ == 'E' {
		t = &s.names.portals
	}
	if !r.doubt && (e.of == nil || !e.of.doubtful()) && (e.seen == 0 || e.seen != t.refused) {
		return
	}
	e.does, r.doubt = s.any(), true
	if e.typ == 'B' && e.unnamed {
		s.names.portals.refused = e.nth // it is not what it seems
	} else if e.typ == 'B' {
		e.given.unsure = true
	}
}

// prepared follows the tag PREPARE: its text is what the name stands for.
func (s *Session) prepared(e *expect) {
	if e.typ == 'Q' && e.does.Kind == verb.Prepare && e.name != "" {
		s.names.stmts.put(e.name, &named{parse: e.index, bind: -1, bySQL: true})
	}
}

// declared follows the tags DECLARE CURSOR and CLOSE CURSOR.
func (s *Session) declared(e *expect) {
	if e.typ == 'Q' && e.does.Kind == verb.Declare && e.name != "" {
		s.names.portals.put(e.name, &named{parse: e.index, bind: -1})
	} else {
		s.names.portals.doubt() // which of them is not known
	}
}
