package query

import (
	"context"
	"slices"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// maxWindow is how many bundles a search back reads at most before it turns to
// those before them.
const maxWindow = 64

// SearchBack is Search in the opposite order: the newest statement first. To go
// on behind the last one, make its index the filter's End. It holds in memory
// what it finds in 16,384 entries. What a statement waits for is read as in Search.
func (l *Log) SearchBack(ctx context.Context, f Filter, fn func(*Statement) error) error {
	size, err := l.Size()
	if err != nil {
		return err
	}
	from, to := max(f.From, l.First()), size
	if f.End > 0 {
		to = min(to, f.End)
	}
	if !f.Since.IsZero() && !f.All {
		start, err := l.seek(f.Since)
		if err != nil {
			return err
		}
		from = max(from, start)
	}
	if !f.Until.IsZero() && !f.All {
		end, err := l.seek(f.Until.Add(2 * slack)) // all before it is at most Until and the slack
		if err != nil {
			return err
		}
		to = min(to, end)
	}
	dec, left := newDecoder(l), f.Limit
	for window := int64(1); to > from; window = min(2*window, maxWindow) {
		w := f
		w.Limit, w.End = 0, to
		m, err := w.compile()
		if err != nil {
			return err
		}
		p := l.plan(m)
		if p != nil && !f.All {
			to = p.before(to, from)
		}
		begin := max(from, (to-1)/tree.Width*tree.Width-(window-1)*tree.Width)
		w.From, w.End, m.end = begin, to, to
		if p != nil {
			p.stop = to
		}
		if f.All {
			p.close()
			p = nil
		}
		j := newJoiner(l, m)
		j.portion, j.dec = portionEntries, dec
		var found []*Statement
		if err := j.search(ctx, l, begin, size, p, &taker{statement: func(s *Statement) error {
			found = append(found, s.Clone())
			return nil
		}}); err != nil {
			return err
		}
		for _, s := range slices.Backward(found) {
			if err := fn(s); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
		to = begin
	}
	return nil
}
