package ledger

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

// nextKey puts a key beside the one in force, as keygen --next does.
func nextKey(t *testing.T, fsys durable.FS, seed byte) (vkey string) {
	t.Helper()
	skey, vkey, err := checkpoint.GenerateKey(rand.NewChaCha8([32]byte{seed}), "test.example/keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(fsys, "/d/key.next", []byte(skey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return vkey
}

// TestRotate changes the key twice; the checkpoint is the new one's each time, and the old one is gone.
func TestRotate(t *testing.T) {
	fsys := faultfs.New()
	cfg := Config{Dir: "/d", FS: fsys, Origin: "test.example/keys", room: 1 << 16}
	open := func() *Ledger {
		t.Helper()
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	first := l.VKey()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var want string
	for i := range byte(2) {
		want = nextKey(t, fsys, 10+i)
		l = open()
		if l.VKey() != want {
			t.Errorf("key %s, want %s", l.VKey(), want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l = open() // nothing more to do
	size := l.Durable()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		t.Helper()
		b, err := durable.ReadFile(fsys, "/d/"+name, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if c, err := checkpoint.Open(read("checkpoint"), want); err != nil || c.Size != size+1 {
		t.Errorf("checkpoint %+v, %v, want one of %d entries by the last key", c, err, size+1)
	}
	vkeys, err := checkpoint.ParseSuccession(read("succession"), first)
	if err != nil || len(vkeys) != 3 || vkeys[2] != want {
		t.Errorf("succession %q, %v", vkeys, err)
	}
	if vkey, err := checkpoint.VKey(string(read("key"))); err != nil || vkey != want {
		t.Errorf("the key file has %s, %v", vkey, err)
	}
	if _, err := durable.ReadFile(fsys, "/d/key.next", 4<<10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("key.next: %v, want it gone", err)
	}
	// Without its history the log is not opened with the last key.
	if err := fsys.Remove("/d/succession"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "is not that of the log") {
		t.Errorf("without the succession: %v", err)
	}
}

// TestRotateCrash breaks each step of a rotation, before and after its effect,
// and loses power: the next start finishes it.
func TestRotateCrash(t *testing.T) {
	for step := 1; ; step++ {
		fsys := faultfs.New()
		cfg := Config{Dir: "/d", FS: fsys, Origin: "test.example/keys", room: 1 << 16}
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		first := l.VKey()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		want := nextKey(t, fsys, 10)
		n := 0
		fsys.Inject(func(op faultfs.Op, _ string) faultfs.Fault {
			if op == faultfs.Read || op == faultfs.Open || op == faultfs.List {
				return faultfs.Fault{}
			}
			if n++; n == step {
				return faultfs.Fault{Err: errors.New("no"), After: step%2 == 0}
			}
			return faultfs.Fault{}
		})
		l, err = Open(cfg)
		if err == nil {
			l.Close()
		}
		fsys.Inject(nil)
		for seed := range uint64(4) {
			cfg.FS = fsys.Crash(rand.New(rand.NewPCG(seed, uint64(step))))
			again, err := Open(cfg)
			if err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if again.VKey() != want || again.vkeys[0] != first || len(again.vkeys) != 2 {
				t.Errorf("step %d: keys %q, want %s last", step, again.vkeys, want)
			}
			if err := again.Close(); err != nil {
				t.Errorf("step %d: %v", step, err)
			}
		}
		if n < step {
			return
		}
	}
}

// TestKeyElsewhere: the key of the log is none of a file's business.
func TestKeyElsewhere(t *testing.T) {
	fsys := faultfs.New()
	priv := ed25519.NewKeyFromSeed(make([]byte, 32))
	cfg := Config{Dir: "/d", FS: fsys, Origin: "test.example/keys", room: 1 << 16, Key: priv}
	for range 2 {
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := durable.ReadFile(fsys, "/d/key", 4<<10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key file: %v, want none", err)
	}
	nextKey(t, fsys, 10) // by somebody who can write there and has not the key
	l := mustOpen(t, cfg)
	if len(l.vkeys) != 1 {
		t.Errorf("keys %q: it named a key that lay in the directory", l.vkeys)
	}
	mustClose(t, l)
	if err := fsys.Remove("/d/key.next"); err != nil {
		t.Fatal(err)
	}
	cfg.Key = nil
	if _, err := Open(cfg); err == nil {
		t.Error("opened without the key")
	}
	seed := make([]byte, 32)
	seed[0] = 1
	cfg.Key, cfg.NextKey = priv, ed25519.NewKeyFromSeed(seed)
	for range 2 { // named again at the second start, and in force already
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if len(l.vkeys) != 2 {
			t.Errorf("keys %q, want two", l.vkeys)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRotateTwice: two changes of the key in a row, each of which died before
// it signed, leave the checkpoint of the key before both.
func TestRotateTwice(t *testing.T) {
	fsys := faultfs.New()
	cfg := Config{Dir: "/d", FS: fsys, Origin: "test.example/keys", room: 1 << 16}
	mustClose(t, mustOpen(t, cfg))
	for seed := range byte(2) {
		nextKey(t, fsys, 10+seed)
		fsys.Inject(func(op faultfs.Op, name string) faultfs.Fault {
			if op == faultfs.Rename && name == "/d/checkpoint" {
				return faultfs.Fault{Err: errors.New("no")}
			}
			return faultfs.Fault{}
		})
		if _, err := Open(cfg); err == nil {
			t.Fatal("Open succeeded, want it to end before the checkpoint is signed")
		}
		fsys.Inject(nil)
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.vkeys) != 3 {
		t.Errorf("keys %q, want three", l.vkeys)
	}
	mustClose(t, l)
	mustVerify(t, fsys, "/d")
}

// TestOldKeyAgain: a key that was replaced does not come back, which no
// verifier would accept.
func TestOldKeyAgain(t *testing.T) {
	fsys := faultfs.New()
	cfg := Config{Dir: "/d", FS: fsys, Origin: "test.example/keys", room: 1 << 16}
	mustClose(t, mustOpen(t, cfg))
	old, err := durable.ReadFile(fsys, "/d/key", 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	nextKey(t, fsys, 10)
	mustClose(t, mustOpen(t, cfg))
	if err := durable.WriteFile(fsys, "/d/key.next", old, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "was in force before") {
		if err == nil {
			mustClose(t, l)
		}
		t.Errorf("Open = %v, want it refused", err)
	}
	if err := fsys.Remove("/d/key.next"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, cfg))
	mustVerify(t, fsys, "/d")
}
