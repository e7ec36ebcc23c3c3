package ledger

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

// TestTryCommit has many goroutines commit on their own threads, through the
// committer, or not at all, while the log is closed.
func TestTryCommit(t *testing.T) {
	for range 20 {
		s := faultfs.New()
		l := mustOpen(t, quiet(s, "/d"))
		var a acked
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 50 {
					value := fmt.Sprint("value ", g, i)
					index, err := l.Append(leafOf(1000*g+i, len(value), true), []byte(value))
					if errors.Is(err, ErrClosed) {
						return
					} else if err != nil {
						t.Error(err)
						return
					}
					switch (g + i) % 4 {
					case 0, 1:
						if l.TryCommit(index) {
							if l.Durable() <= index {
								t.Errorf("TryCommit = true, but %d entries are durable, not %d", l.Durable(), index+1)
							}
							a.add(index, value)
							continue
						}
						l.Want(index)
					case 2:
						l.Want(index)
					}
					if g == 0 && i == 25 {
						go l.Close()
					}
				}
			})
		}
		wg.Wait()
		mustClose(t, l)
		if l.TryCommit(0) != true {
			t.Error("TryCommit of an entry that is durable = false, want true")
		}
		a.check(t, checkLog(t, s, "/d"))
	}
}

// TestTryCommitFails has the disk fail under TryCommit: subscribers must hear
// of it once, and nothing is recorded any more.
func TestTryCommitFails(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, quiet(s, "/d"))
	told := make(chan error, 2)
	l.Subscribe(func(_ int64, err error) {
		if err != nil {
			told <- err
		}
	})
	s.Inject(func(op faultfs.Op, _ string) faultfs.Fault {
		if changes(op) {
			return faultfs.Fault{Err: syscall.ENOSPC}
		}
		return faultfs.Fault{}
	})
	leaf := leafOf(1, 0, false)
	index, err := l.Append(leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	for !l.TryCommit(index) { // the committer has its turn as it starts
		runtime.Gosched()
	}
	if err := <-told; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("subscriber heard %v, want ENOSPC", err)
	}
	if l.Durable() > index {
		t.Error("the entry is called durable")
	}
	if _, err := l.Append(leaf, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Append = %v, want ENOSPC", err)
	}
	l.Close()
	if len(told) > 0 {
		t.Errorf("subscriber heard a second error: %v", <-told)
	}
}
