package session

import (
	"sync"

	"github.com/pgnotary/pgnotary/internal/event"
)

const (
	// An outcome lists up to maxTags command tags of maxTagBytes together, each
	// cut to maxTag bytes, as servers do; of more, the value has the
	// CommandComplete frames, up to maxTagFrames bytes.
	maxTags      = 64
	maxTagBytes  = 2 << 10
	maxTag       = 64
	maxTagFrames = 64 << 10
	// maxFacts is how many settings an outcome lists, each cut to maxFact bytes.
	maxFacts = 8
	maxFact  = 64
)

// A result is the outcome of the statement at the head of the queue while its
// replies come in.
type result struct {
	tags     []string
	frames   []byte // CommandComplete frames of a Query with many statements
	tagBytes int
	moreTags bool // than tags lists
	rows     int64
	bytes    int64
	types    []uint32
	facts    []event.Fact
	suspend  bool
	commits  bool // COMMIT by an Execute, which more may follow before the Sync
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

	undone   mark // what is perhaps rolled back even if the group commits
	kept     mark // what is perhaps committed even if the group is rolled back
	split    split
	failed   bool // an error undoes the group
	rollback bool // the newest command was ROLLBACK
	left     bool // the block that the last ReadyForQuery told of is perhaps over

	cur  result
	done []pending // outcomes known in this read, not emitted
	used int
	lent *[]pending // where done came from
}

// A split is a group that ended with a COMMIT inside a Query: the admissions
// from since, -1 for none, to of are committed, whatever more the Query does.
type split struct{ since, of int64 }

// A mark divides the open group: of the admissions up to upto the group's end
// does not tell what became of them, of first and those behind it does. Both
// are -1 for none.
type mark struct{ upto, first int64 }

func (m *mark) set(index int64) {
	if index > m.upto {
		*m = mark{index, -1}
	}
}

func (m *mark) covered(index int64) {
	if m.upto >= 0 && m.first < 0 && index > m.upto {
		m.first = index
	}
}

// since is the first admission of which the group's end tells, -1 for none.
// first is the group's first.
func (m *mark) since(first int64) int64 {
	if m.upto >= 0 {
		return m.first
	}
	return first
}

func (w *work) reset() {
	w.newest, w.settled, w.split.since = -1, -1, -1
	w.newGroup()
}

func (w *work) newGroup() {
	w.first, w.undone, w.kept = -1, mark{-1, -1}, mark{-1, -1}
	w.failed, w.rollback = false, false
}

// covered notes that the server worked on an admission of the open group.
func (w *work) covered(index int64) {
	if index < 0 {
		return
	}
	if w.first < 0 {
		w.first = index
	}
	w.undone.covered(index)
	w.kept.covered(index)
	w.settled = max(w.settled, index)
}

// inBlock reports that the next command runs in a transaction block for sure.
func (w *work) inBlock() bool { return w.tx != 'I' && w.tx != 0 && !w.left }

// pendings lends the memory of outcomes that are not emitted yet, which is
// needed only while FromServer or FromClient runs.
var pendings = sync.Pool{New: func() any { p := make([]pending, 4); return &p }}

// next returns a pending with its memory reused.
func (w *work) next() *pending {
	if w.done == nil {
		w.lent = pendings.Get().(*[]pending)
		w.done = *w.lent
	}
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
	if p.commits {
		p.settle(1, w.undone.since(w.first))
		w.newGroup()
	}
	return p
}

// settle notes what became of the admissions from since on.
func (p *pending) settle(committed int8, since int64) {
	if since >= 0 {
		p.committed, p.since = committed, since
	}
}

// dropped makes the outcome of an admission pending that the server did not
// read or ignored, so that none of its replies belongs to it.
func (s *Session) dropped(e *expect, end event.End) {
	p := s.work.next()
	p.index, p.end = e.index, end
	p.micros = max(0, s.now-e.at) / 1000
}

func (r *result) clear() {
	*r = result{tags: r.tags[:0], facts: r.facts[:0], types: r.types[:0], frames: r.frames[:0]}
}

// flush emits what is pending.
func (s *Session) flush() error {
	w := &s.work
	if w.done == nil {
		return nil
	}
	var err error
	for i := 0; i < w.used && err == nil; i++ {
		err = s.emitOutcome(&w.done[i])
	}
	for i := range w.used {
		p := &w.done[i]
		p.value = nil
		p.clear()
		p.shrink(4 << 10)
	}
	if len(w.done) <= 256 {
		*w.lent = w.done
		pendings.Put(w.lent)
	}
	w.done, w.lent, w.used = nil, nil, 0
	w.cur.shrink(128)
	if cap(s.server.letters) > 128 && len(s.server.letters) == 0 {
		s.server.letters = nil
	}
	return err
}

// shrink drops the buffers larger than about n bytes if nothing is in them.
func (r *result) shrink(n int) {
	if cap(r.frames) > n && len(r.frames) == 0 {
		r.frames = nil
	}
	if cap(r.tags) > n/16 && len(r.tags) == 0 {
		r.tags = nil
	}
	if cap(r.types) > n/4 && len(r.types) == 0 {
		r.types = nil
	}
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
	if e := s.settings.foreign(); e != "" && p.sqlstate != "" {
		p.facts = append(p.facts, event.Fact{Key: "encoding", Val: e})
	}
	l.End, l.SQLState, l.Facts = p.end, p.sqlstate, p.facts
	if p.index < 0 {
		l.Of, l.Micros = event.Ref(p.of), 0
	}
	if p.committed == 0 || p.since == p.index {
		l.Since = 0 // it is of alone
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
	w.tx, w.left = tx, false
	p := w.newestPending()
	if tx == 'I' {
		if w.first >= 0 && (p == nil || p.index >= 0 && p.index != w.settled) {
			p = s.ended(&expect{index: -1}, "", nil, nil)
		}
		if p != nil {
			if w.failed || w.rollback {
				p.settle(-1, w.kept.since(w.first))
			} else {
				p.settle(1, w.undone.since(w.first))
				if w.split.since >= 0 { // the Query did nothing after its COMMIT
					p.settle(1, w.split.since)
					w.split.since = -1
				}
			}
		}
		s.endPortals(w.settled)
		w.newGroup()
	} else if tx == 'T' {
		w.failed, w.rollback = false, false // ROLLBACK TO SAVEPOINT, or a new block
	}
	if p != nil { // else the letters go to the next outcome
		p.tx = tx
		p.letters = append(p.letters, s.server.letters...)
		s.server.letters = s.server.letters[:0]
	}
	w.splitOff()
}

// newestPending returns the newest pending outcome of something the server
// worked on, nil if there is none.
func (w *work) newestPending() *pending {
	for i := w.used - 1; i >= 0; i-- {
		if p := &w.done[i]; p.end != event.EndSkipped && p.end != event.EndDiscarded {
			return p
		}
	}
	return nil
}

// command follows a command tag.
func (s *Session) command(e *expect, tag []byte) {
	w := &s.work
	w.splitOff()
	w.rollback = false
	switch string(tag) {
	case "COMMIT":
		w.left = true
		s.committedHere(e)
	case "ROLLBACK": // to a savepoint, perhaps
		w.failed, w.rollback, w.left = false, true, true
		w.undone.set(e.index)
	case "PREPARE TRANSACTION":
		w.undone.set(e.index)
		w.kept.set(e.index)
	case "DISCARD ALL", "DEALLOCATE ALL":
		s.names.forget(max(w.settled, e.index))
	case "DEALLOCATE":
		if e.typ == 'Q' && e.name != "" && !s.pendingFor('P', e.name) {
			delete(s.names.stmts, e.name)
		} else {
			s.names.doubt(max(w.settled, e.index))
		}
	case "DO", "CALL":
		s.names.doubt(max(w.settled, e.index))
		if !w.inBlock() { // where a procedure may COMMIT and ROLLBACK
			w.kept.set(e.index)
			if e.procs != endsCommit {
				w.undone.set(e.index)
			}
		}
	case "VACUUM", "ANALYZE", "CLUSTER", "REINDEX", "CREATE INDEX", "DROP INDEX", "ALTER TABLE",
		"CREATE DATABASE", "ALTER DATABASE", "DROP DATABASE", "CREATE TABLESPACE", "DROP TABLESPACE",
		"CREATE SUBSCRIPTION", "ALTER SUBSCRIPTION", "DROP SUBSCRIPTION", "ALTER SYSTEM":
		// In a pipeline these may commit at once, each by itself.
		if e.typ == 'E' && w.tx == 'I' {
			w.kept.set(e.index)
		}
	}
}

// committedHere settles the group at a COMMIT that other commands may follow.
func (s *Session) committedHere(e *expect) {
	w := &s.work
	if e.typ == 'E' {
		w.cur.commits = true
		return
	}
	// What came before the Query is settled now; the Query itself at its end,
	// and if that undoes the rest of it, it is not known as a whole.
	if since := w.undone.since(w.first); since >= 0 && w.first != e.index {
		w.split = split{since, w.settled}
	}
	w.first = -1
	w.kept.set(e.index)
}

// splitOff settles what a COMMIT inside a Query committed, since the outcome
// of the Query will not do it.
func (w *work) splitOff() {
	if w.split.since >= 0 {
		p := w.next()
		p.index, p.of = -1, w.split.of
		p.settle(1, w.split.since)
		w.split.since = -1
	}
}

// appendTag keeps a command tag of the statement at the head.
func (s *Session) appendTag(tag, frame []byte) {
	r := &s.work.cur
	if tag = tag[:min(len(tag), maxTag)]; len(r.tags) < maxTags && r.tagBytes+len(tag) <= maxTagBytes {
		r.tags = append(r.tags, s.tags.string(tag))
		r.tagBytes += len(tag)
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
	s := string(b)
	c.recent[c.next%8] = s
	c.next++
	return s
}
