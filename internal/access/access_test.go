package access

import (
	"bytes"
	"crypto/rand"
	"reflect"
	"strings"
	"testing"
)

func TestNewIsFound(t *testing.T) {
	a, lineA, err := New(rand.Reader, "alice", Auditor)
	if err != nil {
		t.Fatal(err)
	}
	b, lineB, err := New(rand.Reader, "bob", Investigator)
	if err != nil || a == b {
		t.Fatalf("two tokens: %v, equal %t", err, a == b)
	}
	if strings.Contains(lineA, a) || !strings.HasPrefix(a, "pgn_") || len(a) != 47 {
		t.Errorf("token %q, line %q", a, lineA)
	}
	all, err := Parse([]byte("# who may look\n\n" + lineA + "\r\n\t" + lineB))
	if err != nil || len(all) != 2 {
		t.Fatalf("Parse = %v, %v", all, err)
	}
	if got, ok := all.Find(Hash(a)); !ok || got.Name != "alice" || got.Role != Auditor {
		t.Errorf("Find(a) = %v, %t", got, ok)
	}
	if got, ok := all.Find(Hash(b)); !ok || got.Name != "bob" || got.Role != Investigator {
		t.Errorf("Find(b) = %v, %t", got, ok)
	}
	if got, ok := all.Find(Hash(a + "x")); ok || got.Role != Nobody {
		t.Errorf("Find of another = %v, %t", got, ok)
	}
	if _, ok := Tokens(nil).Find(Hash("")); ok {
		t.Error("no tokens accept an empty one")
	}
}

func TestParseErrors(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	tests := []struct{ name, file, want string }{
		{"words", "alice auditor", "line 1: has 2 words"},
		{"role", "\nalice admin " + hash, `line 2: role is "admin"`},
		{"hash", "alice auditor " + hash[1:], "line 1: the third word"},
		{"digits", "alice auditor " + strings.Repeat("zz", 32), "line 1: the third word"},
		{"twice", "alice auditor " + hash + "\nalice operator " + hash, "line 2: there is another token of alice"},
		{"name", "al\x01ice auditor " + hash, "line 1: name"},
	}
	for _, tt := range tests {
		if _, err := Parse([]byte(tt.file)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: Parse = %v, want %s", tt.name, err, tt.want)
		}
	}
	if _, _, err := New(rand.Reader, "a b", Auditor); err == nil {
		t.Error("New accepts a name of two words")
	}
	if _, _, err := New(bytes.NewReader(nil), "a", Auditor); err == nil {
		t.Error("New makes a token without randomness")
	}
}

// FuzzParse holds that what is accepted can be written again and says the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("# c\nalice auditor " + strings.Repeat("0a", 32) + "\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		all, err := Parse(file)
		if err != nil {
			return
		}
		var b bytes.Buffer
		for _, tok := range all {
			b.WriteString(tok.line() + "\n")
		}
		again, err := Parse(b.Bytes())
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q is read as %v, then %v, %v", file, all, again, err)
		}
		for i := range all {
			if all[i] != again[i] {
				t.Errorf("%v, then %v", all[i], again[i])
			}
		}
	})
}

// TestUntil holds that every change of a token file is told, and no token.
func TestUntil(t *testing.T) {
	token := func(name string, role Role, secret string) Token { return Token{name, role, Hash(secret)} }
	was := Tokens{token("alice", Auditor, "a"), token("bob", Auditor, "b"), token("carol", Operator, "c"), token("dave", Auditor, "d"), token("erin", Auditor, "e")}
	next := Tokens{token("erin", Operator, "e2"), token("dave", Auditor, "d2"), token("alice", Auditor, "a"), token("carol", Investigator, "c"), token("frank", Investigator, "f")}
	want := Difference{
		Added: []string{"frank:investigator"}, Removed: []string{"bob:auditor"}, Renewed: []string{"dave:auditor"},
		Changed: []string{"erin:auditor>operator", "carol:operator>investigator"},
	}
	if got := was.Until(next); !reflect.DeepEqual(got, want) {
		t.Errorf("Until = %+v, want %+v", got, want)
	}
	if got := was.Until(was); !reflect.DeepEqual(got, Difference{}) {
		t.Errorf("Until of the same = %+v", got)
	}
}
