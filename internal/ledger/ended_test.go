package ledger

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
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
		l.clerk.clock.wall = now // it was not set, an hour passed
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

// copied returns a log whose first two segments are gone, and that has of the
// text of session 1 a copy. The session is over.
func copied(t *testing.T) (*faultfs.FS, *Ledger) {
	t.Helper()
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	sealAll(t, l)
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40})
	if _, err := l.Emit(&event.Leaf{Kind: event.KindDisconnect, Session: 1, Seq: 6, Time: l.cfg.Now()}, nil); err != nil {
		t.Fatal(err)
	}
	return s, l
}

// TestKeepEnds: once a session has ended, what was kept for it goes.
func TestKeepEnds(t *testing.T) {
	s, l := copied(t)
	sealAll(t, l)
	sealAll(t, l)
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40})
	if bytes.Contains(everywhere(t, s, "/d"), []byte("the text of a statement")) {
		t.Error("the text of a session that has ended is still there")
	}
	mustClose(t, l)
	mustVerify(t, s, "/d")
}

// TestHoldCopies: a copy of an entry that is under a hold stays as the entry would.
func TestHoldCopies(t *testing.T) {
	for _, h := range []Hold{{To: 256}, {User: "alice"}} {
		s, l := copied(t)
		mustDo(t, l, Order{Kind: "hold", Case: "trial", Hold: &h})
		sealAll(t, l)
		sealAll(t, l)
		if a := mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40}); a.OK || !strings.Contains(a.Text, "trial") {
			t.Errorf("%+v: prune: %+v, want it stopped", h, a)
		}
		if !bytes.Contains(everywhere(t, s, "/d"), []byte("the text of a statement")) {
			t.Errorf("%+v: the copy of what is held is gone", h)
		}
		mustClose(t, l)
		mustVerify(t, s, "/d")
	}
}
