package segment_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// BenchmarkSeal seals the same 100,000 statements like those of pgbench, eight to a
// batch, again and again, and reports the processor time for one: two entries, one with
// a value.
func BenchmarkSeal(b *testing.B) {
	const statements = 100_000
	dir := statementLog(b, statements)
	journal := filepath.Join(dir, "journal", "00000000000000000000.journal")
	kept := filepath.Join(dir, "kept")
	if err := os.Link(journal, kept); err != nil {
		b.Fatal(err)
	}
	var cpu time.Duration
	s := segment.Sealer{FS: durable.OS, Dir: dir}
	for b.Loop() {
		if err := errors.Join(os.RemoveAll(segment.Dir(dir)), os.Mkdir(segment.Dir(dir), 0o700), os.RemoveAll(journal), os.Link(kept, journal)); err != nil {
			b.Fatal(err)
		}
		began := processor(b)
		if err := s.Seal(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
		cpu += processor(b) - began
	}
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/statements, "cpu-ns/statement")
}

// statementLog writes a log of n statements, and returns its directory. The first
// journal file is complete.
func statementLog(b *testing.B, n int) string {
	dir := filepath.Join(b.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Lazy: time.Hour, CheckpointEvery: time.Hour, SegmentSize: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	const sessions = 16
	var seq [sessions]uint64
	now := time.Now().UnixNano()
	parse := []byte("P\x00\x00\x00\x60P0\x00UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2;\x00\x00\x00")
	var parsed [sessions]int64
	for s := range parsed {
		seq[s]++
		p := event.Leaf{Time: now, Session: uint64(s + 1), Seq: seq[s], Kind: event.KindParse, HasValue: true, Size: int64(len(parse))}
		if parsed[s], err = l.Append(p.Append(nil), parse); err != nil {
			b.Fatal(err)
		}
	}
	var leaf, value []byte
	for i := range n {
		s := i % sessions
		seq[s] += 2
		now += 50_000
		value = fmt.Appendf(value[:0], "B\x00\x00\x00\x30\x00P0\x00\x00\x00\x00\x02\x00\x00\x00\x04%04d\x00\x00\x00\x07%07d\x00\x00", i*7919%10000, i*104729%10000000)
		a := event.Leaf{
			Time: now, Session: uint64(s + 1), Seq: seq[s] - 1, Kind: event.KindExecute, Parse: event.Ref(parsed[s]),
			Msgs: []byte("BDES"), HasValue: true, Size: int64(len(value)),
		}
		leaf = a.Append(leaf[:0])
		index, err := l.Append(leaf, value)
		if err != nil {
			b.Fatal(err)
		}
		o := event.Leaf{Time: now + 30_000, Session: uint64(s + 1), Seq: seq[s], Kind: event.KindOutcome, Of: event.Ref(index), Msgs: []byte("2nCZ"), Tags: []string{"UPDATE 1"}, Micros: 30, Tx: 'T'}
		leaf = o.Append(leaf[:0])
		if index, err = l.Append(leaf, nil); err != nil {
			b.Fatal(err)
		}
		if i%8 == 7 {
			l.TryCommit(index)
		}
	}
	if err := l.Rotate(); err != nil {
		b.Fatal(err)
	}
	for l.Durable()%tree.Width != 1 { // the first entry of the next file
		time.Sleep(time.Millisecond)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}
