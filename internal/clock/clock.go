// Package clock tells sessions the time: one that never goes back, and by how much the time of day is ahead of it.
package clock

import (
	"sync/atomic"
	"time"
)

// A Clock counts on from its start with the machine's monotonic clock. So what is measured with it is right whatever is
// done to the time of day. Its methods may be called concurrently.
type Clock struct {
	// Ahead returns by how much the time of day is ahead of Now: it was set, or ran on while the machine slept.
	Ahead func() time.Duration

	start  time.Time
	shift  atomic.Int64 // nanoseconds by which Ahead was last seen to differ
	looked atomic.Int64 // when that was
}

// maxSkew is how far the two may be apart without that meaning that the time of day was set.
const maxSkew = 100 * time.Millisecond

// New starts a clock at the time of day.
func New() *Clock {
	c := &Clock{start: time.Now()}
	c.Ahead = func() time.Duration {
		t := time.Now()
		return time.Duration(t.UnixNano()-c.start.UnixNano()) - t.Sub(c.start)
	}
	return c
}

// Now returns Unix nanoseconds that never decrease, in whole microseconds, as PostgreSQL's times: digits that say
// nothing do not compress.
func (c *Clock) Now() int64 { return whole(c.start.UnixNano() + int64(time.Since(c.start))) }

// Shift returns the nanoseconds to add to at, a time of Now, for the time of day. It looks once a second.
func (c *Clock) Shift(at int64) int64 {
	if looked := c.looked.Load(); at-looked >= int64(time.Second) && c.looked.CompareAndSwap(looked, at) {
		if by := c.Ahead(); (by - time.Duration(c.shift.Load())).Abs() > maxSkew {
			c.shift.Store(whole(int64(by)))
		}
	}
	return c.shift.Load()
}

func whole(ns int64) int64 { return ns - ns%1000 }
