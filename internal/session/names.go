package session

import (
	"bytes"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/verb"
)

// What protocol-level names stand for. The map changes when a message is
// admitted, since the messages right behind it mean the new one; if the server
// then refuses it, the old meaning comes back. Of names made by SQL those of a
// PREPARE or DECLARE that is a Query of its own are in it, once the server has
// done it; a name that is not known is legal.

// A named is a prepared statement or a portal.
type named struct {
	parse int64 // index of the entry with its Parse, -1 if unknown
	bind  int64 // portals: index of the entry with its Bind
	types []uint32
	does  verb.Verb // by its text
	// unsure says that SQL may have given the name another meaning since, and
	// bySQL that a PREPARE made it.
	unsure, bySQL bool
}

// A nameTable is what the names of statements, or of portals, stand for. The unnamed one is kept by
// value since it changes with every statement.
type nameTable struct {
	byName  map[string]*named
	unnamed named
	known   bool // there is an unnamed one
}

type names struct{ stmts, portals nameTable }

// maxName is how many bytes of a name count: servers take longer ones for the same if these are.
const maxName = 63

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

// give has the name that e is about mean to.
func (t *nameTable) give(e *expect, name []byte, to named) *named {
	if len(name) == 0 {
		e.unnamed, t.unnamed, t.known = true, to, true
		return &t.unnamed
	}
	e.name, e.given = string(cut(name)), &named{}
	*e.given = to
	// By what encoding it is read decides what other name is the same.
	e.given.unsure = bytes.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf })
	e.previous = t.set(e.name, e.given)
	return e.given
}

// set gives a name its meaning and returns the one before.
func (t *nameTable) set(name string, to *named) (before *named) {
	before = t.byName[name]
	if t.byName == nil {
		t.byName = make(map[string]*named)
	}
	t.byName[name] = to
	return before
}

// forget drops all names that were given by entries up to index.
func (t *nameTable) forget(index int64) {
	for name, n := range t.byName {
		if max(n.parse, n.bind) <= index {
			delete(t.byName, name)
		}
	}
	t.known = t.known && max(t.unnamed.parse, t.unnamed.bind) > index
}

// closed applies a Close. If the name was given anew since, it stays.
func (s *Session) closed(e *expect) {
	t, gives := &s.names.stmts, byte('P')
	if e.portal {
		t, gives = &s.names.portals, 'B'
	}
	switch {
	case s.pendingFor(gives, e.name):
	case e.unnamed:
		t.known = false
	default:
		delete(t.byName, e.name)
	}
}

// undo takes back what admitting e, which left the queue, changed, since the
// server refused it or skipped it. What the unnamed ones meant before is not
// kept.
func (s *Session) undo(e *expect) {
	t := &s.names.stmts
	switch e.typ {
	case 'B':
		t = &s.names.portals
	case 'P':
	default:
		return
	}
	if e.unnamed {
		t.known = t.known && s.pendingFor(e.typ, "")
	} else {
		s.restore(t.byName, e)
	}
}

// restore gives e's name the meaning it had before e, or tells the message
// behind e that gave it another one.
func (s *Session) restore(m map[string]*named, e *expect) {
	switch {
	case m[e.name] != e.given:
		for i := range s.queue.len() {
			if f := s.queue.at(i); f.typ == e.typ && f.previous == e.given {
				f.previous = e.previous
			}
		}
	case e.previous == nil:
		delete(m, e.name)
	default:
		m[e.name] = e.previous
	}
}

// doubt marks all named statements not newer than index as perhaps changed by SQL.
func (n *names) doubt(index int64) {
	for _, s := range n.stmts.byName {
		if s.parse <= index {
			s.unsure = true
		}
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
		to = s.names.stmts.byName[string(name)]
	case verb.Fetch:
		to, what = s.names.portals.byName[string(name)], "portal"
	default: // it takes effect when its tag comes
		e.name = string(name)
		return
	}
	switch {
	case to == nil:
		r.facts = append(r.facts, event.Fact{Key: what, Val: "unknown"})
		return
	case to.unsure:
		r.facts = append(r.facts, event.Fact{Key: what, Val: "uncertain"})
	}
	r.parse, r.bind = to.parse, to.bind
}

// prepared follows the tag PREPARE: its text is what the name stands for.
func (s *Session) prepared(e *expect) {
	if e.typ == 'Q' && e.does.Kind == verb.Prepare && e.name != "" && !s.pendingFor('P', e.name) {
		s.names.stmts.set(e.name, &named{parse: e.index, bind: -1, bySQL: true})
	}
}

// declared follows the tags DECLARE CURSOR and CLOSE CURSOR.
func (s *Session) declared(e *expect) {
	if e.typ == 'Q' && e.does.Kind == verb.Declare && e.name != "" {
		if !s.pendingFor('B', e.name) {
			s.names.portals.set(e.name, &named{parse: e.index, bind: -1})
		}
		return
	}
	for name, p := range s.names.portals.byName { // which of them is not known
		if p.bind < 0 {
			delete(s.names.portals.byName, name)
		}
	}
}
