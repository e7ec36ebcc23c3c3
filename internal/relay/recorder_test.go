package relay

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/session"
)

// memLog is a Recorder in memory whose commits take as long as it is told.
type memLog struct {
	mu      sync.Mutex
	leaves  [][]byte
	values  [][]byte
	err     error
	backlog int64
	keep    bool   // keep the entries
	panicOn string // panic at a value with this text

	turn      sync.Mutex // to commit
	count     atomic.Int64
	durable   atomic.Int64
	wants     atomic.Int64
	tended    atomic.Int64
	tenders   atomic.Int64
	delay     time.Duration // of a commit
	stuck     atomic.Bool   // nothing becomes durable
	inline    bool          // TryCommit commits
	wake      chan struct{}
	subscribe func(int64, error)
	blobDelay time.Duration
	blobErr   error
}

func newMemLog(delay time.Duration) *memLog {
	m := &memLog{delay: delay, keep: true, wake: make(chan struct{}, 1)}
	return m
}

// run commits until stop is closed.
func (m *memLog) run(stop <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-m.wake:
		case <-tick.C:
		}
		m.turn.Lock()
		if !m.stuck.Load() {
			m.commit()
		}
		m.turn.Unlock()
	}
}

func (m *memLog) commit() {
	n := m.count.Load()
	if n == m.durable.Load() {
		return
	}
	m.mu.Lock()
	m.backlog = 0
	m.mu.Unlock()
	if m.delay > 0 {
		time.Sleep(m.delay)
	}
	m.durable.Store(n)
	m.subscribe(n, nil)
}

// hold keeps what is not durable yet from becoming so. A commit that is under way ends first.
func (m *memLog) hold() {
	m.turn.Lock()
	m.stuck.Store(true)
	m.turn.Unlock()
}

func (m *memLog) TryCommit(int64) bool {
	if !m.inline || !m.turn.TryLock() {
		return false
	}
	defer m.turn.Unlock()
	if m.stuck.Load() {
		return false
	}
	m.commit()
	return true
}

// What nobody wants is seen to by run.
func (m *memLog) Attend()   { m.tenders.Add(1) }
func (m *memLog) Tend() int { return 1 + int(m.tended.Add(1)%10) }
func (m *memLog) Leave()    { m.tenders.Add(-1) }

func (m *memLog) Append(leaf, value []byte) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	if m.panicOn != "" && bytes.Contains(value, []byte(m.panicOn)) {
		panic("as the test wants it")
	}
	if m.keep {
		m.leaves = append(m.leaves, bytes.Clone(leaf))
		m.values = append(m.values, bytes.Clone(value))
	}
	m.backlog += int64(len(leaf) + len(value))
	return m.count.Add(1) - 1, nil
}

type memBlob struct {
	m *memLog
	bytes.Buffer
}

func (b *memBlob) Sync() error { time.Sleep(b.m.blobDelay); return b.m.blobErr }
func (b *memBlob) Abort()      {}

func (m *memLog) NewBlob() (session.Blob, error) { return &memBlob{m: m}, nil }

func (m *memLog) AppendBlob(leaf []byte, b session.Blob) (int64, error) {
	return m.Append(leaf, b.(*memBlob).Bytes())
}

func (m *memLog) Want(int64) {
	m.wants.Add(1)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *memLog) Durable() int64 { return m.durable.Load() }

func (m *memLog) Backlog() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.backlog
}

func (m *memLog) Subscribe(f func(int64, error)) { m.subscribe = f }

// fail makes recording fail for good.
func (m *memLog) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	m.subscribe(0, err)
}

// entries returns the entries so far, decoded.
func (m *memLog) entries() ([]event.Leaf, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []event.Leaf
	var errs []error
	for _, b := range m.leaves {
		l, err := event.Parse(b)
		errs = append(errs, err)
		all = append(all, l)
	}
	return all, errors.Join(errs...)
}
