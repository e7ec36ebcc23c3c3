package session

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// A nullLog counts entries and encodes their leaves.
type nullLog struct {
	n    int64
	leaf []byte
}

func (l *nullLog) Emit(leaf *event.Leaf, value []byte) (int64, error) {
	l.leaf = leaf.Append(l.leaf[:0])
	l.n++
	return l.n - 1, nil
}
func (l *nullLog) NewBlob() (Blob, error)                           { return new(memBlob), nil }
func (l *nullLog) EmitBlob(leaf *event.Leaf, b Blob) (int64, error) { return l.Emit(leaf, nil) }

func steadySession(tb testing.TB) *Session {
	s := New(Config{ID: 9, Client: "10.0.0.1:9", Log: &nullLog{leaf: make([]byte, 0, event.MaxLeaf)}})
	if _, err := s.Start(1, startup(wire.Version30, "user", "u")); err != nil {
		tb.Fatal(err)
	}
	exchange(tb, s, nil, bytes.Join([][]byte{auth(0), keyData(), ready('I')}, nil))
	// what the prepared cycle needs
	exchange(tb, s, append(parse("S_1", "select $1"), syncMsg()...), append(parsed(), ready('I')...))
	return s
}

func exchange(tb testing.TB, s *Session, question, answer []byte) {
	if _, err := s.FromClient(2, question); err != nil {
		tb.Fatal(err)
	}
	if _, err := s.FromServer(3, answer); err != nil {
		tb.Fatal(err)
	}
}

// cycles are the exchanges most sessions consist of.
var cycles = []struct {
	name             string
	question, answer []byte
}{
	{
		"simple", query("select abalance from pgbench_accounts where aid = 42"),
		bytes.Join([][]byte{rowDescription(), dataRow("1"), tag("SELECT 1"), ready('I')}, nil),
	},
	{
		"extended", bytes.Join([][]byte{parse("", "select $1", 23), bind("", ""), describe('P', ""), execute("", 0), syncMsg()}, nil),
		bytes.Join([][]byte{parsed(), bound(), rowDescription(), dataRow("1"), tag("SELECT 1"), ready('I')}, nil),
	},
	{
		"prepared", bytes.Join([][]byte{bind("", "S_1"), describe('P', ""), execute("", 0), syncMsg()}, nil),
		bytes.Join([][]byte{bound(), rowDescription(), dataRow("1"), tag("SELECT 1"), ready('I')}, nil),
	},
	{"error", query("bad"), append(failure("42601"), ready('I')...)},
}

func TestAllocs(t *testing.T) {
	for _, c := range cycles {
		s := steadySession(t)
		if n := testing.AllocsPerRun(200, func() { exchange(t, s, c.question, c.answer) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", c.name, n)
		}
	}
	s := steadySession(t)
	half := len(cycles[1].question) / 2
	n := testing.AllocsPerRun(200, func() {
		exchange(t, s, cycles[1].question[:half], nil)
		exchange(t, s, cycles[1].question[half:], cycles[1].answer)
	})
	if n != 0 {
		t.Errorf("messages in two reads: %v allocations, want 0", n)
	}
}

// An idle session must be small, whatever it did before.
func TestIdleSize(t *testing.T) {
	// Bytes, with all it keeps: itself 1.8 KiB, the queue 0.5, one prepared statement 0.4.
	const limit = 3 << 10
	storm := func(s *Session) {
		for _, c := range cycles {
			exchange(t, s, c.question, c.answer)
		}
		exchange(t, s, bytes.Repeat(cycles[1].question, 1000), nil)
		exchange(t, s, nil, bytes.Repeat(cycles[1].answer, 1000))
		exchange(t, s, query(strings.Repeat(";", 200<<10)), append(bytes.Repeat(tag("SELECT 1"), 5000), ready('I')...))
		big := query(strings.Repeat("x", 100<<10))
		exchange(t, s, big[:90<<10], nil)
		exchange(t, s, big[90<<10:], failure("42601"))
		exchange(t, s, nil, ready('I'))
		exchange(t, s, bytes.Repeat(syncMsg(), 5000), bytes.Repeat(ready('I'), 5000))
		row := dataRow(strings.Repeat("y", 100<<10))
		exchange(t, s, query("q"), row[:50<<10])
		exchange(t, s, nil, append(row[50<<10:], append(tag("SELECT 1"), ready('I')...)...))
	}
	sessions := make([]*Session, 50)
	log := &nullLog{leaf: make([]byte, 0, event.MaxLeaf)}
	var before, after runtime.MemStats
	storm(steadySession(t)) // fills the pools
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range sessions {
		sessions[i] = steadySession(t)
		sessions[i].cfg.Log = log
		storm(sessions[i])
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	size := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(len(sessions))
	t.Logf("an idle session holds %d bytes", size)
	if size > limit {
		t.Errorf("an idle session holds %d bytes, want at most %d", size, limit)
	}
	runtime.KeepAlive(sessions)
}

func BenchmarkCycle(b *testing.B) {
	for _, c := range cycles {
		b.Run(c.name, func(b *testing.B) {
			s := steadySession(b)
			b.ReportAllocs()
			for b.Loop() {
				exchange(b, s, c.question, c.answer)
			}
		})
	}
}
