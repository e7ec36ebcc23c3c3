package verb

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestOf(t *testing.T) {
	for _, tt := range []struct {
		text string
		kind Kind
		ends Ending
		name string // as it stands in the text
	}{
		{"", None, EndsNone, ""},
		{"select 1", None, EndsNone, ""},
		{"COMMIT", Commit, EndsNone, ""},
		{" End Transaction ;\n", Commit, EndsNone, ""},
		{"commit and chain", Commit, EndsNone, ""},
		{"commit work and no chain;;", Commit, EndsNone, ""},
		{"/* a */ -- b\n commit -- c", Commit, EndsNone, ""},
		{"commit prepared 'x'", None, EndsNone, ""},
		{"commit; select 1", None, EndsNone, ""},
		{"committed", None, EndsNone, ""},
		{"rollback\x00", Rollback, EndsNone, ""},
		{"abort work", Rollback, EndsNone, ""},
		{"rollback transaction and chain", Rollback, EndsNone, ""},
		{"rollback prepared 'x'", None, EndsNone, ""},
		{"rollback; insert", None, EndsNone, ""},
		{"rollback /* /* */ */", None, EndsNone, ""},
		{"/*/ commit", None, EndsAny, ""},
		{"/*/*/ commit", None, EndsAny, ""},
		{"/**/commit", Commit, EndsNone, ""},
		{"rollback to a", RollbackTo, EndsNone, ""},
		{"rollback work to savepoint a", RollbackTo, EndsNone, ""},
		{"rollback to a; rollback", None, EndsNone, ""},
		{"savepoint a", Savepoint, EndsNone, ""},
		{"savepoint é", None, EndsNone, ""},
		{"savepoint U&\"a\"", None, EndsNone, ""},
		{"release a", Release, EndsNone, ""},
		{"release savepoint a ;", Release, EndsNone, ""},
		{"prepare s as select 1", Prepare, EndsNone, "s"},
		{"PREPARE \"S s\" (int) AS SELECT $1", Prepare, EndsNone, `"S s"`},
		{"prepare transaction 'x'", TwoPhase, EndsNone, ""},
		{"prepare s as select 1; select 2", None, EndsNone, ""},
		{"execute s(4)", Execute, EndsNone, "s"},
		{"deallocate s", Deallocate, EndsNone, "s"},
		{"deallocate prepare s;", Deallocate, EndsNone, "s"},
		{"deallocate all", None, EndsNone, ""},
		{"deallocate a b", None, EndsNone, ""},
		{"declare c cursor for select 1", Declare, EndsNone, "c"},
		{"fetch forward 7 from \"c\"", Fetch, EndsNone, `"c"`},
		{"fetch -1 in c", Fetch, EndsNone, "c"},
		{"fetch c", Fetch, EndsNone, "c"},
		{"move all c", Fetch, EndsNone, "c"},
		{"fetch c; commit", None, EndsNone, ""},
		{"call p()", None, EndsAny, ""},
		{"select 1; call p()", None, EndsAny, ""},
		{"-- a\ncall p()", None, EndsAny, ""},
		{"/* /* */ */ select", None, EndsAny, ""},
		{"do $$ begin commit; end $$", None, EndsCommit, ""},
		{"do $$ begin RollBack; end $$", None, EndsAny, ""},
	} {
		v, name := Of([]byte(tt.text))
		if v.Kind != tt.kind || v.Ends != tt.ends || string(name) != tt.name && tt.name != "" {
			t.Errorf("Of(%q) = %+v, %q, want kind %d, ends %d, name %q", tt.text, v, name, tt.kind, tt.ends, tt.name)
		}
	}
}

func TestNames(t *testing.T) {
	of := func(text string) uint32 {
		v, _ := Of([]byte(text))
		return v.Name
	}
	a := of("savepoint a")
	for _, same := range []string{"SAVEPOINT A", `savepoint "a";`, "release a", "rollback to savepoint A"} {
		if of(same) != a || a == 0 {
			t.Errorf("%s: %d, want %d", same, of(same), a)
		}
	}
	for _, other := range []string{`savepoint "A"`, "savepoint b", `savepoint "a "`} {
		if of(other) == a {
			t.Errorf("%s means the same as a", other)
		}
	}
	long := string(bytes.Repeat([]byte("x"), 64))
	for text, want := range map[string]string{"Ab$1": "ab$1", `"Ab"`: "Ab", `"a""b"`: "", "": "", long: "", long[1:]: long[1:], `"` + long + `"`: ""} {
		got, ok := Fold(nil, []byte(text))
		if ok != (want != "") || ok && string(got) != want {
			t.Errorf("Fold(%q) = %q, %v, want %q", text, got, ok, want)
		}
	}
}

func TestAllocs(t *testing.T) {
	text := []byte("rollback to savepoint a")
	if n := testing.AllocsPerRun(100, func() { Of(text) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// Whatever is put behind a text, it does not become another verb than None.
func FuzzOf(f *testing.F) {
	for _, text := range []string{"commit", "rollback to a", "savepoint \"a\"", "release a", "fetch 1 from a", "deallocate a", "prepare a as select 1", "/* */ end"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, name := Of(text)
		if !bytes.Contains(text, name) {
			t.Errorf("Of(%q) has the name %q", text, name)
		}
		if bytes.IndexByte(text, 0) >= 0 || v.Kind == None {
			return
		}
		if two, _ := Of(append(append([]byte{}, text...), "\n; select 1"...)); two.Kind != None {
			t.Errorf("Of(%q) = %+v, with another statement %+v", text, v, two)
		}
	})
}

func TestNamesIn(t *testing.T) {
	frame := func(typ, body string) string {
		return typ + string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))) + body
	}
	p, b, e := frame("P", "\x00SELECT 1\x00\x00\x00"), frame("B", "\x00\x00"), frame("E", "\x00\x00\x00\x00\x00")
	for _, tt := range []struct {
		frames string
		want   Names
	}{
		{"", Names{}},
		{"P", Names{}},
		{"P\x00\x00\x00\x00", Names{}},
		{frame("P", ""), Names{}},
		{"?", Names{}},
		{p, Names{Statement: true}},
		{b, Names{Portal: true}},
		{p + b + e + frame("S", ""), Names{Statement: true, Portal: true}},
		{frame("P", "s\x00SELECT 1\x00\x00\x00") + b + e, Names{Lasting: true, Portal: true}},
		{p + frame("D", "S\x00") + frame("B", "c\x00\x00") + e, Names{Lasting: true, Statement: true}},
		{frame("P", "a name that is cu")[:12], Names{Lasting: true}},
		{frame("Q", "SELECT 1\x00"), Names{}},
		{frame("Q", "PREPARE s AS SELECT 1\x00"), Names{Lasting: true}},
		{frame("Q", "PREPARE s AS SELECT 1, 2, 3, 4, 5\x00")[:25], Names{Lasting: true}},
		{frame("Q", "declare c cursor for SELECT 1\x00"), Names{Lasting: true}},
		{frame("Q", "PREPARE TRANSACTION 'x'\x00"), Names{}},
		{frame("F", "PREPARE s AS SELECT 1\x00"), Names{}},
	} {
		if got := NamesIn([]byte(tt.frames)); got != tt.want {
			t.Errorf("NamesIn(%q) = %+v, want %+v", tt.frames, got, tt.want)
		}
	}
}

func FuzzNamesIn(f *testing.F) {
	f.Add([]byte("P\x00\x00\x00\x05\x00B\x00\x00\x00\x00Q\xff\xff\xff\xffPREPARE s AS"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, m := NamesIn(b), NamesIn(append([]byte("S\x00\x00\x00\x04"), b...)); n != m {
			t.Errorf("NamesIn(%q) = %+v, behind a Sync %+v", b, n, m)
		}
	})
}
