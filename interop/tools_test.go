package interop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMirror lets Tessera's mirror copy the log, and fsck check the copy as
// files. A copy of which a byte was altered must not pass.
func TestMirror(t *testing.T) {
	mirror := program(t, ".", "mirror", "github.com/transparency-dev/tessera/cmd/experimental/mirror/posix")
	fsck := program(t, ".", "fsck", "github.com/transparency-dev/tessera/cmd/fsck")
	r := start(t, nil)
	dir := t.TempDir()
	key := filepath.Join(t.TempDir(), "vkey")
	if err := os.WriteFile(key, []byte(r.log.VKey()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, fsck, "-N", "8", "--ui=false", "--storage_url", "file://"+dir, "--public_key", key).CombinedOutput()
		return err == nil && strings.Contains(string(out), "Successfully fsck'd log with size "+strconv.FormatInt(r.size, 10)+" "), string(out)
	}
	for _, size := range []int64{300, 700, 66000} { // the mirror goes on where it was
		r.grow(size)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		out, err := exec.CommandContext(ctx, mirror, "--source_url", r.http.URL+"/log/", "--storage_dir", dir).CombinedOutput()
		cancel()
		if err != nil || !strings.Contains(string(out), "mirrored successfully") {
			t.Fatalf("mirror of %d entries: %v\n%s", size, err, out)
		}
		if ok, out := check(); !ok {
			t.Errorf("fsck of the copy of %d entries:\n%s", size, out)
		}
	}
	name := filepath.Join(dir, "tile/entries/001")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[50] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, out := check(); ok {
		t.Errorf("fsck accepts an altered copy:\n%s", out)
	}
}

// TestSpicy has torchwood's spicy check a proof of pgnotary prove. Spicy
// wants the older form: without the first line and the extra data, beside the leaf.
func TestSpicy(t *testing.T) {
	bin := program(t, "..", "pgnotary", "./cmd/pgnotary")
	spicy := program(t, ".", "spicy", "filippo.io/torchwood/cmd/spicy")
	r := start(t, nil)
	r.grow(600)
	dir := t.TempDir()
	for _, index := range []int64{0, 1, 255, 256, 599} {
		file := filepath.Join(dir, fmt.Sprint("proof", index))
		if out, err := exec.Command(bin, "prove", "--data", r.dir, strconv.FormatInt(index, 10), "-o", file).CombinedOutput(); err != nil {
			t.Fatalf("prove: %v\n%s", err, out)
		}
		proof, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfterN(proof, []byte("\n"), 3)
		if len(lines) != 3 || !bytes.HasPrefix(lines[1], []byte("extra ")) {
			t.Fatalf("the proof begins with %q", lines)
		}
		e, err := r.log.Entry(index)
		if err != nil {
			t.Fatal(err)
		}
		leaf := filepath.Join(dir, "leaf")
		write := func(leafBytes, proof []byte) {
			t.Helper()
			if err := os.WriteFile(leaf, leafBytes, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(leaf+".spicy", proof, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(e.Leaf, lines[2])
		if out, err := exec.Command(spicy, "-verify", r.log.VKey(), leaf).CombinedOutput(); err != nil {
			t.Errorf("spicy does not accept the proof of entry %d: %v\n%s", index, err, out)
		}
		write(append([]byte("x"), e.Leaf...), lines[2])
		if out, err := exec.Command(spicy, "-verify", r.log.VKey(), leaf).CombinedOutput(); err == nil {
			t.Errorf("spicy accepts another leaf at %d:\n%s", index, out)
		}
	}
}
