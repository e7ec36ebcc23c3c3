package query

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgnotary/pgnotary/internal/event"
)

// TestSQLConditions selects by what texts and parameters say, in words as they
// come from flags and parameters.
func TestSQLConditions(t *testing.T) {
	var l fakeLog
	query := func(text string) { l.end(l.admit(event.KindQuery, queryMsg(text)), done, nil) }
	query("SELECT * FROM public.users WHERE id = 1")  // 0
	query("UPDATE Users SET a = 1; SELECT 1")         // 2
	query("select * from public.users where id = 22") // 4
	query("DO $$ BEGIN END $$")                       // 6
	query("FROBNICATE")                               // 8
	call := l.admit(event.KindFunctionCall, msg('F', be32(955), arguments([]int{1}, [][]byte{be32(3), []byte("hi")}), be16(1)))
	l.end(call, done, nil) // 10
	parse := l.admit(event.KindParse, parseFrame("s", "DELETE FROM audit.users WHERE id = $1 AND b = $2"))
	l.end(parse, event.Leaf{Types: []uint32{23, 25}}, nil) // 12
	e := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(parse)},
		join(bindFrame("", "s", []int{1, 0}, be32(42), []byte("bob")), executeFrame("", 0)))
	l.end(e, done, nil) // 14
	l.add(event.Leaf{Session: 1, Kind: event.KindDisconnect}, nil)
	fingerprint := ""
	for _, tt := range []struct {
		words string
		want  []int64
	}{
		{"class=READ", []int64{0, 2, 4}},
		{"class=write", []int64{2, 12, 14}},
		{"class=FUNCTION", []int64{6, 10}},
		{"class=UNKNOWN", []int64{6, 8}},
		{"class=DDL,ROLE", nil},
		{"class=WRITE&class=FUNCTION", []int64{2, 6, 10, 12, 14}},
		{"relation=public.users", []int64{0, 2, 4}},
		{"relation=USERS", []int64{0, 2, 4, 12, 14}},
		{`relation="USERS"`, nil},
		{"relation=audit.users&class=WRITE", []int64{2, 12, 14}},
		{"fingerprint=", []int64{0, 4}},
		{"param=42", []int64{14}},
		{"param=bob", []int64{14}},
		{"param=4", nil},
		{"param=hi", nil},
		{"param=3", []int64{10}},
		{"class=READ&text=public&limit=1", []int64{0}},
	} {
		words, err := url.ParseQuery(tt.words)
		if err != nil {
			t.Fatal(err)
		}
		if words.Has("fingerprint") {
			words.Set("fingerprint", strings.TrimPrefix(fingerprint, "sqlinfo1:"))
		}
		f, err := ParseFilter(words, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		err = search(context.Background(), &l, &f, 0, int64(len(l.entries)), func(s *Statement) error {
			got = append(got, s.Index)
			if s.Index == 0 && s.SQL() != nil {
				fingerprint = s.SQL().Fingerprint
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.words, d)
		}
	}
}

func TestSQLInJSON(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"SELECT * FROM b, a.c", `,"sql":{"engine":"sqlinfo1","class":["READ"],"relations":["a.c","b"],"fingerprint":"sqlinfo1:`},
		{"DO 'x'", `,"sql":{"engine":"sqlinfo1","class":["FUNCTION"],"fingerprint":"sqlinfo1:`},
		{"BOGUS", `,"sql":{"engine":"sqlinfo1","class":["UNKNOWN"],"fingerprint":"sqlinfo1:`},
		{"", `,"sql":{"engine":"sqlinfo1","class":["UNKNOWN"]}`},
	} {
		s := Statement{Text: tt.text, HasText: true}
		b := s.AppendJSON(nil)
		if !strings.Contains(string(b), tt.want) {
			t.Errorf("%s: %s, want %s", tt.text, b, tt.want)
		}
		if got := strings.Contains(string(b), `"complete":false`); got != (tt.text == "BOGUS" || tt.text == "DO 'x'") {
			t.Errorf("%s: %s", tt.text, b)
		}
		checkRead(t, b)
	}
}

func TestConditionErrors(t *testing.T) {
	for _, tt := range []struct{ words, want string }{
		{"class=SELECT", `unknown class "SELECT"`},
		{"relation=a b", `"a b" is not the name of a relation`},
		{"usr=alice", "usr: there is no such condition"},
		{"user=alice&user=bob", "user: is given twice"},
		{"min-duration=-1s", "min-duration: -1s is below 0"},
		{"since=-5m", "since: -5m would be in the future: a duration counts back from now as it is"},
		{"client=10.0.0.0/33", `client: "10.0.0.0/33" is not a network such as 10.0.0.0/8`},
		{"client=10.0.0/24", `client: "10.0.0/24" is not a network such as 10.0.0.0/8`},
		{"sqlstate=42P011", `sqlstate: "42P011" is not a code such as 42P01, nor the beginning of one, nor any`},
		{"sqlstate=22%25", `sqlstate: "22%" is not a code such as 42P01, nor the beginning of one, nor any`},
		{"limit=many", `limit: "many" is not a number from 0 on`},
	} {
		words, err := url.ParseQuery(tt.words)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFilter(words, time.Now()); err == nil || err.Error() != tt.want {
			t.Errorf("ParseFilter(%s) = %v, want %s", tt.words, err, tt.want)
		}
	}
	if f, err := ParseFilter(url.Values{"sqlstate": {"42p01"}}, time.Now()); err != nil || f.SQLState != "42P01" {
		t.Errorf("sqlstate=42p01 selects %q, %v, want 42P01", f.SQLState, err)
	}
}
