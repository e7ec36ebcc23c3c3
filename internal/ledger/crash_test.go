package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

func rnd(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 5)) }

// acked collects the values of entries that were reported durable.
type acked struct {
	mu     sync.Mutex
	values map[int64]string
}

func (a *acked) add(index int64, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.values == nil {
		a.values = map[int64]string{}
	}
	a.values[index] = value
}

// check holds a log against what was reported durable.
func (a *acked) check(t testing.TB, entries []entry) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for index, value := range a.values {
		if index >= int64(len(entries)) {
			t.Fatalf("entry %d was durable and is lost: the log has %d", index, len(entries))
		}
		if entries[index].value != value {
			t.Fatalf("entry %d: value %q, want %q", index, entries[index].value, value)
		}
	}
}

// life is a log's life with every kind of durable step in it: foundation,
// commits, a rotation, blobs, checkpoints, sealing, an orderly stop and another start.
func life(fsys durable.FS, a *acked) error {
	for round := range 2 {
		cfg := quiet(fsys, "/d")
		cfg.SegmentSize = 1
		l, err := Open(cfg)
		if err != nil {
			return err
		}
		for i := range []int{270, 40}[round] {
			value := fmt.Sprintf("value %d of round %d", i, round)
			var index int64
			if i%100 == 99 {
				b, err := l.NewBlob()
				if err == nil {
					_, err = b.Write([]byte(value))
				}
				if err == nil {
					err = b.Sync()
				}
				if err == nil {
					index, err = l.AppendBlob(leafOf(i, len(value), true), b)
				}
				if err != nil {
					return errors.Join(err, l.Close())
				}
			} else if index, err = l.Append(leafOf(i, len(value), true), []byte(value)); err != nil {
				return errors.Join(err, l.Close())
			}
			if i%30 == 29 {
				if err := waitFor(l, index+1); err != nil {
					return errors.Join(err, l.Close())
				}
				a.add(index, value)
				if err := errors.Join(l.sign(), l.sealer.sealAll(context.Background())); err != nil {
					return errors.Join(err, l.Close())
				}
			}
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

func changes(op faultfs.Op) bool {
	return op != faultfs.Open && op != faultfs.Read && op != faultfs.List
}

// TestFaultAtEveryStep breaks each change to the disk in a log's life, before
// and after it took effect, then takes the power away. What was reported
// durable must be there, and the log must go on.
func TestFaultAtEveryStep(t *testing.T) {
	t.Run("direct", func(t *testing.T) { testFaultAtEveryStep(t, true) })
	t.Run("page cache", func(t *testing.T) { testFaultAtEveryStep(t, false) })
}

func testFaultAtEveryStep(t *testing.T, direct bool) {
	s := faultfs.New()
	s.SetDirect(direct)
	if err := life(s, &acked{}); err != nil {
		t.Fatal(err)
	}
	total := s.Ops()
	for n := 1; n <= total; n++ {
		for _, fault := range []faultfs.Fault{{Err: syscall.EIO}, {Err: syscall.EIO, After: true}, {Err: syscall.EIO, Short: 1000}} {
			s := faultfs.New()
			s.SetDirect(direct)
			count, hit := 0, ""
			s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if changes(op) {
					if count++; count == n && (op == faultfs.Write || fault.Short == 0) {
						hit = fmt.Sprintf("%s %s (%+v)", op, name, fault)
						return fault
					}
				}
				return faultfs.Fault{}
			})
			var a acked
			err := life(s, &a)
			if hit == "" {
				continue
			}
			if !errors.Is(err, fault.Err) &&
				!strings.HasPrefix(hit, "remove") && !strings.HasPrefix(hit, "mkdir") { // what is not there, what is there already
				t.Errorf("fault at %s: the life ended with %v", hit, err)
			}
			s.Inject(nil)
			after := s.Crash(rnd(uint64(n)))
			l, err := Open(quiet(after, "/d"))
			if err != nil {
				t.Fatalf("fault at %s: Open = %v", hit, err)
			}
			if err := l.sealer.sealAll(t.Context()); err != nil {
				t.Fatalf("fault at %s: sealing = %v", hit, err)
			}
			mustClose(t, l)
			entries := checkLog(t, after, "/d")
			a.check(t, entries)
			checkLives(t, entries)
		}
	}
	t.Logf("%d steps, each broken in 3 ways", total)
}

// TestCrashAtEveryStep takes the power away at a step of a life with several
// sessions, checkpoints and blobs at once, again and again on the same log.
func TestCrashAtEveryStep(t *testing.T) {
	for seed := range uint64(60) {
		r := rnd(seed)
		s := faultfs.New()
		s.SetDirect(seed%2 == 0)
		var a acked
		for range 3 {
			stop := 1 + r.IntN(120)
			after := r.IntN(2) == 0
			count := 0
			s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if changes(op) {
					count++
				}
				if count >= stop {
					f := faultfs.Fault{Err: faultfs.ErrCrashed, After: after && count == stop}
					return f
				}
				return faultfs.Fault{}
			})
			runSessions(t, s, &a)
			s = s.Crash(r)
			entries := checkLog(t, s, "/d")
			a.check(t, entries)
		}
		cfg := quiet(s, "/d")
		cfg.SegmentSize = 4 << 10
		l := mustOpen(t, cfg)
		if err := l.sealer.sealAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		a.check(t, checkLog(t, s, "/d"))
	}
}

// runSessions lets four sessions record until the disk stops.
func runSessions(t *testing.T, s *faultfs.FS, a *acked) {
	t.Helper()
	cfg := quiet(s, "/d")
	cfg.SegmentSize, cfg.CheckpointEvery, cfg.Lazy, cfg.byHand = 4<<10, 100*time.Microsecond, time.Millisecond, false
	l, err := Open(cfg)
	if err != nil {
		if !errors.Is(err, faultfs.ErrCrashed) {
			t.Fatal(err)
		}
		return
	}
	var wg sync.WaitGroup
	for session := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				value := strings.Repeat(fmt.Sprintf("session %d value %d;", session, i), 1+i%9)
				index, err := l.Append(leafOf(i, len(value), true), []byte(value))
				if err == nil && i%3 == 0 {
					if err = waitFor(l, index+1); err == nil {
						a.add(index, value)
					}
				}
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); !errors.Is(err, faultfs.ErrCrashed) {
		t.Fatalf("Close = %v, want ErrCrashed", err)
	}
}

// TestModel drives a ledger with random steps against a list of values.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := faultfs.New()
		var l *Ledger
		open := func() {
			cfg := quiet(s, "/d")
			cfg.SegmentSize = rapid.SampledFrom([]int64{1, 1000, 1 << 20}).Draw(rt, "segment size")
			var err error
			if l, err = Open(cfg); err != nil {
				rt.Fatal(err)
			}
		}
		open()
		model := map[int64]string{}
		next, large := 0, 0
		check := func() {
			entries := checkLog(t, s, "/d")
			for index, value := range model {
				if entries[index].value != value {
					rt.Fatalf("entry %d = %q, want %q", index, entries[index].value, value)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				for range rapid.IntRange(1, 120).Draw(rt, "entries") {
					value := fmt.Sprint("value ", next)
					next++
					index, err := l.Append(leafOf(next, len(value), true), []byte(value))
					if err != nil {
						rt.Fatal(err)
					}
					model[index] = value
				}
			},
			"append without value": func(rt *rapid.T) {
				next++
				index, err := l.Append(leafOf(next, 0, false), nil)
				if err != nil {
					rt.Fatal(err)
				}
				model[index] = ""
			},
			"append large": func(rt *rapid.T) {
				if large++; large > 3 {
					return // they make everything slow
				}
				value := strings.Repeat("large ", MaxInline/6+rapid.IntRange(-1, 2).Draw(rt, "more"))
				next++
				index, err := l.Append(leafOf(next, len(value), true), []byte(value))
				if err != nil {
					rt.Fatal(err)
				}
				model[index] = value
			},
			"wait": func(rt *rapid.T) {
				l.mu.Lock()
				n := l.next
				l.mu.Unlock()
				if err := waitFor(l, n); err != nil {
					rt.Fatal(err)
				}
			},
			"rotate": func(rt *rapid.T) {
				if err := l.Rotate(); err != nil {
					rt.Fatal(err)
				}
			},
			"seal": func(rt *rapid.T) {
				if err := errors.Join(l.sign(), l.sealer.sealAll(t.Context())); err != nil {
					rt.Fatal(err)
				}
			},
			"restart": func(rt *rapid.T) {
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				open()
			},
			"crash": func(rt *rapid.T) {
				durable := l.Durable()
				old := s
				old.Stop()
				_ = l.Close() // ends its goroutines; the disk is gone
				s = old.Crash(rnd(rapid.Uint64().Draw(rt, "seed")))
				open()
				for index := range model {
					if index >= durable {
						delete(model, index) // may be there or not
					}
				}
				check()
			},
		})
		if err := l.Close(); err != nil {
			rt.Fatal(err)
		}
		check()
	})
}
