package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/witness"
)

// syncBuffer is a buffer that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// witnessProcess is pgnotary witness, running in this process.
type witnessProcess struct {
	url, vkey string
	stop      func() error
}

// startWitness adds logs to the witness in dir, made if it is missing, and
// runs it on a port of its own choice.
func startWitness(t *testing.T, dir, name, listen string, add ...string) *witnessProcess {
	t.Helper()
	args := []string{"witness", "--data", dir, "--name", name}
	for _, v := range add {
		args = append(args, "--add", v)
	}
	w := new(witnessProcess)
	if len(add) > 0 {
		code, out, errs := command(t, args...)
		if code != 0 {
			t.Fatalf("%q = %d, %s", args, code, errs)
		}
		w.vkey = strings.TrimSpace(out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := new(syncBuffer)
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"witness", "--data", dir, "--listen", listen}, out, out) }()
	w.stop = func() error {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("witness ends with %d: %s", code, out)
		}
		done <- 0
		return nil
	}
	t.Cleanup(func() { _ = w.stop() })
	re := regexp.MustCompile(`msg=listening address=(\S+) vkey=(\S+)`)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if m := re.FindStringSubmatch(out.String()); m != nil {
			w.url, w.vkey = "http://"+m[1]+"/", m[2]
			return w
		}
		select {
		case code := <-done:
			t.Fatalf("witness ends with %d: %s", code, out)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("the witness does not listen: %s", out)
		}
	}
}

// TestWitnessCommand: a new witness, a log, a restart, and what it refuses.
func TestWitnessCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "w")
	if code, _, errs := command(t, "witness", "--data", dir); code != 2 || !strings.Contains(errs, "give a new witness its --name") {
		t.Errorf("without a name = %d, %s", code, errs)
	}
	if code, _, errs := command(t, "witness", "--data", dir, "--name", "not a name", "--add", "x"); code != 2 || !strings.Contains(errs, "bad name") {
		t.Errorf("with a bad name = %d, %s", code, errs)
	}
	key := filepath.Join(t.TempDir(), "key")
	_, vkey, _ := command(t, "keygen", "--origin", "pgnotary/test/1", "-o", key)
	vkey = strings.TrimSpace(vkey)
	w := startWitness(t, dir, "witness.example/1", "127.0.0.1:0", vkey)
	if !strings.HasPrefix(w.vkey, "witness.example/1+") {
		t.Errorf("its key is %q", w.vkey)
	}
	_, err := witness.NewClient(w.url).Latest(t.Context(), "pgnotary/test/1")
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("before the first checkpoint: %v, want 404", err)
	}
	if code, _, errs := command(t, "witness", "--data", dir, "--listen", "127.0.0.1:0"); code != 2 || !strings.Contains(errs, "lock") {
		t.Errorf("a second process = %d, %s", code, errs)
	}
	_, next, _ := command(t, "keygen", "--origin", "pgnotary/test/1", "-o", key+"2")
	next = strings.TrimSpace(next)
	if code, out, errs := command(t, "witness", "--data", dir, "--add", next, "--retire", vkey); code != 0 || strings.TrimSpace(out) != w.vkey {
		t.Errorf("another key while it runs = %d, %s, %s, want its key", code, out, errs)
	}
	if code, _, errs := command(t, "witness", "--data", dir, "--retire", next); code != 2 || !strings.Contains(errs, "only one") {
		t.Errorf("to retire the last key while it runs = %d, %s", code, errs)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "witness", "--data", dir, "--add", vkey, "--retire", next); code != 0 || strings.TrimSpace(out) != w.vkey {
		t.Errorf("back to the first key = %d, %s, %s", code, out, errs)
	}
	for _, tt := range []struct{ want, name, add string }{
		{"is there already", "", vkey},
		{"is the key of a witness", "", w.vkey},
		{"a witness keeps its name", "witness.example/2", vkey},
	} {
		args := []string{"witness", "--data", dir, "--add", tt.add}
		if tt.name != "" {
			args = append(args, "--name", tt.name)
		}
		if code, _, errs := command(t, args...); code != 2 || !strings.Contains(errs, tt.want) {
			t.Errorf("%q = %d, %s, want %q", args, code, errs, tt.want)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "key"), 0o640); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, "witness", "--data", dir, "--listen", "127.0.0.1:0"); code != 2 || !strings.Contains(errs, "can be read by others (mode 0640)") {
		t.Errorf("a key others can read = %d, %s", code, errs)
	}
	if err := os.Remove(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, "witness", "--data", dir, "--name", "witness.example/1", "--listen", "127.0.0.1:0"); code != 2 || !strings.Contains(errs, "put the key back") {
		t.Errorf("a lost key = %d, %s", code, errs)
	}
}
