package session

import (
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
	// unsure says that SQL may have given the name another meaning since.
	unsure bool
}

type names struct {
	stmts   map[string]*named
	portals map[string]*named
	// The unnamed ones, here by value since they change with every statement.
	stmt        named
	portal      named
	stmtKnown   bool
	portalKnown bool
}

// statement returns what a statement name stands for, nil if unknown.
func (n *names) statement(name []byte) *named {
	if len(name) == 0 {
		if n.stmtKnown {
			return &n.stmt
		}
		return nil
	}
	return n.stmts[string(name)]
}

// openPortal is statement for portals.
func (n *names) openPortal(name []byte) *named {
	if len(name) == 0 {
		if n.portalKnown {
			return &n.portal
		}
		return nil
	}
	return n.portals[string(name)]
}

// admitted tells the statement and portal of a run the index of its entry.
func (n *names) admitted(r *run, index int64) {
	if r.parsed {
		if r.stmt == "" {
			n.stmt.parse = index
		} else if st := n.stmts[r.stmt]; st != nil {
			st.parse = index
		}
	}
	if !r.bound {
		return
	}
	p := &n.portal
	if r.portal != "" {
		if p = n.portals[r.portal]; p == nil {
			return
		}
	}
	p.bind = index
	if r.parsed {
		p.parse = index
	}
}

// set gives a named statement or portal its meaning and returns the one before.
func set(m *map[string]*named, name string, to *named) (before *named) {
	before = (*m)[name]
	if *m == nil {
		*m = make(map[string]*named)
	}
	(*m)[name] = to
	return before
}

// undo takes back what admitting e, which left the queue, changed, since the
// server refused it or skipped it. What the unnamed ones meant before is not
// kept.
func (s *Session) undo(e *expect) {
	n := &s.names
	switch {
	case e.typ != 'P' && e.typ != 'B':
	case e.unnamed && e.typ == 'P':
		n.stmtKnown = n.stmtKnown && s.pendingFor('P', "")
	case e.unnamed:
		n.portalKnown = n.portalKnown && s.pendingFor('B', "")
	case e.typ == 'P':
		s.restore(n.stmts, e)
	default:
		s.restore(n.portals, e)
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

// forget drops all statements whose Parse is not newer than the entry index.
func (n *names) forget(index int64) {
	for name, s := range n.stmts {
		if s.parse <= index {
			delete(n.stmts, name)
		}
	}
	if n.stmt.parse <= index {
		n.stmtKnown = false
	}
}

// doubt marks all named statements not newer than index as perhaps changed by SQL.
func (n *names) doubt(index int64) {
	for _, s := range n.stmts {
		if s.parse <= index {
			s.unsure = true
		}
	}
}

// endPortals drops the portals of a transaction that ended: those whose Bind
// is not newer than index.
func (s *Session) endPortals(index int64) {
	n := &s.names
	for name, p := range n.portals {
		if p.bind <= index {
			delete(n.portals, name)
		}
	}
	if n.portal.bind <= index {
		n.portalKnown = false
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
		to = s.names.stmts[string(name)]
	case verb.Fetch:
		to, what = s.names.portals[string(name)], "portal"
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
		set(&s.names.stmts, e.name, &named{parse: e.index, bind: -1})
	}
}

// declared follows the tags DECLARE CURSOR and CLOSE CURSOR.
func (s *Session) declared(e *expect) {
	if e.typ == 'Q' && e.does.Kind == verb.Declare && e.name != "" {
		if !s.pendingFor('B', e.name) {
			set(&s.names.portals, e.name, &named{parse: e.index, bind: -1})
		}
		return
	}
	for name, p := range s.names.portals { // which of them is not known
		if p.bind < 0 {
			delete(s.names.portals, name)
		}
	}
}
