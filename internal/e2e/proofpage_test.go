package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/access"
	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	reader "github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/web"
)

// pageCase is what the page is given, and what it has to say.
type pageCase struct {
	Name   string `json:"name"`
	Proof  []byte `json:"proof"`
	Policy []byte `json:"policy"`
	Typed  bool   `json:"typed"` // through the controls of the page
	Shot   bool   `json:"shot"`
	valid  bool
	want   []string
}

// signedBy returns the checkpoint of a log, as it is and opened.
func signedBy(t *testing.T, log *reader.Log) ([]byte, checkpoint.Checkpoint) {
	t.Helper()
	signed, err := log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(signed, log.VKey())
	if err != nil {
		t.Fatal(err)
	}
	return signed, c
}

// cosignedAt returns a proof with another cosignature of a witness, of any time.
func cosignedAt(t *testing.T, log *reader.Log, proof []byte, w *checkpoint.Cosigner, seconds int64) []byte {
	t.Helper()
	_, c := signedBy(t, log)
	line, err := w.Cosign(c, seconds)
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(w.VKey(), "+")
	var out []byte
	for l := range bytes.Lines(proof) {
		if !bytes.HasPrefix(l, []byte("— "+name+" ")) {
			out = append(out, l...)
		}
	}
	return append(out, line...)
}

// pageLog writes a log and returns it with three proofs against a checkpoint that two
// witnesses cosigned: of a query, of the same with its value, and of the start.
func pageLog(t *testing.T) (log *reader.Log, proofs [4][]byte, ws [2]*checkpoint.Cosigner) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "pgnotary/page/1", Key: pageKey()})
	if err != nil {
		t.Fatal(err)
	}
	who := &event.Who{User: "alice <b>", Database: "app", Application: "psql", Client: "127.0.0.1:5"}
	text := "DELETE FROM customers WHERE name = 'Zoë' -- <script>alert(1)</script>\x1b[31m"
	value := append([]byte{'Q', 0, 0, 0, byte(len(text) + 5)}, text+"\x00"...)
	if _, err := l.Emit(&event.Leaf{Kind: event.KindQuery, Session: 1, Seq: 1, Who: who, Msgs: []byte("Q")}, value); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Emit(&event.Leaf{Kind: event.KindParse, Session: 1, Seq: 2, Who: who, Msgs: []byte("P")}, []byte("P\x00\x00\x00\x1bstmt\x00SELECT prepared\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Emit(&event.Leaf{Kind: event.KindExecute, Session: 1, Seq: 3, Who: who, Msgs: []byte("E"), Parse: event.Ref(2)}, []byte("E run")); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if _, err := l.Emit(&event.Leaf{Kind: event.KindHeartbeat}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log, err = reader.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	signed, c := signedBy(t, log)
	for i := range ws {
		skey, _, err := checkpoint.GenerateWitnessKey(bytes.NewReader(bytes.Repeat([]byte{byte(i + 1)}, 32)), "witness.example/"+string(rune('a'+i)))
		if err != nil {
			t.Fatal(err)
		}
		if ws[i], err = checkpoint.ParseWitnessKey(skey); err != nil {
			t.Fatal(err)
		}
		line, err := ws[i].Cosign(c, 1_790_000_000+int64(i))
		if err != nil {
			t.Fatal(err)
		}
		if signed, _, err = checkpoint.AddCosignature(signed, line, ws[i].VKey()); err != nil {
			t.Fatal(err)
		}
	}
	for i, at := range []int64{1, 1, 0, 3} {
		e, err := log.Entry(at)
		if err != nil {
			t.Fatal(err)
		}
		x := checkpoint.Extra{Leaf: e.Leaf, HasValue: i == 1}
		if x.HasValue {
			x.Value, x.Salt = e.Value, e.Salt
		}
		if i == 3 {
			text, err := log.Entry(2)
			if err != nil {
				t.Fatal(err)
			}
			r := checkpoint.Related{Index: 2, Leaf: text.Leaf, Value: text.Value, Salt: text.Salt}
			if r.Hashes, err = tree.Inclusion(log, 2, c.Size); err != nil {
				t.Fatal(err)
			}
			x.Related = []checkpoint.Related{r}
		}
		p := checkpoint.Proof{Index: at, Checkpoint: signed}
		if p.Extra, err = x.Format(); err != nil {
			t.Fatal(err)
		}
		if p.Hashes, err = tree.Inclusion(log, at, c.Size); err != nil {
			t.Fatal(err)
		}
		proofs[i] = p.Format()
	}
	return log, proofs, ws
}

// goSays is the verdict of the same proof here; the browser must agree.
func goSays(proof, policy []byte) bool {
	pol, err := checkpoint.ParsePolicy(policy)
	if err != nil {
		return false
	}
	p, err := checkpoint.ParseProof(proof)
	if err != nil {
		return false
	}
	x, err := checkpoint.ParseExtra(p.Extra)
	if err != nil {
		return false
	}
	if _, err := p.Verify(pol.Follow(x.Succession), tree.LeafHash(x.Leaf)); err != nil {
		return false
	}
	l, err := event.Parse(x.Leaf)
	for i := range x.Related {
		r := &x.Related[i]
		c, _, _ := checkpoint.Parse(p.Checkpoint)
		of, err := event.Parse(r.Leaf)
		if err != nil || tree.CheckInclusion(r.Hashes, c.Size, c.Root, r.Index, tree.LeafHash(r.Leaf)) != nil || event.Ref(r.Index) != l.Parse ||
			!of.HasValue || of.Commitment != sha256.Sum256(append(r.Salt[:], r.Value...)) {
			return false
		}
	}
	return err == nil && (!x.HasValue || l.HasValue && l.Commitment == commitmentOf(x))
}

// pageCases are sound proofs, and row 26 of the tamper matrix: altered ones.
func pageCases(t *testing.T) (*reader.Log, []pageCase) {
	log, proofs, ws := pageLog(t)
	vkey := log.VKey()
	quorum := func(rule string) []byte {
		return []byte("# who is trusted\nlog " + vkey + "\nwitness A " + ws[0].VKey() + " http://a/\nwitness B " + ws[1].VKey() + "\ngroup G " + rule + " A B\nquorum G\n")
	}
	none := []byte(checkpoint.FormatPolicy(vkey, ""))
	leaf, value := proofs[0], proofs[1]
	cases := []pageCase{
		{Name: "altered, typed", Proof: bytes.Replace(leaf, []byte("index 1\n"), []byte("index 2\n"), 1), Policy: none, Typed: true, want: []string{"Not valid", "not in the tree"}},
		{Name: "value, two witnesses", Proof: value, Policy: quorum("all"), Typed: true, Shot: true, valid: true, want: []string{
			"Valid: the log has this entry", "user alice <b>, database app", "Zoë", "<script>alert(1)</script>\\x1b[31m", "A, at 2026-09-21T", "recorded this at 2026-09-21T", "dated ahead", "pgnotary/page/1",
		}},
		{Name: "key only", Proof: leaf, Policy: []byte(vkey + "\n"), Typed: true, valid: true, want: []string{"asks for no witness", "not in the proof"}},
		{Name: "start", Proof: proofs[2], Policy: none, Typed: true, valid: true, want: []string{"start, version"}},
		{Name: "successor", Proof: succeeded(t, leaf, false), Policy: none, Typed: true, valid: true, want: []string{"a successor of the key that you trust"}},
		{Name: "successor named by another", Proof: succeeded(t, leaf, true), Policy: none},
		{Name: "any", Proof: leaf, Policy: quorum("any"), valid: true},
		{Name: "two", Proof: leaf, Policy: quorum("2"), valid: true},
		{Name: "three of two", Proof: leaf, Policy: quorum("3")},
		{Name: "one witness missing", Proof: without(leaf, "witness.example/a"), Policy: quorum("all")},
		{Name: "one witness missing, one enough", Proof: without(leaf, "witness.example/a"), Policy: quorum("1"), valid: true},
		{Name: "log's line missing", Proof: without(leaf, "pgnotary/page/1"), Policy: none},
		{Name: "another key", Proof: leaf, Policy: bytes.Replace(none, []byte("pgnotary/page/1"), []byte("pgnotary/page/2"), 1)},
		{Name: "CRLF", Proof: bytes.ReplaceAll(leaf, []byte("\n"), []byte("\r\n")), Policy: none},
		{Name: "BOM", Proof: append([]byte("\xef\xbb\xbf"), leaf...), Policy: none},
		{Name: "empty", Proof: []byte{}, Policy: none},
		{Name: "huge", Proof: bytes.Repeat([]byte("x"), 1<<20), Policy: none},
		{Name: "twice", Proof: append(bytes.Clone(leaf), leaf...), Policy: none},
		{Name: "cut", Proof: leaf[:len(leaf)-1], Policy: none},
		{Name: "value of another salt", Proof: otherSalt(t, value), Policy: none},
		{Name: "no policy", Proof: leaf, Policy: []byte("quorum none\n")},
		{Name: "policy without a quorum", Proof: leaf, Policy: []byte("log " + vkey + "\n")},
	}
	cases = append(cases, pageCase{
		Name: "a time that no calendar has", Proof: cosignedAt(t, log, leaf, ws[1], 1<<50), Policy: quorum("all"), Typed: true, valid: true,
		want: []string{"A, at 2026-09-21", "B, at second 1125899906842624 of Unix time"},
	})
	cases = append(cases, pageCase{Name: "prepared", Proof: proofs[3], Policy: none, Typed: true, valid: true, want: []string{`proven, in entry 2: Parse "stmt": SELECT prepared`}})
	for i := 40; i < len(proofs[3]); i += 23 {
		b := bytes.Clone(proofs[3])
		b[i] ^= 1 << (i % 5)
		cases = append(cases, pageCase{Name: "bit flipped in a proof of two entries", Proof: b, Policy: none})
	}
	for _, x := range []struct{ name, old, new string }{ // of the extra line
		{"no related entries", `"}`, `","related":[]}`},
		{"no succession", `"}`, `","succession":""}`},
		{"a succession of another log", `"}`, `","succession":"` + base64.StdEncoding.EncodeToString([]byte("a b c\n")) + `"}`},
		{"a succession that is cut", `"}`, `","succession":"AAAA"}`},
		{"an index that is a text", `"index":2`, `"index":"2"`},
	} {
		for _, p := range [][]byte{leaf, proofs[3]} {
			p = withExtra(p, func(s string) string {
				if x.old == `"}` && strings.HasSuffix(s, "]}") {
					return strings.TrimSuffix(s, "}") + x.new[1:]
				}
				return strings.Replace(s, x.old, x.new, 1)
			})
			cases = append(cases, pageCase{Name: x.name, Proof: p, Policy: none})
		}
	}
	for _, more := range []string{"— \ufeff AAAAAAAA\n", "— x AAAA" + strings.Repeat("AAAA", 1<<14) + "\n"} {
		cases = append(cases, pageCase{Name: "a signature more", Proof: append(bytes.Clone(leaf), more...), Policy: none})
	}
	lines := bytes.SplitAfter(leaf, []byte("\n"))
	for i := range lines { // each line left out, and doubled
		cases = append(cases,
			pageCase{Name: "line left out", Proof: bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil), Policy: quorum("all")},
			pageCase{Name: "line doubled", Proof: bytes.Join(append(append([][]byte{}, lines[:i+1]...), lines[i:]...), nil), Policy: quorum("all")})
	}
	for i := 0; i < len(value); i += 7 { // bits flipped
		b := bytes.Clone(value)
		b[i] ^= 1 << (i % 7)
		cases = append(cases, pageCase{Name: "bit flipped", Proof: b, Policy: quorum("all")})
	}
	for i := range cases {
		if c := &cases[i]; !c.Typed {
			if c.valid && !goSays(c.Proof, c.Policy) {
				t.Errorf("%s: not valid here", c.Name)
			}
			c.valid = goSays(c.Proof, c.Policy)
		}
	}
	return log, cases
}

// commitmentOf is SHA-256(salt || value).
func commitmentOf(x *checkpoint.Extra) [32]byte {
	return sha256.Sum256(append(x.Salt[:], x.Value...))
}

func without(proof []byte, name string) []byte {
	var out []byte
	for line := range bytes.Lines(proof) {
		if !bytes.HasPrefix(line, []byte("— "+name+" ")) {
			out = append(out, line...)
		}
	}
	return out
}

// succeeded returns the proof with its checkpoint signed by a successor of the
// log's key, which the log's key named, or another one.
func succeeded(t *testing.T, proof []byte, forged bool) []byte {
	t.Helper()
	p, err := checkpoint.ParseProof(proof)
	if err != nil {
		t.Fatal(err)
	}
	x, err := checkpoint.ParseExtra(p.Extra)
	if err != nil {
		t.Fatal(err)
	}
	next, old := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), pageKey()
	if forged {
		old = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	}
	s, err := checkpoint.NewSuccessor("pgnotary/page/1", old, next)
	if err != nil {
		t.Fatal(err)
	}
	x.Succession = s.Format()
	signer, err := checkpoint.SignerOf("pgnotary/page/1", next)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := checkpoint.Parse(p.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if p.Checkpoint, err = checkpoint.Sign(signer, c.Origin, c.Size, c.Root); err != nil {
		t.Fatal(err)
	}
	if p.Extra, err = x.Format(); err != nil {
		t.Fatal(err)
	}
	return p.Format()
}

// pageKey is the key of the log of these proofs.
func pageKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)) }

// withExtra returns a proof whose extra data was changed.
func withExtra(proof []byte, change func(string) string) []byte {
	lines := strings.SplitN(string(proof), "\n", 3)
	x, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		panic(err)
	}
	return []byte(lines[0] + "\nextra " + base64.StdEncoding.EncodeToString([]byte(change(string(x)))) + "\n" + lines[2])
}

func otherSalt(t *testing.T, proof []byte) []byte {
	t.Helper()
	p, err := checkpoint.ParseProof(proof)
	if err != nil {
		t.Fatal(err)
	}
	x, err := checkpoint.ParseExtra(p.Extra)
	if err != nil {
		t.Fatal(err)
	}
	x.Salt[0]++
	if p.Extra, err = x.Format(); err != nil {
		t.Fatal(err)
	}
	return p.Format()
}

// TestProofPage has Chromium check proofs on the page, as a file without a
// network and as it is served, and compares each verdict with ours.
func TestProofPage(t *testing.T) {
	t.Parallel()
	html, _, err := web.ProofPage()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "proof.html")
	if err := os.WriteFile(file, html, 0o600); err != nil {
		t.Fatal(err)
	}
	log, cases := pageCases(t)
	s := httptest.NewServer(web.NewHandler(web.Config{Log: log, Tokens: func() access.Tokens { return nil }, Metrics: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler), Loopback: true}))
	defer s.Close()
	for _, url := range []string{"file://" + file, s.URL + "/proof"} {
		if url == s.URL+"/proof" { // the same page: that it was altered bit by bit shows nothing new
			cases = slices.DeleteFunc(cases, func(c pageCase) bool { return strings.Contains(c.Name, "bit flipped") })
		}
		in, err := json.Marshal(cases)
		if err != nil {
			t.Fatal(err)
		}
		shot := filepath.Join(t.TempDir(), "page.png")
		if keep := os.Getenv("PGNOTARY_SCREENSHOT"); keep != "" {
			shot = keep
		}
		cmd := exec.Command("node", "proofpage.js", url, shot)
		cmd.Dir, cmd.Stdin = "testdata", bytes.NewReader(in)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		began := time.Now()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v after %s\n%s", url, err, time.Since(began), errs.Bytes())
		}
		var got struct {
			Results []struct {
				Valid bool
				Text  string
			}
			Requests, Errors, Refused []string
			Injected                  bool
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%s: %v\n%s", url, err, out)
		}
		if len(got.Results) != len(cases) {
			t.Fatalf("%s: %d results, want %d", url, len(got.Results), len(cases))
		}
		n := 0
		for i, c := range cases {
			r := got.Results[i]
			if r.Valid != c.valid {
				t.Errorf("%s: %s: the page says valid %v (%s), want %v", url, c.Name, r.Valid, r.Text, c.valid)
			}
			for _, w := range c.want {
				if !strings.Contains(r.Text, w) {
					t.Errorf("%s: %s: the page says\n%s\nwant %q in it", url, c.Name, r.Text, w)
				}
			}
			if c.valid {
				n++
			}
		}
		if n < 6 {
			t.Errorf("only %d of the proofs are valid", n)
		}
		if len(got.Requests) != 1 {
			t.Errorf("%s: requests %q, want that of the page only", url, got.Requests)
		}
		if len(got.Errors) > 0 {
			t.Errorf("%s: the page logs %q", url, got.Errors)
		}
		refused := strings.Join(got.Refused, "\n")
		if got.Injected || !strings.Contains(refused, "Connecting to") || !strings.Contains(refused, "Executing inline script") {
			t.Errorf("%s: a foreign script ran: %v; refused %q, want a request and a script", url, got.Injected, refused)
		}
		if info, err := os.Stat(shot); err != nil || info.Size() < 10_000 {
			t.Errorf("no picture of the page: %v", err)
		}
	}
}
