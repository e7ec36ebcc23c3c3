package verify

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// served answers for a log of leaves, as /log/ of a proxy does. A test may
// change what an answer is.
type served struct {
	mu         sync.Mutex
	leaves     [][]byte
	checkpoint []byte
	vkey       string
	alter      map[string]func([]byte) []byte
	pruned     int64 // bundles before this one are not served
	succession []byte
	logJSON    []byte
	note       func(path string)
}

func serve(t *testing.T, entries []forgedEntry) *served {
	t.Helper()
	_, vkey := forgedKey(t)
	s := &served{vkey: vkey, alter: map[string]func([]byte) []byte{}}
	tr := tree.New()
	for i := range entries {
		leaf := entries[i].Leaf.Append(nil)
		if entries[i].raw != nil {
			leaf = entries[i].raw(leaf)
		}
		s.leaves = append(s.leaves, leaf)
		tr.Append(tree.LeafHash(leaf))
	}
	s.checkpoint = sign(t, tr.Size(), tr.Root())
	return s
}

func (s *served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/log/")
	var body []byte
	level, n, width, err := tree.ParseTilePath(path)
	switch {
	case !ok:
		http.NotFound(w, r)
		return
	case path == "checkpoint":
		body = bytes.Clone(s.checkpoint)
	case path == "vkey":
		body = []byte(s.vkey + "\n")
	case path == "succession" && s.succession != nil:
		body = s.succession
	case path == "log.json" && s.logJSON != nil:
		body = s.logJSON
	case err == nil && level > 0:
		body = s.tile(level, n, width)
	case err != nil || level != tree.Entries || n < s.pruned || (n*tileWidth+int64(width)) > int64(len(s.leaves)):
		http.NotFound(w, r)
		return
	default:
		for _, leaf := range s.leaves[n*tileWidth:][:width] {
			body = append(binary.BigEndian.AppendUint16(body, uint16(len(leaf))), leaf...)
		}
	}
	if s.note != nil {
		s.mu.Lock()
		s.note(path)
		s.mu.Unlock()
	}
	if f := s.alter[path]; f != nil {
		body = f(body)
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	if _, err := z.Write(body); err != nil {
		return // the client is gone
	}
	_ = z.Close()
}

func (s *served) run(t *testing.T, opt Options) (*Result, error) {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	return URL(context.Background(), server.URL, opt)
}

func manyGood(t *testing.T, n int) []forgedEntry {
	e := goodEntries(t)
	stop := e[9]
	e = e[:9]
	for len(e) < n-1 {
		e = append(e, forgedEntry{Leaf: event.Leaf{Kind: event.KindHeartbeat}})
	}
	return append(e, stop)
}

func TestURL(t *testing.T) {
	for _, n := range []int{10, 255, 256, 257, 3000} {
		s := serve(t, manyGood(t, n))
		for name, opt := range map[string]Options{
			"with a key":    {VKeys: []string{s.vkey}, Trust: func([]byte) (time.Time, error) { return time.Time{}, nil }},
			"without":       {},
			"earlier":       {Checkpoints: []File{{"kept", s.checkpoint}}},
			"several keys":  {VKeys: []string{otherKey(t), s.vkey}},
			"other workers": {Workers: 3},
		} {
			r, err := s.run(t, opt)
			if err != nil || !r.OK || r.Entries != int64(n) || r.Size != int64(n) || r.Origin != forgedOrigin {
				t.Errorf("%d entries, %s: %+v, %v", n, name, r, err)
			}
			if trusted := len(r.Notes) == 1; trusted != (name == "with a key") {
				t.Errorf("%s: notes %q", name, r.Notes)
			}
		}
	}
}

// TestURLKeyChange: who trusts the old key and the new one can hold a log
// against what the old one signed, in whatever order the keys are named.
func TestURLKeyChange(t *testing.T) {
	_, last := forgedKey(t)
	info := bytes.Replace(logJSON(t), []byte(last), []byte(otherKey(t)), 1) // it names the first key
	sum := sha256.Sum256(info)
	entries := manyGood(t, 300)
	entries[0].Facts = []event.Fact{{Key: "log_json", Val: hex.EncodeToString(sum[:])}}
	s := serve(t, entries)
	var keys []crypto.Signer
	var old checkpoint.Signer
	vkeys := []string{otherKey(t), s.vkey}
	// As in otherKey and forgedKey.
	for _, seed := range []io.Reader{bytes.NewReader(bytes.Repeat([]byte{9}, 64)), rand.NewChaCha8([32]byte{7})} {
		skey, _, err := checkpoint.GenerateKey(seed, forgedOrigin)
		if err != nil {
			t.Fatal(err)
		}
		_, key, err := checkpoint.ParseLogKey(skey)
		if err == nil && old == nil {
			old, err = checkpoint.SignerOf(forgedOrigin, key)
		}
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	line, err := checkpoint.NewSuccessor(forgedOrigin, keys[0], keys[1])
	if err != nil {
		t.Fatal(err)
	}
	s.succession = line.Format()
	tr := tree.New()
	for _, leaf := range s.leaves[:100] {
		tr.Append(tree.LeafHash(leaf))
	}
	kept, err := checkpoint.Sign(old, forgedOrigin, tr.Size(), tr.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, trusted := range [][]string{vkeys, {vkeys[1], vkeys[0]}, vkeys[:1]} {
		r, err := s.run(t, Options{VKeys: trusted, Checkpoints: []File{{"kept", kept}}})
		if err != nil || !r.OK {
			t.Errorf("keys %q: %+v, %v", trusted, r, err)
		}
	}
	// Without a key of the user's, from the present one back to the first.
	s.vkey = vkeys[1]
	for _, tt := range []struct {
		name    string
		logJSON []byte
		alter   string
		want    string
	}{
		{"all keys", info, "", ""},
		{"the last key only", nil, "", "kept: "},
		{"another log.json", bytes.Replace(info, []byte("2026"), []byte("2025"), 1), "", "is not the file that entry 0 was written with"},
		{"no log.json", []byte("{}\n"), "", "/log/log.json"},
		{"another first key", bytes.Replace(info, []byte(vkeys[0]), []byte(thirdKey(t)), 1), "", "does not lead from the first key"},
		{"another succession", info, "succession", "does not lead from the first key"},
	} {
		s.logJSON, s.alter = tt.logJSON, map[string]func([]byte) []byte{tt.alter: func(b []byte) []byte { b[len(b)-10] ^= 1; return b }}
		r, err := s.run(t, Options{Checkpoints: []File{{"kept", kept}}})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if tt.want == "" && !r.OK {
			t.Errorf("%s: %+v", tt.name, r)
		} else if tt.want != "" {
			wantFinding(t, r, tt.want)
		}
	}
}

// otherKey and thirdKey are keys of the same name that did not sign.
func otherKey(t *testing.T) string { return keyFrom(t, 9) }
func thirdKey(t *testing.T) string { return keyFrom(t, 10) }

func keyFrom(t *testing.T, seed byte) string {
	t.Helper()
	_, vkey, err := checkpoint.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)), forgedOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

func TestURLFindings(t *testing.T) {
	flipAt := func(i int) func([]byte) []byte { return func(b []byte) []byte { b[i] ^= 1; return b } }
	for _, tt := range []struct {
		name   string
		change func(s *served)
		opt    Options
		want   string
	}{
		{"leaf", func(s *served) { s.alter["tile/entries/000"] = flipAt(30) }, Options{}, "its root at size 300"},
		{"leaf in the last bundle", func(s *served) { s.alter["tile/entries/001.p/44"] = flipAt(30) }, Options{}, "its root at size 300"},
		{"length of a leaf", func(s *served) { s.alter["tile/entries/000"] = flipAt(0) }, Options{}, "entry 0: tile/entries: the bundle is not one of 256 entries"},
		{"bundle cut short", func(s *served) { s.alter["tile/entries/000"] = func(b []byte) []byte { return b[:len(b)-1] } }, Options{}, "not one of 256"},
		{"bytes behind", func(s *served) { s.alter["tile/entries/000"] = func(b []byte) []byte { return append(b, 0, 0) } }, Options{}, "not one of 256"},
		{"empty bundle", func(s *served) { s.alter["tile/entries/000"] = func(b []byte) []byte { return nil } }, Options{}, "not one of 256"},
		{"checkpoint", func(s *served) { s.alter["checkpoint"] = flipAt(20) }, Options{}, "/log/checkpoint: is not signed"},
		{"smaller checkpoint than kept", func(s *served) {}, Options{Checkpoints: []File{{"kept", sign(t, 301, hash{})}}}, "kept: is of size 301"},
		{"another checkpoint than kept", func(s *served) {}, Options{Checkpoints: []File{{"kept", sign(t, 299, hash{})}}}, "kept: its root at size 299"},
		{"key", func(s *served) {}, Options{VKeys: []string{otherKey(t)}}, "/log/checkpoint: is not signed"},
		{"policy", func(s *served) {}, Options{Trust: func([]byte) (time.Time, error) { return time.Time{}, checkpoint.ErrQuorum }}, "does not satisfy the policy"},
		{"order", func(s *served) {
			e := manyGood(t, 300)
			e[3].Of = event.Ref(1)
			*s = *serve(t, e)
		}, Options{}, "entry 3: of: refers to entry 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, manyGood(t, 300))
			tt.change(s)
			r, err := s.run(t, tt.opt)
			if err != nil {
				t.Fatal(err)
			}
			wantFinding(t, r, tt.want)
		})
	}
}

// TestURLHostile wants an error, within bounds, from a server that is none.
func TestURLHostile(t *testing.T) {
	s := serve(t, manyGood(t, 300))
	s.leaves = s.leaves[:290]
	if r, err := s.run(t, Options{}); err == nil {
		t.Errorf("with a bundle missing: %+v, want an error", r)
	}
	// Row 27 of the tamper matrix: a few kilobytes that unpack to a lot.
	s = serve(t, manyGood(t, 300))
	s.alter["tile/entries/000"] = func([]byte) []byte { return make([]byte, maxBundle+1) }
	if r, err := s.run(t, Options{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("with a bundle without end: %+v, %v, want an error", r, err)
	}
	s = serve(t, manyGood(t, 300))
	s.alter["checkpoint"] = func([]byte) []byte { return make([]byte, maxSmall+1) }
	if r, err := s.run(t, Options{}); err == nil {
		t.Errorf("with a checkpoint without end: %+v, want an error", r)
	}
	for _, base := range []string{"", "nonsense", "ftp://127.0.0.1/", "http://", "http://127.0.0.1:1"} {
		if r, err := URL(t.Context(), base, Options{}); err == nil {
			t.Errorf("URL(%q) = %+v, want an error", base, r)
		}
	}
}

// TestURLTrusted: over HTTP too, what a trusted checkpoint covers is not fetched again, and what came since
// must continue it.
func TestURLTrusted(t *testing.T) {
	const n = 70_000 // more than a tile of level 1 has
	entries := manyGood(t, n)
	s := serve(t, entries)
	at := func(entries []forgedEntry, size int64) *File {
		tr := tree.New()
		for i := range size {
			tr.Append(tree.LeafHash(entries[i].Leaf.Append(nil)))
		}
		return &File{"kept", sign(t, size, tr.Root())}
	}
	var fetched []string
	note := func(path string) { fetched = append(fetched, path) }
	s.note = note
	for _, size := range []int64{0, 1, 255, 256, 300, 65_535, 65_536, 65_537, 69_888, n - 1, n} {
		fetched = nil
		r, err := s.run(t, Options{Trusted: at(entries, size)})
		if err != nil || !r.OK || r.Entries != n-size/tileWidth*tileWidth || r.Pruned != 0 {
			t.Errorf("from %d on: %+v, %v", size, r, err)
		}
		most := int((n-size)/tileWidth) + 10
		if len(fetched) > most {
			t.Errorf("from %d on: %d resources fetched, want at most %d", size, len(fetched), most)
		}
	}
	// Another history before it.
	other := slices.Clone(entries)
	other[100].Leaf.Time++
	for _, size := range []int64{300, 512, 65_600} {
		r, err := s.run(t, Options{Trusted: at(other, size)})
		if err != nil {
			t.Fatal(err)
		}
		wantFinding(t, r, "is not the one that was signed")
	}
	// The log is behind.
	short := serve(t, entries[:600])
	r, err := short.run(t, Options{Trusted: at(entries, 1000)})
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, r, "is of size 1000, but the log's own checkpoint only of 600")
	// An older checkpoint than the trusted one cannot be compared.
	if r, err := s.run(t, Options{Trusted: at(entries, 512), Checkpoints: []File{*at(entries, 300)}}); err != nil || !r.OK || !strings.Contains(strings.Join(r.Notes, "\n"), "a later checkpoint is trusted") {
		t.Errorf("%+v, %v", r, err)
	}
	// It was pruned further than that: an entry must explain it.
	s.pruned = 3
	if r, err = s.run(t, Options{Trusted: at(entries, 512)}); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, r, "those before 768 are not there")
	if r, err = s.run(t, Options{Trusted: at(entries, 768)}); err != nil || !r.OK {
		t.Errorf("pruned up to the trusted checkpoint: %+v, %v", r, err)
	}
}

// tile returns a tile of a level above 0, from the leaves.
func (s *served) tile(level int, n int64, width int) []byte {
	var row []hash
	for _, leaf := range s.leaves {
		row = append(row, leafHash(leaf))
	}
	for range level {
		var up []hash
		for ; len(row) >= tileWidth; row = row[tileWidth:] {
			up = append(up, rootOf(slices.Clone(row[:tileWidth])))
		}
		row = up
	}
	var out []byte
	for _, h := range row[n*tileWidth:][:width] {
		out = append(out, h[:]...)
	}
	return out
}

// TestRemotePruned verifies a log over HTTP that serves its beginning no more:
// it is in order exactly if an entry explains that.
func TestRemotePruned(t *testing.T) {
	for _, explained := range []bool{true, false} {
		entries := goodEntries(t)
		for len(entries) < 3*tileWidth {
			entries = append(entries, forgedEntry{Leaf: event.Leaf{Kind: event.KindHeartbeat}})
		}
		tr := tree.New()
		for i := range 2 * tileWidth {
			tr.Append(tree.LeafHash(entries[i].Leaf.Append(nil)))
		}
		root := tr.Root()
		if explained {
			entries = append(entries, forgedEntry{Leaf: event.Leaf{Kind: event.KindPrune, Facts: []event.Fact{
				{Key: "what", Val: "leaves"}, {Key: "until", Val: "512"}, {Key: "root", Val: hex.EncodeToString(root[:])},
			}}})
		}
		s := serve(t, entries)
		s.pruned = 2
		r, err := s.run(t, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if explained && (!r.OK || r.Pruned != 512 || r.Entries != int64(len(entries))-512) {
			t.Errorf("%+v, want a log in order without its first 512 entries", r)
		}
		if !explained {
			wantFinding(t, r, "those before 512 are not there")
		}
	}
}
