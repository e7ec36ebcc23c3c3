package session

import (
	"bytes"

	"github.com/pgnotary/pgnotary/internal/event"
)

const (
	// maxTags is how many command tags an outcome lists; of more, the value
	// has the CommandComplete frames, up to maxTagFrames bytes.
	maxTags      = 64
	maxTagFrames = 64 << 10
	maxFacts     = 16
)

// A result is the outcome of the statement at the head of the queue while its
// replies come in.
type result struct {
	tags     []string
	frames   []byte // CommandComplete frames of a Query with many statements
	moreTags bool
	rows     int64
	bytes    int64
	types    []uint32
	facts    []event.Fact
	suspend  bool
	commits  bool // a COMMIT that was not the last command of a Query
}

// A pending is an outcome that is known but not emitted: if ReadyForQuery
// comes in the same read, the transaction's end goes into the same entry.
type pending struct {
	index    int64 // its admission, -1 if it ends a transaction only
	of       int64 // then: the newest admission answered before it
	micros   int64
	end      event.End
	sqlstate string
	value    []byte // lies in the bytes being read; nil for none
	letters  []byte
	result
	committed int8
	since     int64
	tx        byte
}

// work is what is known of the transaction going on.
type work struct {
	tx      byte  // of the last ReadyForQuery
	newest  int64 // newest admission, -1 for none
	settled int64 // newest admission whose replies all came
	first   int64 // first admission the open group covers, -1 for none
	// unsure is the newest admission that a ROLLBACK inside the group may have
	// undone (ROLLBACK TO SAVEPOINT and ROLLBACK have one tag), -1 for none;
	// after is the first one behind it.
	unsure   int64
	after    int64
	failed   bool // an error that undoes the group
	procs    bool // the error was in a text that may have committed by itself
	rollback bool // the newest command was ROLLBACK
	prepared bool // the newest command was PREPARE TRANSACTION

	cur  result
	done []pending // outcomes known in this read, not emitted
	used int
}

func (w *work) reset() {
	w.newest, w.settled, w.first, w.unsure, w.after = -1, -1, -1, -1, -1
}

func (w *work) admitted(index int64) {
	w.newest = index
}

// covered notes that the server worked on an admission of the open group.
func (w *work) covered(index int64) {
	if w.first < 0 && index >= 0 {
		w.first = index
	}
	if w.unsure >= 0 && w.after < 0 && index > w.unsure {
		w.after = index
	}
	w.settled = max(w.settled, index)
}

// doubt notes that what was done up to an admission may be undone.
func (w *work) doubt(index int64) {
	if index > w.unsure {
		w.unsure, w.after = index, -1
	}
}

// since is the first admission of the group that a commit settles for sure, -1 for none.
func (w *work) since() int64 {
	if w.unsure >= 0 {
		return w.after
	}
	return w.first
}

// next returns a pending with its memory reused.
func (w *work) next() *pending {
	if w.used == len(w.done) {
		w.done = append(w.done, pending{})
	}
	p := &w.done[w.used]
	w.used++
	p.letters = p.letters[:0]
	tags, facts, types, frames := p.tags[:0], p.facts[:0], p.types[:0], p.frames[:0]
	*p = pending{letters: p.letters, since: -1}
	p.tags, p.facts, p.types, p.frames = tags, facts, types, frames
	return p
}

// ended makes an outcome pending. It belongs to the admission of e, or, if e
// has none (Sync, Describe on its own), to no statement.
func (s *Session) ended(e *expect, end event.End, sqlstate, frame []byte) *pending {
	w := &s.work
	p := w.next()
	p.index, p.end, p.of = e.index, end, w.settled
	p.micros = max(0, s.now-e.at) / 1000
	p.value = frame
	if len(sqlstate) > 0 {
		p.sqlstate = s.tags.string(sqlstate)
	}
	p.letters = append(p.letters, s.server.letters...)
	s.server.letters = s.server.letters[:0]
	// The memory of cur and of p change places.
	p.result, w.cur = w.cur, p.result
	w.cur.clear()
	if e.typ != 'c' { // the end of a COPY is no statement
		w.covered(e.index)
	}
	if p.commits && e.typ == 'E' {
		p.committed, p.since = 1, w.since()
		if p.since < 0 {
			p.committed = 0
		}
		w.newGroup()
	}
	return p
}

func (r *result) clear() {
	*r = result{tags: r.tags[:0], facts: r.facts[:0], types: r.types[:0], frames: r.frames[:0]}
}

// flush emits what is pending.
func (s *Session) flush() error {
	w := &s.work
	for i := range w.used {
		if err := s.emitOutcome(&w.done[i]); err != nil {
			w.used = 0
			return err
		}
	}
	w.used = 0
	if cap(w.done) > 64 {
		w.done = nil
	}
	return nil
}

func (s *Session) emitOutcome(p *pending) error {
	kind := event.KindOutcome
	if p.index < 0 {
		kind = event.KindSettle
	}
	l := s.entry(kind)
	l.Of, l.Msgs, l.Tags, l.Types = event.Ref(p.index), p.letters, p.tags, p.types
	l.Rows, l.Bytes, l.Micros = p.rows, p.bytes, p.micros
	l.Tx, l.Committed, l.Since = p.tx, p.committed, event.Ref(p.since)
	l.End, l.SQLState, l.Facts = p.end, p.sqlstate, p.facts
	if p.index < 0 {
		l.Of, l.Micros = event.Ref(p.of), 0
	}
	if p.committed == 0 || p.since == p.index {
		l.Since = 0
	}
	if p.suspend && p.end == "" {
		l.End = event.EndSuspended
	}
	value := p.value
	if value == nil && p.moreTags {
		value = p.frames
	}
	_, err := s.emit(value)
	return err
}

// settle works out, at a ReadyForQuery, what became of the open group, and
// puts it into the newest pending outcome or one of its own.
func (s *Session) settle(tx byte) {
	w := &s.work
	w.tx = tx
	var p *pending
	if w.used > 0 {
		p = &w.done[w.used-1]
	}
	if tx != 'I' {
		if w.rollback && tx == 'T' {
			// ROLLBACK TO SAVEPOINT, or AND CHAIN: what was before is not known.
			w.doubt(w.settled)
			w.failed, w.rollback = false, false
		}
		if p != nil {
			p.tx = tx
			p.letters = append(p.letters, s.server.letters...)
			s.server.letters = s.server.letters[:0]
		}
		return
	}
	committed, since := int8(1), w.since()
	mixed := p != nil && p.commits && (w.failed || w.rollback)
	switch {
	case mixed || w.failed && w.procs || w.prepared:
		committed = 0
	case w.failed || w.rollback:
		committed, since = -1, w.first
	case since < 0:
		committed = 0
	}
	if w.first >= 0 && (p == nil || p.index != w.settled && p.index >= 0) {
		p = s.ended(&expect{index: -1}, "", nil, nil)
	}
	s.names.endPortals(w.settled)
	if p == nil {
		w.newGroup()
		return // the letters go to the next outcome
	}
	if mixed {
		p.facts = append(p.facts, event.Fact{Key: "settled", Val: "in part"})
	}
	p.tx = 'I'
	if w.first >= 0 {
		p.committed, p.since = committed, since
	}
	p.letters = append(p.letters, s.server.letters...)
	s.server.letters = s.server.letters[:0]
	w.newGroup()
}

func (w *work) newGroup() {
	w.first, w.unsure, w.after = -1, -1, -1
	w.failed, w.procs, w.rollback, w.prepared = false, false, false, false
}

// command follows a command tag.
func (s *Session) command(e *expect, tag []byte) {
	w := &s.work
	w.rollback, w.prepared = false, false
	switch string(tag) {
	case "COMMIT":
		s.committedHere(e)
	case "ROLLBACK":
		w.rollback = true
		w.doubt(e.index)
	case "PREPARE TRANSACTION":
		w.prepared = true
	case "DISCARD ALL", "DEALLOCATE ALL":
		s.names.forget(max(w.settled, e.index))
	case "DEALLOCATE":
		if e.typ == 'Q' && e.name != "" {
			delete(s.names.stmts, e.name)
		} else {
			s.names.doubt(max(w.settled, e.index))
		}
	case "DO", "CALL":
		s.names.doubt(max(w.settled, e.index))
	}
}

// committedHere settles the group at a COMMIT that other commands may follow.
func (s *Session) committedHere(e *expect) {
	w := &s.work
	if e.typ == 'Q' {
		// The statement itself is settled at its end; what came before is now.
		if w.cur.commits = true; w.first < 0 || w.first == e.index {
			return
		}
		p := w.next()
		p.index, p.of, p.committed, p.since = -1, w.settled, 1, w.since()
		if p.since < 0 {
			p.committed = 0
		}
		w.first, w.unsure, w.after = -1, -1, -1
		return
	}
	w.cur.commits = true
}

// appendTag keeps a command tag of the statement at the head.
func (s *Session) appendTag(tag, frame []byte) {
	r := &s.work.cur
	if len(r.tags) < maxTags {
		r.tags = append(r.tags, s.tags.string(tag))
	} else {
		r.moreTags = true
	}
	// The frames of the first ones are needed only if more come; they are
	// small, and few texts hold more than one statement.
	if len(r.frames)+len(frame) <= maxTagFrames {
		r.frames = append(r.frames, frame...)
	}
}

// tagCache keeps the strings of recent command tags and SQLSTATEs, so that
// the usual ones cost no allocation.
type tagCache struct {
	recent [8]string
	next   uint8
}

func (c *tagCache) string(b []byte) string {
	for _, s := range c.recent {
		if s == string(b) {
			return s
		}
	}
	s := string(bytes.Clone(b))
	c.recent[c.next%8] = s
	c.next++
	return s
}
