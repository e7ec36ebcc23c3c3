package query

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

// A record is an admission on its way through a joiner, with what has been
// learned of its end so far.
type record struct {
	progress

	value     []byte // a copy, unless nothing in the statement refers to it
	statement Statement
	outcome   Outcome // once hasEnd

	// Of what is not decoded yet: a copy of the leaf, a view of that, and the entry.
	leaf  []byte
	view  view
	entry journal.Entry

	group group // in its place, if of is set: some statements that a helper joined
}

// progress is what a record begins anew with.
type progress struct {
	index   int64
	kind    event.Kind
	session uint64
	of      int64     // as in the leaf
	charset *charset  // function_call: of its result
	size    int       // what it counts for in memory, in bytes
	seen    time.Time // tail only: when it was read

	decoded   bool
	err       error    // of decoding it: it ends the search when its turn comes
	types     []uint32 // parameter types told by the outcome
	hasEnd    bool     // the outcome was read, whatever it says
	unknown   bool     // it says that the end was never seen
	committed int8
	settled   bool // nothing more is to be learned about committed
	final     bool // nothing more is to be learned at all
	dropped   bool // it does not match after all
	// failed is an error that belongs to no statement and came behind this one:
	// of the Sync that was to commit it, say. It is shown if the work was undone.
	failed    *ServerMessage
	undecided bool // whether it matches hangs on that
}

// A joiner brings admissions together with their outcomes and settlements.
// Entries go in with entry, in log order; statements come out of next, in log
// order too, each as soon as nothing more can be learned about it: its outcome
// is there, and its transaction has ended, or its session, or the proxy's run.
//
// A statement that waits for long (a transaction can be open for days) makes
// those behind it wait. The caller bounds that with full and lookAhead.
type joiner struct {
	dec      *decoder
	match    *matcher
	sessions sessionStates
	fifo     []*record // from head on; dropped ones are still there
	head     int
	bytes    int // of the records in fifo
	free     []*record
	view     view
	scanner  *scanner
	limit    int       // records that may wait
	now      time.Time // tail only

	// Search only.
	emitted        int   // statements given on
	late           int   // entries in a row that are later than all that is wanted
	mayFrom, mayTo int64 // where admissions may be that are wanted
	portion        int64 // entries that a helper reads in one go, 0 if the source is not for concurrent use
	after          int64 // entries of a stretch before helpers read on
	helpers        []*helper
	unused         chan *portion

	// Helpers' only.
	lend bool    // records of statements given on are not used again
	last *record // of the statement given on last
}

// maxWaiting and maxWaitingBytes bound the statements held by a search.
const (
	maxWaiting      = 8192
	maxWaitingBytes = 16 << 20
)

func newJoiner(src source, m *matcher) *joiner {
	return &joiner{dec: newDecoder(src), match: m, sessions: newSessionStates(), scanner: new(scanner), limit: maxWaiting, mayTo: math.MaxInt64, after: aheadAfter}
}

// entry takes the next entry of the log. e may be reused afterwards.
func (j *joiner) entry(e *journal.Entry) error {
	v := &j.view
	if err := j.scanner.scan(v, e.Leaf); err != nil {
		return fmt.Errorf("read entry %d: %w", e.Index, err)
	}
	switch v.kind {
	case event.KindOutcome, event.KindSettle:
		j.conclude(j.sessions.of(v.session), e, v)
		return nil
	case event.KindDisconnect:
		j.endSession(v.session)
	case event.KindStart:
		j.endAll()
	}
	if j.mayFrom <= e.Index && e.Index <= j.mayTo && j.match.leaf(e.Index, v) {
		return j.admit(e)
	}
	return nil
}

// admit begins the record of an admission.
func (j *joiner) admit(e *journal.Entry) error {
	j.dec.remember(e, &j.view)
	if j.match.byText() && j.match.absent(e, &j.view) || j.match.absentParam(e, &j.view) {
		return nil
	}
	v, r := &j.view, j.newRecord()
	r.index, r.kind, r.session, r.of, r.seen = e.Index, v.kind, v.session, v.of, j.now
	r.size = recordSize + len(e.Leaf) + len(e.Value)
	if v.kind == event.KindFunctionCall {
		r.charset = v.charset()
	}
	bySelf := j.match.byText() || j.match.f.Param != nil
	if !bySelf && (j.match.byOutcome() || v.kind == event.KindBind || e.Blob != nil || len(e.Value) > maxEager) {
		// Most of these will not be wanted, or it is large: that can wait.
		r.leaf = append(r.leaf[:0], e.Leaf...)
		r.entry, r.view = *e, v.moved(e.Leaf, r.leaf)
		r.entry.Leaf, r.entry.Value = r.leaf, r.keep(e.Value)
	} else if v.kind == event.KindQuery { // of its value only the text is shown, a copy
		j.decode(r, e, v, e.Value)
	} else {
		j.decode(r, e, v, r.keep(e.Value))
	}
	if bySelf {
		if r.err != nil {
			return r.err
		}
		if j.match.byText() && !j.match.text(&r.statement) || !j.match.mayHaveParam(&r.statement) {
			j.free = append(j.free, r)
			return nil
		}
	}
	j.fifo = append(j.fifo, r)
	j.bytes += r.size
	if !concludes(r.kind) && !mayBeDropped(v) {
		r.final = true
		return nil
	}
	j.attend(r)
	return nil
}

// attend makes a record in line wait for what more is told of it.
func (j *joiner) attend(r *record) {
	s := j.sessions.begin(r.session)
	for i := range s.ahead {
		s.ahead[i].apply(r)
	}
	r.settled = r.settled || !settles(r.kind) || s.never > 0 && r.index >= s.never
	if r.final = r.hasEnd && r.settled; r.final {
		return
	}
	s.open = append(s.open, r)
	if r.kind == event.KindCopy {
		s.copies++
	}
}

func (j *joiner) newRecord() *record {
	n := len(j.free)
	if n == 0 {
		return new(record)
	}
	r := j.free[n-1]
	j.free = j.free[:n-1]
	r.progress = progress{}
	if cap(r.value) > 64<<10 { // one large statement is no reason to keep as much for each
		r.value = nil
	}
	return r
}

// keep returns a copy of an entry's value, nil if there is none.
func (r *record) keep(value []byte) []byte {
	if value == nil {
		return nil
	}
	if r.value == nil {
		r.value = make([]byte, 0, len(value)+128) // so that it is not nil if it is empty
	}
	r.value = append(r.value[:0], value...)
	return r.value
}

// maxEager bounds the bytes of a value whose statement is made before its turn
// comes: it takes more memory than that.
const maxEager = 4 << 10

// recordSize is what a record counts for in the joiner's memory besides leaf and value.
const recordSize = 512

// decode makes the statement of a record.
func (j *joiner) decode(r *record, e *journal.Entry, v *view, value []byte) {
	ok := e.Value != nil || !e.HasValue
	if e.Blob != nil {
		value, ok = j.dec.value(e)
	}
	r.decoded = true
	if err := j.dec.fill(&r.statement, e.Index, value, ok, v); err != nil {
		r.err = fmt.Errorf("read entry %d: %w", e.Index, err)
	}
	r.statement.TooLarge = r.statement.TooLarge || j.dec.tooLarge(e)
}

// conclude applies an outcome or settlement to the open records of its
// session. Applying one twice changes nothing.
func (j *joiner) conclude(s *sessionState, e *journal.Entry, v *view) {
	if s == nil {
		return
	}
	of, ok := event.Index(v.of)
	if !ok {
		of = e.Index
	}
	n, found := s.search(of) // n records are up to of, or before it
	if v.kind == event.KindOutcome {
		if found {
			j.end(s.open[n], e, v)
		}
		s.arrived(of, v.sqlstate == nil)
	}
	from := n
	if found {
		// The end of a transaction is told apart from the statement's if the
		// server sent it apart, as it does after an error.
		if r := s.open[n]; v.kind == event.KindSettle && r.hasEnd && r.outcome.Tx == 0 {
			r.outcome.Tx = v.tx
		}
		n++
	}
	// Most outcomes in a transaction say something of one statement only; the
	// others have nothing open behind them. So neither costs more with the
	// length of a transaction.
	t := j.settlement(e, v, of)
	if t.committed != 0 || t.all {
		from = 0
	}
	if s.copies > 0 { // which may lie behind the statement that says they are final
		from, n = 0, len(s.open)
	}
	s.settle(&t, from, n)
}

func (j *joiner) settlement(e *journal.Entry, v *view, of int64) settlement {
	t := settlement{since: of, of: of, committed: v.committed, all: v.tx == 'I'}
	if v.kind == event.KindSettle && v.sqlstate != nil {
		value, _ := j.dec.value(e)
		t.failed = serverError(value, v)
	}
	if i, ok := event.Index(v.since); ok {
		t.since = i
	}
	return t
}

// mayBeDropped says that an entry is of COPY data from the client. If the
// server did not read it, since the COPY never began, an outcome says so;
// there is none otherwise.
func mayBeDropped(v *view) bool {
	return v.kind == event.KindCopy && !isPiece(v) && bytes.Contains(v.facts, []byte(`"direction":"in"`))
}

// end applies an outcome to its record.
func (j *joiner) end(r *record, e *journal.Entry, v *view) {
	if r.hasEnd {
		return
	}
	r.hasEnd = true
	r.unknown = string(v.end) == string(event.EndUnknown)
	r.dropped = !j.match.outcome(r.kind, v)
	if r.dropped {
		r.final = true
		return
	}
	r.undecided = j.match.hangs(r.kind, v)
	r.types = typeList(v.types)
	if !r.unknown || v.sqlstate != nil {
		j.dec.outcome(&r.outcome, e, v)
		r.unknown = false
	} else {
		r.outcome = Outcome{Tags: r.outcome.Tags[:0]}
	}
	// What did not run has nothing to commit.
	if r.unknown || r.outcome.Skipped || r.outcome.Discarded {
		r.settled = true
	}
}

// endAll makes all records of all sessions final.
func (j *joiner) endAll() {
	for id := range j.sessions.all {
		j.endSession(id)
	}
}

// endSession makes all records of a session final.
func (j *joiner) endSession(id uint64) {
	s := j.sessions.of(id)
	if s == nil {
		return
	}
	for _, r := range s.open {
		r.final = true
	}
	j.sessions.end(s)
}

// next returns the next statement, if the first in line is final, or in any
// case if force is set. It is valid until the next call of a method.
func (j *joiner) next(force bool) (*Statement, error) {
	for j.waiting() && (force || j.fifo[j.head].final) {
		if s, err := j.pop(); s != nil || err != nil {
			return s, err
		}
	}
	return nil, nil
}

// pop takes the first record off the line, final or not, and returns its
// statement, nil if it is not wanted after all.
func (j *joiner) pop() (*Statement, error) { return j.release(j.shift()) }

// shift takes the first record off the line.
func (j *joiner) shift() *record {
	r := j.fifo[j.head]
	j.fifo[j.head] = nil
	if j.head++; j.head == len(j.fifo) {
		j.fifo, j.head = j.fifo[:0], 0
	} else if j.head >= 1024 && j.head*2 >= len(j.fifo) {
		n := copy(j.fifo, j.fifo[j.head:])
		clear(j.fifo[n:])
		j.fifo, j.head = j.fifo[:n], 0
	}
	return r
}

// release makes the statement of a record that left the line. Unless it is lent,
// the record is used again after the next call of a method of j that reads an entry.
func (j *joiner) release(r *record) (*Statement, error) {
	j.bytes -= r.size
	if !r.final {
		j.forget(r)
	}
	if concludes(r.kind) && !r.hasEnd {
		r.dropped = !j.match.outcome(r.kind, nil)
	}
	if r.dropped {
		j.discard(r)
		return nil, nil
	}
	s, err := j.finish(r)
	if j.last = r; s == nil || !j.lend {
		j.discard(r)
	}
	return s, err
}

// maxFree bounds the records that are kept to be used again.
const maxFree = maxWaiting

func (j *joiner) discard(r *record) {
	if len(j.free) < maxFree {
		j.free = append(j.free, r)
	}
}

// forget takes a record that is not final off its session.
func (j *joiner) forget(r *record) {
	s := j.sessions.of(r.session)
	if i, found := s.search(r.index); found {
		s.open = slices.Delete(s.open, i, i+1)
		if r.kind == event.KindCopy {
			s.copies--
		}
	}
}

// finish makes the statement of a record that left the queue, nil if it turns
// out not to be wanted.
func (j *joiner) finish(r *record) (*Statement, error) {
	if r.undecided && (r.failed == nil || r.committed >= 0) {
		return nil, nil // no error undid it
	}
	if !r.decoded {
		j.decode(r, &r.entry, &r.view, r.entry.Value)
	}
	if r.err != nil {
		return nil, r.err
	}
	s := &r.statement
	if r.hasEnd && !r.unknown {
		if !r.outcome.Skipped && !r.outcome.Discarded {
			r.outcome.Committed = r.committed
			if settles(s.Kind) && r.committed < 0 && r.outcome.Error == nil {
				r.outcome.Error = r.failed
			}
		}
		s.Outcome = &r.outcome
		if r.undecided && !j.match.sqlstate([]byte(s.SQLState())) {
			return nil, nil
		}
		if s.Function != nil {
			r.outcome.Result = decodeResult(r.outcome.value, s.Function.OID, s.Function.resultFormat, r.charset)
		}
	}
	for i := range s.Params {
		if s.Params[i].OID == 0 && i < len(r.types) {
			s.Params[i].OID = r.types[i]
		}
	}
	if !j.match.params(s) {
		return nil, nil
	}
	return s, nil
}

// waiting reports whether statements are held.
func (j *joiner) waiting() bool { return j.head < len(j.fifo) }

// full reports whether so much is held that the first in line must go.
func (j *joiner) full() bool {
	return len(j.fifo)-j.head > j.limit || j.bytes > maxWaitingBytes
}

// lookAhead reads on from index from, for the session of the statement first
// in line only, until all is known about it or there is nothing more to know.
// What it learns about statements behind it, and those to come in the same
// transaction, is kept, so each long transaction costs one look.
func (j *joiner) lookAhead(ctx context.Context, src source, from, to int64) error {
	head := j.fifo[j.head]
	s := j.sessions.of(head.session)
	settled, n := head.index, 0
	var ahead []settlement
	for e, err := range src.Entries(from, to) {
		if err != nil {
			return err
		}
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var v view
		if err := v.scan(e.Leaf); err != nil {
			return fmt.Errorf("read entry %d: %w", e.Index, err)
		}
		if v.kind == event.KindStart {
			break
		}
		if v.session != head.session {
			continue
		}
		if v.kind == event.KindDisconnect {
			break
		}
		if !joined(v.kind) {
			continue
		}
		of, ok := event.Index(v.of)
		if ok && (v.committed != 0 || v.tx == 'I') {
			settled = max(settled, of)
		}
		if t := j.settlement(&e, &v, of); ok && of >= from && len(ahead) < maxAhead && (t.committed != 0 || t.all || t.failed != nil) {
			ahead = append(ahead, t)
		}
		if j.conclude(s, &e, &v); head.final {
			s.ahead = ahead
			return nil
		}
	}
	// There is no more of this session to come, or not yet: all that can be
	// known about its open records has been applied to them.
	s.ahead, s.never = nil, settled+1
	for _, r := range s.open {
		r.final = true
	}
	s.open, s.copies = nil, 0
	return nil
}
