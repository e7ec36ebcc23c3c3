package main

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// frame returns a protocol message.
func frame(letter byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{letter}, uint32(len(body)+4))
	return append(b, body...)
}

// makeLog implements "mklog DIR": a log at rest with a session of alice
// (entries 2 to 13) and one of bob, all from 2026-01-02T03:04:05Z on.
func makeLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mklog DIR")
	}
	var now atomic.Int64 // the ledger asks for it at any time
	now.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	tick := func() int64 { return now.Add(int64(time.Millisecond)) }
	l, err := ledger.Open(ledger.Config{Dir: ts.MkAbs(args[0]), Origin: "example.com/log", Now: now.Load})
	ts.Check(err)
	emit := func(leaf event.Leaf, value []byte) int64 {
		leaf.Time, leaf.HasValue, leaf.Size = tick(), value != nil, int64(len(value))
		i, err := l.Emit(&leaf, value)
		ts.Check(err)
		return i
	}
	seq := uint64(0)
	session := func(leaf event.Leaf, value []byte) int64 {
		seq++
		leaf.Session, leaf.Seq = 0xa11ce, seq
		if leaf.Kind != event.KindOutcome {
			leaf.Who = &event.Who{User: "alice", Database: "app", Application: "psql", Client: "127.0.0.1:50123"}
		}
		return emit(leaf, value)
	}
	session(event.Leaf{Kind: event.KindConnect}, []byte("\x00\x00\x00\x1c\x00\x03\x00\x00user\x00alice\x00database\x00app\x00\x00"))
	i := session(event.Leaf{Kind: event.KindQuery}, frame('Q', "SELECT 1\x00"))
	session(event.Leaf{Kind: event.KindOutcome, Of: event.Ref(i), Tags: []string{"SELECT 1"}, Rows: 1, Bytes: 12, Micros: 180, Tx: 'I', Committed: 1}, nil)
	parse := session(event.Leaf{Kind: event.KindParse}, frame('P', "s1\x00INSERT INTO t\n  VALUES ($1, $2)\x00\x00\x02\x00\x00\x00\x17\x00\x00\x00\x19"))
	session(event.Leaf{Kind: event.KindOutcome, Of: event.Ref(parse), Tx: 'I'}, nil)
	i = session(event.Leaf{Kind: event.KindExecute, Parse: event.Ref(parse)},
		append(frame('B', "\x00s1\x00\x00\x02\x00\x01\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00\x2a\xff\xff\xff\xff\x00\x00"), frame('E', "\x00\x00\x00\x00\x00")...))
	session(event.Leaf{Kind: event.KindOutcome, Of: event.Ref(i), Tags: []string{"INSERT 0 1"}, Micros: 2500, Tx: 'I', Committed: -1}, nil)
	i = session(event.Leaf{Kind: event.KindQuery}, frame('Q', "DROP TABLE \x1b[31mt\x00"))
	session(event.Leaf{Kind: event.KindOutcome, Of: event.Ref(i), SQLState: "42501", Micros: 90, Tx: 'I', Committed: -1},
		frame('E', "SERROR\x00VERROR\x00C42501\x00Mmust be owner of table t\x00\x00"))
	session(event.Leaf{Kind: event.KindDisconnect, Facts: []event.Fact{{Key: "reason", Val: "terminate"}}}, nil)
	emit(event.Leaf{
		Session: 0xb0b, Seq: 1, Kind: event.KindQuery,
		Who: &event.Who{User: "bob", Database: "app", Client: "10.1.2.3:4"},
	}, frame('Q', "SELECT pg_sleep(9)\x00"))
	ts.Check(l.Close())
}
