package verify

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// recentEntries is how many entries back a reference is looked up in memory.
// Older ones are read again from the journal.
const recentEntries = 1 << 17

// nearBits is how many sessions are found at once, as a power of two.
const nearBits = 13

// maxCached bounds the older ones remembered, and the ended sessions.
const maxCached = 1 << 16

// order takes the entries one by one, in the order of the log: it grows the
// tree, compares the roots that batches and headers claim, and checks what an
// entry says about those before it. It belongs to one goroutine.
//
// What it remembers is bounded by what goes on at one time in the log, not by
// its length: sessions that are open and their unanswered statements, the
// last entries, and where in the files older ones are.
type order struct {
	*check
	listed   listed // of the journal; workers have those of segments
	index    *indexFile
	sessions map[uint64]*session
	near     [1 << nearBits]*session // of those, by hash of the id
	ended    map[uint64]struct{}     // sessions that ended lately
	lastKind event.Kind              // of the last entry
	lastTime int64                   // of the last batch
	stopped  bool                    // the last entry that was signed is a stop
	added    int64                   // behind that, the first entry that no start makes; 0 for none

	names  []string        // of the journal files read
	own    worker          // for what is read again
	segs   []int64         // first entries of the segments read
	recent []place         // by index, modulo recentEntries
	old    map[int64]place // older entries that were referred to
	marks  []mark          // where chunks are, ascending
	// refs is what entries from refsFrom on go back to before that, by one of them.
	refsFrom int64
	refs     map[int64]int64
	again    func(index int64) (place, error) // reads an older one
}

// place is what must be known of an entry that another refers to.
type place struct {
	session uint64
	kind    event.Kind
}

// mark says where in the journal an entry that begins a batch is.
type mark struct {
	index int64
	seq   uint64
	file  int
	off   int64
}

// session is an open session.
type session struct {
	id   uint64
	seq  uint64 // of its last entry; outcomes have none and are counted
	time int64
	// midway is that what was read began within the session, with an outcome: its
	// numbers are not known before the next entry that has one.
	midway bool
	// open is the statements whose outcome did not come yet, oldest first, which
	// is the order they mostly come in.
	open  []int64
	first [4]int64 // room for the first of them
	// prepared is what entries went back to lately, as the index plus one, which later
	// ones do again, however far back it is by then; next is where the next has its place.
	prepared [8]int64
	kinds    [8]event.Kind // of those
	noted    [8]int64      // and the size of the tree that refsFrom was when it was put in refs
	next     int
}

func newOrder(c *check) *order {
	o := &order{
		check: c, sessions: map[uint64]*session{}, ended: map[uint64]struct{}{}, old: map[int64]place{},
	}
	o.again = o.readAgain
	return o
}

// chunk takes a chunk that a worker is through with. It reports false if the
// tree is not the one the log claims: then nothing behind it has a meaning.
func (o *order) chunk(c *chunk) bool {
	if len(c.frames) > 0 {
		return o.sealedChunk(c)
	}
	if c.header != nil && !o.header(c) {
		return false
	}
	if len(c.batches) > 0 {
		o.marks = append(o.marks, mark{c.batches[0].first, c.batches[0].seq, c.file, c.off})
	}
	entries := c.entries
	for i := range c.batches {
		b := &c.batches[i]
		for j := range entries[:b.entries] {
			o.listed.entry(&entries[j])
			o.entry(&entries[j])
			o.tree.append(entries[j].hash)
			o.compareRoots()
		}
		entries = entries[b.entries:]
		if got := o.tree.root(); got != b.root {
			o.findAt(b.first, "journal/"+o.names[c.file], "the root that batch %d claims is not that of the entries; nothing behind it was read", b.seq)
			return false
		}
		o.placed(o.index, b)
		o.batchEnd(b.root)
		if b.time < o.lastTime {
			o.note("batch %d, from entry %d on: the clock was set back by %s", b.seq, b.first, time.Duration(o.lastTime-b.time))
		}
		o.lastTime = b.time
	}
	return true
}

// header compares what a file header claims about the tree so far.
func (o *order) header(c *chunk) bool {
	name := "journal/" + o.names[c.file]
	o.missingTiles()
	if o.refs == nil { // the first of them
		o.copiesFrom(o.tree.size)
	}
	if got := o.tree.root(); got != c.header.root {
		o.find(name, "the root in its header is not that of the entries before: %s, want %s",
			base64.StdEncoding.EncodeToString(c.header.root[:]), base64.StdEncoding.EncodeToString(got[:]))
		return false
	}
	if !o.tree.same(c.header.rows) {
		o.find(name, "the tiles in its header are not those of the entries before")
		return false
	}
	var index *indexFile
	if name, ok := o.files.indexes[o.tree.size]; ok {
		var err error
		index, err = readIndex(o.dir, name)
		o.indexRead(o.tree.size, err)
	}
	o.index = index
	o.listed.begin(index)
	return true
}

func (o *order) entry(e *entry) {
	for _, f := range e.flaws {
		o.findAt(e.index, f.what, "%s", f.why)
	}
	if e.index == 0 {
		o.first(e)
	}
	o.Entries++
	if e.form != valueNone {
		o.Values++
	}
	switch e.form {
	case valueBlob:
		o.refers(e)
	case valueErased:
		o.gap.erased[e.index] = struct{}{}
	}
	if e.Kind == event.KindPrune || e.Kind == event.KindErase {
		o.explains(e)
	}
	if e.Kind == event.KindConfig || e.Kind == event.KindViolation {
		o.isAbout(e)
	}
	if e.Kind != "" { // else it could not be read, and says so
		o.dated(e)
		o.life(e)
		s := o.inSession(e)
		o.references(e, s)
	}
	if e.unlisted != nil {
		o.leavesOut(e)
	}
	at := e.index % recentEntries
	for int64(len(o.recent)) <= at {
		o.recent = append(o.recent, make([]place, max(len(o.recent), tileWidth))...)
	}
	o.recent[at] = place{e.Session, e.Kind}
	o.lastKind = e.Kind
}

// first compares entry 0 with log.json, which it vouches for.
func (o *order) first(e *entry) {
	l, err := event.Parse(e.leaf)
	if err != nil || l.Kind != event.KindStart {
		o.findAt(0, "leaf", "the first entry is not of kind start")
		return
	}
	for _, f := range l.Facts {
		if f.Key == "log_json" {
			if o.log.hash != "" && f.Val != o.log.hash {
				o.findAt(0, "log.json", "is not the file that entry 0 was written with: its SHA-256 is %s, want %.64s", o.log.hash, f.Val)
			}
			return
		}
	}
	o.findAt(0, "leaf", "the first entry does not vouch for log.json")
}

// life checks that starts and stops of the writer follow each other.
func (o *order) life(e *entry) {
	switch {
	case e.index == 0 || e.index == o.gap.start:
	case e.Kind == event.KindStart && o.lastKind != event.KindStop && o.lastKind != event.KindRecover:
		o.findAt(e.index, "order", "a start that neither a stop nor a recover entry goes before")
	case o.lastKind == event.KindStop && e.Kind != event.KindStart && e.Kind != event.KindRecover:
		o.findAt(e.index, "order", "an entry between a stop and the next start")
	}
	if e.index == o.signed.size-1 {
		o.stopped = e.Kind == event.KindStop
	} else if o.stopped && o.added == 0 && e.Kind != event.KindStart && e.Kind != event.KindRecover && e.Kind != event.KindConfig {
		o.added = e.index
	}
	if e.Kind == event.KindStart || e.Kind == event.KindRecover {
		clear(o.sessions) // none survives its process
		clear(o.near[:])
	}
}

// inSession checks the entry's number and time in its session, and returns the
// session if it is still open after the entry.
func (o *order) inSession(e *entry) *session {
	if e.Session == 0 {
		if e.Seq != 0 {
			o.findAt(e.index, "order", "a number in a session and no session")
		}
		return nil
	}
	near := &o.near[e.Session*0x9E3779B97F4A7C15>>(64-nearBits)]
	s := *near
	if s == nil || s.id != e.Session {
		s = o.sessions[e.Session]
		*near = s
	}
	if s == nil {
		if _, ended := o.ended[e.Session]; ended {
			o.findAt(e.index, "order", "an entry of a session that has ended")
		}
		s = &session{id: e.Session, time: e.Time}
		s.midway = o.gap.start > 0 // it may have begun before what was read
		o.sessions[e.Session], *near = s, s
	}
	s.seq++
	switch {
	case e.Kind == event.KindOutcome:
	case s.midway:
		s.seq, s.midway = e.Seq, false
	case e.Seq != s.seq:
		o.findAt(e.index, "order", "its number in the session is %d, want %d", e.Seq, s.seq)
		s.seq = e.Seq
	}
	if e.Time < s.time {
		o.findAt(e.index, "order", "its time is before that of the entry before in the session")
	}
	s.time = e.Time
	if e.Kind == event.KindDisconnect {
		for _, index := range s.open {
			o.note("entry %d: its session ended and it has no outcome", index)
		}
		delete(o.sessions, e.Session)
		*near = nil
		if len(o.ended) >= maxCached {
			clear(o.ended)
		}
		o.ended[e.Session] = struct{}{}
		return nil
	}
	return s
}

// references checks what the entry of session s refers to, and keeps track of
// which statements have an outcome.
func (o *order) references(e *entry, s *session) {
	o.goesBackTo(e, s, "parse", e.Parse, holdsParse)
	o.goesBackTo(e, s, "bind", e.Bind, holdsBind)
	o.refer(e, "since", e.Since, isStatement)
	switch e.Kind {
	case event.KindOutcome:
		o.outcome(e, s)
	case event.KindCopy:
		o.refer(e, "of", e.Of, isStatement)
	case event.KindSettle:
		o.refer(e, "of", e.Of, hasOrIsOutcome)
	default:
		if of, ok := event.Index(e.Of); ok && of >= e.index {
			o.findAt(e.index, "of", "refers to entry %d, which is not before it", of)
		}
	}
	if s != nil && isStatement(e.Kind) {
		s.open = append(s.open, e.index)
	}
}

// outcome checks that the entry is the only outcome of a statement of its session.
func (o *order) outcome(e *entry, s *session) {
	of, ok := event.Index(e.Of)
	if !ok || s == nil {
		o.findAt(e.index, "of", "an outcome of nothing")
		return
	}
	if of < o.gap.start {
		return
	}
	if e.Discarded {
		o.refer(e, "of", e.Of, isCopy)
		return
	}
	for i, index := range s.open {
		if index == of {
			copy(s.open[1:i+1], s.open[:i])
			if s.open = s.open[1:]; len(s.open) == 0 {
				s.open = s.first[:0]
			}
			return
		}
	}
	// The end of COPY data that nobody wanted has an outcome, and usually none.
	if kind, ok := o.refer(e, "of", e.Of, canHaveOutcome); ok && kind != event.KindCopy {
		o.findAt(e.index, "of", "a second outcome of entry %d", of)
	}
}

func canHaveOutcome(k event.Kind) bool { return isStatement(k) || k == event.KindCopy }

func isStatement(k event.Kind) bool {
	switch k {
	case event.KindQuery, event.KindParse, event.KindBind, event.KindExecute, event.KindFunctionCall:
		return true
	}
	return false
}

func isCopy(k event.Kind) bool { return k == event.KindCopy }

func hasOrIsOutcome(k event.Kind) bool { return isStatement(k) || k == event.KindOutcome }

// A run of messages is one entry, so any can hold a Parse, and a query what is
// as good, PREPARE or DECLARE.
func holdsParse(k event.Kind) bool {
	return k == event.KindParse || k == event.KindBind || k == event.KindExecute || k == event.KindQuery
}

func holdsBind(k event.Kind) bool { return k == event.KindBind || k == event.KindExecute }

// refer checks that a reference, if there is one, leads to an earlier entry of
// the same session and of a fitting kind. It returns that kind, and ok if
// there is such an entry.
func (o *order) refer(e *entry, key string, ref int64, fits func(event.Kind) bool) (k event.Kind, ok bool) {
	to, ok := event.Index(ref)
	if !ok {
		return "", false
	}
	if to >= e.index {
		o.findAt(e.index, key, "refers to entry %d, which is not before it", to)
		return "", false
	}
	if to < o.gap.start {
		return "", false // not there any more: nobody can say
	}
	p, err := o.place(e.index, to)
	switch {
	case err != nil:
		o.findAt(e.index, key, "refers to entry %d, which cannot be read again: %v", to, err)
	case p.session != e.Session:
		o.findAt(e.index, key, "refers to entry %d, which is of another session", to)
	case !fits(p.kind):
		o.findAt(e.index, key, "refers to entry %d, which is of kind %s", to, p.kind)
	default:
		return p.kind, true
	}
	return "", false
}

// goesBackTo is refer for what many entries of session s go back to.
func (o *order) goesBackTo(e *entry, s *session, key string, ref int64, fits func(event.Kind) bool) {
	if ref == 0 {
		return
	}
	if s != nil {
		for i, p := range s.prepared {
			if p == ref && fits(s.kinds[i]) {
				if s.noted[i] != o.refsFrom {
					s.noted[i] = o.refsFrom
					o.goesBack(e.index, ref)
				}
				return
			}
		}
	}
	o.goesBack(e.index, ref)
	if kind, ok := o.refer(e, key, ref, fits); ok && s != nil {
		s.prepared[s.next], s.kinds[s.next], s.noted[s.next] = ref, kind, o.refsFrom
		s.next = (s.next + 1) % len(s.prepared)
	}
}

// place returns what is known of entry to, seen from the later entry at index.
func (o *order) place(index, to int64) (place, error) {
	if index-to < recentEntries {
		p := o.recent[to%recentEntries]
		if index-to > recentEntries/2 { // what is gone back to from afar is again
			o.keep(to, p)
		}
		return p, nil
	}
	if p, ok := o.old[to]; ok {
		return p, nil
	}
	p, err := o.again(to)
	if err != nil {
		return p, fmt.Errorf("read entry %d again: %w", to, err)
	}
	o.keep(to, p)
	return p, nil
}

func (o *order) keep(to int64, p place) {
	if len(o.old) >= maxCached {
		clear(o.old)
	}
	o.old[to] = p
}
