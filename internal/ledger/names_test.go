package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/verb"
)

// frames puts frontend messages together: "P", then what its body has in front.
func frames(parts ...string) (b []byte) {
	for _, p := range parts {
		b = append(b, p[0])
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)+3))
		b = append(b, p[1:]...)
	}
	return b
}

// A talk is a session that a test writes.
type talk struct {
	t       *testing.T
	l       *Ledger
	session uint64
	n       uint64
}

func (c *talk) says(kind event.Kind, parse, bind int64, value []byte) int64 {
	c.t.Helper()
	c.n++
	i, err := c.l.Emit(&event.Leaf{
		Time: c.l.cfg.Now(), Session: c.session, Seq: c.n, Kind: kind, Parse: event.Ref(parse), Bind: event.Ref(bind),
		Who: &event.Who{User: "alice", Database: "app"},
	}, value)
	if err != nil {
		c.t.Fatal(err)
	}
	return i
}

// mustSeal ends the journal file and seals it.
func mustSeal(t *testing.T, l *Ledger) {
	t.Helper()
	if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// large is a name that makes a frame a blob.
var large = strings.Repeat("a long statement ", MaxInline/16)

// TestKeepWhatMayBeUsed: what an open session made is readable from where it is used
// first, though its own segment went before.
func TestKeepWhatMayBeUsed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		kind  event.Kind
		value []byte
	}{
		{"Parse", event.KindParse, frames("Ps1\x00SELECT 1\x00\x00\x00")},
		{"Parse of the unnamed", event.KindParse, frames("P\x00SELECT 1\x00\x00\x00")},
		{"Bind", event.KindBind, frames("Bc1\x00s1\x00")},
		{"Bind of the unnamed", event.KindBind, frames("B\x00s1\x00")},
		{"Parse in a run", event.KindExecute, frames("Ps1\x00SELECT 1\x00\x00\x00", "B\x00s1\x00", "D", "E\x00\x00\x00\x00\x00", "S")},
		{"Bind in a run", event.KindExecute, frames("P\x00SELECT 1\x00\x00\x00", "Bc1\x00\x00", "Ec1\x00\x00\x00\x00\x09", "H")},
		{"the unnamed in a run", event.KindExecute, frames("P\x00SELECT 1\x00\x00\x00", "B\x00\x00", "E\x00\x00\x00\x00\x09", "H")},
		{"PREPARE", event.KindQuery, frames("Q/* a */ prepare s1 AS SELECT 1\x00")},
		{"DECLARE", event.KindQuery, frames("Qdeclare c1 CURSOR FOR SELECT 1\x00")},
		{"Parse in a blob", event.KindParse, frames("Ps1\x00" + large + "\x00\x00\x00")},
		{"PREPARE in a blob", event.KindQuery, frames("QPREPARE s1 AS SELECT '" + large + "'\x00")},
		{"what is no message", event.KindParse, []byte("?")},
	} {
		for _, what := range []string{"leaves", "values", "values, then leaves"} {
			t.Run(tt.name+" "+what, func(t *testing.T) {
				s := faultfs.New()
				l := mustOpen(t, steady(quiet(s, "/d")))
				c := talk{t: t, l: l, session: 1}
				c.says(event.KindConnect, -1, -1, nil)
				made := c.says(tt.kind, -1, -1, tt.value)
				for range 3 {
					mustSeal(t, l)
				}
				for what := range strings.SplitSeq(what, ", then ") {
					for range 2 { // the second time the copy is in a segment that goes
						if a := mustDo(t, l, Order{Kind: "prune", What: what, Until: 1 << 40}); !a.OK || a.Pruned < 512 {
							t.Fatalf("%+v, want segments pruned", a)
						}
						mustSeal(t, l)
					}
				}
				c.says(event.KindExecute, made, -1, []byte("run"))
				c.says(event.KindDisconnect, -1, -1, nil)
				mustSeal(t, l)
				mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40}) // all but where it is used
				r, err := segment.OpenReaderFS(s, "/d")
				if err != nil {
					t.Fatal(err)
				}
				e, err := r.Copy(made)
				if err != nil {
					t.Fatal(err)
				}
				if e.Blob == nil && !bytes.Equal(e.Value, tt.value) {
					t.Errorf("Copy = %q, want %q", e.Value, tt.value)
				}
				if e.Blob != nil {
					f, err := r.OpenBlob(e.Blob)
					if err != nil {
						t.Fatal(err)
					}
					f.Close()
				}
				mustClose(t, l)
				mustVerify(t, s, "/d")
			})
		}
	}
}

// TestNamesOfNoValue: an Execute without a value bound the unnamed portal.
func TestNamesOfNoValue(t *testing.T) {
	for kind, want := range map[event.Kind]verb.Names{event.KindExecute: {Portal: true}, event.KindConnect: {}, event.KindOutcome: {}} {
		if got := namesOf(nil, new(journal.Entry), &event.Leaf{Kind: kind}); got != want {
			t.Errorf("%s: %+v, want %+v", kind, got, want)
		}
	}
}

// TestKeepWhatTheJournalUses: an entry that is not sealed yet takes its copy from a segment when it
// is, so pruning must leave one there, though the session has ended.
func TestKeepWhatTheJournalUses(t *testing.T) {
	for _, end := range []string{"disconnect", "start", "used beside many"} {
		t.Run(end, func(t *testing.T) {
			s := faultfs.New()
			l := mustOpen(t, steady(quiet(s, "/d")))
			c := talk{t: t, l: l, session: 1}
			text := frames("Ps1\x00SELECT 1\x00\x00\x00")
			made := c.says(event.KindParse, -1, -1, text)
			mustSeal(t, l)
			mustSeal(t, l)
			c.says(event.KindExecute, made, -1, []byte("run"))
			switch end {
			case "disconnect":
				c.says(event.KindDisconnect, -1, -1, nil)
			case "start":
				mustClose(t, l)
				l = mustOpen(t, steady(quiet(s, "/d")))
			default:
				for range 3 * maxKept {
					c.says(event.KindExecute, c.says(event.KindParse, -1, -1, text), -1, nil)
				}
			}
			if err := l.await(t.Context(), l.next-1); err != nil {
				t.Fatal(err)
			}
			if a := mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40}); a.Pruned != 256 {
				t.Fatalf("%+v, want a segment pruned", a)
			}
			mustSeal(t, l)
			mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 512}) // what was copied meanwhile goes
			r, err := segment.OpenReaderFS(s, "/d")
			if err != nil {
				t.Fatal(err)
			}
			if e, err := r.Copy(made); err != nil || !bytes.Equal(e.Value, text) {
				t.Errorf("the text is %q, %v", e.Value, err)
			}
			mustClose(t, l)
			mustVerify(t, s, "/d")
		})
	}
}

// TestKeepOnlyWhatMayBeUsed: what nothing can go back to any more has no copy.
func TestKeepOnlyWhatMayBeUsed(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	open, ended := talk{t: t, l: l, session: 1}, talk{t: t, l: l, session: 2}
	for _, c := range []*talk{&open, &ended} {
		c.says(event.KindConnect, -1, -1, nil)
	}
	var want []int64
	run := frames("P\x00SELECT 1\x00\x00\x00", "B\x00\x00", "E\x00\x00\x00\x00\x00", "S")
	for i := range 2 * maxKept {
		last := open.says(event.KindExecute, -1, -1, run)
		open.says(event.KindQuery, -1, -1, frames("QSELECT 1\x00"))
		if i == 2*maxKept-1 {
			want = append(want, last)
		}
	}
	named := open.says(event.KindParse, -1, -1, frames("Ps1\x00SELECT 1\x00\x00\x00"))
	// An unnamed portal outlives the unnamed statement it is of, and a named one too.
	text := open.says(event.KindParse, -1, -1, frames("P\x00SELECT 2\x00\x00\x00"))
	portal := open.says(event.KindBind, text, -1, frames("Bc1\x00\x00"))
	text2 := open.says(event.KindParse, -1, -1, frames("P\x00SELECT 3\x00\x00\x00"))
	portal2 := open.says(event.KindBind, text2, -1, frames("B\x00\x00"))
	gone := open.says(event.KindParse, -1, -1, frames("P\x00SELECT 4\x00\x00\x00"))
	text3 := open.says(event.KindParse, -1, -1, frames("P\x00SELECT 5\x00\x00\x00"))
	want = append(want[:0], named, text, portal, text2, portal2, text3)
	ended.says(event.KindParse, -1, -1, frames("Ps1\x00SELECT 1\x00\x00\x00"))
	ended.says(event.KindDisconnect, -1, -1, nil)
	mustSeal(t, l)
	first := l.w.First()
	mustSeal(t, l)
	for i := range 2 { // the second from copies alone
		if a := mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: first}); a.Pruned != first {
			t.Fatalf("%+v, want all before %d pruned", a, first)
		}
		entries, _, err := segment.Copies(s, "/d", first)
		var got []int64
		for i := range entries {
			got = append(got, entries[i].Index)
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d: copies of %v, %v, want %v (%d is of no use)", i, got, err, want, gone)
		}
		mustSeal(t, l)
		if first = l.w.First() - 256; slices.Max(want) >= first {
			t.Fatal("the segments are not as meant")
		}
	}
	mustClose(t, l)
	mustVerify(t, s, "/d")
}

// TestPruneReadsWhatGoes: pruning reads what goes, the newest segment and the journal, not what lies between, however much that is.
func TestPruneReadsWhatGoes(t *testing.T) {
	for _, what := range []string{"leaves", "values"} {
		s := faultfs.New()
		l := mustOpen(t, steady(quiet(s, "/d")))
		c := talk{t: t, l: l, session: 1}
		c.says(event.KindConnect, -1, -1, nil)
		text := frames("Ps1\x00SELECT 1\x00\x00\x00")
		made := c.says(event.KindParse, -1, -1, text)
		for range 9 {
			c.says(event.KindExecute, made, -1, []byte("run"))
			mustSeal(t, l)
		}
		for until := int64(512); until <= 1024; until += 512 {
			mustDo(t, l, Order{Kind: "hold", Case: fmt.Sprint(until), Hold: &Hold{From: 1 << 40}}) // it has read all leaves once then
			mustDo(t, l, Order{Kind: "release", Case: fmt.Sprint(until)})
			var opened []string
			s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if op == faultfs.Open && strings.HasPrefix(name, "/d/segment/") {
					opened = append(opened, name)
				}
				return faultfs.Fault{}
			})
			if a := mustDo(t, l, Order{Kind: "prune", What: what, Until: until}); a.Pruned != until {
				t.Fatalf("%+v, want all before %d pruned", a, until)
			}
			s.Inject(nil)
			segs, err := segment.List(s, "/d")
			if err != nil {
				t.Fatal(err)
			}
			for _, first := range segs {
				between := first > until && first < segs[len(segs)-1]
				if between && slices.ContainsFunc(opened, func(name string) bool {
					return name == segment.LeafFile("/d", first) || name == segment.ValueFile("/d", first)
				}) {
					t.Errorf("%s before %d: it read the segment of %d", what, until, first)
				}
			}
			r, err := segment.OpenReaderFS(s, "/d")
			if err != nil {
				t.Fatal(err)
			}
			if e, err := r.Copy(made); err != nil || !bytes.Equal(e.Value, text) {
				t.Errorf("%s before %d: the text is %q, %v", what, until, e.Value, err)
			}
		}
		// When it was last used in what goes, the newest segment takes it.
		for range 3 {
			mustSeal(t, l)
		}
		mustDo(t, l, Order{Kind: "prune", What: what, Until: 1 << 40})
		r, err := segment.OpenReaderFS(s, "/d")
		if err != nil {
			t.Fatal(err)
		}
		if e, err := r.Copy(made); err != nil || !bytes.Equal(e.Value, text) {
			t.Errorf("%s: at last the text is %q, %v", what, e.Value, err)
		}
		mustClose(t, l)
		mustVerify(t, s, "/d")
	}
}
