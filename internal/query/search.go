package query

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// search calls fn with each statement of src that f selects, in log order,
// reading entries from index from up to but without size. The memory it takes
// does not depend on the length of the log. The statement is valid until fn
// returns; an error of fn ends the search and is returned as it is.
func search(ctx context.Context, src source, f *Filter, from, size int64, fn func(*Statement) error) error {
	m, err := f.compile()
	if err != nil {
		return err
	}
	return newJoiner(src, m).search(ctx, src, from, size, nil, &taker{statement: fn})
}

// A taker takes what a search finds, in log order.
type taker struct {
	statement func(*Statement) error
	// render, if it is set, turns some statements into bytes before their turn;
	// several goroutines call it. Then rendered takes those.
	render   func(dst []byte, s *Statement) ([]byte, error)
	rendered func(b []byte) error
}

// enoughLate is how many entries in a row must be later than all that is
// wanted before a search believes that no other ones follow: a clock that was
// wrong for a moment must not end it.
const enoughLate = 4096

// search is the loop of the function search. It leaves out what the plan, which
// may be nil, says need not be read.
func (j *joiner) search(ctx context.Context, src source, from, size int64, p *plan, t *taker) error {
	defer p.close()
	if p != nil && len(p.parts) > 0 {
		j.match.without = p.without
	}
	for pos, begun := from, from; pos < size; {
		if p != nil {
			if next := p.next(pos, j); next >= size {
				break
			} else if next > pos {
				pos, begun = next, next
			}
		}
		to, helped := size, false
		if j.portion > 0 {
			if to = begun - begun%tree.Width + j.after; pos >= to {
				to, helped = p.solid(pos, size), true
			}
		}
		var next int64
		var err error
		if helped && to > pos {
			next, err = j.portions(ctx, src, pos, to, size, p, t)
		} else {
			to = max(to, pos-pos%tree.Width+tree.Width)
			next, err = j.stretch(ctx, src, pos, min(to, size), size, p, t)
		}
		if err != nil || next < 0 {
			return err
		}
		pos = next
	}
	_, err := j.emit(t, true)
	return err
}

// emit gives on the statements that are final, or all.
func (j *joiner) emit(t *taker, force bool) (done bool, err error) {
	for j.waiting() && (force || j.fifo[j.head].final) {
		if x := &j.fifo[j.head].group; x.of != nil {
			if done, err = j.give(x, t); done || err != nil {
				return true, err
			}
			j.bytes -= j.shift().size
			continue
		}
		s, err := j.pop()
		if err != nil {
			return false, err
		}
		if s == nil {
			continue
		}
		if done, err = j.count(1, t.statement(s)); done || err != nil {
			return true, err
		}
	}
	return false, nil
}

// give gives on a group.
func (j *joiner) give(x *group, t *taker) (done bool, err error) {
	n := x.to - x.from
	if limit := j.match.f.Limit; limit > 0 {
		n = min(n, limit-j.emitted)
	}
	if p := x.of; t.render != nil {
		done, err = j.count(n, t.rendered(p.out[x.begin(x.from):x.begin(x.from+n)]))
	} else {
		for _, s := range p.found[x.from : x.from+n] {
			s.analyses = &j.dec.analyses
			if done, err = j.count(1, t.statement(s)); done || err != nil {
				break
			}
		}
	}
	if x.of.groups--; x.of.groups == 0 {
		j.reuse(x.of)
	}
	return done, err
}

// count counts statements that were given on.
func (j *joiner) count(n int, err error) (done bool, _ error) {
	j.emitted += n
	return err != nil || j.emitted == j.match.f.Limit && n > 0, err
}

// proceed gives on what is final once the entries up to next have been read, and
// looks ahead if too much waits.
func (j *joiner) proceed(ctx context.Context, src source, next, size int64, t *taker) (done bool, err error) {
	if done, err := j.emit(t, false); done || err != nil {
		return true, err
	}
	for j.full() {
		if err := j.lookAhead(ctx, src, next, size); err != nil {
			return true, err
		}
		if done, err := j.emit(t, false); done || err != nil {
			return true, err
		}
	}
	return false, nil
}

// stretch reads entries from pos up to to, or until the plan says to go on
// elsewhere, and returns the index that comes next; -1 says that the search is over.
func (j *joiner) stretch(ctx context.Context, src source, pos, to, size int64, p *plan, t *taker) (next int64, err error) {
	m, n := j.match, 0
	j.mayFrom, j.mayTo = p.may(pos)
	for e, err := range src.Entries(pos, to) {
		if err != nil {
			return -1, meanwhile(err)
		}
		if n++; (n == 1 || n%4096 == 0) && ctx.Err() != nil {
			return -1, ctx.Err()
		}
		if err := j.entry(&e); err != nil {
			return -1, err
		}
		if done, err := j.proceed(ctx, src, e.Index+1, size, t); done || err != nil {
			return -1, err
		}
		if m.past(&j.view) {
			j.late++
		} else {
			j.late = 0
		}
		pos = e.Index + 1
		if !j.waiting() && (pos >= m.end || j.late >= enoughLate) {
			return -1, nil
		}
		if p != nil && pos%tree.Width == 0 {
			if next := p.next(pos, j); next > pos {
				return next, nil
			}
			j.mayFrom, j.mayTo = p.may(pos)
		}
	}
	return to, nil
}

// meanwhile says what to do about an entry that was there when the search began.
func meanwhile(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w while this was read: run it again", err)
	}
	return err
}
