package segment_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// BenchmarkSeal seals statements like those of pgbench, eight to a batch. Its
// unit is a statement: two entries, one with a value.
func BenchmarkSeal(b *testing.B) {
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
	for i := range b.N {
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
	b.ReportAllocs()
	b.ResetTimer()
	if err := l.SealNow(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}
