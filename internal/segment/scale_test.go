package segment_test

import (
	"flag"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/verify"
)

var scale = flag.Int64("scale", 0, "entries of one more log in TestScale, such as 10000000")

// countingFS counts the bytes and the calls that read files.
type countingFS struct {
	durable.FS
	bytes, calls atomic.Int64
}

type countingFile struct {
	durable.File
	fs *countingFS
}

func (c *countingFS) Open(name string) (durable.File, error) {
	f, err := c.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return countingFile{f, c}, nil
}

func (f countingFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.fs.bytes.Add(int64(n))
	f.fs.calls.Add(1)
	return n, err
}

// taken returns what was read since the last call.
func (c *countingFS) taken() (bytes, calls int64) { return c.bytes.Swap(0), c.calls.Swap(0) }

// segmentSize is small, so that a log of a million entries has many segments.
const segmentSize = 4 << 20

// TestScale opens, reads, proves and follows logs of very different lengths.
// What that reads must not grow with the log; the times are for the reader.
func TestScale(t *testing.T) {
	sizes := []int64{10_000, 1_000_000}
	if testing.Short() {
		sizes = []int64{10_000, 200_000}
	}
	if *scale > 0 {
		sizes = append(sizes, *scale)
	}
	for _, n := range sizes {
		dir := synthetic(t, n)
		fsys := &countingFS{FS: durable.OS}
		step := func(what string, do func()) {
			t.Helper()
			fsys.taken()
			began := time.Now()
			do()
			elapsed := time.Since(began)
			bytes, calls := fsys.taken()
			t.Logf("%9d entries: %-22s %10v, %9d bytes in %d reads", n, what, elapsed.Round(time.Microsecond), bytes, calls)
			// A journal file ends with the batch, of up to 8 MiB, that made it full.
			if limit := int64(segmentSize + 9<<20); bytes > limit {
				t.Errorf("%d entries: %s reads %d bytes, more than the %d of one journal file", n, what, bytes, limit)
			}
		}
		step("open for writing", func() {
			l, err := ledger.Open(ledger.Config{Dir: dir, FS: fsys})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
		var r *segment.Reader
		step("open for reading", func() {
			var err error
			if r, err = segment.OpenReaderFS(fsys, dir); err != nil {
				t.Fatal(err)
			}
		})
		size, err := r.Size()
		if err != nil || size < n {
			t.Fatalf("%d entries, %v, want %d", size, err, n)
		}
		for name, index := range map[string]int64{"read the first entry": 0, "read one in the middle": n / 2, "read the last": size - 1} {
			step(name, func() {
				if e, err := r.Entry(index); err != nil || e.Index != index {
					t.Fatal(err)
				}
			})
		}
		step("read the last 1000", func() {
			got := 0
			for _, err := range r.Entries(size-1000, size) {
				if err != nil {
					t.Fatal(err)
				}
				got++
			}
			if got != 1000 {
				t.Fatalf("%d entries, want 1000", got)
			}
		})
		l, err := query.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, index := range []int64{0, n / 2, n - 1} {
			began := time.Now()
			proof, err := tree.Inclusion(l, index, size)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%9d entries: prove %-16d %10v, %d hashes", n, index, time.Since(began).Round(time.Microsecond), len(proof))
			root, err := tree.RootAt(l, size)
			if err != nil {
				t.Fatal(err)
			}
			e, err := l.Entry(index)
			if err != nil {
				t.Fatal(err)
			}
			if err := tree.CheckInclusion(proof, size, root, index, tree.LeafHash(e.Leaf)); err != nil {
				t.Fatal(err)
			}
		}
		began, cpu := time.Now(), processor(t)
		v, err := verify.Dir(t.Context(), dir, verify.Options{})
		if err != nil || !v.OK {
			t.Fatalf("verify: %+v, %v", v, err)
		}
		cpu = processor(t) - cpu
		t.Logf("%9d entries: verify all         %10v, %v of CPU, %.2f million entries per second of CPU", n, time.Since(began).Round(time.Millisecond),
			cpu.Round(time.Millisecond), float64(v.Entries)/1e6/cpu.Seconds())
		kept, err := l.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		v, err = verify.Dir(t.Context(), dir, verify.Options{Trusted: &verify.File{Name: "kept", Data: kept}})
		if err != nil || !v.OK {
			t.Fatalf("verify: %+v, %v", v, err)
		}
		t.Logf("%9d entries: verify what is new %10v, %d entries", n, time.Since(began).Round(time.Millisecond), v.Entries)
	}
}

// processor returns the CPU time this process has taken.
func processor(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// synthetic writes a log of n entries of statements and outcomes, sealed as far as it goes.
func synthetic(t *testing.T, n int64) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Lazy: time.Hour, CheckpointEvery: 100 * time.Millisecond, SegmentSize: segmentSize})
	if err != nil {
		t.Fatal(err)
	}
	const sessions = 16
	var seq [sessions]uint64
	var who [sessions]event.Who
	for i := range who {
		who[i] = event.Who{User: "app", Database: "shop", Application: "synthetic", Client: fmt.Sprintf("127.0.0.1:%d", 40000+i)}
	}
	now := time.Now().UnixNano()
	var leaf, value []byte
	for i := range n / 2 {
		s := i % sessions
		seq[s] += 2
		now += 50_000
		value = fmt.Appendf(value[:0], "Q\x00\x00\x00\x40UPDATE accounts SET balance = balance + %d WHERE id = %d", i*7919%1000, i*104729%1000000)
		a := event.Leaf{Time: now, Session: uint64(s + 1), Seq: seq[s] - 1, Kind: event.KindQuery, Who: &who[s], Msgs: []byte("Q"), HasValue: true, Size: int64(len(value))}
		leaf = a.Append(leaf[:0])
		index, err := l.Append(leaf, value)
		if err != nil {
			t.Fatal(err)
		}
		o := event.Leaf{Time: now + 30_000, Session: uint64(s + 1), Seq: seq[s], Kind: event.KindOutcome, Of: event.Ref(index), Msgs: []byte("CZ"), Tags: []string{"UPDATE 1"}, Micros: 30, Tx: 'I', Committed: 1}
		leaf = o.Append(leaf[:0])
		if _, err := l.Append(leaf, nil); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 {
			l.Want(index)
			for l.Backlog() > 8<<20 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	l.Want(n)
	for end := time.Now().Add(10 * time.Minute); l.Durable() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) || l.Err() != nil {
			t.Fatalf("%d entries are durable, want %d: %v", l.Durable(), n, l.Err())
		}
	}
	if err := l.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}
