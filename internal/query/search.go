package query

import (
	"context"

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
	return newJoiner(src, m).search(ctx, src, from, size, nil, fn)
}

// enoughLate is how many entries in a row must be later than all that is
// wanted before a search believes that no other ones follow: a clock that was
// wrong for a moment must not end it.
const enoughLate = 4096

// search is the loop of the function search. It leaves out what the plan, which
// may be nil, says need not be read.
func (j *joiner) search(ctx context.Context, src source, from, size int64, p *plan, fn func(*Statement) error) error {
	defer p.close()
	if p != nil && len(p.parts) > 0 {
		j.match.without = p.without
	}
	for pos := from; pos < size; {
		if p != nil {
			if pos = p.next(pos, j); pos >= size {
				break
			}
		}
		next, err := j.stretch(ctx, src, pos, size, p, fn)
		if err != nil || next < 0 {
			return err
		}
		pos = next
	}
	_, err := j.emit(fn, true)
	return err
}

// emit calls fn with the statements that are final, or with all.
func (j *joiner) emit(fn func(*Statement) error, force bool) (done bool, err error) {
	for {
		s, err := j.next(force)
		if err != nil || s == nil {
			return false, err
		}
		if err := fn(s); err != nil {
			return true, err
		}
		if j.emitted++; j.emitted == j.match.f.Limit {
			return true, nil
		}
	}
}

// stretch reads entries from pos on until the plan says to go on elsewhere,
// which is the index it returns, or to the end; -1 says that the search is over.
func (j *joiner) stretch(ctx context.Context, src source, pos, size int64, p *plan, fn func(*Statement) error) (next int64, err error) {
	m, n := j.match, 0
	mayFrom, mayTo := p.may(pos)
	for e, err := range j.entries(src, pos, size) {
		if err != nil {
			return -1, err
		}
		if n++; (n == 1 || n%4096 == 0) && ctx.Err() != nil {
			return -1, ctx.Err()
		}
		j.endsOnly = e.Index < mayFrom || e.Index > mayTo
		if err := j.entry(&e); err != nil {
			return -1, err
		}
		if done, err := j.emit(fn, false); done || err != nil {
			return -1, err
		}
		for j.full() {
			if err := j.lookAhead(ctx, src, e.Index+1, size); err != nil {
				return -1, err
			}
			if done, err := j.emit(fn, false); done || err != nil {
				return -1, err
			}
		}
		if m.past(&j.view) && !m.f.All {
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
			mayFrom, mayTo = p.may(pos)
		}
	}
	return size, nil
}
