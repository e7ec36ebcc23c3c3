package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const captureFile = `
data = "d"

[[capture]]
database = "payroll"
user     = "app"
results  = "full"

[[capture]]
database = "payroll"
results  = "digest"
copy     = "full"

[[capture]]
user = "quote\"d"
copy = "digest"
`

func TestCapture(t *testing.T) {
	c := Default()
	if _, err := c.decode("file", []byte(captureFile)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ user, database, results, copies string }{
		{"app", "payroll", KeepFull, KeepDigest},
		{"other", "payroll", KeepDigest, KeepFull},
		{"app", "other", KeepCount, KeepDigest},
	} {
		if got := c.CaptureOf(tt.user, tt.database); got.Results != tt.results || got.Copy != tt.copies {
			t.Errorf("CaptureOf(%q, %q) = %v, want results %s, copy %s", tt.user, tt.database, got, tt.results, tt.copies)
		}
	}
	var printed strings.Builder
	if err := c.Print(&printed, nil); err != nil {
		t.Fatal(err)
	}
	back := Default()
	if _, err := back.decode("printed", []byte(printed.String())); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, back); diff != "" {
		t.Errorf("printed and read again (-want +got):\n%s", diff)
	}
	back.Captures[0].Copy = KeepFull
	if _, restart := c.Changed(&back); len(restart) != 1 || restart[0] != "capture" {
		t.Errorf("Changed = %v, want capture", restart)
	}
	back.Captures[0].Results, back.Captures[1].Copy = "all", "count"
	if err := back.Validate(); err == nil || !strings.Contains(err.Error(), "capture.results") || !strings.Contains(err.Error(), "capture.copy") {
		t.Errorf("Validate = %v, want both mistakes", err)
	}
	if _, err := back.decode("file", []byte("[[capture]]\nresult = \"full\"\n")); err == nil || !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("an unknown key: %v", err)
	}
}
