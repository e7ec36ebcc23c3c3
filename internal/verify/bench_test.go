//go:build unix

package verify

import (
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// BenchmarkDir reports entries a second over a log of pairs of a statement
// with a value of 60 bytes and its outcome, in large batches.
func BenchmarkDir(b *testing.B) {
	const pairs = 200_000
	l := newBuilder(b, ledger.Config{})
	l.add(event.Leaf{Session: 1, Kind: event.KindConnect, Who: alice}, []byte("start-up packet"))
	value := frame('Q', "SELECT abalance FROM pgbench_accounts WHERE aid = 12345\x00")
	var last int64
	for i := range pairs {
		q := l.add(event.Leaf{Session: 1, Kind: event.KindQuery, Who: alice, Msgs: []byte("Q")}, value)
		last = l.add(event.Leaf{
			Session: 1, Kind: event.KindOutcome, Of: event.Ref(q), Msgs: []byte("TDCZ"), Tags: []string{"SELECT 1"},
			Rows: 1, Bytes: 20, Micros: 180, Tx: 'I', Committed: 1,
		}, nil)
		if i%5000 == 0 {
			l.commit(last)
		}
	}
	l.add(event.Leaf{Session: 1, Kind: event.KindDisconnect, Who: alice}, nil)
	l.close()
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r := run(b, l.dir, Options{}); !r.OK {
			b.Fatal(r.Findings)
		}
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(2*pairs*b.N), "cpu-ns/entry")
	b.ReportMetric(float64(2*pairs*b.N)/b.Elapsed().Seconds(), "entries/s")
}
