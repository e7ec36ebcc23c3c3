package ledger

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

// TestFailure: a failed write or sync ends recording for good and tells why.
func TestFailure(t *testing.T) {
	for _, tt := range []struct {
		name string
		op   faultfs.Op
		file string
		err  error
		do   func(l *Ledger) error
	}{
		{"sync of a batch", faultfs.Datasync, ".journal", syscall.EIO, nil},
		{"direct write of a batch", faultfs.Write, ".journal", syscall.EIO, nil},
		{"write of a batch", faultfs.Write, ".journal", syscall.ENOSPC, nil},
		{"checkpoint", faultfs.Rename, "checkpoint", syscall.EROFS, (*Ledger).sign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := faultfs.New()
			s.SetDirect(strings.Contains(tt.name, "direct"))
			l := mustOpen(t, quiet(s, "/d"))
			told := make(chan error, 10)
			l.Subscribe(func(_ int64, err error) {
				if err != nil {
					told <- err
				}
			})
			before := mustAppend(t, l, 0, nil)
			mustWait(t, l, before+1)
			s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if op == tt.op && strings.HasSuffix(name, tt.file) {
					return faultfs.Fault{Err: tt.err}
				}
				return faultfs.Fault{}
			})
			index := mustAppend(t, l, 1, nil)
			if tt.do == nil {
				l.Want(index)
			} else {
				if err := tt.do(l); err == nil {
					t.Fatal("the fault was not reported")
				} else {
					l.fail(err)
				}
			}
			select {
			case err := <-told:
				if !errors.Is(err, tt.err) {
					t.Errorf("subscriber was told %v, want %v", err, tt.err)
				}
			case <-time.After(2 * time.Minute):
				t.Fatal("the subscriber was not told")
			}
			s.Inject(nil) // the disk is well again: too late
			if _, err := l.Append(leafOf(1, 0, false), nil); !errors.Is(err, tt.err) {
				t.Errorf("Append = %v, want %v", err, tt.err)
			}
			if _, err := l.NewBlob(); !errors.Is(err, tt.err) {
				t.Errorf("NewBlob = %v, want %v", err, tt.err)
			}
			if l.Durable() != index {
				t.Errorf("Durable() = %d, want %d", l.Durable(), index)
			}
			if err := l.Close(); !errors.Is(err, tt.err) {
				t.Errorf("Close = %v, want %v", err, tt.err)
			}
			if len(told) != 0 {
				t.Errorf("the subscriber was told again: %v", <-told)
			}
			mustClose(t, mustOpen(t, quiet(s, "/d")))
			if k := kinds(checkLog(t, s, "/d")); !strings.Contains(k, "recover start stop") {
				t.Errorf("entries: %s, want a recovery", k)
			}
		})
	}
}

// TestFullDisk fills the disk and makes room again.
func TestFullDisk(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.room = 0
	l := mustOpen(t, cfg)
	s.SetSpace(200 << 10)
	var err error
	n := 0
	for ; err == nil; n++ {
		var index int64
		if index, err = l.Append(leafOf(n, 100<<10, true), make([]byte, 100<<10)); err == nil {
			err = waitFor(l, index+1)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || n < 5 {
		t.Errorf("after %d entries: %v, want ENOSPC after 5 or more", n, err)
	}
	if err := l.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close = %v, want ENOSPC", err)
	}
	s.SetSpace(-1)
	mustClose(t, mustOpen(t, quiet(s, "/d")))
	if got := checkLog(t, s, "/d"); len(got) < n {
		t.Errorf("%d entries, want at least %d", len(got), n)
	}
}

func TestRandomnessFails(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	mustClose(t, mustOpen(t, cfg))
	cfg.Rand = io.LimitReader(&countingReader{}, 20)
	l := mustOpen(t, cfg)
	if _, err := l.NewBlob(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("NewBlob without randomness = %v, want an error", err)
	}
	var err error
	for i := 0; err == nil && i < 300; i++ {
		_, err = l.Append(leafOf(i, 1, true), []byte("x"))
	}
	if werr := waitFor(l, 300); !errors.Is(werr, io.EOF) && !errors.Is(werr, io.ErrUnexpectedEOF) {
		t.Errorf("commit without randomness: %v, want an error", werr)
	}
	if err := l.Close(); err == nil {
		t.Error("Close = nil, want the error")
	}
}
