package session

import (
	"sync"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/transaction"
	"github.com/pgnotary/pgnotary/internal/verb"
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
	maxFacts = 16
	maxFact  = 128
)

// A result is the outcome of the statement at the head of the queue while its
// replies come in.
type result struct {
	tags     []string
	frames   []byte // CommandComplete frames of a Query with many statements, or FunctionCallResponse
	tagBytes int
	framed   bool // frames is the value: more tags than tags lists, or a FunctionCallResponse
	rows     int64
	bytes    int64
	types    []uint32
	facts    []event.Fact
	suspend  bool
	doubt    bool // what ran may be another statement than the admission says
	over     int8 // the transaction ended with this command: +1 committed, -1 rolled back
	undoes   bool // a ROLLBACK TO whose savepoint is known
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
	tx     byte  // of the last ReadyForQuery
	left   bool  // the block that told of is perhaps over
	newest int64 // newest admission, -1 for none
	transaction.Group
	// split is a group that ended with a COMMIT inside a Query: its admissions,
	// Since -1 for none, are committed, whatever more the Query does.
	split transaction.Part

	cur  result
	done []pending // outcomes known in this read, not emitted
	used int
	lent *[]pending // where done came from
}

func (w *work) reset() {
	w.newest, w.Settled, w.split.Since = -1, -1, -1
	w.Reset()
}

// inBlock reports that the next command runs in a transaction block for sure.
func (w *work) inBlock() bool { return w.tx != 'I' && w.tx != 0 && !w.left }

// maxPending is how many outcomes are kept until a read is done.
const maxPending = 256

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
func (s *Session) ended(e *expect, end event.End, sqlstate, frame []byte) {
	w := &s.work
	if e.index >= 0 {
		s.resultEnded(e.index)
	}
	p := w.next()
	p.index, p.end, p.of = e.index, end, w.Settled
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
		w.Covered(e.index)
	}
	switch {
	case p.over != 0:
		w.end(w.used-1, p.over)
	case p.undoes:
		parts, since := w.RollBack()
		w.settle(w.used-1, -1, parts, since)
	}
}

// insert makes a settlement of the admissions from since to of pending, before
// the outcome at place i, which moves on.
func (w *work) insert(i int, committed int8, since, of int64) {
	p := w.next()
	p.index, p.of = -1, of
	p.settle(committed, since)
	made := *p
	copy(w.done[i+1:w.used], w.done[i:w.used-1])
	w.done[i] = made
}

// settle puts what became of the admissions since since into the outcome at
// place i, and of the parts before them in front of it. It returns the outcome's place.
func (w *work) settle(i int, committed int8, parts []transaction.Part, since int64) int {
	for _, p := range parts {
		w.insert(i, committed, p.Since, p.Of)
		i++
	}
	w.done[i].settle(committed, since)
	return i
}

// end is settle for the whole group.
func (w *work) end(i int, committed int8) int {
	parts, since := w.End(committed)
	return w.settle(i, committed, parts, since)
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
func (s *Session) flush() {
	w := &s.work
	if w.done == nil {
		return
	}
	for i := range w.used {
		p := &w.done[i]
		s.emitOutcome(p)
		p.value = nil
		p.clear()
		p.shrink(4 << 10)
	}
	if len(w.done) <= maxPending {
		*w.lent = w.done
		pendings.Put(w.lent)
	}
	w.done, w.lent, w.used = nil, nil, 0
	w.cur.shrink(128)
	if cap(s.server.letters) > 128 && len(s.server.letters) == 0 {
		s.server.letters = nil
	}
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

func (s *Session) emitOutcome(p *pending) {
	kind := event.KindOutcome
	if p.index < 0 {
		kind = event.KindSettle
	}
	l := s.entry(kind)
	l.Of, l.Msgs, l.Tags, l.Types = event.Ref(p.index), p.letters, p.tags, p.types
	l.Rows, l.Bytes, l.Micros = p.rows, p.bytes, p.micros
	l.Tx, l.Committed, l.Since = p.tx, p.committed, event.Ref(p.since)
	if p.doubt {
		p.facts = append(p.facts, event.Fact{Key: "statement", Val: "uncertain"})
	}
	if p.sqlstate != "" {
		p.facts = s.settings.foreign(p.facts)
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
	if value == nil && p.framed {
		value = p.frames
	}
	s.emit(value)
}

// settle works out, at a ReadyForQuery, what became of the open group, and
// puts it into the newest pending outcome or one of its own.
func (s *Session) settle(tx byte) {
	w := &s.work
	w.tx, w.left = tx, false
	i := w.newestPending()
	if i < 0 && len(w.cur.facts) > 0 || tx == 'I' && w.Open() && (i < 0 || w.done[i].index >= 0 && w.done[i].index != w.Settled) {
		s.ended(&expect{index: -1}, "", nil, nil)
		i = w.used - 1
	}
	if tx == 'I' {
		switch {
		case i < 0:
		case w.Failed || w.Rollback:
			i = w.end(i, -1)
		default:
			before, whole, ok := w.Turned(w.done[i].index)
			if whole {
				w.done[i].settle(1, w.done[i].index)
			}
			if ok && before.Since >= 0 {
				w.insert(i, -1, before.Since, before.Of)
				i++
			}
			i = w.end(i, 1)
			if w.split.Since >= 0 { // the Query did nothing after its COMMIT
				w.done[i].settle(1, w.split.Since)
				w.split.Since = -1
			}
		}
		s.names.portals.dropAll()
		s.names.portals.dropUnnamed()
		w.Reset()
	} else if tx == 'T' {
		w.Failed, w.Rollback, w.Blurred = false, false, false // ROLLBACK TO SAVEPOINT, or a new block
	}
	if i >= 0 { // else the letters go to the next outcome
		p := &w.done[i]
		p.tx = tx
		p.facts, w.cur.facts = append(p.facts, w.cur.facts...), w.cur.facts[:0]
		p.letters = append(p.letters, s.server.letters...)
		s.server.letters = s.server.letters[:0]
	}
	w.splitOff()
}

// newestPending returns the place of the newest pending outcome of something
// the server worked on, -1 if there is none.
func (w *work) newestPending() int {
	for i := w.used - 1; i >= 0; i-- {
		if p := &w.done[i]; p.end != event.EndSkipped && p.end != event.EndDiscarded {
			return i
		}
	}
	return -1
}

// command follows a command tag.
func (s *Session) command(e *expect, tag []byte) {
	w := &s.work
	w.splitOff()
	w.Rollback = false
	if e.does.Runs && verb.Turns(tag) {
		w.left = true
		w.Blur(e.index)
		return
	}
	if e.typ == 'E' && verb.Alone(tag) && !w.inBlock() { // in a pipeline
		w.Kept.Set(e.index)
	}
	switch string(tag) {
	case "COMMIT":
		w.left = true
		s.committedHere(e)
	case "ROLLBACK":
		s.rolledBackHere(e)
	case "SAVEPOINT":
		w.Savepoint(e.does, e.index)
	case "RELEASE":
		w.Release(e.does)
	case "PREPARE TRANSACTION":
		w.left = true
		w.Prepared(e.index)
	case "PREPARE":
		s.prepared(e)
	case "DECLARE CURSOR", "CLOSE CURSOR", "CLOSE CURSOR ALL":
		s.declared(e)
	case "DEALLOCATE":
		if e.typ == 'Q' && e.name != "" {
			s.names.stmts.drop(e.name)
		} else {
			s.names.stmts.doubt()
		}
	case "DO", "CALL":
		s.names.stmts.doubt()
		s.names.portals.doubt()
		if !w.inBlock() { // where a procedure may COMMIT and ROLLBACK
			w.Kept.Set(e.index)
			if e.does.Ends != verb.EndsCommit {
				w.Undone.Set(e.index)
			}
		}
	case "DISCARD ALL", "DEALLOCATE ALL":
		s.names.stmts.dropAll()
	}
}

// committedHere settles the group at a COMMIT that other commands may follow.
func (s *Session) committedHere(e *expect) {
	w := &s.work
	if e.typ == 'E' || e.does.Kind == verb.Commit {
		w.cur.over = 1
		return
	}
	// What came before the Query is settled now; the Query itself at its end,
	// and if that undoes the rest of it, it is not known as a whole.
	parts, last := w.CommitInside(e.index)
	for _, p := range parts {
		w.insert(w.used, 1, p.Since, p.Of)
	}
	if last.Since >= 0 {
		w.split = last
	}
}

// rolledBackHere follows the tag ROLLBACK, which a ROLLBACK TO has too, the COMMIT of a transaction that failed,
// and a PREPARE TRANSACTION outside of a block, which like any other command commits what is in the pipeline.
func (s *Session) rolledBackHere(e *expect) {
	w := &s.work
	failed := w.Failed
	w.Failed = false
	switch {
	case e.does.Kind == verb.TwoPhase && !failed:
		w.cur.over = 1
	case e.does.Kind == verb.Rollback, e.does.Kind == verb.Commit:
		w.left, w.cur.over = true, -1
	case e.does.Kind == verb.RollbackTo && w.To(e.does):
		w.cur.undoes = true
	default:
		if w.left = true; e.typ == 'E' && !failed { // of any text, even PREPARE TRANSACTION
			w.Kept.Set(e.index)
		}
		w.RollbackInside(e.index, e.typ == 'Q', len(w.cur.tags) == 1)
	}
}

// splitOff settles what a COMMIT inside a Query committed, since the outcome
// of the Query will not do it.
func (w *work) splitOff() {
	if w.split.Since >= 0 {
		p := w.next()
		p.index, p.of = -1, w.split.Of
		p.settle(1, w.split.Since)
		w.split.Since = -1
	}
}

// appendTag keeps a command tag of the statement at the head.
func (s *Session) appendTag(tag, frame []byte) {
	r := &s.work.cur
	if tag = tag[:min(len(tag), maxTag)]; len(r.tags) < maxTags && r.tagBytes+len(tag) <= maxTagBytes {
		r.tags = append(r.tags, s.tags.string(tag))
		r.tagBytes += len(tag)
	} else {
		r.framed = true
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
