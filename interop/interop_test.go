package interop

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/web"
)

// program builds a program of the module in dir and returns its path.
func program(t *testing.T, dir, name, pkg string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", bin, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// running is a log that is being written and served.
type running struct {
	t    *testing.T
	dir  string
	l    *ledger.Ledger
	log  *query.Log
	http *httptest.Server
	size int64
}

// start begins a log. alter, if set, changes what is served.
func start(t *testing.T, alter func(path string, body []byte) []byte) *running {
	t.Helper()
	r := &running{t: t, dir: filepath.Join(t.TempDir(), "data")}
	var err error
	r.l, err = ledger.Open(ledger.Config{Dir: r.dir, CheckpointEvery: 10 * time.Millisecond, SegmentSize: 1 << 20, HeartbeatEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.l.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.log, err = query.Open(r.dir); err != nil {
		t.Fatal(err)
	}
	var h http.Handler = web.NewHandler(web.Config{
		Log: r.log, Metrics: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler),
		Ready: func() error { return nil }, Status: func() web.Status { return web.Status{} },
	})
	if alter != nil {
		h = altered(h, alter)
	}
	r.http = httptest.NewServer(h)
	t.Cleanup(r.http.Close)
	r.size = 1 // the start entry
	return r
}

// altered changes the bodies of what h answers.
func altered(h http.Handler, alter func(path string, body []byte) []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Header.Del("Accept-Encoding")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		body := alter(req.URL.Path, rec.Body.Bytes())
		w.WriteHeader(rec.Code)
		if _, err := w.Write(body); err != nil {
			return // the client is gone
		}
	})
}

// grow appends entries until there are size, and waits for their checkpoint.
func (r *running) grow(size int64) {
	r.t.Helper()
	var last int64
	for r.size < size {
		l := event.Leaf{Time: time.Now().UnixNano(), Kind: event.KindHeartbeat, Facts: []event.Fact{{Key: "sessions", Val: strconv.FormatInt(r.size, 10)}}}
		var value []byte
		if r.size%3 == 0 {
			value = []byte("value " + strconv.FormatInt(r.size, 10))
			l.HasValue, l.Size = true, int64(len(value))
		}
		i, err := r.l.Append(l.Append(nil), value)
		if err != nil {
			r.t.Fatal(err)
		}
		last, r.size = i, i+1
	}
	r.l.Want(last)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		signed, err := r.log.Checkpoint()
		if err == nil {
			if c, err := checkpoint.Open(signed, r.log.VKey()); err == nil && c.Size == r.size {
				return
			}
		}
		if time.Now().After(end) {
			r.t.Fatalf("no checkpoint over %d entries: %v", r.size, err)
		}
	}
}

// fsck runs Tessera's fsck. Its exit code says nothing, and it can hang, so
// there is a time limit and a line to look for.
func (r *running) fsck(bin string) (ok bool, output string) {
	r.t.Helper()
	key := filepath.Join(r.t.TempDir(), "vkey")
	if err := os.WriteFile(key, []byte(r.log.VKey()+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, "-N", "8", "--ui=false", "--storage_url", r.http.URL+"/log/", "--public_key", key).CombinedOutput()
	want := "Successfully fsck'd log with size " + strconv.FormatInt(r.size, 10) + " "
	return err == nil && strings.Contains(string(out), want), string(out)
}

// TestFsck runs fsck at sizes around the widths of bundles and tiles.
func TestFsck(t *testing.T) {
	bin := program(t, ".", "fsck", "github.com/transparency-dev/tessera/cmd/fsck")
	r := start(t, nil)
	for _, size := range []int64{1, 2, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 66050} {
		r.grow(size)
		if ok, out := r.fsck(bin); !ok {
			t.Errorf("fsck of %d entries does not succeed:\n%s", size, out)
		}
	}
}

// TestFsckFinds makes sure that the test above could fail.
func TestFsckFinds(t *testing.T) {
	bin := program(t, ".", "fsck", "github.com/transparency-dev/tessera/cmd/fsck")
	for _, prefix := range []string{"/log/tile/entries/000", "/log/tile/0/001"} {
		r := start(t, func(path string, body []byte) []byte {
			if strings.HasPrefix(path, prefix) && len(body) > 40 {
				body[40] ^= 1
			}
			return body
		})
		r.grow(300)
		if ok, out := r.fsck(bin); ok {
			t.Errorf("fsck succeeds although %s was altered:\n%s", prefix, out)
		}
	}
}

// TestTorchwoodClient reads all entries, authenticated, over HTTP.
func TestTorchwoodClient(t *testing.T) {
	r := start(t, nil)
	r.grow(700)
	fetcher, err := torchwood.NewTileFetcher(r.http.URL + "/log/")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := fetcher.ReadEndpoint(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(r.log.VKey())
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := torchwood.VerifyCheckpoint(signed, torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(r.log.Origin()), torchwood.SingleVerifierPolicy(v)))
	if err != nil {
		t.Fatal(err)
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for i, leaf := range client.AllEntries(t.Context(), c.Tree, 0) {
		e, err := r.log.Entry(i)
		if err != nil {
			t.Fatal(err)
		}
		if i != n || string(e.Leaf) != string(leaf) {
			t.Fatalf("entry %d is %s, want %d, %s", i, leaf, n, e.Leaf)
		}
		n++
	}
	if err := client.Err(); err != nil || n != 700 {
		t.Errorf("%d entries, %v, want 700", n, err)
	}
}

// TestTorchwoodProof lets torchwood verify proofs that pgnotary prove wrote,
// under the policy file that pgnotary check takes.
func TestTorchwoodProof(t *testing.T) {
	bin := program(t, "..", "pgnotary", "./cmd/pgnotary")
	r := start(t, nil)
	r.grow(600)
	policy := checkpoint.FormatPolicy(r.log.VKey(), r.http.URL+"/log/")
	policyFile := filepath.Join(t.TempDir(), "log.policy")
	if err := os.WriteFile(policyFile, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int64{0, 1, 255, 256, 300, 599} {
		file := filepath.Join(t.TempDir(), "x.tlog-proof")
		args := []string{"prove", "--data", r.dir, strconv.FormatInt(index, 10), "-o", file}
		if index%3 == 0 && index > 0 {
			args = append(args, "--value")
		}
		if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
			t.Fatalf("pgnotary %q: %v\n%s", args, err, out)
		}
		proof, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.log.Entry(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := torchwood.VerifyProof(theirs, tlog.RecordHash(e.Leaf), proof); err != nil {
			t.Errorf("torchwood does not accept the proof of entry %d: %v", index, err)
		}
		if torchwood.VerifyProof(theirs, tlog.RecordHash([]byte("another leaf")), proof) == nil {
			t.Errorf("torchwood accepts the proof of entry %d for another leaf", index)
		}
		extra, err := torchwood.ProofExtraData(proof)
		if err != nil {
			t.Fatal(err)
		}
		if x, err := checkpoint.ParseExtra(extra); err != nil || string(x.Leaf) != string(e.Leaf) {
			t.Errorf("extra data %s, %v, want the leaf %s", extra, err, e.Leaf)
		}
		if out, err := exec.Command(bin, "check", "--policy", policyFile, file).CombinedOutput(); err != nil {
			t.Errorf("pgnotary check: %v\n%s", err, out)
		}
	}
}

// TestTorchwoodWitness has torchwood cosign a checkpoint; both sides must
// agree on whether a policy with that witness is satisfied.
func TestTorchwoodWitness(t *testing.T) {
	r := start(t, nil)
	r.grow(10)
	signed, err := r.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := torchwood.NewCosignatureSigner("witness.example/1", priv)
	if err != nil {
		t.Fatal(err)
	}
	policy := "log " + r.log.VKey() + "\nwitness W " + w.Verifier().String() + "\nquorum W\n"
	v, err := note.NewVerifier(r.log.VKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := note.Sign(n, w)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := checkpoint.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		signed []byte
		ok     bool
	}{{"cosigned", cosigned, true}, {"not cosigned", signed, false}} {
		got, ourErr := ours.Verify(tt.signed)
		_, _, theirErr := torchwood.VerifyCheckpoint(tt.signed, theirs)
		if (ourErr == nil) != tt.ok || (theirErr == nil) != tt.ok {
			t.Errorf("%s: we say %v, torchwood says %v, want ok %v", tt.name, ourErr, theirErr, tt.ok)
		}
		if tt.ok && (len(got.Cosignatures) != 1 || time.Since(time.Unix(got.Cosignatures[0].Time, 0)).Abs() > 5*time.Minute) {
			t.Errorf("%s: cosignatures %+v, want one of now", tt.name, got.Cosignatures)
		}
		if !tt.ok && !errors.Is(ourErr, checkpoint.ErrQuorum) {
			t.Errorf("%s: %v, want %v", tt.name, ourErr, checkpoint.ErrQuorum)
		}
	}
}

// TestVerifyURL runs our own verify over HTTP, against a sound log and altered ones.
func TestVerifyURL(t *testing.T) {
	bin := program(t, "..", "pgnotary", "./cmd/pgnotary")
	for _, tt := range []struct {
		name string
		path string // of what is altered
		code int
	}{{"sound", "-", 0}, {"bundle", "/log/tile/entries/000", 1}, {"checkpoint", "/log/checkpoint", 1}} {
		r := start(t, func(path string, body []byte) []byte {
			if path == tt.path && len(body) > 30 {
				body[30] ^= 1
			}
			return body
		})
		r.grow(300)
		cmd := exec.Command(bin, "verify", "--url", r.http.URL, "--json")
		out, err := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != tt.code || strings.Contains(string(out), `"ok":true`) != (tt.code == 0) {
			t.Errorf("%s: verify --url ends with %d (%v):\n%s", tt.name, code, err, out)
		}
	}
}
