package query

import (
	"context"
	"errors"
	"sync"
)

const (
	// chunkStatements and chunkBytes bound what is rendered in one go.
	chunkStatements = 256
	chunkBytes      = 1 << 20
)

// A chunk is some statements in a row on their way to whoever wants them as bytes.
type chunk struct {
	records []*record
	size    int // of the records, about
	out     []byte
	err     error
	ready   chan struct{} // closed when out and err are set
}

var errStopped = errors.New("the search was stopped")

// Render is Search for those who want each statement as bytes: render appends
// them to dst, write takes those of several statements, in the order of the log.
// While it reads on, render is called by several goroutines at once, and write by one
// more. An error of either ends the search and is returned as it is.
func (l *Log) Render(ctx context.Context, f Filter, render func(dst []byte, s *Statement) ([]byte, error), write func(b []byte) error) error {
	var (
		n       = readers()
		order   = make(chan *chunk, 2*n) // as they are written
		work    = make(chan *chunk, 2*n) // as they are rendered
		free    = make(chan *chunk, 4*n) // to be used again
		stopped = make(chan struct{})    // closed after an error of render or write, which is then set
		failed  error
		wg      sync.WaitGroup
	)
	for range n {
		wg.Go(func() {
			var known analyses
			for c := range work {
				c.render(render, &known)
				close(c.ready)
			}
		})
	}
	wg.Go(func() {
		for c := range order {
			<-c.ready
			if failed != nil {
				continue
			}
			if failed = c.err; failed == nil {
				failed = write(c.out)
			}
			if failed != nil {
				close(stopped)
			}
			select {
			case free <- c:
			default:
			}
		}
	})
	c := new(chunk)
	send := func() {
		c.ready = make(chan struct{})
		order <- c
		work <- c
	}
	err := l.search(ctx, f, func(j *joiner) func(*Statement) error {
		j.lend, j.dec.lend = true, true
		return func(*Statement) error {
			c.records = append(c.records, j.last)
			if c.size += j.last.size + len(j.last.statement.Text); len(c.records) < chunkStatements && c.size < chunkBytes {
				return nil
			}
			send()
			select {
			case c = <-free:
				j.free = append(j.free, c.records...)
				clear(c.records)
				c.records, c.size = c.records[:0], 0
			case <-stopped:
				c = new(chunk)
				return errStopped
			default:
				c = new(chunk)
			}
			return nil
		}
	})
	if len(c.records) > 0 {
		send()
	}
	close(work)
	close(order)
	wg.Wait()
	if failed != nil {
		return failed
	}
	return err
}

func (c *chunk) render(render func([]byte, *Statement) ([]byte, error), known *analyses) {
	c.out, c.err = c.out[:0], nil
	for _, r := range c.records {
		s := &r.statement
		s.analyses = known
		if c.out, c.err = render(c.out, s); c.err != nil {
			return
		}
	}
}
