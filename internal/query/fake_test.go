package query

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"iter"
	"regexp"
	"sync/atomic"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

// A fakeLog is a log in memory, written by hand.
type fakeLog struct {
	entries []journal.Entry
	blobs   map[[16]byte][]byte
	copies  map[int64]journal.Entry
	now     int64
	seq     map[uint64]uint64
	reads   atomic.Int64
	max     int64 // bytes of a value that is read, 0 for any
	pruned  int64 // entries from the first on that went after a search had begun
}

const fakeStart = 1_790_000_000_000_000_000 // 2026-09-21T13:33:20Z

var alice = &event.Who{User: "alice", Database: "app", Application: "psql", Client: "127.0.0.1:50123"}

// add appends an entry, a millisecond after the one before, and returns its index.
func (l *fakeLog) add(leaf event.Leaf, value []byte) int64 {
	if leaf.Time == 0 {
		l.now += 1e6
		leaf.Time = fakeStart + l.now
	}
	if leaf.Session != 0 {
		if l.seq == nil {
			l.seq = make(map[uint64]uint64)
		}
		l.seq[leaf.Session]++
		leaf.Seq = l.seq[leaf.Session]
	}
	leaf.HasValue, leaf.Size = value != nil, int64(len(value))
	i := int64(len(l.entries))
	l.entries = append(l.entries, journal.Entry{Index: i, Leaf: leaf.Append(nil), Value: value, HasValue: value != nil})
	return i
}

// admit adds an admission of session 1, of alice.
func (l *fakeLog) admit(kind event.Kind, value []byte) int64 {
	return l.add(event.Leaf{Session: 1, Kind: kind, Who: alice}, value)
}

// end adds an outcome of session 1.
func (l *fakeLog) end(of int64, o event.Leaf, value []byte) int64 {
	o.Session, o.Kind, o.Of = 1, event.KindOutcome, event.Ref(of)
	return l.add(o, value)
}

func (l *fakeLog) maxValue() int64 { return l.max }

func (l *fakeLog) stretches() stretches { return fakeStretches{l} }

type fakeStretches struct{ *fakeLog }

func (fakeStretches) Close() {}

func (l *fakeLog) Entries(from, to int64) iter.Seq2[journal.Entry, error] {
	return func(yield func(journal.Entry, error) bool) {
		for i := from; i < to && i < int64(len(l.entries)); i++ {
			l.reads.Add(1)
			if i < l.pruned {
				yield(journal.Entry{}, fmt.Errorf("entry %d was pruned: %w", i, fs.ErrNotExist))
				return
			}
			if !yield(l.entries[i], nil) {
				return
			}
		}
	}
}

func (l *fakeLog) Entry(i int64) (journal.Entry, error) {
	if i < 0 || i >= int64(len(l.entries)) {
		return journal.Entry{}, fs.ErrNotExist
	}
	return l.entries[i], nil
}

func (l *fakeLog) Copy(index int64) (journal.Entry, error) {
	if e, ok := l.copies[index]; ok {
		return e, nil
	}
	return journal.Entry{}, fs.ErrNotExist
}

func (l *fakeLog) Blob(ref *journal.BlobRef) ([]byte, error) {
	if b, ok := l.blobs[ref.ID]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

// withoutSQL removes what package sqlinfo told, which has tests of its own.
func withoutSQL(object string) string {
	return regexp.MustCompile(`,"sql":\{"engine":"[^"]*"[^}]*\}`).ReplaceAllString(object, "")
}

// search returns the objects that a search prints, without what package sqlinfo told.
func (l *fakeLog) search(t testing.TB, f Filter) []string {
	t.Helper()
	out := []string{}
	err := search(context.Background(), l, &f, f.From, int64(len(l.entries)), func(s *Statement) error {
		b := s.AppendJSON(nil)
		checkRead(t, b)
		out = append(out, withoutSQL(string(b)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Frames as clients and servers send them.

func msg(letter byte, body ...[]byte) []byte {
	b := []byte{letter, 0, 0, 0, 0}
	for _, part := range body {
		b = append(b, part...)
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

func cstr(s string) []byte { return append([]byte(s), 0) }

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

func be32(v int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

func queryMsg(text string) []byte { return msg('Q', cstr(text)) }

func parseFrame(name, text string, oids ...int) []byte {
	body := append(cstr(name), cstr(text)...)
	body = append(body, be16(len(oids))...)
	for _, o := range oids {
		body = append(body, be32(o)...)
	}
	return msg('P', body)
}

func arguments(formats []int, params [][]byte) []byte {
	body := be16(len(formats))
	for _, f := range formats {
		body = append(body, be16(f)...)
	}
	body = append(body, be16(len(params))...)
	for _, p := range params {
		if p == nil {
			body = append(body, be32(-1)...)
			continue
		}
		body = append(append(body, be32(len(p))...), p...)
	}
	return body
}

func bindFrame(portal, statement string, formats []int, params ...[]byte) []byte {
	return msg('B', cstr(portal), cstr(statement), arguments(formats, params), be16(0))
}

func executeFrame(portal string, rows int) []byte { return msg('E', cstr(portal), be32(rows)) }

func errorFrame(state, text string) []byte {
	return msg('E', cstr("SERREUR"), cstr("VERROR"), cstr("C"+state), cstr("M"+text), cstr("Rexec"), []byte{0})
}

func join(frames ...[]byte) (b []byte) {
	for _, f := range frames {
		b = append(b, f...)
	}
	return b
}

func header(index int64, session, kind string) string {
	s := fmt.Sprintf(`{"index":%d,"time":"%s"`, index, event.AppendTime(nil, fakeStart+(index+1)*1e6))
	if session != "" {
		s += `,"session":"` + session + `"`
	}
	return s + who(session) + `,"kind":"` + kind + `"`
}

func who(session string) string {
	if session != "0000000000000001" {
		return ""
	}
	return `,"user":"alice","database":"app","application":"psql","client":"127.0.0.1:50123"`
}
