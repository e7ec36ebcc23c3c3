package ledger

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
)

// A waiter waits for durable entries without asking again and again.
type waiter struct {
	mu      sync.Mutex
	cond    *sync.Cond
	durable int64
	err     error
}

func newWaiter(l *Ledger) *waiter {
	w := &waiter{durable: l.Durable()}
	w.cond = sync.NewCond(&w.mu)
	l.Subscribe(func(durable int64, err error) {
		w.mu.Lock()
		w.durable, w.err = durable, err
		w.mu.Unlock()
		w.cond.Broadcast()
	})
	return w
}

func (w *waiter) wait(n int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.durable < n && w.err == nil {
		w.cond.Wait()
	}
	return w.err
}

// TestAppendDoesNotAllocate: neither an Append nor a commit allocates.
func TestAppendDoesNotAllocate(t *testing.T) {
	cfg := quiet(nil, t.TempDir())
	l := mustOpen(t, cfg)
	w := newWaiter(l)
	leaf, value := leafOf(1, 200, true), make([]byte, 200)
	step := func() {
		var index int64
		for range 20 {
			var err error
			if index, err = l.Append(leaf, value); err != nil {
				t.Fatal(err)
			}
		}
		l.Want(index)
		if err := w.wait(index + 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		step()
	}
	if n := testing.AllocsPerRun(200, step); n != 0 {
		t.Errorf("20 entries and their commit allocate %v times, want 0", n)
	}
	mustClose(t, l)
}

// BenchmarkAppend measures an entry's cost: Append, and its share of commits
// that are never waited for.
func BenchmarkAppend(b *testing.B) {
	l := mustOpen(b, Config{Dir: b.TempDir()})
	leaf, value := leafOf(1, 200, true), make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Append(leaf, value); err != nil {
			b.Fatal(err)
		}
		for l.Backlog() > 4<<20 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	mustClose(b, l)
}

// noDirect is a file system with the page cache in between.
type noDirect struct{ durable.FS }

func (noDirect) OpenDirect(string) (durable.File, error) { return nil, durable.ErrNoDirect }

// cpu returns the CPU time this process has used.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkCommit measures statements that wait for the disk: each makes an
// admission, which it waits for, and an outcome, which it does not.
func BenchmarkCommit(b *testing.B) {
	for _, fsys := range []durable.FS{durable.OS, noDirect{durable.OS}} {
		for _, clients := range []int{1, 8, 32} {
			name := fmt.Sprint("direct/", clients)
			if fsys != durable.OS {
				name = fmt.Sprint("cached/", clients)
			}
			b.Run(name, func(b *testing.B) { benchmarkCommit(b, fsys, clients) })
		}
	}
}

func benchmarkCommit(b *testing.B, fsys durable.FS, clients int) {
	var o observer
	l := mustOpen(b, Config{Dir: b.TempDir(), Observer: &o, FS: fsys})
	w := newWaiter(l)
	leaf, value := leafOf(1, 200, true), make([]byte, 200)
	outcome := leafOf(2, 0, false)
	b.ResetTimer()
	used := cpu(b)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range b.N / clients {
				index, err := l.Append(leaf, value)
				if err == nil {
					l.Want(index)
					err = w.wait(index + 1)
				}
				if err == nil {
					_, err = l.Append(outcome, nil)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/op")
	o.mu.Lock()
	b.ReportMetric(float64(o.entries)/float64(max(o.batches, 1)), "entries/commit")
	o.mu.Unlock()
	mustClose(b, l)
}
