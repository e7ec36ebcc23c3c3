package ledger

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

// lyingFS writes one bit of a sealed file other than it was told, as a bug of
// ours or a bad memory would.
type lyingFS struct {
	durable.FS
	suffix string
	at     int64 // byte of the file
	lied   bool
}

func (f *lyingFS) Create(name string, perm fs.FileMode) (durable.File, error) {
	file, err := f.FS.Create(name, perm)
	if err == nil && strings.Contains(name, "/segment/") && strings.Contains(name, f.suffix) {
		return &lyingFile{file, f}, nil
	}
	return file, err
}

type lyingFile struct {
	durable.File
	fs *lyingFS
}

func (f *lyingFile) WriteAt(b []byte, off int64) (int, error) {
	if at := f.fs.at - off; at >= 0 && at < int64(len(b)) {
		b = append([]byte{}, b...)
		b[at] ^= 4
		f.fs.lied = true
	}
	return f.File.WriteAt(b, off)
}

// TestSealReadsAgain is row 29 of the tamper matrix: a segment that was not
// written as it should be does not replace the journal.
func TestSealReadsAgain(t *testing.T) {
	lies := 0
	for _, suffix := range []string{".zst", ".val"} {
		for at := int64(0); at < 4000; at += 61 {
			s := faultfs.New()
			liar := &lyingFS{FS: s, suffix: suffix, at: at}
			l := mustOpen(t, steady(quiet(liar, "/d")))
			_, _, _, err := rich(l) // seals, too
			if liar.lied && err == nil {
				t.Fatalf("bit in byte %d of the %s file written otherwise, and it is sealed", at, suffix)
			}
			if !liar.lied { // beyond the end
				if err != nil {
					t.Fatal(err)
				}
				mustClose(t, l)
				break
			}
			lies++
			mustVerify(t, s, "/d")
			_ = l.Close() // it may say why it was not sealed
		}
	}
	if lies < 20 {
		t.Errorf("only %d lies were told", lies)
	}
}
