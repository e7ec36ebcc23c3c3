package query

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

const (
	// pollEvery is how often a tail looks for more.
	pollEvery = 100 * time.Millisecond
	// holdFor is how long a tail waits for the end of a statement before it
	// shows it as it is. With a poll on either side it stays below a second.
	holdFor = 700 * time.Millisecond
)

// Tail calls fn with each statement from index from on, and with those to
// come, until ctx ends (which is no error), fn returns an error or the filter's
// limit, End or Until is reached. A statement is shown once: when it has ended, or
// after most of a second as it is then, so that a slow one does not hold back
// those behind it. With a filter by outcome it is shown when it has ended,
// whenever that is. The statement is valid until fn returns.
func (l *Log) Tail(ctx context.Context, from int64, f Filter, fn func(*Statement) error) error {
	return l.Follow(ctx, from, f, func(s *Statement, _ int64) error {
		if s == nil {
			return nil
		}
		return fn(s)
	})
}

// Follow is Tail for those who will go on another time: next is the index to
// begin with then so that no statement is missed. Statements may come again if
// they are selected by their outcome. fn is also called without a statement,
// up to ten times a second, while next moves on and nothing is selected.
func (l *Log) Follow(ctx context.Context, from int64, f Filter, fn func(s *Statement, next int64) error) error {
	return l.follow(ctx, &tail{fn: fn, hold: holdFor}, from, f)
}

// Feed is Follow for those who keep copies: a statement is given on when all
// is known about it, or after hold as it is then; in that case it comes once
// more when it has ended, however much later that is. fn is called without a
// statement ten times a second.
func (l *Log) Feed(ctx context.Context, from int64, hold time.Duration, f Filter, fn func(s *Statement, next int64) error) error {
	return l.follow(ctx, &tail{fn: fn, hold: hold, feed: true, begun: from, open: make(map[int64]uint64)}, from, f)
}

func (l *Log) follow(ctx context.Context, t *tail, from int64, f Filter) error {
	m, err := f.compile()
	if err != nil {
		return err
	}
	if !f.Since.IsZero() && !f.All {
		start, err := l.seek(f.Since)
		if err != nil {
			return err
		}
		from = max(from, start)
	}
	from = max(from, f.From, l.First())
	t.joiner, t.left, t.from, t.told = newJoiner(l, m), f.Limit, from, from
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		size, err := l.Size()
		if err != nil {
			return err
		}
		t.joiner.now = time.Now()
		if err = t.read(ctx, l, size); err != nil {
			return err
		}
		done, err := t.show()
		if done || err != nil || ctx.Err() != nil {
			return err
		}
		if next := t.next(); next > t.told || t.feed {
			t.told = next
			if err := t.fn(nil, next); err != nil {
				return err
			}
		}
		if t.past(&f) && !t.joiner.waiting() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// A tail is the state of one Tail.
type tail struct {
	joiner *joiner
	fn     func(*Statement, int64) error
	left   int
	done   bool
	from   int64 // entries before it were read
	told   int64 // the next that fn knows
	hold   time.Duration

	feed  bool             // see Feed
	begun int64            // the index it began with
	open  map[int64]uint64 // statements that were shown before their end, and their sessions
}

// past reports whether nothing that comes from now on can be selected.
func (t *tail) past(f *Filter) bool {
	return !f.Until.IsZero() && time.Since(f.Until) > t.hold || f.End > 0 && t.from >= f.End && !t.feed
}

// next returns the index before which every statement that is selected was shown.
func (t *tail) next() int64 {
	if j := t.joiner; j.waiting() {
		return j.fifo[j.head].index
	}
	return t.from
}

// read takes the entries that follow, up to but without size.
func (t *tail) read(ctx context.Context, src source, size int64) error {
	for e, err := range src.Entries(t.from, size) {
		if err != nil {
			return err
		}
		if t.from = e.Index + 1; t.from%4096 == 0 && ctx.Err() != nil {
			return nil
		}
		if err := t.joiner.entry(&e); err != nil {
			return err
		}
		if t.feed {
			if err := t.late(src, &e); t.done || err != nil {
				return err
			}
		}
		// What is final goes at once: a long log is read in little memory.
		for t.joiner.waiting() && t.joiner.fifo[t.joiner.head].final {
			if err := t.call(t.joiner.pop()); t.done || err != nil {
				return err
			}
		}
		if t.joiner.full() {
			if done, err := t.show(); done || err != nil {
				return err
			}
			if t.joiner.full() {
				if err := t.call(t.joiner.pop()); t.done || err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// late shows a statement once more if e is its end and it was shown before, by
// this feed or, if it stands before its beginning, by one before it.
func (t *tail) late(src source, e *journal.Entry) error {
	switch v := &t.joiner.view; v.kind {
	case event.KindStart: // of those that were open no end will come
		clear(t.open)
	case event.KindDisconnect:
		maps.DeleteFunc(t.open, func(_ int64, session uint64) bool { return session == v.session })
	case event.KindOutcome:
		of, ok := event.Index(v.of)
		if _, open := t.open[of]; !ok || !open && of >= t.begun {
			return nil
		}
		delete(t.open, of)
		admission, err := src.Entry(of)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		j := newJoiner(src, t.joiner.match)
		if err := j.entry(&admission); err != nil {
			return err
		}
		if err := j.entry(e); err != nil {
			return err
		}
		return t.call(j.next(true))
	}
	return nil
}

// show passes on what is ready: in the order of the log, or, when statements
// are selected by their outcome, whatever has one.
func (t *tail) show() (done bool, err error) {
	j := t.joiner
	if !j.match.byOutcome() {
		for !t.done && j.waiting() && t.ready(j.fifo[j.head]) {
			if err := t.call(j.pop()); err != nil {
				return false, err
			}
		}
		return t.done, nil
	}
	line := j.fifo[j.head:]
	keep := line[:0]
	for i, r := range line {
		if t.done || !t.ready(r) {
			keep = append(keep, r)
			continue
		}
		if err := t.call(j.release(line[i])); err != nil {
			return false, err
		}
	}
	clear(line[len(keep):])
	j.fifo = j.fifo[:j.head+len(keep)]
	return t.done, nil
}

// ready reports whether a record is to be shown now.
func (t *tail) ready(r *record) bool {
	if r.final || r.undecided {
		return r.final
	}
	late := t.joiner.now.Sub(r.seen) > t.hold
	if r.hasEnd {
		// In a transaction it may take any time until it is settled.
		return late || !t.feed && (r.outcome.Tx == 'T' || r.outcome.Tx == 'E' || r.kind == event.KindParse)
	}
	return late && !t.joiner.match.byOutcome()
}

// call passes on what pop or release returned.
func (t *tail) call(s *Statement, err error) error {
	if err != nil || s == nil || t.done {
		return err
	}
	if t.feed && concludes(s.Kind) && s.Outcome == nil {
		t.open[s.Index] = s.Session
	}
	t.told = t.next()
	if err := t.fn(s, t.told); err != nil {
		return err
	}
	t.left--
	t.done = t.left == 0
	return nil
}
