package event

import (
	"bytes"
	"encoding/base64"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var full = Leaf{
	Time:    time.Date(2026, 11, 22, 20, 0, 0, 123456789, time.UTC).UnixNano(),
	Session: 0x9f86d081884c7d65, Seq: 7, Kind: KindExecute,
	Who:  &Who{User: `al"ice`, Database: "app", Application: "psql\n\x7f", Client: "127.0.0.1:5"},
	Msgs: []byte("PBDES"), Of: Ref(0), Parse: Ref(4), Bind: Ref(9), Types: []uint32{23, 4294967295},
	Tags: []string{"SELECT 1", ""}, Rows: 3, Bytes: 90, Micros: 180, Tx: 'T', Committed: -1, Since: Ref(2),
	End: EndSuspended, SQLState: "42P01", Facts: []Fact{{"a", "b"}, {"ü", ""}}, Size: 12, HasValue: true,
}

func TestAppendParse(t *testing.T) {
	for _, tt := range []struct {
		name string
		leaf Leaf
		want string
	}{
		{"least", Leaf{Kind: KindStart}, `{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start"}`},
		{"full", full, `{"v":1,"t":"2026-11-22T20:00:00.123456789Z","s":"9f86d081884c7d65","n":7,"k":"execute",` +
			`"user":"al\"ice","db":"app","app":"psql\u000a\u007f","client":"127.0.0.1:5","m":"PBDES","of":0,"parse":4,"bind":9,` +
			`"types":[23,4294967295],"tags":["SELECT 1",""],"rows":3,"bytes":90,"us":180,"tx":"T","committed":false,"since":2,` +
			`"end":"suspended","sqlstate":"42P01","facts":{"a":"b","ü":""},"size":12,"c":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.leaf.Append(nil)
			if string(got) != tt.want {
				t.Errorf("Append = %s\nwant     %s", got, tt.want)
			}
			back, err := Parse(got)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.leaf, back, cmpopts.IgnoreUnexported(Who{})); d != "" {
				t.Errorf("Parse(Append(leaf)) differs (-want +got):\n%s", d)
			}
		})
	}
}

func TestPutCommitment(t *testing.T) {
	b := full.Append(nil)
	c := [32]byte{1, 2, 3}
	if !PutCommitment(b, &c) {
		t.Fatal("PutCommitment = false, want true")
	}
	l, err := Parse(b)
	if err != nil || l.Commitment != c {
		t.Errorf("Parse = %x, %v, want %x", l.Commitment, err, c)
	}
	if PutCommitment((&Leaf{Kind: KindStart}).Append(nil), &c) {
		t.Error("PutCommitment on a leaf without a value = true, want false")
	}
}

func TestStringsAreBounded(t *testing.T) {
	long := strings.Repeat("\x00", 1<<20)
	l := Leaf{
		Kind: KindConnect, Who: &Who{User: long, Database: long, Application: long, Client: long}, SQLState: long,
		Msgs: []byte(strings.Repeat("S", 1<<20)), Facts: []Fact{{long, long}},
	}
	if b := l.Append(nil); len(b) > MaxLeaf {
		t.Errorf("leaf is %d bytes, want at most %d", len(b), MaxLeaf)
	} else if _, err := Parse(b); err != nil {
		t.Error(err)
	}
}

// Whatever a peer makes a leaf hold, the ledger takes it.
func TestLeafIsBounded(t *testing.T) {
	ugly := strings.Repeat("\x01", 1000)
	l := Leaf{Time: 1, Session: 1, Seq: 1, Kind: KindSettle, Who: &Who{User: ugly, Database: ugly, Application: ugly, Client: ugly}, Msgs: bytes.Repeat([]byte("Z"), maxLetters), SQLState: ugly, HasValue: true, Size: 1 << 40}
	for range 1000 {
		l.Types = append(l.Types, 1<<32-1)
		l.Tags = append(l.Tags, ugly)
		l.Facts = append(l.Facts, Fact{ugly, ugly})
	}
	for _, all := range []Leaf{l, {Kind: KindOutcome, Facts: l.Facts}, {Kind: KindOutcome, Tags: l.Tags, HasValue: true}} {
		b := all.Append(nil)
		if _, err := Parse(b); err != nil || len(b) > MaxLeaf || len(b) < MaxLeaf/2 {
			t.Errorf("%d bytes, %v; want at most %d", len(b), err, MaxLeaf)
		}
	}
}

func TestParseRejects(t *testing.T) {
	for _, s := range []string{
		"", "{}", `{"v":2,"t":"1970-01-01T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start"} `,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"nonsense"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","n":0,"k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","n":01,"k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","s":"9f86d081884c7d65","n":3,"k":"outcome","of":1}`,
		`{"v":1,"t":"1970-13-01T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-02-29T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1900-02-29T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-04-31T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-00-01T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-00T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:60:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:60.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01 00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00,000000000Z","k":"start"}`,
		`{"v":1,"t":"2262-04-11T23:47:16.854775808Z","k":"start"}`,
		`{"v":1,"t":"2262-04-11T23:47:17.000000000Z","k":"start"}`,
		`{"v":1,"t":"1677-09-21T00:12:43.145224191Z","k":"start"}`,
		`{"v":1,"t":"1677-09-21T00:12:42.999999999Z","k":"start"}`,
		`{"v":1,"t":"0000-01-01T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01T24:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.00000000ZZ","k":"start"}`,
		`{"v":1,"t":"9999-01-01T00:00:00.000000000Z","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","s":"0000000000000000","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","s":"9F86d081884c7d65","k":"start"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","user":""}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","user":"\u001F"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","of":9223372036854775807}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","rows":9223372036854775808}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","types":[4294967296]}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","m":"\u0041"}`,
		`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","c":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB="}`,
	} {
		if _, err := Parse([]byte(s)); err == nil {
			t.Errorf("Parse(%q) succeeded, want an error", s)
		}
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 4096)
	l := full
	l.Append(buf)
	if n := testing.AllocsPerRun(100, func() { l.Append(buf[:0]) }); n != 0 {
		t.Errorf("Append allocates %v times, want 0", n)
	}
}

func TestSkimDoesNotAllocate(t *testing.T) {
	b := full.Append(nil)
	var l Leaf
	if n := testing.AllocsPerRun(100, func() {
		if err := Skim(b, &l); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Skim allocates %v times, want 0", n)
	}
	other := full
	other.Session, other.Time = full.Session+1, full.Time+2e9
	var (
		s Skimmer
		f Skimmed
		p Promise
	)
	leaves, i := [][]byte{b, other.Append(nil)}, 0
	if n := testing.AllocsPerRun(100, func() {
		i++
		if err := s.Skim(leaves[i%2], &f, &p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Skimmer.Skim allocates %v times, want 0", n)
	}
}

// FuzzCommitment compares with the strict decoder of the standard library.
func FuzzCommitment(f *testing.F) {
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=")
	f.Add("0123456789+/abcdefghijklmnopqrstuvwxyzABCDE=")
	f.Add("AAAA\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) != CommitmentLen {
			return
		}
		want, err := base64.StdEncoding.Strict().DecodeString(s)
		var got [32]byte
		d := decoder{b: []byte(s)}
		if d.commitment(&got); (d.err == nil) != (err == nil && len(want) == 32) {
			t.Fatalf("commitment %q: %v, the standard library says %v", s, d.err, err)
		}
		if d.err == nil && string(got[:]) != string(want) {
			t.Errorf("commitment %q = %x, want %x", s, got, want)
		}
	})
}

func TestParseTimeIsRFC3339(t *testing.T) {
	for _, n := range []int64{
		0, -1, 1, math.MaxInt64, math.MinInt64, math.MaxInt64 - 854775807, math.MaxInt64 - 854775808,
		math.MinInt64 + 854775807, math.MinInt64 + 854775808, math.MinInt64 + 854775809, 951782400e9, 951868800e9 - 1, 4107542400e9,
	} {
		l := Leaf{Time: n, Kind: KindStart}
		if got, err := Parse(l.Append(nil)); err != nil || got.Time != n {
			t.Errorf("Parse of time %d = %d, %v", n, got.Time, err)
		}
	}
	for day := time.Date(1899, 12, 31, 23, 59, 59, 999999999, time.UTC); day.Year() < 2101; day = day.AddDate(0, 0, 1) {
		l := Leaf{Time: day.UnixNano(), Kind: KindStart}
		if got, err := Parse(l.Append(nil)); err != nil || got.Time != l.Time {
			t.Fatalf("Parse of time %s = %d, %v, want %d", day, got.Time, err, l.Time)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(full.Append(nil))
	f.Add([]byte(`{"v":1,"t":"1970-01-01T00:00:00.000000000Z","k":"start","m":"\u0000é"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		var skimmed Leaf
		if serr := Skim(b, &skimmed); (err == nil) != (serr == nil) {
			t.Fatalf("Skim(%q) = %v, Parse says %v", b, serr, err)
		}
		if err != nil {
			return
		}
		numbers := l
		numbers.Who, numbers.Msgs, numbers.Types, numbers.Tags, numbers.SQLState, numbers.Facts = nil, nil, nil, nil, "", nil
		if d := cmp.Diff(numbers, skimmed); d != "" {
			t.Errorf("Skim(%q) differs from Parse:\n%s", b, d)
		}
		if parse, bind := References(b); max(l.Parse, l.Bind) <= 1e18 && l.Kind != KindOutcome && (parse != l.Parse || bind != l.Bind) {
			t.Errorf("References(%q) = %d, %d, Parse says %d, %d", b, parse, bind, l.Parse, l.Bind)
		}
		got := l.Append(nil)
		if l.HasValue {
			PutCommitment(got, &l.Commitment)
		}
		// A decoded string may be longer than the encoder would write; then
		// only the length differs, and the next round is stable.
		if string(got) != string(b) && len(got) >= len(b) {
			t.Errorf("Parse then Append = %q, want %q", got, b)
		}
	})
}

func TestAppendTimeIsRFC3339(t *testing.T) {
	check := func(n int64) {
		want := time.Unix(0, n).UTC().Format("2006-01-02T15:04:05.000000000Z")
		if got := string(AppendTime(nil, n)); got != want {
			t.Fatalf("AppendTime(%d) = %s, want %s", n, got, want)
		}
	}
	for _, n := range []int64{0, -1, 1, 1e9, -1e9, math.MaxInt64, math.MinInt64, 951782400e9, 951868800e9 - 1} {
		check(n)
	}
	for day := time.Date(1899, 12, 31, 23, 59, 59, 999999999, time.UTC); day.Year() < 2101; day = day.AddDate(0, 0, 1) {
		check(day.UnixNano())
		check(day.UnixNano() + 1)
	}
}

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, 4096)
	l := full
	b.ReportAllocs()
	for b.Loop() {
		l.Append(buf[:0])
	}
}

func BenchmarkParse(b *testing.B) {
	buf := full.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSkim(b *testing.B) {
	buf := full.Append(nil)
	var l Leaf
	b.ReportAllocs()
	for b.Loop() {
		if err := Skim(buf, &l); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzSkimmer: a Skimmer that has seen other leaves says what Skim says.
func FuzzSkimmer(f *testing.F) {
	who := &Who{User: "alice", Database: "app", Application: "psql", Client: "127.0.0.1:1"}
	a := (&Leaf{Time: 1, Session: 1, Seq: 1, Kind: KindQuery, Who: who, Msgs: []byte("Q")}).Append(nil)
	b := (&Leaf{Time: 2, Session: 65, Seq: 1, Kind: KindQuery, Who: &Who{User: "alice", Database: "app", Client: "127.0.0.1:12"}}).Append(nil)
	f.Add(a, b)
	f.Add(b, a)
	f.Add(full.Append(nil), (&Leaf{Time: full.Time, Session: full.Session, Kind: KindOutcome, Msgs: []byte("CZ"), Of: Ref(1)}).Append(nil))
	f.Add((&Leaf{Time: 1, Kind: KindNotice, Msgs: []byte("N")}).Append(nil), a)
	outcome := (&Leaf{
		Time: 3, Session: 1, Kind: KindOutcome, Msgs: []byte("2TDCZ"), Of: Ref(0), Tags: []string{"SELECT 1", "INSERT 0 1"},
		Rows: 1, Bytes: 1 << 40, Micros: 7, Tx: 'I', Committed: -1, Since: Ref(12),
	}).Append(nil)
	f.Add(a, outcome)
	f.Add(outcome, (&Leaf{Time: 4, Session: 1, Seq: 2, Kind: KindExecute, Who: who, Msgs: []byte("PBDES"), Parse: Ref(7), Bind: Ref(123456789), Types: []uint32{25, 1 << 31}, Size: 9, HasValue: true}).Append(nil))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var s Skimmer
		heads := map[uint32]Leaf{}
		for _, b := range [][]byte{first, second, first, second} {
			var (
				l Leaf
				f Skimmed
				p Promise
			)
			gotErr, wantErr := s.Skim(b, &f, &p), Skim(b, &l)
			if (gotErr == nil) != (wantErr == nil) {
				t.Fatalf("Skim(%s) = %v, want %v", b, gotErr, wantErr)
			}
			if wantErr != nil {
				continue
			}
			if want := (Skimmed{l.Time, l.Session, l.Seq, l.Kind, l.Of, l.Parse, l.Bind, l.Since, l.End == EndDiscarded, f.Head}); f != want {
				t.Fatalf("Skim(%s) = %+v, want %+v", b, f, want)
			}
			if p.Size != l.Size || p.HasValue != l.HasValue || p.HasValue && p.Commitment != l.Commitment {
				t.Fatalf("Skim(%s) = %+v, want %+v", b, p, l)
			}
			if whole, err := Parse(b); err != nil {
				t.Fatal(err)
			} else if other, ok := heads[f.Head]; ok && f.Head != 0 && (other.Session != whole.Session || other.Kind != whole.Kind || !reflect.DeepEqual(other.Who, whole.Who)) {
				t.Fatalf("%s has the head of %+v", b, other)
			} else {
				heads[f.Head] = whole
			}
		}
	})
}

// TestSkimmerRefuses: no change of a byte, and no cut, of a leaf that is much
// like the one before gets past a Skimmer.
func TestSkimmerRefuses(t *testing.T) {
	who := &Who{User: "alice", Database: "app", Application: "psql", Client: "127.0.0.1:1"}
	for _, l := range []Leaf{
		{Time: 1e18, Session: 1 << 60, Seq: 1, Kind: KindExecute, Who: who, Msgs: []byte("BDES"), Parse: Ref(100), Bind: Ref(1), Types: []uint32{20}, Size: 59, HasValue: true},
		{Time: 1e18, Session: 1 << 60, Seq: 12345678, Kind: KindExecute, Who: who, Msgs: []byte("BDES"), Parse: Ref(100)},
		{Time: 1e18, Session: 1 << 60, Kind: KindOutcome, Msgs: []byte("CZ"), Of: Ref(10), Tags: []string{"INSERT 0 1", "BEGIN"}, Rows: 10, Bytes: 100, Micros: 1, Tx: 'T', Committed: 1, Since: Ref(2)},
	} {
		good := l.Append(nil)
		var (
			s    Skimmer
			f    Skimmed
			p    Promise
			want Leaf
		)
		remembers := func() {
			t.Helper()
			if err := s.Skim(good, &f, &p); err != nil {
				t.Fatal(err)
			}
			if !s.usual(good, &f, &p) || (f.Head == 0) != (l.Kind == KindOutcome) {
				t.Fatalf("%s is not remembered", good)
			}
		}
		check := func(b []byte) {
			t.Helper()
			remembers()
			if err, wantErr := s.Skim(b, &f, &p), Skim(b, &want); (err == nil) != (wantErr == nil) {
				t.Errorf("Skim(%s) = %v, want %v", b, err, wantErr)
			}
		}
		for i := range good {
			b := bytes.Clone(good)
			for _, c := range []byte("\x00 \"0159:,T=B\\]}\x80\xb9\xff") {
				b[i] = c
				check(b)
			}
			check(good[:i])
			check(append(bytes.Clone(good[:i]), good[i+1:]...))
			check(append(append(bytes.Clone(good[:i]), '0'), good[i:]...))
		}
	}
}
