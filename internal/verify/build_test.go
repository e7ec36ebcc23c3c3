package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// builder writes a log with the real ledger, as sessions would.
type builder struct {
	t   testing.TB
	dir string
	l   *ledger.Ledger
	now atomic.Int64 // the clock; the ledger asks it too
	seq map[uint64]uint64
}

// newBuilder begins a log in a new directory. The log is the same in every run.
func newBuilder(t testing.TB, cfg ledger.Config) *builder {
	t.Helper()
	b := &builder{t: t, dir: filepath.Join(t.TempDir(), "data"), seq: map[uint64]uint64{}}
	b.now.Store(1_780_000_000e9)
	b.open(cfg)
	return b
}

func (b *builder) open(cfg ledger.Config) {
	b.t.Helper()
	cfg.Dir, cfg.Origin = b.dir, "pgnotary/test/1"
	if cfg.CheckpointEvery == 0 {
		cfg.CheckpointEvery = time.Hour // so nothing is sealed by itself
	}
	cfg.Now = b.now.Load
	cfg.Rand = rand.NewChaCha8([32]byte{byte(b.now.Load() / 1000)})
	l, err := ledger.Open(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.l = l
}

func (b *builder) close() {
	b.t.Helper()
	if err := b.l.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// add appends an entry of a session; number and time are filled in.
func (b *builder) add(l event.Leaf, value []byte) int64 {
	b.t.Helper()
	l.Time = b.now.Add(1000)
	if l.Session != 0 {
		b.seq[l.Session]++
		l.Seq = b.seq[l.Session]
	}
	l.HasValue, l.Size = value != nil, int64(len(value))
	i, err := b.l.Append(l.Append(nil), value)
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// commit makes all that was added durable, as one batch.
func (b *builder) commit(last int64) {
	b.l.Want(last)
	for b.l.Durable() <= last {
		if err := b.l.Err(); err != nil {
			b.t.Fatal(err)
		}
	}
}

var alice = &event.Who{User: "alice", Database: "app", Application: "psql", Client: "127.0.0.1:50123"}

func frame(letter byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{letter}, uint32(4+len(body))), body...)
}

// session adds a session of a few statements of all shapes.
func (b *builder) session(id uint64) {
	b.t.Helper()
	ref := event.Ref
	b.add(event.Leaf{Session: id, Kind: event.KindConnect, Who: alice, Facts: []event.Fact{{Key: "protocol", Val: "3.0"}}}, []byte("start-up packet"))
	last := b.add(event.Leaf{Session: id, Kind: event.KindAuth, Who: alice, Facts: []event.Fact{{Key: "result", Val: "ok"}}}, nil)
	b.commit(last)
	q := b.add(event.Leaf{Session: id, Kind: event.KindQuery, Who: alice, Msgs: []byte("Q")}, frame('Q', "SELECT 1\x00"))
	b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: ref(q), Msgs: []byte("TDCZ"), Tags: []string{"SELECT 1"}, Rows: 1, Bytes: 12, Tx: 'I', Committed: 1}, nil)
	p := b.add(event.Leaf{Session: id, Kind: event.KindParse, Who: alice, Msgs: []byte("PS"), Types: []uint32{23}}, frame('P', "s\x00SELECT $1\x00\x00\x00"))
	b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: ref(p), Msgs: []byte("1Z"), Tx: 'I'}, nil)
	bind := b.add(event.Leaf{Session: id, Kind: event.KindBind, Who: alice, Msgs: []byte("BH"), Parse: ref(p)}, frame('B', "portal"))
	b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: ref(bind), Msgs: []byte("2")}, nil)
	x := b.add(event.Leaf{Session: id, Kind: event.KindExecute, Who: alice, Msgs: []byte("EH"), Parse: ref(p), Bind: ref(bind)}, frame('E', "portal"))
	b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: ref(x), Msgs: []byte("Ds"), Rows: 5, End: event.EndSuspended}, nil)
	x2 := b.add(event.Leaf{Session: id, Kind: event.KindExecute, Who: alice, Msgs: []byte("ES"), Parse: ref(p), Bind: ref(bind)}, frame('E', "portal"))
	b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: ref(x2), Msgs: []byte("EZ"), SQLState: "42P01", Tx: 'I', Committed: -1, Since: ref(x)}, frame('E', "error"))
	cp := b.add(event.Leaf{Session: id, Kind: event.KindQuery, Who: alice, Msgs: []byte("Q")}, frame('Q', "COPY t FROM STDIN\x00"))
	b.add(event.Leaf{Session: id, Kind: event.KindCopy, Who: alice, Msgs: []byte("dc"), Of: ref(cp), Rows: 2, Bytes: 8}, make([]byte, 32))
	b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: ref(cp), Tags: []string{"COPY 2"}, Rows: 2}, nil)
	b.add(event.Leaf{Session: id, Kind: event.KindSettle, Of: ref(cp), Tx: 'I', Committed: 1}, nil)
	b.add(event.Leaf{Session: id, Kind: event.KindDisconnect, Who: alice, Facts: []event.Fact{{Key: "reason", Val: "client"}}}, []byte{})
}

// blob adds a session with a statement of size bytes.
func (b *builder) blob(id uint64, size int) (index int64) {
	b.add(event.Leaf{Session: id, Kind: event.KindConnect, Who: alice}, []byte("start-up packet"))
	q := b.add(event.Leaf{Session: id, Kind: event.KindQuery, Who: alice, Msgs: []byte("Q")}, frame('Q', strings.Repeat("x", size-6)+"\x00"))
	b.add(event.Leaf{Session: id, Kind: event.KindOutcome, Of: event.Ref(q), End: event.EndUnknown}, nil)
	b.add(event.Leaf{Session: id, Kind: event.KindDisconnect, Who: alice}, nil)
	return q
}

// smallLog writes a log of a few sessions, one blob and a restart.
func smallLog(t testing.TB) string {
	b := newBuilder(t, ledger.Config{})
	b.session(1)
	b.blob(2, ledger.MaxInline+1)
	b.close()
	b.open(ledger.Config{})
	b.session(3)
	b.close()
	return b.dir
}

// manyEntries adds n heartbeats.
func (b *builder) manyEntries(n int) {
	var last int64
	for range n {
		last = b.add(event.Leaf{Kind: event.KindHeartbeat}, nil)
	}
	b.commit(last)
}

// copyDir copies a data directory, so that it can be altered.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func run(t testing.TB, dir string, opt Options) *Result {
	t.Helper()
	r, err := Dir(context.Background(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantFinding wants exactly a result that is not ok, with a finding that
// contains all parts.
func wantFinding(t *testing.T, r *Result, parts ...string) {
	t.Helper()
	if r.OK {
		t.Errorf("the log is found in order, want a finding with %q", parts)
		return
	}
	for _, f := range r.Findings {
		s := f.What + ": " + f.Why
		if f.Index != nil {
			s = fmt.Sprintf("entry %d: ", *f.Index) + s
		}
		all := true
		for _, p := range parts {
			all = all && strings.Contains(s, p)
		}
		if all {
			return
		}
	}
	t.Errorf("findings %+v, want one with %q", r.Findings, parts)
}

// files returns the names of all plain files below dir.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// edit changes a file by f.
func edit(t testing.TB, name string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, f(bytes.Clone(b)), 0o600); err != nil {
		t.Fatal(err)
	}
}
