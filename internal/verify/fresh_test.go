package verify

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/ledger"
)

// TestFresh is row 11 of the tamper matrix: an old checkpoint is valid and stale.
func TestFresh(t *testing.T) {
	dir := smallLog(t)
	now := time.Unix(1_790_000_000, 0)
	at := func(when time.Time) Options {
		return Options{Fresh: time.Minute, Now: func() time.Time { return now }, Trust: func([]byte) (time.Time, error) { return when, nil }}
	}
	if r := run(t, dir, at(now.Add(-time.Minute))); !r.OK {
		t.Errorf("a minute old: %+v", r.Findings)
	}
	wantFinding(t, run(t, dir, at(now.Add(-61*time.Second))), "checkpoint: is stale", "1m1s ago")
	wantFinding(t, run(t, dir, at(time.Time{})), "nothing says how old it is")
}

// TestWitnessed: the latest checkpoint may lack cosignatures if the one before has them.
func TestWitnessed(t *testing.T) {
	b := newBuilder(t, ledger.Config{})
	b.session(1)
	b.close()
	witnessed := readFile(t, b.dir, "checkpoint")
	b.open(ledger.Config{})
	b.session(2)
	b.close()
	newest := readFile(t, b.dir, "checkpoint")
	opt := Options{Trust: func(signed []byte) (time.Time, error) {
		if string(signed) == string(witnessed) {
			return time.Unix(1_780_000_000, 0), nil // the builder's clock
		}
		return time.Time{}, fmt.Errorf("%w: none", ErrUnwitnessed)
	}}
	wantFinding(t, run(t, b.dir, opt), "does not satisfy the policy")
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(b.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("witnessed", witnessed)
	if r := run(t, b.dir, opt); !r.OK || len(r.Notes) != 1 {
		t.Errorf("with the one before cosigned: %+v, %q", r.Findings, r.Notes)
	}
	write("witnessed", append(witnessed[:20:20], witnessed[21:]...))
	wantFinding(t, run(t, b.dir, opt), "witnessed: is not signed")
	write("witnessed", newest)
	write("checkpoint", witnessed)
	wantFinding(t, run(t, b.dir, Options{}), "witnessed: is of size", "put back to an earlier state")
	write("checkpoint", newest)

	// Evidence: sound, altered, and of another history.
	evidence := func(theirs []byte) string {
		text, err := json.Marshal(map[string]string{"kind": "fork", "witness": "W", "theirs": string(theirs)})
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("evidence/%x", sha256.Sum256(text))
		write(name, text)
		return name
	}
	evidence(witnessed)
	evidence(nil)
	evidence([]byte("not signed"))
	if r := run(t, b.dir, Options{}); !r.OK {
		t.Errorf("evidence that proves nothing: %+v", r.Findings)
	}
	name := evidence([]byte("x"))
	write(name, []byte("y"))
	wantFinding(t, run(t, b.dir, Options{}), name, "does not have the SHA-256 that is its name")
}

// TestDated is row 12 of the tamper matrix: the times of entries lie between
// those at which witnesses cosigned the checkpoints around them.
func TestDated(t *testing.T) {
	b := newBuilder(t, ledger.Config{})
	b.session(1)
	b.close()
	kept := readFile(t, b.dir, "checkpoint")
	earlier := b.now.Load()
	b.now.Add(int64(time.Hour))
	b.open(ledger.Config{})
	b.session(2)
	b.close()
	later := b.now.Load()
	opt := func(before, after time.Duration) Options {
		return Options{
			Checkpoints: []File{{"kept", kept}},
			Trust: func(signed []byte) (time.Time, error) {
				if string(signed) == string(kept) {
					return time.Unix(0, earlier).Add(before), nil
				}
				return time.Unix(0, later).Add(after), nil
			},
		}
	}
	if r := run(t, b.dir, opt(time.Minute, time.Minute)); !r.OK {
		t.Errorf("honest times: %+v", r.Findings)
	}
	if r := run(t, b.dir, opt(-time.Minute, -time.Minute)); !r.OK {
		t.Errorf("clocks a minute apart: %+v", r.Findings)
	}
	wantFinding(t, run(t, b.dir, opt(0, -10*time.Minute)), "dated ahead")
	wantFinding(t, run(t, b.dir, opt(-10*time.Minute, 0)), "entry 0: leaf: is dated later than witnesses cosigned kept")
	wantFinding(t, run(t, b.dir, opt(2*time.Hour, 2*time.Hour)), "dated back")
}
