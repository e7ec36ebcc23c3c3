package query

import (
	"cmp"
	"slices"

	"github.com/pgnotary/pgnotary/internal/event"
)

// A settlement says what became of a session's work: of the admissions from
// since to of. If all is set, the transaction is over: no other settlement
// will speak of admissions up to of, and where this one does not, as after
// ROLLBACK TO SAVEPOINT, it is not known what became of them.
type settlement struct {
	since, of int64
	committed int8
	all       bool
	failed    *ServerMessage // an error that came behind of
}

func (s *settlement) covers(index int64) bool {
	return s.committed != 0 && index >= s.since && index <= s.of
}

// A sessionState holds the records of one session that are not final, in log order.
type sessionState struct {
	id     uint64
	open   []*record
	copies int // those of COPY data in open
	// ahead holds what a look further into the log has found out: settlements
	// of admissions to come, and never, the index from which on there is none
	// (0 if not known).
	ahead []settlement
	never int64

	told bool // see helper.end
}

// maxAhead bounds the settlements within one transaction that are remembered;
// there is one for each COMMIT inside a text of several statements.
const maxAhead = 1024

// sessionStates are those of a joiner.
type sessionStates struct {
	all    map[uint64]*sessionState
	recent [1024]*sessionState // of all, one for each hash: each entry asks
}

// maxIdle bounds the sessions without records that a helper goes on knowing.
const maxIdle = 4096

func newSessionStates() sessionStates {
	return sessionStates{all: make(map[uint64]*sessionState)}
}

func (x *sessionStates) place(id uint64) **sessionState {
	return &x.recent[(id*0x9E3779B97F4A7C15)>>54]
}

// of returns the state of a session, nil if it has none.
func (x *sessionStates) of(id uint64) *sessionState {
	place := x.place(id)
	if s := *place; s != nil && s.id == id {
		return s
	}
	s := x.all[id]
	if s != nil {
		*place = s
	}
	return s
}

// begin returns the state of a session, a new one if need be.
func (x *sessionStates) begin(id uint64) *sessionState {
	s := x.of(id)
	if s == nil {
		s = &sessionState{id: id}
		x.all[id], *x.place(id) = s, s
	}
	return s
}

// end forgets a session.
func (x *sessionStates) end(s *sessionState) {
	delete(x.all, s.id)
	if place := x.place(s.id); *place == s {
		*place = nil
	}
}

// letGo forgets all records. Sessions are kept, for they will have others.
func (x *sessionStates) letGo() {
	if len(x.all) > maxIdle {
		*x = newSessionStates()
	}
	for _, s := range x.all {
		clear(s.open)
		if cap(s.open) > 64 { // one long transaction is no reason to keep as much
			s.open = nil
		}
		*s = sessionState{id: s.id, open: s.open[:0]}
	}
}

// search returns the place of an open record, or where it would be.
func (s *sessionState) search(index int64) (place int, found bool) {
	return slices.BinarySearchFunc(s.open, index, func(r *record, index int64) int {
		return cmp.Compare(r.index, index)
	})
}

// arrived lets go of the entries of COPY data that cannot be followed by an
// outcome any more: the COPY succeeded, or a later statement ended.
func (s *sessionState) arrived(of int64, succeeded bool) {
	if s.copies == 0 {
		return
	}
	for _, r := range s.open {
		if r.kind == event.KindCopy && (of > r.index || succeeded && r.of == event.Ref(of)) {
			r.final = true
		}
	}
}

// apply tells a record what the settlement says about it.
func (s *settlement) apply(r *record) {
	if r.index == s.of && r.failed == nil {
		r.failed = s.failed
	}
	switch {
	case !settles(r.kind):
	case s.covers(r.index):
		r.committed, r.settled = s.committed, true
	case s.all && r.index <= s.of:
		r.settled = true
	}
}

// settle applies a settlement to the open records at the places from from up
// to but without to, and lets go of those that are final.
func (s *sessionState) settle(t *settlement, from, to int) {
	keep := from
	for i := from; i < to; i++ {
		r := s.open[i]
		t.apply(r)
		if r.final = r.final || r.hasEnd && r.settled; !r.final {
			s.open[keep] = r
			keep++
		} else if r.kind == event.KindCopy {
			s.copies--
		}
	}
	switch {
	case keep == to:
	case keep == 0 && to < len(s.open):
		clear(s.open[:to])
		s.open = s.open[to:]
	default:
		n := keep + copy(s.open[keep:], s.open[to:])
		clear(s.open[n:])
		s.open = s.open[:n]
	}
}
