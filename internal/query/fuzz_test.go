package query

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

// What the tests use is what a Log is.
var (
	_ source = (*fakeLog)(nil)
	_ source = (*Log)(nil)
)

// FuzzFrames feeds every decoder of values, through entries of each kind, and
// holds well-formed Parse and Bind messages to being encoded again alike.
func FuzzFrames(f *testing.F) {
	kinds := []event.Kind{
		event.KindQuery, event.KindParse, event.KindBind, event.KindExecute, event.KindFunctionCall,
		event.KindConnect, event.KindCopy, event.KindNotice, event.KindAuth, event.KindViolation, event.KindOutcome,
	}
	for i := range kinds {
		f.Add(uint8(i), queryMsg("SELECT 1"))
	}
	f.Add(uint8(3), join(parseFrame("s", "SELECT $1", 23, 25), bindFrame("p", "s", []int{1, 0}, be32(7), nil), executeFrame("p", 3), msg('S')))
	f.Add(uint8(4), msg('F', be32(955), arguments([]int{1}, [][]byte{be32(3), []byte("hi")}), be16(1)))
	f.Add(uint8(5), join(be32(0), be32(196608), cstr("user"), cstr("bob"), []byte{0}))
	f.Add(uint8(7), msg('A', be32(77), cstr("ch"), cstr("pay")))
	f.Add(uint8(8), errorFrame("28P01", "no"))
	f.Add(uint8(10), join(msg('C', cstr("A")), msg('C', cstr("B"))))
	f.Fuzz(func(t *testing.T, k uint8, value []byte) {
		var l fakeLog
		kind := kinds[int(k)%len(kinds)]
		if kind == event.KindOutcome {
			l.end(l.admit(event.KindQuery, queryMsg("x")), event.Leaf{}, value)
		} else {
			p := l.admit(event.KindBind, value) // what the rest may refer to
			l.end(p, event.Leaf{SQLState: "00000"}, value)
			l.end(l.add(event.Leaf{Session: 1, Kind: kind, SQLState: "XX000"}, value), done, nil)
			l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Parse: event.Ref(p), Bind: event.Ref(p)}, executeFrame("", 0))
		}
		l.search(t, Filter{})

		for rest := value; ; {
			fr, more, ok := nextFrame(rest)
			if !ok {
				break
			}
			if m, ok := decodeParse(fr.body); ok {
				body := append(append(append([]byte{}, m.name...), 0), m.text...)
				body = append(append(body, 0), be16(len(m.types))...)
				for _, o := range m.types {
					body = append(body, be32(int(o))...)
				}
				if !bytes.Equal(body, fr.body) {
					t.Errorf("Parse %x encodes as %x", fr.body, body)
				}
			}
			if m, ok := decodeBind(fr.body); ok {
				formats := make([]int, len(m.formats))
				for i, c := range m.formats {
					formats[i] = int(c)
				}
				body := append(append(append(append([]byte{}, m.portal...), 0), m.statement...), 0)
				body = append(body, arguments(formats, m.params)...)
				if !bytes.HasPrefix(fr.body, body) {
					t.Errorf("Bind %x encodes as %x", fr.body, body)
				}
			}
			rest = more
		}
	})
}

// FuzzView holds that the quick reader of leaves never panics, and tells of
// each true leaf what event.Parse does.
func FuzzView(f *testing.F) {
	f.Add([]byte(`{"v":1,"t":"2026-11-22T20:00:00.123456789Z","s":"9f86d081884c7d65","n":7,"k":"execute","user":"al\"ice","db":"app",` +
		`"app":"psql\u000a\u007f","client":"127.0.0.1:5","m":"PBDES","of":0,"parse":4,"bind":9,"types":[23,4294967295],"tags":["SELECT 1",""],` +
		`"rows":3,"bytes":90,"us":180,"tx":"T","committed":false,"since":2,"end":"suspended","sqlstate":"42P01","facts":{"a]}":"b\\","ü":""},` +
		`"size":12,"c":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`))
	f.Add([]byte(`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start"}`))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		var v view
		err := v.scan(leaf)
		factList(v.facts)
		stringList(v.tags)
		typeList(v.types)
		want, parseErr := event.Parse(leaf)
		if parseErr != nil {
			return
		}
		if err != nil {
			t.Fatalf("scan(%s) = %v", leaf, err)
		}
		at, err := v.unixNano()
		if err != nil {
			t.Fatal(err)
		}
		who := event.Who{User: unescape(v.user), Database: unescape(v.db), Application: unescape(v.app), Client: unescape(v.client)}
		got := event.Leaf{
			Time: at, Session: v.session, Kind: v.kind, Of: v.of, Parse: v.parse, Bind: v.bind, Since: v.since,
			Types: typeList(v.types), Tags: stringList(v.tags), Facts: factList(v.facts), Rows: v.rows, Bytes: v.bytes,
			Micros: v.micros, Tx: v.tx, Committed: v.committed, End: event.End(v.end), SQLState: unescape(v.sqlstate), HasValue: v.hasValue,
		}
		if who.User+who.Database+who.Application+who.Client != "" {
			got.Who = &who
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(event.Who{}),
			cmpopts.IgnoreFields(event.Leaf{}, "Seq", "Msgs", "Size", "Commitment")); d != "" {
			t.Errorf("scan(%s) differs (-want +got):\n%s", leaf, d)
		}
	})
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"b\\c\n\x00\x7f\xffé\u2028")
	for _, c := range []string{"\"", "\\", "\x1f", "\x7f", "\x80", "~", " ", "é", "\xff", "\u2028"} { // in a row of plain ones
		f.Add("01234567" + c + "89abcdef" + c + "x")
	}
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(s)); back != want {
			t.Errorf("appendString(%q) reads back as %q, want %q", s, back, want)
		}
		var each []byte
		for _, r := range s { // eight plain ones in a row go a quicker way
			one := appendString(nil, string(r))
			each = append(each, one[1:len(one)-1]...)
		}
		if got := appendString(nil, []byte(s)); string(got) != `"`+string(each)+`"` {
			t.Errorf("appendString(%q) = %s, want %s", s, got, each)
		}
	})
}

// FuzzAppendTime holds that a remembered second changes no time.
func FuzzAppendTime(f *testing.F) {
	f.Add(int64(fakeStart), int64(fakeStart+999_999_999))
	f.Add(int64(fakeStart-1), int64(fakeStart+1e9))
	f.Add(int64(-5), int64(3))
	f.Add(int64(-5), int64(-999_999_999))
	f.Fuzz(func(t *testing.T, one, two int64) {
		var a analyses
		for _, at := range []int64{one, two, one, two, two} {
			if got, want := string(a.appendTime(nil, at)), string(event.AppendTime(nil, at)); got != want {
				t.Errorf("%d is %s, want %s", at, got, want)
			}
		}
	})
}

func TestClientFilter(t *testing.T) {
	for _, tt := range []struct {
		want   string
		client string
		match  bool
	}{
		{"10.0.0.1", "10.0.0.1:5", true},
		{"10.0.0.1", "10.0.0.10:5", false},
		{"10.0.0.1:5", "10.0.0.1:5", true},
		{"10.0.0.1:5", "10.0.0.1:50", false},
		{"10.0.0.1:", "10.0.0.1:50", true},
		{"10.0.", "10.0.3.4:5", true},
		{"10.0.0.0/8", "10.255.3.4:5", true},
		{"10.0.0.0/8", "11.0.0.1:5", false},
		{"::1", "[::1]:5", true},
		{"[0:0::1]", "[::1]:5", true},
		{"10.0.0.1", "[::ffff:10.0.0.1]:5", true},
		{"fd00::/8", "[fd00::2]:5", true},
		{"unix", "unix", true},
		{"unix", "10.0.0.1:5", false},
		{"10.0.0.0/8", "unix", false},
	} {
		if got := clientMatcher(tt.want)(tt.client); got != tt.match {
			t.Errorf("--client %s matches %s: %v, want %v", tt.want, tt.client, got, tt.match)
		}
	}
}

// TestNamesFilter selects by names that leaves do not keep as they were sent, and by a
// session whose id begins as if it were none.
func TestNamesFilter(t *testing.T) {
	long := "x" + strings.Repeat("ж", 100) // of which the 64th is cut in two
	l := new(fakeLog)
	l.add(event.Leaf{Kind: event.KindStart}, nil)
	l.add(event.Leaf{Session: 1, Kind: event.KindQuery, Who: &event.Who{User: "m\xfcller", Database: long, Application: long + "!"}}, queryMsg("SELECT 1"))
	for name, f := range map[string]Filter{
		"user":        {User: "m\xfcller"},
		"replaced":    {User: "m\uFFFDller"},
		"database":    {Database: long},
		"application": {Application: long + "!"},
		"session":     {Session: "00"},
	} {
		if got := l.search(t, f); len(got) != 1 || !strings.Contains(got[0], "SELECT 1") {
			t.Errorf("by %s: %q", name, got)
		}
	}
	if got := l.search(t, Filter{Session: "0000000000000000"}); len(got) > 0 {
		t.Errorf("of no session: %q", got)
	}
}

func TestFilterErrors(t *testing.T) {
	for _, f := range []Filter{
		{From: -1}, {End: -1}, {Session: "xyz"}, {Session: strings.Repeat("1", 17)}, {Kinds: []string{"nonsense"}}, {Kinds: []string{"settle"}},
	} {
		if err := search(context.Background(), &fakeLog{}, &f, 0, 0, nil); err == nil {
			t.Errorf("search(%+v) succeeded, want an error", f)
		}
	}
}

// TestMemoryIsBounded searches a log in which one transaction stays open, or
// is open for long, beside many others.
func TestMemoryIsBounded(t *testing.T) {
	for _, commits := range []bool{false, true} {
		var l fakeLog
		open := l.add(event.Leaf{Session: 2, Kind: event.KindQuery, Who: alice}, queryMsg("BEGIN"))
		l.add(event.Leaf{Session: 2, Kind: event.KindOutcome, Of: event.Ref(open), Tags: []string{"BEGIN"}, Tx: 'T'}, nil)
		const n = 3 * maxWaiting
		for i := range n {
			l.end(l.admit(event.KindQuery, queryMsg("SELECT 1")), done, nil)
			x := l.add(event.Leaf{Session: 2, Kind: event.KindQuery, Who: alice}, queryMsg("SELECT 2"))
			o := event.Leaf{Session: 2, Kind: event.KindOutcome, Of: event.Ref(x), Tags: []string{"SELECT 1"}, Tx: 'T'}
			if commits && i == n-1 {
				o.Tx, o.Committed, o.Since = 'I', 1, event.Ref(open)
			}
			l.add(o, nil)
		}
		for _, portion := range []int64{0, portionEntries} {
			m, err := (&Filter{}).compile()
			if err != nil {
				t.Fatal(err)
			}
			j := newJoiner(&l, m)
			j.portion = portion
			l.reads.Store(0)
			got := 0
			if err := j.search(context.Background(), &l, 0, int64(len(l.entries)), nil, &taker{statement: func(s *Statement) error {
				if got++; (s.Outcome.Committed == 1) != (commits || s.Session == 1) {
					t.Fatalf("statement %d: committed is %d", s.Index, s.Outcome.Committed)
				}
				return nil
			}}); err != nil {
				t.Fatal(err)
			}
			if got != 2*n+1 {
				t.Errorf("%d statements, want %d", got, 2*n+1)
			}
			if records := len(j.free) + len(j.fifo); records > maxWaiting+2 {
				t.Errorf("%d records were held, want at most %d", records, maxWaiting)
			}
			if max := 2 * len(l.entries); int(l.reads.Load()) > max {
				t.Errorf("%d entries read for %d, want one look ahead", l.reads.Load(), len(l.entries))
			}
		}
	}
}

// TestNothingWaitsForever holds that statements do not wait beyond their
// transaction even if it does not settle them, nor COPY data beyond its COPY.
func TestNothingWaitsForever(t *testing.T) {
	for name, fill := range map[string]func(l *fakeLog){
		"two-phase commit": func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("INSERT")), event.Leaf{Tags: []string{"INSERT 0 1"}, Tx: 'T'}, nil)
			l.end(l.admit(event.KindQuery, queryMsg("PREPARE TRANSACTION 'x'")), event.Leaf{Tags: []string{"PREPARE TRANSACTION"}, Tx: 'I'}, nil)
		},
		"COPY": func(l *fakeLog) {
			q := l.admit(event.KindQuery, queryMsg("COPY t FROM STDIN"))
			l.add(event.Leaf{Session: 1, Kind: event.KindCopy, Of: event.Ref(q), Facts: []event.Fact{{Key: "direction", Val: "in"}}}, nil)
			l.end(q, event.Leaf{Tags: []string{"COPY 1"}, Tx: 'I', Committed: 1}, nil)
		},
	} {
		var l fakeLog
		fill(&l)
		m, err := (&Filter{}).compile()
		if err != nil {
			t.Fatal(err)
		}
		j := newJoiner(&l, m)
		for _, e := range l.entries {
			if err := j.entry(&e); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if s, err := j.next(false); s == nil || err != nil {
				t.Errorf("%s: next = %v, %v, want a statement", name, s, err)
			}
		}
	}
}

// A prunedLog has lost its first entry, and counts who asks for a copy.
type prunedLog struct {
	*fakeLog
	asked int
}

func (l *prunedLog) Entry(i int64) (journal.Entry, error) {
	if i == 0 {
		return journal.Entry{}, fs.ErrNotExist
	}
	return l.fakeLog.Entry(i)
}

func (l *prunedLog) Copy(int64) (journal.Entry, error) {
	l.asked++
	return journal.Entry{}, fs.ErrNotExist
}

// TestPrunedIsRemembered: what is gone is looked for once, not for each execution.
func TestPrunedIsRemembered(t *testing.T) {
	l := &prunedLog{fakeLog: new(fakeLog)}
	d := newDecoder(l)
	for range 3 {
		if r, err := d.ref(event.Ref(0)); err != nil || r == nil || r.ok {
			t.Fatalf("ref of a pruned entry = %+v, %v, want one without a value", r, err)
		}
	}
	if l.asked != 1 {
		t.Errorf("a copy was asked for %d times, want once", l.asked)
	}
}

// TestRefsAreBounded runs through more prepared statements than are remembered.
func TestRefsAreBounded(t *testing.T) {
	var l fakeLog
	d := newDecoder(&l)
	text := strings.Repeat("x", 1<<20)
	for i := range 100 {
		p := l.admit(event.KindParse, parseFrame("s", text))
		for range 2 {
			r, err := d.ref(event.Ref(p))
			if err != nil || r.text != text {
				t.Fatalf("ref %d: %v", i, err)
			}
		}
	}
	if n := len(d.refs.young) + len(d.refs.old) + len(d.atHand); n > 40 {
		t.Errorf("%d statements of 2 MiB are remembered, want at most 2*%d bytes of them", n, maxRefs)
	}
	if r, err := d.ref(event.Ref(5000)); err != nil || r.ok {
		t.Errorf("ref of an entry that is not there = %+v, %v, want one without a value", r, err)
	}
}

func TestClone(t *testing.T) {
	s := &Statement{
		Params: []Param{{Raw: []byte("a")}}, Raw: []byte("b"), Copy: &Copy{SHA256: []byte("c")},
		Outcome: &Outcome{Tags: []string{"d"}},
	}
	c := s.Clone()
	want := s.AppendJSON(nil)
	s.Params[0].Raw[0], s.Raw[0], s.Copy.SHA256[0], s.Outcome.Tags[0] = 'x', 'x', 'x', "x"
	s.Outcome.Index, s.Copy.Bytes = 9, 9
	if got := c.AppendJSON(nil); !slices.Equal(got, want) {
		t.Errorf("the copy changed with its original: %s, want %s", got, want)
	}
}

// benchmarkLog is like a run of a prepared workload.
func benchmarkLog(n int) *fakeLog {
	l := &fakeLog{}
	p := l.admit(event.KindParse, parseFrame("s1", "SELECT abalance FROM pgbench_accounts WHERE aid = $1", 23))
	l.end(p, event.Leaf{}, nil)
	for i := range n {
		x := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(p), Msgs: []byte("BDES")},
			join(bindFrame("", "s1", []int{1}, be32(i)), msg('D', cstr("P")), executeFrame("", 0), msg('S')))
		l.end(x, event.Leaf{Msgs: []byte("2TDCZ"), Tags: []string{"SELECT 1"}, Rows: 1, Bytes: 57, Micros: 180, Tx: 'I', Committed: 1}, nil)
	}
	return l
}

func BenchmarkSearch(b *testing.B) {
	l := benchmarkLog(50_000)
	for _, bm := range []struct {
		name string
		f    Filter
	}{
		{"all", Filter{}},
		{"one user, none found", Filter{User: "bob"}},
		{"by text", Filter{Text: "nothing"}},
		{"slow ones", Filter{MinDuration: time.Second}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				if err := search(context.Background(), l, &bm.f, 0, int64(len(l.entries)), func(s *Statement) error {
					buf = s.AppendJSON(buf[:0])
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(len(l.entries))/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkScan(b *testing.B) {
	l := benchmarkLog(1)
	var v view
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range l.entries {
			if err := v.scan(e.Leaf); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	l := benchmarkLog(1)
	var v view
	if n := testing.AllocsPerRun(100, func() {
		for _, e := range l.entries {
			if v.scan(e.Leaf) != nil {
				t.Fatal("not a leaf")
			}
		}
	}); n != 0 {
		t.Errorf("scan allocates %v times, want 0", n)
	}
}

// FuzzScanner holds that a scanner tells of a leaf what scan does, whether it
// knows the session or not, and whatever else it knows of it.
func FuzzScanner(f *testing.F) {
	one := event.Leaf{Time: fakeStart, Session: 1, Seq: 2, Kind: event.KindQuery, Who: alice, Msgs: []byte("Q"), Size: 7, HasValue: true}
	two := one
	two.Who, two.Kind, two.Msgs = &event.Who{User: `a"b`, Client: "unix"}, event.KindAuth, nil
	end := event.Leaf{Time: fakeStart, Session: 1, Seq: 3, Kind: event.KindOutcome, Of: 3, Tags: []string{"A"}, Msgs: []byte("CZ"), Tx: 'I', Committed: 1}
	f.Add(one.Append(nil), two.Append(nil))
	f.Add(two.Append(nil), one.Append(nil))
	f.Add(end.Append(nil), one.Append(nil))
	f.Add([]byte(strings.ReplaceAll(string(one.Append(nil)), `"db":"app"`, `"user":"bob"`)), one.Append(nil))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var sc scanner
		for _, leaf := range [][]byte{one, two, one, two} {
			var got, want view
			gotErr, wantErr := sc.scan(&got, leaf), want.scan(leaf)
			if who := got.who; who != nil {
				if names := [4]string{unescape(want.user), unescape(want.db), unescape(want.app), unescape(want.client)}; who.names != names {
					t.Errorf("names in %s are %q, want %q", leaf, who.names, names)
				}
			}
			got.user, got.db, got.app, got.client = got.whose()
			got.who = nil
			if (gotErr == nil) != (wantErr == nil) || wantErr == nil && !reflect.DeepEqual(got, want) {
				t.Errorf("scan of %s is %+v, %v, want %+v, %v", leaf, got, gotErr, want, wantErr)
			}
		}
	})
}

// FuzzViewMoved holds that a view of a copy of a leaf is the one that scanning it gives.
func FuzzViewMoved(f *testing.F) {
	l := event.Leaf{
		Time: fakeStart, Session: 1, Seq: 2, Kind: event.KindOutcome, Who: alice, Of: 3, Types: []uint32{23, 25}, Tags: []string{"A", `B"`},
		SQLState: "23505", End: event.EndSkipped, Facts: []event.Fact{{Key: "a", Val: "b"}},
	}
	f.Add(l.Append(nil), 0, 0)
	f.Add(l.Append(nil), 7, 9)
	f.Fuzz(func(t *testing.T, leaf []byte, before, behind int) {
		before, behind = before&255, behind&255
		// It stands within a larger array, as one does in a bundle.
		room := append(append(make([]byte, before), leaf...), make([]byte, behind)...)
		leaf = room[before : before+len(leaf)]
		var v, want view
		if v.scan(leaf) != nil {
			return
		}
		to := append(make([]byte, 0, len(leaf)+behind), leaf...)
		got := v.moved(leaf, to)
		for i := range room {
			room[i] = '#'
		}
		if err := want.scan(to); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("moved: %+v, want %+v, %v", got, want, err)
		}
	})
}

// TestRenderAllocates holds that what is printed needs no memory of its own for each statement.
func TestRenderAllocates(t *testing.T) {
	const n = 2000
	l := benchmarkLog(0)
	for i := range n {
		q := l.add(event.Leaf{Session: 1, Kind: event.KindQuery, Who: alice, Msgs: []byte("Q")}, queryMsg(fmt.Sprint("SELECT a FROM t WHERE id = ", i)))
		l.end(q, event.Leaf{Msgs: []byte("CZ"), Tags: []string{"SELECT 1"}, Rows: 1, Bytes: 57, Micros: 180, Tx: 'I', Committed: 1}, nil)
	}
	var buf []byte
	got := testing.AllocsPerRun(2, func() {
		m, err := new(Filter).compile()
		if err != nil {
			t.Fatal(err)
		}
		j := newJoiner(l, m)
		j.dec.lend = true
		if err := j.search(t.Context(), l, 0, int64(len(l.entries)), nil, &taker{statement: func(s *Statement) error {
			buf = s.AppendJSON(buf[:0])
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
	})
	if got > n/10 {
		t.Errorf("%d statements took %.0f allocations, want a tenth of that at most", n, got)
	}
}
