package event

import (
	"os"
	"regexp"
	"testing"
)

// TestKinds holds that every kind that is declared can be read.
func TestKinds(t *testing.T) {
	source, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`(?m)^\tKind\w+ +Kind = "(\w+)"`).FindAllSubmatch(source, -1)
	if len(kinds) < 20 {
		t.Errorf("found %d kinds", len(kinds))
	}
	for _, k := range kinds {
		if got := KindOf(k[1]); string(got) != string(k[1]) {
			t.Errorf("KindOf(%s) = %q", k[1], got)
		}
	}
}
