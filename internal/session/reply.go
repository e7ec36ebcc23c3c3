package session

import (
	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/redact"
	"github.com/pgnotary/pgnotary/internal/verb"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// answered gives a reply to the head of the queue. It reports false if the
// head cannot have such a reply.
func (s *Session) answered(typ byte, total int, frame []byte) bool {
	e := s.head()
	if e == nil {
		return false
	}
	r := &s.work.cur
	body := frame[wire.HeaderLen:]
	if typ != 'D' {
		s.doubt(e)
	}
	runs := e.typ == 'Q' || e.typ == 'E'
	switch typ {
	case '1':
		return e.typ == 'P' && s.done()
	case '2':
		return e.typ == 'B' && s.done()
	case '3':
		if e.typ != 'C' {
			return false
		}
		s.closed(e)
		return s.done()
	case 't':
		if e.typ != 'D' || e.portal {
			return false
		}
		s.describedTypes(e, body)
		return true
	case 'n':
		return e.typ == 'D' && s.done()
	case 'T':
		if s.results == content.Full && (e.typ == 'Q' || e.portal) {
			s.server.body = typ
			s.returned(frame, true)
		}
		return e.typ == 'Q' || e.typ == 'D' && s.done()
	case 'D':
		r.rows++
		r.bytes += int64(total)
		if s.results != content.Count {
			s.server.body = typ
			s.returned(frame, true)
		}
		return runs
	case 'I':
		return runs && s.completed(e, nil, frame)
	case 'C':
		tag, _, _ := wire.CString(body)
		return runs && s.completed(e, tag, frame)
	case 's':
		r.suspend = true
		return e.typ == 'E' && s.done()
	case 'G', 'H', 'W':
		s.copy.mode, s.copy.told = typ, s.now
		return runs
	case 'd':
		s.copy.out.Begin(s.copyMode())
		s.copy.out.Rows++
		s.server.body = typ
		return runs && (s.copy.mode == 'H' || s.copy.mode == 'W')
	case 'c':
		return runs && s.copy.mode != 0
	case 'V':
		r.bytes += int64(total)
		r.frames, r.framed = append(r.frames[:0], frame...), true
		return e.typ == 'F'
	}
	return false
}

// head returns the message that the next reply belongs to, nil if none is
// outstanding. Syncs that the server may have swallowed are passed over.
func (s *Session) head() *expect {
	for {
		e := s.queue.first()
		if e == nil || e.typ != 'S' || !e.maybe {
			return e
		}
		s.queue.pop()
		s.dropCopyEnds()
	}
}

// dropCopyEnds takes the ends of COPY data off the front of the queue. With
// everything before it answered and no COPY going on, the server ignores it.
func (s *Session) dropCopyEnds() {
	for e := s.queue.first(); e != nil && e.typ == 'c'; e = s.queue.first() {
		d := s.queue.pop()
		s.dropped(&d, event.EndDiscarded)
	}
}

// done ends the message at the head, whose reply came, and its entry's outcome
// if it was the last of it.
func (s *Session) done() bool {
	done := s.queue.pop()
	if t := s.names.table(&done); t != nil {
		t.gave(&done)
	}
	switch {
	case done.index >= 0 && done.last:
		s.ended(&done, "", nil, nil)
	case done.index < 0:
		s.work.cur.types = s.work.cur.types[:0]
	}
	s.dropCopyEnds()
	return true
}

// completed follows CommandComplete, or EmptyQueryResponse with tag nil.
func (s *Session) completed(e *expect, tag, frame []byte) bool {
	if s.copy.mode != 0 {
		s.copyOutEnded(e.index)
		if s.copy.mode == 'G' {
			s.swallowed()
			e = s.queue.first() // it moved
		}
		s.copy.mode = 0
	}
	if tag != nil {
		s.appendTag(tag, frame)
		s.command(e, tag)
	}
	if e.typ == 'E' {
		return s.done()
	}
	return true
}

// copyOutEnded records what a COPY carried to the client, or replication both
// ways, however it ended.
func (s *Session) copyOutEnded(of int64) {
	switch s.copy.mode {
	case 'H':
		s.flush()
		s.copied(&s.copy.out, "out", of, event.KindCopy, nil, false)
	case 'W':
		s.replicated(of)
	}
}

// A replication stream, which may go on for months, is told of when it has
// carried maxUntold bytes more or untoldTime nanoseconds went by.
const maxUntold, untoldTime = 64 << 20, 60 * 1e9

// replicated records the sizes of what a replication stream carried since the
// last such entries.
func (s *Session) replicated(of int64) {
	s.flush()
	s.copy.told = s.now
	s.copied(&s.copy.in, "in", of, event.KindReplication, nil, false)
	s.copied(&s.copy.out, "out", of, event.KindReplication, nil, false)
}

// swallowed drops, when a COPY from the client has succeeded, its end marker
// and the Syncs before that, which the server read as part of the COPY.
func (s *Session) swallowed() {
	if end := s.queue.find('c', 1); end < s.queue.len() {
		s.queue.drop(1, end+1, "Sc")
	}
}

// swallowedByCopy ends as skipped the message that a server refused because a
// COPY was going on. One before 14 goes on behind it, newer ones end the session.
func (s *Session) swallowedByCopy() {
	for i := 1; i < s.queue.len(); i++ {
		if e := *s.queue.at(i); e.typ != 'c' && e.typ != 'S' {
			s.queue.drop(i, i+1, string(e.typ))
			s.names.undo(&e)
			if e.last {
				s.dropped(&e, event.EndSkipped)
			}
			return
		}
	}
}

// describedTypes keeps the parameter types a Describe of a statement told.
func (s *Session) describedTypes(e *expect, body []byte) {
	if len(body) < 2 {
		return
	}
	s.work.cur.types = appendTypes(s.work.cur.types[:0], body)
	t := &s.names.stmts
	st := t.now(e.name)
	if e.unnamed && t.known && t.pending == 0 {
		st = &t.unnamed
	}
	if st != nil {
		st.types = append(st.types[:0], s.work.cur.types...)
	}
}

// readyForQuery ends a Query, a FunctionCall, a Sync or the login.
func (s *Session) readyForQuery(tx byte, frame []byte) error {
	first := s.queue.first()
	if first == nil || first.typ != 'Q' && first.typ != 'F' && first.typ != 'S' && first.typ != '0' || s.copy.mode != 0 {
		return s.violate("08P01", "unexpected ReadyForQuery from the server", frame)
	}
	e := s.queue.pop()
	switch e.typ {
	case '0':
		s.loginEnded("ok", nil, nil)
		s.login.done = true
		if s.phase == phaseAuth {
			s.phase = phaseReady
		}
		s.work.tx = tx
		s.work.cur.clear() // parameters told at start-up change nothing
		return nil
	case 'S':
		ended := s.queue.first()
		s.dropCopyEnds()
		next := s.queue.first()
		switch {
		case !e.maybe || next == nil:
		case next.typ == 'S': // this may have been the answer to it
			next.maybe, next.skips = true, e.skips
		case e.skips && ended != next && s.queue.find('S', 0) < s.queue.len():
			return s.violate("08P01", "cannot tell what the server skipped after a COPY that failed: Sync came before its data, and other messages behind it", nil)
		}
	default:
		if e.index >= 0 {
			s.ended(&e, "", nil, nil)
		}
	}
	s.settle(tx)
	s.dropCopyEnds()
	if s.work.used > maxPending { // nothing more goes into them
		s.flush()
	}
	return nil
}

// failed follows an ErrorResponse.
func (s *Session) failed(frame []byte) {
	severity, state := wire.ErrorFields(frame[wire.HeaderLen:])
	fatal := string(severity) == "FATAL" || string(severity) == "PANIC"
	if e := s.queue.first(); !s.login.done && (e == nil || e.typ == '0') {
		if s.login.told {
			s.failedFatally(nil, state, frame)
		} else {
			s.login.full = string(state) == "53300"
			s.loginEnded("failed", state, frame)
		}
		return
	}
	w := &s.work
	w.splitOff()
	e := s.queue.first()
	if !fatal {
		e = s.head()
	}
	if e == nil || fatal {
		s.failedFatally(e, state, frame)
		return
	}
	w.Failed, w.Rollback = true, false
	s.doubt(e)
	if e.does.Ends != verb.EndsNone && !w.inBlock() {
		w.Kept.Set(e.index)
	}
	if e.does.Ends > verb.EndsAlone || e.does.Runs { // names stay as a DO made them
		s.names.stmts.doubt()
		s.names.portals.doubt()
	}
	if s.copy.mode == 'G' && string(state) == "08P01" && string(wire.ErrorField(frame[wire.HeaderLen:], 'R')) == "CopyGetData" {
		s.swallowedByCopy() // which no function of a user can say
		e = s.queue.first() // it moved
	}
	if e.redacted {
		frame = redact.Error(frame)
	}
	hadCopy := s.copy.mode == 'G'
	switch e.typ {
	case 'Q', 'F':
		s.copyFailed(e.index)
		s.ended(e, "", state, frame)
		e.index = -1 // its outcome is told; ReadyForQuery is still to come
		if hadCopy {
			s.maybeSwallowed(1, false)
		}
		return
	case 'S':
		s.ended(e, "", state, frame)
		return
	}
	s.copyFailed(e.index)
	e2 := s.queue.pop()
	if e2.typ == 'B' && e2.of != nil && string(state) == "26000" {
		e2.of.unsure = true // SQL dropped it
	}
	s.names.undo(&e2)
	s.ended(&e2, "", state, frame)
	s.skipRest(e2.index, hadCopy)
	s.dropCopyEnds()
}

// failedFatally follows an error after which the server closes, or one that
// belongs to nothing that was asked.
func (s *Session) failedFatally(e *expect, state, frame []byte) {
	none := expect{index: -1, at: s.now}
	if e == nil || e.index < 0 {
		e = &none
	}
	end := event.EndUnknown
	if e.index < 0 {
		end = ""
	}
	s.ended(e, end, state, frame)
	s.queue.outcomeTold(e.index)
}

// outcomeTold marks everything of an entry as having its outcome.
func (q *queue) outcomeTold(index int64) {
	for i := range q.len() {
		if e := q.at(i); e.index == index {
			e.index = -1
		}
	}
}

// copyFailed ends a COPY of the entry of that an error ended.
func (s *Session) copyFailed(of int64) {
	s.copyOutEnded(of)
	s.copy.mode = 0
}

// skipRest ends, after an error, everything up to the next Sync: the server
// ignores it. failed is the entry that the error belonged to.
func (s *Session) skipRest(failed int64, inCopy bool) {
	q := &s.queue
	for q.len() > 0 {
		e := q.first()
		if e.typ == 'S' {
			if inCopy {
				s.maybeSwallowed(0, true)
			}
			return
		}
		d := q.pop()
		s.names.undo(&d)
		switch {
		case d.typ == 'c':
			s.dropped(&d, event.EndDiscarded)
			inCopy = false
		case d.index >= 0 && d.index != failed && d.last:
			s.dropped(&d, event.EndSkipped)
		}
	}
	s.client.skip = true
}

// maybeSwallowed marks the Syncs at position i, right behind a COPY that failed: the server may have
// read them as part of the COPY, or not. skips says that it skips up to the next Sync in the first case.
func (s *Session) maybeSwallowed(i int, skips bool) {
	for ; i < s.queue.len() && s.queue.at(i).typ == 'S'; i++ {
		e := s.queue.at(i)
		e.maybe, e.skips = true, skips
	}
}

// skipFrom ends at once the entry just admitted, whose messages are those from position i of
// the queue on, because the server ignores everything up to the next Sync.
func (s *Session) skipFrom(i int) {
	q := &s.queue
	first, n := *q.at(i), q.len()
	for j := n - 1; j >= i; j-- {
		s.names.undo(q.at(j))
	}
	q.drop(i, n, "QFPBDEC")
	s.dropped(&first, event.EndSkipped)
	s.flush()
}
