package query

import (
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
)

// TestLeafName: a long name is found by what the client said and by what is shown of it, wherever it was cut.
func TestLeafName(t *testing.T) {
	for _, char := range []string{"x", "é", "€", "😀", "\xff"} {
		for n := range 5 {
			name := strings.Repeat("x", n) + strings.Repeat(char, 140/len(char))
			line := (&event.Leaf{Kind: event.KindQuery, Who: &event.Who{User: name}}).Append(nil)
			var v view
			if err := v.scan(line); err != nil {
				t.Fatal(err)
			}
			user, _, _, _ := v.whose()
			shown := unescape(user)
			if got := leafName(name); got != shown {
				t.Errorf("leafName(%q) = %q, want %q", name, got, shown)
			}
			if got := leafName(shown); got != shown {
				t.Errorf("leafName(%q) = %q, want it as it is", shown, got)
			}
		}
	}
}
