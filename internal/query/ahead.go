package query

import (
	"iter"
	"runtime"
	"sync"

	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

const (
	// aheadAfter is how many entries a stretch is read for before others read
	// ahead of it: most that an index leads to are shorter.
	aheadAfter = 2 * tree.Width
	// aheadEntries and aheadBytes bound a batch that is read ahead.
	aheadEntries = 8 * tree.Width
	aheadBytes   = 4 << 20
)

// readers is how many goroutines read ahead, and how many render.
func readers() int { return min(4, runtime.GOMAXPROCS(0)) }

// A readBatch holds the entries from from on that were read for somebody else. Those up to
// next are there; the rest up to to was too large.
type readBatch struct {
	from, next, to int64
	entries        []journal.Entry
	room           []byte // that the entries are in, or part of them
	err            error
	ready          chan struct{} // closed when it was read
}

// read fills b with copies.
func (b *readBatch) read(src source) {
	b.entries, b.room, b.err, b.next = b.entries[:0], b.room[:0], nil, b.from
	taken := 0
	for e, err := range src.Entries(b.from, b.to) {
		if err != nil {
			b.err = err
			return
		}
		e.Leaf = b.keep(e.Leaf)
		if e.Value != nil {
			e.Value = b.keep(e.Value)
		}
		b.entries, b.next = append(b.entries, e), e.Index+1
		if taken += len(e.Leaf) + len(e.Value); taken > aheadBytes {
			return
		}
	}
}

// keep returns a copy of p, not nil.
func (b *readBatch) keep(p []byte) []byte {
	if cap(b.room)-len(b.room) < len(p) { // those that are in the old one keep it
		b.room = make([]byte, 0, max(256<<10, min(2*cap(b.room), 1<<20), len(p))) // so that soon one has room for all
	}
	n := len(b.room)
	b.room = append(b.room, p...)
	return b.room[n:len(b.room):len(b.room)]
}

// ahead yields what src.Entries does, read by other goroutines, which end with
// it. src must be for concurrent use. It holds a few batches in memory.
func ahead(src source, from, to int64) iter.Seq2[journal.Entry, error] {
	return func(yield func(journal.Entry, error) bool) {
		var (
			n     = readers()
			stop  = make(chan struct{})
			order = make(chan *readBatch, n)   // as they are yielded
			work  = make(chan *readBatch, n)   // as they are read
			free  = make(chan *readBatch, 2*n) // to be used again
			wg    sync.WaitGroup
		)
		defer wg.Wait()
		defer close(stop)
		wg.Go(func() {
			defer close(order)
			defer close(work)
			for at := from; at < to; {
				var b *readBatch
				select {
				case b = <-free:
				default:
					b = new(readBatch)
				}
				b.from, b.to, b.ready = at, min(to, at-at%aheadEntries+aheadEntries), make(chan struct{})
				at = b.to
				select {
				case order <- b:
				case <-stop:
					return
				}
				work <- b // has room for all that order has
			}
		})
		for range n {
			wg.Go(func() {
				for b := range work {
					select {
					case <-stop:
					default:
						b.read(src)
					}
					close(b.ready)
				}
			})
		}
		for b := range order {
			<-b.ready
			for i := range b.entries {
				if !yield(b.entries[i], nil) {
					return
				}
			}
			if b.err != nil {
				yield(journal.Entry{}, b.err)
				return
			}
			if b.next < b.to {
				for e, err := range src.Entries(b.next, b.to) {
					if !yield(e, err) || err != nil {
						return
					}
				}
			}
			select {
			case free <- b:
			default:
			}
		}
	}
}

// entries yields the entries from pos up to size, from another goroutine if
// they are many and the source allows it.
func (j *joiner) entries(src source, pos, size int64) iter.Seq2[journal.Entry, error] {
	near := pos - pos%tree.Width + aheadAfter
	if !j.readAhead || near >= size {
		return src.Entries(pos, size)
	}
	return func(yield func(journal.Entry, error) bool) {
		for e, err := range src.Entries(pos, near) {
			if !yield(e, err) || err != nil {
				return
			}
		}
		ahead(src, near, size)(yield)
	}
}
