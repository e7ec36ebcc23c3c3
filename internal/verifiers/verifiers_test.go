package verifiers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const good = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

func TestParse(t *testing.T) {
	text := "; comment\n# comment\n\n" + `"alice" "` + good + `"` + "\n" + `  "o""hara"	"` + good + `" ignored` + "\r\n" +
		`"old" "md53175bce1d3201d16594cebf9d7eb3f9d"` + "\n" + `"nobody" ""`
	users, err := parse(text)
	if err != nil || len(users) != 2 || users["alice"] != good || users[`o"hara`] != good {
		t.Fatalf("parse = %d users, %v", len(users), err)
	}
	for _, row := range []struct{ name, text, want string }{
		{"no quotes", "alice " + good, "line 1 is not"},
		{"one string", `"alice"`, "line 1 is not"},
		{"open quote", `"alice" "` + good, "line 1 is not"},
		{"junk", `"alice" "` + good + `"x`, "line 1 is not"},
		{"no name", `"" "` + good + `"`, "line 1 names no user"},
		{"twice", `"a" "` + good + "\"\n" + `"a" "` + good + `"`, "line 2: the user has a line already"},
		{"in the clear", `"a" "hunter2"`, "line 1 has a password in the clear"},
		{"cut", `"a" "` + good[:len(good)-2] + `"`, "line 1: not a SCRAM-SHA-256 verifier"},
	} {
		users, err := parse(row.text)
		if err == nil || !strings.Contains(err.Error(), row.want) || users != nil {
			t.Errorf("%s: parse = %d users, %v, want %q", row.name, len(users), err, row.want)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "WG5d8") {
			t.Errorf("%s: the error has the secret", row.name)
		}
	}
}

// The manual shows the SQL that is tested.
func TestManual(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "logins.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := "    " + strings.ReplaceAll(SetupFor("pgnotary_auth"), "\n", "\n    ")
	if !strings.Contains(string(text), want) {
		t.Errorf("docs/logins.md does not show\n%s", want)
	}
}

func TestOpenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write := func(user string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(`"`+user+`" "`+good+`"`), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenFile(path); err == nil || !strings.Contains(err.Error(), path+": no such file") {
		t.Errorf("missing file: %v", err)
	}
	write("alice", 0o644)
	if _, err := OpenFile(path); err == nil || !strings.Contains(err.Error(), "chmod o-rwx") {
		t.Errorf("file for everybody: %v", err)
	}
	write("alice", 0o640)
	f, err := OpenFile(path)
	if err != nil || f.Users() != 1 {
		t.Fatalf("OpenFile: %v", err)
	}
	a, err := f.Verifier(t.Context(), "alice")
	if err != nil || a.Encode() != good {
		t.Fatalf("Verifier = %v, %v", a, err)
	}
	a.Erase() // of one login
	if b, err := f.Verifier(t.Context(), "alice"); err != nil || b.Encode() != good {
		t.Errorf("Verifier after another was erased: %v", err)
	}
	if v, err := f.Verifier(t.Context(), "bob"); v != nil || err != nil {
		t.Errorf("Verifier of nobody = %v, %v", v, err)
	}
	write("bob", 0o600)
	g, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Replace(g)
	if v, err := f.Verifier(t.Context(), "bob"); v == nil || err != nil {
		t.Errorf("Verifier after Replace = %v, %v", v, err)
	}
}

// FuzzParse holds that what is accepted is there, and that errors repeat nothing long.
func FuzzParse(f *testing.F) {
	f.Add(`"alice" "` + good + `"`)
	f.Add("; x\n\"a\"\"b\" \"md5\"")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := parse(text)
		if err != nil {
			if len(err.Error()) > 120 {
				t.Errorf("parse(%q): %v", text, err)
			}
			return
		}
		for user, secret := range users {
			line := `"` + strings.ReplaceAll(user, `"`, `""`) + `"`
			if !strings.Contains(text, line) || !strings.Contains(text, secret) {
				t.Errorf("parse(%q) has %q", text, user)
			}
		}
	})
}
