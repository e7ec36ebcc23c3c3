package query

import (
	"context"
	"runtime"
	"sync"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

const (
	// aheadAfter is how many entries a stretch is read for before several
	// goroutines read on: most that an index leads to are shorter.
	aheadAfter = 2 * tree.Width
	// portionEntries and portionBytes bound what one goroutine reads in one go, and
	// maxRendered the bytes that are kept of it.
	portionEntries = 16 * tree.Width
	portionBytes   = 2 << 20
	maxRendered    = 4 << 20
)

// readers is how many goroutines read portions.
func readers() int { return min(8, runtime.GOMAXPROCS(0)) }

// A portion is a run of entries that a helper has read: the statements of
// which all is known that way, and what it takes to join the others.
type portion struct {
	from, to int64
	next     int64 // entries up to it are in; the rest up to to was too large

	room []byte // that ends are in, or part of them
	line []*record
	ends []end
	late int  // entries at its end that are later than all that is wanted
	only bool // all are

	records []*record // lent to found, or to be used again
	found   []*Statement
	out     []byte // or their rendering,
	until   []int  // where each ends there

	groups int // in line, not taken yet
	err    error
	ready  chan struct{} // closed when it was read
}

// An end is an entry that may tell something of statements in earlier portions.
type end struct {
	session uint64
	kind    event.Kind
	entry   journal.Entry
}

// A group is some statements of a portion in a row.
type group struct {
	of       *portion
	from, to int // which of them
}

// begin makes p a portion that is to be read.
func (p *portion) begin(from, to int64) {
	clear(p.line)
	if cap(p.out) > 2*maxRendered { // one large statement is no reason to keep as much
		p.out = nil
	}
	*p = portion{
		from: from, to: to, next: from, only: true, ready: make(chan struct{}),
		room: p.room[:0], line: p.line[:0], ends: p.ends[:0], records: p.records, found: p.found[:0], out: p.out[:0], until: p.until[:0],
	}
}

// keep returns a copy of b, not nil.
func (p *portion) keep(b []byte) []byte {
	if cap(p.room)-len(p.room) < len(b) { // those that are in the old one keep it
		p.room = make([]byte, 0, max(256<<10, min(2*cap(p.room), portionBytes), len(b))) // so that soon one has room for all
	}
	n := len(p.room)
	p.room = append(p.room, b...)
	return p.room[n:len(p.room):len(p.room)]
}

// A helper reads portions for a joiner, one after the other.
type helper struct {
	joiner    *joiner
	stretches stretches
	behind    int64                                          // how many entries before a portion others may be reading
	render    func(dst []byte, s *Statement) ([]byte, error) // nil if statements are wanted as they are
}

func newHelper(of *joiner, src source, render func([]byte, *Statement) ([]byte, error)) *helper {
	j := newJoiner(src, of.match)
	j.lend, j.dec.lend = render == nil, render != nil
	j.dec.refs = of.dec.refs
	return &helper{j, src.stretches(), 2 * int64(readers()) * of.portion, render}
}

// read fills p, unless ctx ends. plan says where what is searched for may begin.
func (h *helper) read(ctx context.Context, p *portion, plan *plan) {
	j := h.joiner
	j.free = append(j.free, p.records...)
	clear(p.records)
	p.records = p.records[:0]
	j.dec.near, j.dec.by = p.from-h.behind, p.from
	taken := 0
	for e, err := range h.stretches.Entries(p.from, p.to) {
		if err != nil {
			p.err = meanwhile(err)
			break
		}
		if taken > portionBytes || len(p.out) >= maxRendered {
			break
		}
		if e.Index%tree.Width == 0 || e.Index == p.from {
			if p.err = ctx.Err(); p.err != nil {
				break
			}
			j.mayFrom, j.mayTo = plan.may(e.Index)
		}
		p.next = e.Index + 1
		taken += len(e.Leaf) + len(e.Value)
		if id, of, ok := outcomeOf(e.Leaf); ok && j.match.stop == nil {
			if s := j.sessions.begin(id); len(s.open) == 0 && s.told && of >= p.from {
				continue // of nothing that is searched for
			}
		}
		if p.err = j.entry(&e); p.err != nil {
			break
		}
		v := &j.view
		h.end(p, &e, v)
		if j.match.past(v) {
			p.late++
		} else {
			p.late, p.only = 0, false
		}
		for h.may(p) {
			h.pop(p)
		}
	}
	h.finish(p)
}

// end keeps an entry that may tell something of statements before p. Once the end of a
// transaction was told that began in it, or later, others of that session do not.
func (h *helper) end(p *portion, e *journal.Entry, v *view) {
	switch {
	case joined(v.kind):
		s := h.joiner.sessions.begin(v.session)
		within := !before(v.of, p.from)
		if s.told && within && !before(v.since, p.from) {
			return
		}
		s.told = s.told || within && v.tx == 'I'
	case v.kind != event.KindDisconnect && v.kind != event.KindStart:
		return
	}
	x := end{v.session, v.kind, *e}
	x.entry.Leaf = p.keep(e.Leaf)
	if e.Value != nil {
		x.entry.Value = p.keep(e.Value)
	}
	p.ends = append(p.ends, x)
}

// before reports whether a reference is to an entry before that at index.
func before(reference, index int64) bool {
	i, ok := event.Index(reference)
	return ok && i < index
}

// may reports whether the first in line can be taken. One in a blob, which can be
// very large, is left to who takes the portions one by one.
func (h *helper) may(p *portion) bool {
	j := h.joiner
	if !j.waiting() || len(p.out) >= maxRendered {
		return false
	}
	r := j.fifo[j.head]
	return r.final && (r.decoded || r.entry.Blob == nil)
}

// pop takes the first in line, which is final. An error comes in its place.
func (h *helper) pop(p *portion) {
	s, err := h.joiner.pop()
	n := len(p.found) + len(p.until)
	switch {
	case err != nil:
	case s == nil:
		return
	case h.render == nil:
		p.found, p.records = append(p.found, s), append(p.records, h.joiner.last)
	default:
		was := len(p.out)
		if p.out, err = h.render(p.out, s); err != nil {
			p.out = p.out[:was]
			break
		}
		p.until = append(p.until, len(p.out))
	}
	if err != nil {
		p.line = append(p.line, &record{progress: progress{final: true, decoded: true, err: err, size: recordSize}})
		return
	}
	if last := len(p.line) - 1; last >= 0 && p.line[last].group.of != nil {
		p.line[last].group.to = n + 1
		return
	}
	p.line = append(p.line, &record{progress: progress{final: true}, group: group{p, n, n + 1}})
	p.groups++
}

// finish takes what is still in line, and lets go of it.
func (h *helper) finish(p *portion) {
	j := h.joiner
	for p.err == nil && j.waiting() {
		if h.may(p) {
			h.pop(p)
			continue
		}
		p.line = append(p.line, j.shift())
	}
	clear(j.fifo)
	j.fifo, j.head, j.bytes = j.fifo[:0], 0, 0
	j.sessions.letGo()
	for _, r := range p.line {
		if r.group.of != nil {
			r.size = recordSize + r.group.size()
		}
	}
}

// size returns about how many bytes a group takes.
func (x *group) size() (n int) {
	if len(x.of.until) > 0 {
		return x.of.until[x.to-1] - x.begin(x.from)
	}
	for _, r := range x.of.records[x.from:x.to] {
		n += r.size
	}
	return n
}

// begin returns where the rendering of statement i of the portion begins.
func (x *group) begin(i int) int {
	if i == 0 {
		return 0
	}
	return x.of.until[i-1]
}

// portions has the entries from pos up to to read by several goroutines, and
// gives on what they find. What it returns is as of stretch.
func (j *joiner) portions(ctx context.Context, src source, pos, to, size int64, plan *plan, t *taker) (next int64, err error) {
	ctx, stop := context.WithCancel(ctx)
	var (
		n     = readers()
		order = make(chan *portion, n) // as they are taken
		work  = make(chan *portion, n) // as they are read
		wg    sync.WaitGroup
	)
	defer wg.Wait()
	defer stop()
	if j.unused == nil {
		j.unused = make(chan *portion, n+2) // as many as are made at once
		for range n {
			j.helpers = append(j.helpers, newHelper(j, src, t.render))
		}
	}
	wg.Go(func() {
		defer close(order)
		defer close(work)
		for at := pos; at < to; {
			var p *portion
			select {
			case p = <-j.unused:
			default:
				p = new(portion)
			}
			p.begin(at, min(to, at-at%j.portion+j.portion))
			at = p.to
			select {
			case order <- p:
			case <-ctx.Done():
				return
			}
			work <- p // has room for all that order has
		}
	})
	for _, h := range j.helpers {
		wg.Go(func() {
			defer h.stretches.Close()
			for p := range work {
				h.read(ctx, p, plan)
				close(p.ready)
			}
		})
	}
	for p := range order {
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
		<-p.ready
		next, rest, last := p.next, p.to, p.err
		if err := j.adopt(p); err != nil {
			return -1, err
		}
		if done, err := j.proceed(ctx, src, next, size, t); done || err != nil {
			return -1, err
		}
		if last != nil {
			return -1, last
		}
		if !j.waiting() && (next >= j.match.end || j.late >= enoughLate) {
			return -1, nil
		}
		if next < rest {
			if next, err := j.stretch(ctx, src, next, rest, size, nil, t); next < 0 || err != nil {
				return -1, err
			}
		}
	}
	return to, ctx.Err() // who makes the portions ends with it
}

// adopt puts what is in a portion in line.
func (j *joiner) adopt(p *portion) error {
	for i := range p.ends {
		x := &p.ends[i]
		if x.kind == event.KindStart {
			j.endAll()
			continue
		}
		s := j.sessions.of(x.session)
		if s == nil {
			continue
		}
		if x.kind == event.KindDisconnect {
			j.endSession(x.session)
		} else if len(s.open) > 0 {
			if err := j.scanner.scan(&j.view, x.entry.Leaf); err != nil {
				return err
			}
			j.conclude(s, &x.entry, &j.view)
		}
	}
	if p.only {
		j.late += p.late
	} else {
		j.late = p.late
	}
	for _, r := range p.line {
		j.fifo = append(j.fifo, r)
		j.bytes += r.size
		r.statement.analyses = &j.dec.analyses // the helper goes on using its own
		if !r.final {
			j.attend(r)
		}
	}
	if p.groups == 0 {
		j.reuse(p)
	}
	return nil
}

// reuse gives a portion back that is not needed any more.
func (j *joiner) reuse(p *portion) {
	select {
	case j.unused <- p:
	default:
	}
}
