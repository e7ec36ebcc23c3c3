package query

import "context"

// search calls fn with each statement of src that f selects, in log order,
// reading entries from index from up to but without size. The memory it takes
// does not depend on the length of the log. The statement is valid until fn
// returns; an error of fn ends the search and is returned as it is.
func search(ctx context.Context, src source, f *Filter, from, size int64, fn func(*Statement) error) error {
	m, err := f.compile()
	if err != nil {
		return err
	}
	return newJoiner(src, m).search(ctx, src, from, size, fn)
}

// enoughLate is how many entries in a row must be later than all that is
// wanted before a search believes that no other ones follow: a clock that was
// wrong for a moment must not end it.
const enoughLate = 4096

// search is the loop of the function search.
func (j *joiner) search(ctx context.Context, src source, from, size int64, fn func(*Statement) error) error {
	m, left := j.match, j.match.f.Limit
	emit := func(force bool) (done bool, err error) {
		for {
			s, err := j.next(force)
			if err != nil || s == nil {
				return false, err
			}
			if err := fn(s); err != nil {
				return true, err
			}
			if left--; left == 0 {
				return true, nil
			}
		}
	}
	n, late := 0, 0
	for e, err := range src.Entries(from, size) {
		if err != nil {
			return err
		}
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := j.entry(&e); err != nil {
			return err
		}
		if done, err := emit(false); done || err != nil {
			return err
		}
		for j.full() {
			if err := j.lookAhead(ctx, src, e.Index+1, size); err != nil {
				return err
			}
			if done, err := emit(false); done || err != nil {
				return err
			}
		}
		if m.past(&j.view) {
			late++
		} else {
			late = 0
		}
		if !j.waiting() && (e.Index+1 >= m.end || late >= enoughLate) {
			return nil
		}
	}
	_, err := emit(true)
	return err
}
