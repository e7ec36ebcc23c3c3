package session

import "bytes"

// What protocol-level names stand for. The map changes when a message is
// admitted, since the messages right behind it mean the new one; if the server
// then refuses it, the old meaning comes back. Names made by SQL (PREPARE,
// DECLARE, functions) are not in it: a name that is not known is legal.

// A named is a prepared statement or a portal.
type named struct {
	parse int64 // index of the entry with its Parse, -1 if unknown
	bind  int64 // portals: index of the entry with its Bind
	types []uint32
	procs ending // of transactions, by its text
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

// deallocates returns the statement that a text of the form DEALLOCATE
// [PREPARE] name drops, as PostgreSQL folds it. Anything unusual is not
// recognised, and then all names are in doubt afterwards.
func deallocates(text []byte) (name string, ok bool) {
	text = bytes.TrimRight(bytes.TrimSpace(text), "; \t\r\n\x00")
	word, rest := nextWord(text)
	if !bytes.EqualFold(word, []byte("deallocate")) {
		return "", false
	}
	rest = bytes.TrimLeft(rest, " \t\r\n")
	if word, after := nextWord(rest); bytes.EqualFold(word, []byte("prepare")) && len(after) > 0 {
		rest = bytes.TrimLeft(after, " \t\r\n")
	}
	if n := len(rest); n > 2 && rest[0] == '"' && rest[n-1] == '"' && bytes.IndexByte(rest[1:n-1], '"') < 0 {
		return string(rest[1 : n-1]), true
	}
	if word, after := nextWord(rest); len(word) > 0 && len(after) == 0 && !bytes.EqualFold(word, []byte("all")) {
		return string(bytes.ToLower(word)), true
	}
	return "", false
}

// nextWord cuts an ASCII identifier off text.
func nextWord(text []byte) (word, rest []byte) {
	i := 0
	for i < len(text) && (text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z' || text[i] == '_' || i > 0 && text[i] >= '0' && text[i] <= '9') {
		i++
	}
	return text[:i], text[i:]
}

// An ending says whether a text might end transactions by itself, without a
// tag that says so.
type ending uint8

const (
	endsNone ending = iota // or it was not looked at
	endsCommit
	endsAny // by COMMIT or ROLLBACK
)

// endingOf looks for a CALL or a DO, at the beginning of a text or behind a
// semicolon. It errs on the side of endsAny. The code of a DO is there to be
// read; what it does beyond that it must CALL.
func endingOf(text []byte) ending {
	for {
		t := bytes.TrimLeft(text, " \t\r\n\f;(")
		if len(t) > 1 && (t[0] == '-' && t[1] == '-' || t[0] == '/' && t[1] == '*') {
			return endsAny // a comment in front: not looked behind
		}
		if len(t) > 1 && (t[0]|0x20 == 'c' || t[0]|0x20 == 'd') {
			word, _ := nextWord(t[:min(len(t), 5)])
			switch {
			case len(word) == 4 && bytes.EqualFold(word, []byte("call")):
				return endsAny
			case len(word) == 2 && word[1]|0x20 == 'o':
				rest := t[len(word):]
				if containsFold(rest, "rollback") || containsFold(rest, "call") || bytes.IndexByte(rest, '\\') >= 0 {
					return endsAny
				}
				return endsCommit
			}
		}
		i := bytes.IndexByte(t, ';')
		if i < 0 {
			return endsNone
		}
		text = t[i+1:]
	}
}

// containsFold looks for a lower-case ASCII word in any case.
func containsFold(b []byte, word string) bool {
	for {
		if len(b) < len(word) {
			return false
		}
		if b[0]|0x20 == word[0] && bytes.EqualFold(b[:len(word)], []byte(word)) {
			return true
		}
		b = b[1:]
	}
}
