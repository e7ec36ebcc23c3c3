package query

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// A randomSession behaves like a session: outcomes come in order, and each
// transaction is settled by an outcome or a settle entry, unless the session
// or the proxy dies first.
type randomSession struct {
	id      uint64
	who     *event.Who
	open    []int64 // admissions without an outcome
	kinds   []event.Kind
	work    []int64 // admissions since the last settlement
	parses  []int64
	pending bool // an outcome without a status came last
}

// A truth is what the generator knows of an admission.
type truth struct {
	outcome   int64
	committed int8
	own, late bool // an error of its outcome, and one behind it
}

type randomLog struct {
	fakeLog
	sessions []*randomSession
	truth    map[int64]*truth
}

func drawLog(t *rapid.T) *randomLog {
	l := &randomLog{truth: make(map[int64]*truth)}
	users := []string{"alice", "bob", `a"b`}
	for i := range rapid.IntRange(1, 4).Draw(t, "sessions") {
		l.sessions = append(l.sessions, &randomSession{id: uint64(i+1) << 60, who: &event.Who{
			User: users[i%3], Database: "app", Application: fmt.Sprint("app", i%2), Client: fmt.Sprintf("10.0.%d.1:5", i),
		}})
	}
	for range rapid.IntRange(0, 80).Draw(t, "steps") {
		s := rapid.SampledFrom(l.sessions).Draw(t, "session")
		l.now += rapid.Int64Range(0, 5e6).Draw(t, "pause")
		switch op := rapid.IntRange(0, 99).Draw(t, "op"); {
		case op < 50:
			l.admission(t, s)
		case op < 95:
			l.conclusion(t, s)
		case op < 98:
			l.add(event.Leaf{Session: s.id, Kind: event.KindDisconnect}, nil)
			s.reset()
		default:
			l.add(event.Leaf{Kind: event.KindStart}, nil)
			for _, s := range l.sessions {
				s.reset()
			}
		}
	}
	l.blobs = make(map[[16]byte][]byte)
	for i := range l.entries {
		if e := &l.entries[i]; e.Value != nil && rapid.IntRange(0, 9).Draw(t, "blob") == 9 {
			ref := &journal.BlobRef{ID: [16]byte{byte(i), byte(i >> 8)}, Size: int64(len(e.Value))}
			l.blobs[ref.ID], e.Value, e.Blob = e.Value, nil, ref
		}
	}
	return l
}

func (s *randomSession) reset() { *s = randomSession{id: s.id, who: s.who} }

func (l *randomLog) admission(t *rapid.T, s *randomSession) {
	leaf := event.Leaf{Session: s.id, Who: s.who}
	text := rapid.SampledFrom([]string{"SELECT 1", "select 'x'", "DROP TABLE t"}).Draw(t, "text")
	var value []byte
	switch op := rapid.IntRange(0, 9).Draw(t, "kind"); {
	case op < 4:
		leaf.Kind, value = event.KindQuery, queryMsg(text)
	case op < 5:
		leaf.Kind, value = event.KindParse, parseFrame("s", text)
	case op < 6:
		leaf.Kind, value = event.KindBind, join(parseFrame("", text), drawBind(t, ""))
	case op < 7 && len(s.parses) > 0:
		leaf.Kind, leaf.Parse = event.KindExecute, event.Ref(rapid.SampledFrom(s.parses).Draw(t, "parse"))
		value = join(drawBind(t, "s"), executeFrame("", 0))
	case op < 8:
		leaf.Kind, value = event.KindExecute, join(parseFrame("", text), drawBind(t, ""), executeFrame("", 0))
	case op < 9 && len(s.open) > 0 && s.kinds[len(s.kinds)-1] == event.KindQuery:
		leaf.Kind, leaf.Of = event.KindCopy, event.Ref(s.open[len(s.open)-1])
		leaf.Facts = []event.Fact{{Key: "direction", Val: "in"}}
	default:
		leaf.Kind = event.KindNotice
		l.add(leaf, nil)
		return
	}
	i := l.add(leaf, value)
	l.truth[i] = &truth{outcome: -1}
	s.open, s.kinds = append(s.open, i), append(s.kinds, leaf.Kind)
	if leaf.Kind != event.KindCopy {
		s.work = append(s.work, i)
	}
	if leaf.Kind == event.KindParse {
		s.parses = append(s.parses, i)
	}
}

// drawBind binds some parameters, as text or in binary: whether these are
// numbers is for the Parse to say, or an outcome, or nobody.
func drawBind(t *rapid.T, statement string) []byte {
	var formats []int
	var params [][]byte
	for range rapid.IntRange(0, 2).Draw(t, "params") {
		switch rapid.IntRange(0, 3).Draw(t, "param") {
		case 0:
			formats, params = append(formats, 0), append(params, []byte("1"))
		case 1:
			formats, params = append(formats, 0), append(params, []byte("2"))
		case 2:
			formats, params = append(formats, 1), append(params, []byte{0, 0, 0, 1})
		case 3:
			formats, params = append(formats, 0), append(params, nil)
		}
	}
	return bindFrame("", statement, formats, params...)
}

// conclusion adds the outcome of the session's oldest open admission, or a
// settlement.
func (l *randomLog) conclusion(t *rapid.T, s *randomSession) {
	if len(s.open) == 0 {
		if len(s.work) > 0 && rapid.IntRange(0, 3).Draw(t, "late") == 0 { // as at a Sync, before its ReadyForQuery
			last := s.work[len(s.work)-1]
			l.add(event.Leaf{Session: s.id, Kind: event.KindSettle, Of: event.Ref(last), SQLState: "23503"}, errorFrame("23503", "late"))
			l.truth[last].late = true
			return
		}
		if s.pending && len(s.work) > 0 {
			s.pending = false
			last := s.work[len(s.work)-1]
			e := event.Leaf{Session: s.id, Kind: event.KindSettle, Tx: 'I', Of: event.Ref(last)}
			if rapid.Bool().Draw(t, "failed") {
				e.SQLState, l.truth[last].late = "42P01", true
			}
			l.settle(t, s, &e)
			l.add(e, nil)
		}
		return
	}
	of, kind := s.open[0], s.kinds[0]
	s.open, s.kinds = s.open[1:], s.kinds[1:]
	o := event.Leaf{Session: s.id, Kind: event.KindOutcome, Of: event.Ref(of)}
	if kind == event.KindCopy {
		o.End = event.EndDiscarded
		l.truth[of].outcome = l.add(o, nil)
		return
	}
	o.Micros = rapid.Int64Range(0, 3000).Draw(t, "us")
	if kind != event.KindQuery && rapid.IntRange(0, 3).Draw(t, "typed") == 0 {
		o.Types = []uint32{23, 23}
	}
	switch rapid.IntRange(0, 5).Draw(t, "end") {
	case 0:
		o.SQLState = rapid.SampledFrom([]string{"23505", "23503", "42P01"}).Draw(t, "sqlstate")
		l.truth[of].own = true
	case 1:
		o.End = event.EndSkipped
	default:
		o.Tags = []string{"OK"}
	}
	if o.SQLState == "" { // the data was read, if there was a COPY
		for len(s.open) > 0 && s.kinds[0] == event.KindCopy {
			s.open, s.kinds = s.open[1:], s.kinds[1:]
		}
	}
	s.pending = false
	switch tx := rapid.IntRange(0, 4).Draw(t, "tx"); {
	case tx == 0:
		o.Tx = 'T'
	case tx == 1 && len(s.open) == 0:
		s.pending = true
	case tx == 2: // a COMMIT in the middle
		o.Committed, o.Since = 1, event.Ref(s.work[0])
		for len(s.work) > 0 && s.work[0] <= of {
			l.truth[s.work[0]].committed = 1
			s.work = s.work[1:]
		}
	case len(s.open) == 0:
		o.Tx = 'I'
		l.settle(t, s, &o)
	}
	l.truth[of].outcome = l.add(o, nil)
}

// settle ends a session's transaction: all of it is settled, or what came
// after a ROLLBACK TO SAVEPOINT, or nothing.
func (l *randomLog) settle(t *rapid.T, s *randomSession, e *event.Leaf) {
	committed := rapid.SampledFrom([]int8{-1, 1, 0}).Draw(t, "committed")
	since := rapid.SampledFrom(s.work).Draw(t, "since")
	if e.Committed = committed; committed != 0 {
		e.Since = event.Ref(since)
	}
	for _, i := range s.work {
		if i >= since {
			l.truth[i].committed = committed
		}
	}
	s.work = nil
}

// everything returns all statements, Bind messages on their own included,
// found with room for limit statements to wait, by helpers if portion is not 0.
func (l *randomLog) everything(t *rapid.T, limit int, portion int64) (out []*Statement) {
	m, err := (&Filter{everyBind: true}).compile()
	if err != nil {
		t.Fatal(err)
	}
	j := newJoiner(l, m)
	j.limit, j.portion, j.after = limit, portion, 0
	if err := j.search(context.Background(), l, 0, int64(len(l.entries)), nil, &taker{statement: func(s *Statement) error {
		out = append(out, s.Clone())
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestJoinAgainstTruth holds the joins to what the generator knows, however
// few statements may wait.
func TestJoinAgainstTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLog(t)
		portion := rapid.Int64Range(0, 30).Draw(t, "portion")
		for _, limit := range []int{1 << 20, rapid.IntRange(0, 5).Draw(t, "limit")} {
			n := 0
			for _, s := range l.everything(t, limit, portion) {
				want := l.truth[s.Index]
				if want == nil {
					continue
				}
				n++
				switch {
				case want.outcome < 0:
					if s.Outcome != nil {
						t.Errorf("limit %d: statement %d has outcome %d, want none", limit, s.Index, s.Outcome.Index)
					}
				case s.Outcome == nil || s.Outcome.Index != want.outcome:
					t.Errorf("limit %d: statement %d has outcome %+v, want %d", limit, s.Index, s.Outcome, want.outcome)
				case (s.Outcome.Error != nil) != (want.own || want.late && want.committed < 0 && settles(s.Kind) && !s.Outcome.Skipped):
					t.Errorf("limit %d: statement %d has error %+v, want one: %+v", limit, s.Index, s.Outcome.Error, want)
				case settles(s.Kind) && !s.Outcome.Skipped && s.Outcome.Committed != want.committed:
					t.Errorf("limit %d: statement %d has committed %d, want %d", limit, s.Index, s.Outcome.Committed, want.committed)
				}
			}
			if n != len(l.truth) {
				t.Errorf("limit %d: %d statements, want %d", limit, n, len(l.truth))
			}
		}
	})
}

func drawFilter(t *rapid.T) (f Filter) {
	pick := func(name string, from ...string) string {
		return rapid.SampledFrom(append(from, "", "", "")).Draw(t, name)
	}
	f.User = pick("user", "alice", `a"b`)
	f.Database = pick("db", "app", "other")
	f.Application = pick("app", "app0")
	f.Client = pick("client", "10.0.1.1", "10.0.0.0/23", "10.0.2.1:5")
	f.Session = pick("session", "1", "3000000000000000", "2")
	if k := pick("kind", "query", "execute,parse", "bind", "notice"); k != "" {
		f.Kinds = strings.Split(k, ",")
	}
	f.Text = pick("text", "SELECT", "t")
	if r := pick("regex", "(?i)select", "^DROP"); r != "" {
		f.Regexp = regexp.MustCompile(r)
	}
	f.SQLState = pick("sqlstate", "23", "42P01")
	f.MinDuration = time.Duration(rapid.SampledFrom([]int64{0, 0, 0, 1, 1500}).Draw(t, "min")) * time.Microsecond
	if rapid.Bool().Draw(t, "since") {
		f.Since = time.Unix(0, fakeStart+rapid.Int64Range(0, 2e8).Draw(t, "sinceAt"))
	}
	if rapid.Bool().Draw(t, "until") {
		f.Until = time.Unix(0, fakeStart+rapid.Int64Range(0, 2e8).Draw(t, "untilAt"))
	}
	f.From = rapid.Int64Range(0, 20).Draw(t, "from")
	f.End = rapid.SampledFrom([]int64{0, 0, 1, 15, 1000}).Draw(t, "end")
	f.Limit = rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "limit")
	return f
}

// naive says whether a statement, joined already, is selected by f.
func (f *Filter) naive(s *Statement) bool {
	us, ended := s.Duration()
	hidden := s.Kind == event.KindBind && len(f.Kinds) == 0 && s.SQLState() == ""
	host, _, _ := strings.Cut(s.Client, ":")
	session := fmt.Sprintf("%016x", s.Session)
	return !hidden &&
		(f.User == "" || s.User == f.User) && (f.Database == "" || s.Database == f.Database) &&
		(f.Application == "" || s.Application == f.Application) &&
		(f.Client == "" || f.Client == host || f.Client == s.Client || f.Client == "10.0.0.0/23" && (host == "10.0.0.1" || host == "10.0.1.1")) &&
		strings.HasPrefix(session, f.Session) &&
		(len(f.Kinds) == 0 || slices.Contains(f.Kinds, string(s.Kind))) &&
		(f.Text == "" || strings.Contains(s.Text, f.Text)) && (f.Regexp == nil || s.HasText && f.Regexp.MatchString(s.Text)) &&
		(f.SQLState == "" || strings.HasPrefix(s.SQLState(), f.SQLState)) &&
		(f.MinDuration == 0 || ended && us >= f.MinDuration.Microseconds()) &&
		(f.Since.IsZero() || s.Time >= f.Since.UnixNano()) && (f.Until.IsZero() || s.Time <= f.Until.UnixNano()) &&
		s.Index >= f.From && (f.End == 0 || s.Index < f.End)
}

func TestSearchAgainstNaiveFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLog(t)
		f := drawFilter(t)
		want := []string{}
		for _, s := range l.everything(t, 1<<20, 0) {
			if f.naive(s) && (f.Limit == 0 || len(want) < f.Limit) {
				want = append(want, string(s.AppendJSON(nil)))
			}
		}
		m, err := f.compile()
		if err != nil {
			t.Fatal(err)
		}
		j := newJoiner(l, m)
		j.limit = rapid.IntRange(0, 5).Draw(t, "waiting")
		j.portion, j.after = rapid.Int64Range(0, 30).Draw(t, "portion"), 0
		got := []string{}
		take := &taker{statement: func(s *Statement) error {
			got = append(got, string(s.AppendJSON(nil)))
			return nil
		}}
		if rapid.Bool().Draw(t, "render") {
			take.render = func(dst []byte, s *Statement) ([]byte, error) { return append(s.AppendJSON(dst), '\n'), nil }
			take.rendered = func(b []byte) error {
				for line := range bytes.Lines(b) {
					got = append(got, string(bytes.TrimSuffix(line, []byte("\n"))))
				}
				return nil
			}
		}
		if err := j.search(context.Background(), l, f.From, int64(len(l.entries)), nil, take); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("search(%+v) differs (-want +got):\n%s", f, d)
		}
	})
}

// TestSearchLateError selects by errors that came behind a statement, in search and tail.
func TestSearchLateError(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{})
	for i, committed := range []int8{-1, 1} {
		q := w.emit(event.Leaf{Session: 1, Kind: event.KindQuery, Who: alice}, queryMsg(fmt.Sprint("INSERT ", i)))
		w.emit(event.Leaf{Session: 1, Kind: event.KindOutcome, Of: event.Ref(q), Tags: []string{"INSERT 0 1"}}, nil)
		w.emit(event.Leaf{Session: 1, Kind: event.KindSettle, Of: event.Ref(q), SQLState: "23503"}, errorFrame("23503", "no parent"))
		w.emit(event.Leaf{Session: 1, Kind: event.KindSettle, Of: event.Ref(q), Since: event.Ref(q), Committed: committed, Tx: 'I'}, nil)
	}
	w.close()
	l := openLog(t, dir)
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range map[string]int{"23": 1, "42": 0} {
		f := Filter{SQLState: state, End: size}
		var tailed int
		if err := l.Tail(t.Context(), 0, f, func(*Statement) error { tailed++; return nil }); err != nil {
			t.Fatal(err)
		}
		if found := texts(t, l, f); len(found) != want || tailed != want {
			t.Errorf("statements that failed with %s: search %q, tail %d, want %d", state, found, tailed, want)
		}
	}
}
