package query

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// pgbench is a log of so many bundles as pgbench has the proxy write it: the
// statements of TPC-B of 16 sessions in turn, prepared or as text.
func pgbench(bundles int, prepared bool) *fakeLog {
	l, r := new(fakeLog), rand.New(rand.NewPCG(1, 2))
	type session struct {
		who    *event.Who
		next   int
		parses [7]int64
		params [4]string // aid, tid, bid, delta
	}
	all := make([]session, 16)
	for i := range all {
		all[i].who = &event.Who{User: "bench", Database: "bench", Application: "pgbench", Client: fmt.Sprint("127.0.0.1:", 50000+i)}
	}
	shapes := [7]struct {
		text string
		args []int
	}{
		{"BEGIN;", nil},
		{"UPDATE pgbench_accounts SET abalance = abalance + %s WHERE aid = %s;", []int{3, 0}},
		{"SELECT abalance FROM pgbench_accounts WHERE aid = %s;", []int{0}},
		{"UPDATE pgbench_tellers SET tbalance = tbalance + %s WHERE tid = %s;", []int{3, 1}},
		{"UPDATE pgbench_branches SET bbalance = bbalance + %s WHERE bid = %s;", []int{3, 2}},
		{"INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (%s, %s, %s, %s, CURRENT_TIMESTAMP);", []int{1, 2, 0, 3}},
		{"END;", nil},
	}
	for len(l.entries) < bundles*tree.Width {
		n := r.IntN(len(all))
		s := &all[n]
		id, step := uint64(n+1)<<40, s.next
		if step == 0 {
			s.params = [4]string{fmt.Sprint(r.IntN(1_000_000) + 1), fmt.Sprint(r.IntN(100) + 1), fmt.Sprint(r.IntN(10) + 1), fmt.Sprint(r.IntN(10_001) - 5000)}
		}
		s.next = (step + 1) % len(shapes)
		shape := &shapes[step]
		a := event.Leaf{Session: id, Kind: event.KindQuery, Who: s.who, Msgs: []byte("Q")}
		var texts []any
		var params [][]byte
		for i, arg := range shape.args {
			params = append(params, []byte(s.params[arg]))
			if texts = append(texts, s.params[arg]); prepared {
				texts[i] = fmt.Sprint("$", i+1)
			}
		}
		text := fmt.Sprintf(shape.text, texts...)
		value := queryMsg(text)
		if name := fmt.Sprint("P0_", step); prepared {
			if s.parses[step] == 0 {
				i := l.add(event.Leaf{Session: id, Kind: event.KindParse, Who: s.who, Msgs: []byte("P")}, parseFrame(name, text))
				l.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: event.Ref(i), Msgs: []byte("1")}, nil)
				s.parses[step] = event.Ref(i)
			}
			a.Kind, a.Parse, a.Msgs = event.KindExecute, s.parses[step], []byte("BDES")
			value = join(bindFrame("", name, nil, params...), msg('D', cstr("P")), executeFrame("", 0), msg('S'))
		}
		i := l.add(a, value)
		o := event.Leaf{Session: id, Kind: event.KindOutcome, Of: event.Ref(i), Msgs: []byte("CZ"), Tags: []string{"UPDATE 1"}, Rows: 1, Bytes: 74, Micros: r.Int64N(2000), Tx: 'T'}
		if step == len(shapes)-1 {
			o.Tx, o.Committed = 'I', 1
		}
		l.add(o, nil)
	}
	return l
}

// BenchmarkIndex takes the entries of a log and makes its index.
func BenchmarkIndex(b *testing.B) {
	for _, prepared := range []bool{false, true} {
		name := map[bool]string{false: "simple", true: "prepared"}[prepared]
		const bundles = 64
		l := pgbench(bundles, prepared)
		build := func(b *testing.B) *indexBuilder {
			x := newIndexBuilder(l, 0)
			for i := range l.entries[:bundles*tree.Width] {
				if err := x.entry(&l.entries[i]); err != nil {
					b.Fatal(err)
				}
			}
			return x
		}
		// measured reports the CPU time of a statement, two entries.
		measured := func(b *testing.B, run func()) {
			before := cpuTime(b)
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/(bundles*tree.Width/2), "cpu-ns/statement")
		}
		b.Run(name+"/take", func(b *testing.B) {
			b.ReportAllocs()
			measured(b, func() { build(b) })
		})
		b.Run(name+"/write", func(b *testing.B) {
			x := build(b)
			var size int
			measured(b, func() {
				file, err := x.encode(stamp{count: bundles * tree.Width}, nil)
				if err != nil {
					b.Fatal(err)
				}
				size = len(file)
			})
			b.ReportMetric(float64(size)/(bundles*tree.Width/2), "bytes/statement")
		})
	}
}

// TestIndexAllocates holds that an index takes hardly any memory for each statement:
// that of a prepared one its name, else what lists take that grow.
func TestIndexAllocates(t *testing.T) {
	const bundles = 24
	for _, prepared := range []bool{false, true} {
		l := pgbench(bundles, prepared)
		b := newIndexBuilder(l, 0)
		take := func(from, to int) {
			for i := range l.entries[from*tree.Width : to*tree.Width] {
				if err := b.entry(&l.entries[from*tree.Width+i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		take(0, 8)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		take(8, bundles)
		runtime.ReadMemStats(&after)
		limit := 0.5
		if prepared {
			limit = 1.5
		}
		if n := float64(after.Mallocs-before.Mallocs) / ((bundles - 8) * tree.Width / 2); n > limit {
			t.Errorf("prepared %v: %.2f allocations a statement, want at most %.1f", prepared, n, limit)
		}
	}
}

// TestIndexConcludes holds that what is open at the end of a segment is looked for
// behind it, and stays open if it failed, or is not to be found near.
func TestIndexConcludes(t *testing.T) {
	good := event.Leaf{Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1, Micros: 5000}
	for _, tt := range []struct {
		name string
		add  func(l *fakeLog, of int64)
		open bool
	}{
		{"nothing", func(*fakeLog, int64) {}, true},
		{"good end", func(l *fakeLog, of int64) { l.end(of, good, nil) }, false},
		{"end in a transaction", func(l *fakeLog, of int64) { l.end(of, event.Leaf{Tx: 'T'}, nil) }, true},
		{"failure", func(l *fakeLog, of int64) { l.end(of, event.Leaf{Tx: 'I', SQLState: "23505"}, nil) }, true},
		{"failure behind it", func(l *fakeLog, of int64) {
			l.end(of, event.Leaf{Tx: 'T'}, nil)
			l.end(l.admit(event.KindQuery, queryMsg("COMMIT")), event.Leaf{Tx: 'I', SQLState: "23503", Committed: -1, Since: event.Ref(of)}, nil)
		}, true},
		{"disconnect", func(l *fakeLog, _ int64) { l.add(event.Leaf{Session: 1, Kind: event.KindDisconnect}, nil) }, false},
		{"start", func(l *fakeLog, _ int64) { l.add(event.Leaf{Kind: event.KindStart}, nil) }, false},
		{"end of another", func(l *fakeLog, _ int64) { l.add(event.Leaf{Session: 2, Kind: event.KindDisconnect}, nil) }, true},
		{"late end", func(l *fakeLog, of int64) {
			for range lookBehind {
				l.add(event.Leaf{Session: 2, Kind: event.KindNotice}, nil)
			}
			l.end(of, good, nil)
		}, true},
	} {
		l := new(fakeLog)
		for len(l.entries) < tree.Width-1 {
			l.add(event.Leaf{Session: 2, Kind: event.KindNotice}, nil)
		}
		of := l.admit(event.KindQuery, queryMsg("SELECT 1"))
		tt.add(l, of)
		b := newIndexBuilder(l, 0)
		for i := range l.entries[:tree.Width] {
			if err := b.entry(&l.entries[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.conclude(l); err != nil {
			t.Fatal(err)
		}
		file, err := b.encode(stamp{count: tree.Width}, nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := newIndex(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		for kind, text := range map[string]string{openTerm: "", "duration": durationTerm(12)} {
			set := newPlaces(1)
			if err := x.bundles(term(kind, text), set); err != nil {
				t.Fatal(err)
			}
			if want := tt.open == (kind == openTerm); tt.name != "good end" && kind != openTerm {
				continue
			} else if set.has(0) != want {
				t.Errorf("%s: the bundle has the term %s: %v, want %v", tt.name, kind, !want, want)
			}
		}
	}
}

// cpuTime returns the CPU time that the process has taken.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
