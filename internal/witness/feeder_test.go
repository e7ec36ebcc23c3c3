package witness

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
)

// witnessed is a witness behind HTTP, whose answers can be changed.
type witnessed struct {
	*Server
	url   string
	mu    sync.Mutex
	other http.HandlerFunc // answers in its place
}

func (w *witnessed) set(f http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.other = f
}

func (w *witnessed) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	other := w.other
	w.mu.Unlock()
	if other != nil {
		other(rw, r)
		return
	}
	w.Server.ServeHTTP(rw, r)
}

// serveNew begins a witness that knows the log.
func serveNew(t *testing.T, seed byte, l *testLog) *witnessed {
	t.Helper()
	w := &witnessed{Server: open(t, Config{Dir: t.TempDir(), Signer: testKey(t, seed)})}
	if err := w.Add(l.vkey); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(w)
	t.Cleanup(func() { s.Close(); w.Close() })
	w.url = s.URL
	return w
}

// feeding is a feeder of a log, and the alarms it raised.
type feeding struct {
	*Feeder
	policy *checkpoint.Policy
	mu     sync.Mutex
	alarms []Alarm
}

func (f *feeding) raised() []Alarm {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.alarms
}

func feed(t *testing.T, l *testLog, quorum string, ws ...*witnessed) *feeding {
	t.Helper()
	text, names := "log "+l.vkey+"\n", ""
	for i, w := range ws {
		name := string(rune('A' + i))
		text += "witness " + name + " " + w.VKey() + " " + w.url + "\n"
		names += " " + name
	}
	policy, err := checkpoint.ParsePolicy([]byte(text + "group G " + quorum + names + "\nquorum G\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := &feeding{policy: policy}
	f.Feeder = NewFeeder(FeederConfig{
		Policy: policy, Logger: slog.New(slog.DiscardHandler), Grace: 2 * time.Minute,
		Consistency: func(old, size int64) ([][32]byte, error) { return l.proof(int(old), int(size)), nil },
		Alarm: func(a Alarm) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.alarms = append(f.alarms, a)
		},
	})
	t.Cleanup(f.Close)
	return f
}

func (f *feeding) cosign(t *testing.T, signed []byte, witnesses int, quorum bool) {
	t.Helper()
	cosigned, enough := f.Cosign(t.Context(), signed)
	v, err := f.policy.Verify(cosigned)
	if enough != quorum || (err == nil) != quorum || strings.Count(string(cosigned), "— ") != 1+witnesses {
		t.Errorf("%d cosignatures, quorum %v (%v), want %d, %v:\n%s", len(v.Cosignatures), enough, err, witnesses, quorum, cosigned)
	}
}

// TestFeed keeps three witnesses at the tip while they come and go.
func TestFeed(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(300, "")
	a, b, c := serveNew(t, 1, l), serveNew(t, 2, l), serveNew(t, 3, l)
	f := feed(t, l, "2", a, b, c)
	if err := f.Start(t.Context(), l.sign(0)); err != nil {
		t.Fatal(err)
	}
	f.cosign(t, l.sign(1), 3, true)
	f.cosign(t, l.sign(7), 3, true)
	f.cosign(t, l.sign(7), 3, true)
	down := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) }
	a.set(down)
	f.cosign(t, l.sign(20), 2, true)
	b.set(down)
	f.cosign(t, l.sign(30), 1, false)
	a.set(nil)
	f.cosign(t, l.sign(256), 2, true)
	b.set(nil)
	f.cosign(t, l.sign(300), 3, true)
	// Nonsense is no cosignature.
	for _, text := range []string{"", "\n", "x\n", "— log.example/1 AAAAAAAA\n", string(l.sign(3)), strings.Repeat("x", maxAnswer+1)} {
		a.set(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) })
		f.cosign(t, l.sign(300), 2, true)
	}
	for _, size := range []string{"", "-1", "x", "300", "99999999999999999999"} {
		a.set(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/x.tlog.size")
			w.WriteHeader(http.StatusConflict)
			w.Write([]byte(size + "\n"))
		})
		f.cosign(t, l.sign(300), 2, true)
	}
	a.set(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, b.url+r.URL.Path, http.StatusFound) })
	f.cosign(t, l.sign(300), 2, true)
	if got := f.Cosignatures.Load(); got < 12 {
		t.Errorf("%d cosignatures counted", got)
	}
}

// TestSlow: a witness that hangs does not hold up the others, and catches up.
func TestSlow(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(300, "")
	a, b := serveNew(t, 1, l), serveNew(t, 2, l)
	f := feed(t, l, "any", a, b)
	f.cfg.Grace = 0
	free := make(chan struct{})
	b.set(func(w http.ResponseWriter, r *http.Request) { <-free; b.Server.ServeHTTP(w, r) })
	for size := 1; size <= 50; size++ {
		f.cosign(t, l.sign(size), 1, true)
	}
	b.set(nil)
	close(free)
	f.cfg.Grace = 2 * time.Minute
	f.cosign(t, l.sign(60), 2, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Cosign(ctx, l.sign(61)) // returns
}

// TestQuorum: witnesses that hang are missed before their time is up.
func TestQuorum(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(3, "")
	w := serveNew(t, 1, l)
	f := feed(t, l, "any", w)
	soon := time.Now()
	later := soon.Add(time.Hour)
	if f.Quorum(soon) {
		t.Error("a quorum before anybody was asked")
	}
	f.cosign(t, l.sign(1), 1, true)
	if !f.Quorum(later) {
		t.Error("no quorum after there was one, and nobody is asked")
	}
	hangs, free := make(chan struct{}), make(chan struct{})
	w.set(func(rw http.ResponseWriter, r *http.Request) { close(hangs); <-free; w.Server.ServeHTTP(rw, r) })
	done := make(chan struct{})
	go func() { defer close(done); f.cosign(t, l.sign(2), 1, true) }()
	<-hangs
	if !f.Quorum(soon) || f.Quorum(later) {
		t.Errorf("while the witness hangs: quorum %v at first, %v later", f.Quorum(soon), f.Quorum(later))
	}
	close(free)
	<-done
	w.set(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) })
	if !f.Quorum(later) {
		t.Error("no quorum once it went on")
	}
	f.cosign(t, l.sign(3), 0, false)
	if f.Quorum(soon) {
		t.Error("a quorum of witnesses that refuse")
	}
}

// TestAlarms is rows 4, 6 and 17 of the tamper matrix as the log sees them:
// another process has the log's key.
func TestAlarms(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(300, "")
	thief := l.branch(100).grow(300, "another history")
	for _, tt := range []struct {
		name   string
		theirs []byte // what the witness cosigned last
		proof  [][32]byte
		size   int // of our next checkpoint
		kind   string
		held   int64
	}{
		{"same-size fork", thief.sign(150), thief.proof(100, 150), 150, AlarmFork, -1},
		{"longer fork", thief.sign(150), thief.proof(100, 150), 200, AlarmFork, -1},
		{"a clone that is ahead", l.sign(200), l.proof(100, 200), 150, AlarmRollback, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := serveNew(t, 1, l)
			f := feed(t, l, "all", w)
			f.cosign(t, l.sign(100), 1, true)
			if rec := post(w, (&request{100, tt.proof, tt.theirs}).format()); rec.Code != 200 {
				t.Fatalf("the thief's checkpoint: %d %s", rec.Code, rec.Body)
			}
			f.cosign(t, l.sign(tt.size), 0, false)
			f.cosign(t, l.sign(tt.size), 0, false) // no second alarm
			got := f.raised()
			if len(got) != 1 || got[0].Kind != tt.kind || got[0].Witness != "A" || got[0].Size != int64(tt.size) || got[0].Held != tt.held {
				t.Fatalf("alarms %+v, want one of kind %s, held %d", got, tt.kind, tt.held)
			}
			var e Evidence
			if err := json.Unmarshal(got[0].Evidence, &e); err != nil {
				t.Fatal(err)
			}
			if _, err := checkpoint.Open([]byte(e.Theirs), l.vkey); err != nil || !strings.HasPrefix(e.Theirs, string(tt.theirs)) || e.Ours != string(l.sign(tt.size)) {
				t.Errorf("evidence %+v, %v, want both checkpoints", e, err)
			}

			// The same at a start: it is refused.
			f = feed(t, l, "all", w)
			err := f.Start(t.Context(), l.sign(tt.size))
			_, rollback := errors.AsType[*RollbackError](err)
			if tt.name == "longer fork" {
				// Only when asked with a proof: the witness holds less.
				if !errors.Is(err, ErrFork) {
					t.Errorf("start: %v, want %v", err, ErrFork)
				}
			} else if rollback != (tt.kind == AlarmRollback) || errors.Is(err, ErrFork) != (tt.kind == AlarmFork) {
				t.Errorf("start: %v, want %s", err, tt.kind)
			}
		})
	}
}

// TestAlarmsAreBounded: a witness that agrees and disagrees by turns is one alarm.
func TestAlarmsAreBounded(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(100, "")
	w := serveNew(t, 1, l)
	f := feed(t, l, "all", w)
	for size := 1; size < 20; size++ {
		f.cosign(t, l.sign(size), 1, true)
		w.set(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "fork", http.StatusUnprocessableEntity) })
		f.cosign(t, l.sign(size), 0, false)
		w.set(nil)
	}
	if n := len(f.raised()); n != 1 {
		t.Errorf("%d alarms, want 1", n)
	}
}

// TestOmniwitnessFork: 409 without a size is how omniwitness tells a fork.
func TestOmniwitnessFork(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(30, "")
	w := serveNew(t, 1, l)
	w.set(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "conflict", http.StatusConflict) })
	f := feed(t, l, "all", w)
	if err := f.Start(t.Context(), l.sign(10)); !errors.Is(err, ErrFork) {
		t.Errorf("start: %v, want %v", err, ErrFork)
	}
}

// TestStart: the log is behind, level and alone.
func TestStart(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(300, "")
	a, b := serveNew(t, 1, l), serveNew(t, 2, l)
	f := feed(t, l, "all", a, b)
	f.cosign(t, l.sign(100), 2, true)
	for _, size := range []int{100, 101} {
		if err := feed(t, l, "all", a, b).Start(t.Context(), l.sign(size)); err != nil {
			t.Errorf("start at %d: %v", size, err)
		}
	}
	if err := feed(t, l, "all", a, b).Start(t.Context(), l.sign(99)); err == nil {
		t.Error("start at 99, and the witnesses hold 101")
	}
	// One witness that knows better is enough to refuse, even if the others are a quorum.
	c := serveNew(t, 3, l)
	if err := feed(t, l, "any", a, c).Start(t.Context(), l.sign(50)); err == nil {
		t.Error("start at 50, and one witness holds 101")
	}
	b.set(func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) })
	if err := feed(t, l, "all", a, b).Start(t.Context(), l.sign(150)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("start with one of two: %v, want %v", err, ErrUnreachable)
	}
	if err := feed(t, l, "1", a, b).Start(t.Context(), l.sign(151)); err != nil {
		t.Errorf("start with one, which is enough: %v", err)
	}
}

// TestMinority is row 8 of the tamper matrix: witnesses that collude with the
// log's owner are fewer than the quorum, so the fork gets too few cosignatures.
func TestMinority(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(300, "")
	thief := l.branch(100).grow(300, "fork")
	a, b, c := serveNew(t, 1, l), serveNew(t, 2, l), serveNew(t, 3, l)
	f := feed(t, l, "2", a, b, c)
	f.cosign(t, l.sign(200), 3, true)
	// c forgets everything, as if its state had been put back.
	c.mu.Lock()
	forgetful := open(t, Config{Dir: t.TempDir(), Signer: testKey(t, 3)})
	if err := forgetful.Add(l.vkey); err != nil {
		t.Fatal(err)
	}
	c.Server = forgetful
	c.mu.Unlock()
	g := feed(t, thief, "2", a, b, c)
	g.cosign(t, thief.sign(200), 1, false)
	if n := len(g.raised()); n != 2 {
		t.Errorf("%d alarms, want one of each honest witness", n)
	}
}
