//go:build unix

package verify

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// BenchmarkSealed compares what a worker does with a segment, and the order
// after it, with decompression and SHA-256 of the same bytes alone: the bound
// that a verification of this log can reach on one core. A directory in the
// environment variable PGNOTARY_LOG is used instead of one of made-up statements.
func BenchmarkSealed(b *testing.B) {
	dir := os.Getenv("PGNOTARY_LOG")
	if dir == "" {
		dir = statements(b, 40*tileWidth)
	}
	chunks := chunksOf(b, dir)
	n := 0
	var lengths [][]int // of each chunk's leaves and values, -1 for none
	for _, c := range chunks {
		n += len(c.roots) * tileWidth
		var l []int
		for i := range c.entries {
			value := -1
			if c.entries[i].form == valueInline {
				value = len(c.entries[i].value)
			}
			l = append(l, len(c.entries[i].leaf), value)
		}
		lengths = append(lengths, l)
		c.entries, c.plain = nil, nil
	}
	b.Run("worker and order", func(b *testing.B) {
		w := worker{blobs: filepath.Join(dir, "blob")}
		var used chunk
		recent := make([]place, 0, recentEntries) // grows once in a log, not with each segment
		cpu := processor(b)
		for b.Loop() {
			c := &check{dir: dir, gap: newGaps(), files: &listing{}}
			c.signed.size = -1
			o := newOrder(c)
			o.recent = recent
			o.again = func(int64) (place, error) { return place{}, nil }
			for _, ch := range chunks {
				// Chunks are used again and again, as in the pipeline.
				ch.entries, ch.plain, ch.roots = used.entries[:0], used.plain, ch.roots[:0]
				w.sealed(ch)
				used = *ch
				for i := range ch.roots {
					o.bundle(ch.entries[i*tileWidth:(i+1)*tileWidth], &ch.roots[i])
				}
				ch.entries, ch.plain = nil, nil
			}
		}
		report(b, cpu, n)
	})
	b.Run("SHA-256 and zstd alone", func(b *testing.B) {
		var w worker
		var buf [maxInline + 32]byte
		var plain []byte
		cpu := processor(b)
		for b.Loop() {
			for k, c := range chunks {
				pos := 0
				for _, fr := range c.frames {
					var err error
					if plain, err = w.decode(c.buf[pos:pos+int(fr.size)], fr.real, plain); err != nil {
						b.Fatal(err)
					}
					pos += int(fr.size)
				}
				for i := 0; i < len(lengths[k]); i += 2 {
					sha256.Sum256(buf[:1+lengths[k][i]])
					sha256.Sum256(buf[:65]) // one node for each leaf
					if value := lengths[k][i+1]; value >= 0 {
						sha256.Sum256(buf[:33])
						sha256.Sum256(buf[:32+value])
					}
				}
			}
		}
		report(b, cpu, n)
	})
}

// report says how many entries a second of CPU was good for: of the time that
// passed, a busy machine takes an unknown part.
func report(b *testing.B, since time.Duration, n int) {
	b.ReportMetric(float64(n)*float64(b.N)/(processor(b)-since).Seconds()/1e6, "Mentries/cpu-s")
}

func processor(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// chunksOf reads the first segment of a log, as the reader does.
func chunksOf(t testing.TB, dir string) (out []*chunk) {
	t.Helper()
	files, err := list(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files.segments) == 0 {
		t.Fatal("the log has no segment")
	}
	b, err := readSmall(filepath.Join(dir, "log.json"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := parseLogFile(b)
	if err != nil {
		t.Fatal(err)
	}
	const depth = 1 << 16
	r := &reader{data: dir, segs: files.segments[:1], indexes: files.indexes, logID: sha256.Sum256([]byte(l.origin)), free: make(chan *chunk, depth), jobs: make(chan *chunk, depth), order: make(chan *chunk, depth)}
	go func() {
		for range depth {
			r.free <- &chunk{}
		}
	}()
	if more, err := r.segment(t.Context(), 0); !more || err != nil {
		t.Fatalf("read the segment: %v, %+v", err, r.finding)
	}
	close(r.jobs)
	var w worker
	for c := range r.jobs {
		w.sealed(c)
		if c.broken != "" {
			t.Fatal(c.broken)
		}
		out = append(out, c)
	}
	return slices.Clip(out)
}

// statements writes a log of n entries of statements and outcomes of 16
// sessions, and seals it.
func statements(t testing.TB, n int) string {
	b := newBuilder(t, ledger.Config{SegmentAge: 1 << 60})
	for i := range uint64(16) {
		b.add(event.Leaf{Session: i + 1, Kind: event.KindConnect, Who: alice}, nil)
	}
	var last int64
	for i := range n / 2 {
		id := uint64(i%16 + 1)
		q := b.add(event.Leaf{Session: id, Kind: event.KindQuery, Who: alice, Msgs: []byte("Q")}, frame('Q', "UPDATE accounts SET balance = 4 WHERE id = 5\x00"))
		last = b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: event.Ref(q), Msgs: []byte("CZ"), Tags: []string{"UPDATE 1"}, Micros: 12, Tx: 'I', Committed: 1}, nil)
	}
	b.commit(last)
	if err := b.l.Rotate(); err != nil {
		t.Fatal(err)
	}
	b.commit(b.add(event.Leaf{Kind: event.KindHeartbeat}, nil))
	if err := b.l.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.close()
	return b.dir
}
