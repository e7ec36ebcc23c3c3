package session

import (
	"strings"

	"github.com/pgnotary/pgnotary/internal/verb"
)

// maxQueue is how many replies may be outstanding before the client is no
// longer read; a server with full buffers would stop reading it too.
const maxQueue = 1 << 16

// An expect is one frontend message whose reply is outstanding.
//
//	type  message          replies until it leaves the queue
//	'0'   StartupMessage   ... Z
//	'Q'   Query            (T D* C | I | G C | H C | W C | E)* Z
//	'P'   Parse            1 | E
//	'B'   Bind             2 | E
//	'D'   Describe         T | n, after t for a statement | E
//	'C'   Close            3 | E
//	'E'   Execute          D* (C | I | s) | G C | H C | E
//	'F'   FunctionCall     V Z | E Z
//	'S'   Sync             Z | E Z
//	'c'   CopyDone, or 'f' CopyFail: no reply of their own
type expect struct {
	typ      byte
	redacted bool      // a password was replaced in the record of its text
	last     bool      // last message of its entry but for Sync
	maybe    bool      // Sync: the server may have swallowed it during COPY
	skips    bool      // and if it did, it skips what comes behind up to the next Sync
	does     verb.Verb // by the text: Query, Execute
	unnamed  bool      // of the unnamed statement or portal
	portal   bool      // Describe, Close: of a portal
	nth      uint16    // Parse, Bind: that of the unnamed one it gives
	seen     uint16    // Bind, Execute: that of the unnamed one it goes back to, 0 for none
	index    int64     // its entry, -1 if it has none
	at       int64     // time of admission
	name     string    // Parse, Bind, Describe, Close: the name; Query: what DEALLOCATE names
	given    *named    // Parse, Bind: what the name was given to mean
	of       *named    // Bind, Execute, Query: the statement or portal with a name that it goes back to
}

// A queue is a ring of expects.
type queue struct {
	ring []expect // length is a power of two
	head int
	n    int
}

func (q *queue) len() int { return q.n }

// idle reports that nothing is outstanding but Syncs that may be answered already.
func (q *queue) idle() bool {
	for i := 0; i < q.n; i++ {
		if e := q.at(i); e.typ != 'S' || !e.maybe {
			return false
		}
	}
	return true
}

func (q *queue) at(i int) *expect { return &q.ring[(q.head+i)&(len(q.ring)-1)] }

// first returns the head, nil if the queue is empty.
func (q *queue) first() *expect {
	if q.n == 0 {
		return nil
	}
	return &q.ring[q.head]
}

// index is the entry of the head, none if there is no head.
func (q *queue) index(none int64) int64 {
	if q.n == 0 {
		return none
	}
	return q.ring[q.head].index
}

// find returns the position of the first message of a type from i on, len if there is none.
func (q *queue) find(typ byte, i int) int {
	for i < q.n && q.at(i).typ != typ {
		i++
	}
	return i
}

func (q *queue) push(e expect) {
	if q.n == len(q.ring) {
		bigger := make([]expect, max(8, 2*len(q.ring)))
		for i := 0; i < q.n; i++ {
			bigger[i] = *q.at(i)
		}
		q.ring, q.head = bigger, 0
	}
	*q.at(q.n) = e
	q.n++
}

func (q *queue) pop() expect {
	e := q.ring[q.head]
	q.ring[q.head] = expect{}
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	if q.n == 0 && len(q.ring) > 8 {
		q.ring, q.head = nil, 0 // a deep pipeline has ended
	}
	return e
}

// drop takes out those of some types from position from on and before to.
func (q *queue) drop(from, to int, types string) {
	kept := to
	for i := to - 1; i >= 0; i-- {
		if i < from || strings.IndexByte(types, q.at(i).typ) < 0 {
			kept--
			*q.at(kept) = *q.at(i)
		}
	}
	for range kept {
		q.pop()
	}
}
