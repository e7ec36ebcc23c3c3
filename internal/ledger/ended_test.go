package ledger

import (
	"errors"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

// sealAll ends the journal file and seals it.
func sealAll(t *testing.T, l *Ledger) {
	t.Helper()
	if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestRetainOnce: where nothing is left to prune, no entry says that something was.
func TestRetainOnce(t *testing.T) {
	for _, h := range []*Hold{nil, {From: 256, To: 257}} {
		s := faultfs.New()
		cfg := steady(quiet(s, "/d"))
		now := cfg.Now()
		cfg.Now = func() int64 { return now }
		cfg.Retain = Retain{ValueAge: time.Second}
		l := mustOpen(t, cfg)
		if _, _, _, err := rich(l); err != nil {
			t.Fatal(err)
		}
		sealAll(t, l)
		if h != nil {
			mustDo(t, l, Order{Kind: "hold", Case: "trial", Hold: h})
		}
		now += int64(time.Hour)
		before := l.Durable()
		if err := l.clerk.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		once := l.Durable()
		if err := l.clerk.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if once == before || l.Durable() != once {
			t.Errorf("hold %+v: %d, %d, then %d entries, want growth the first time only", h, before, once, l.Durable())
		}
		mustClose(t, l)
		mustVerify(t, s, "/d")
	}
}
