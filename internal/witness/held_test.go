package witness

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestHeld: what witnesses hold is known after a restart, however the process ended, and written seldom.
func TestHeld(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(300, "")
	a, b, c := serveNew(t, 1, l), serveNew(t, 2, l), serveNew(t, 3, l)
	file := filepath.Join(t.TempDir(), "held")
	begin := func() *feeding {
		f := feed(t, l, "any", a, b, c)
		if err := f.held.load(file); err != nil {
			t.Fatal(err)
		}
		return f
	}
	want := func(f *feeding, sizes ...[2]int64) {
		t.Helper()
		got := f.Held()
		slices.SortFunc(got, func(a, b [2]int64) int { return slices.Compare(a[:], b[:]) })
		if !slices.Equal(got, sizes) {
			t.Errorf("held %d, want %d", got, sizes)
		}
	}
	down := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) }
	c.set(down) // for good: nothing is known of it
	f := begin()
	f.cosign(t, l.sign(100), 2, true)
	want(f, [2]int64{100, 100}, [2]int64{100, 100})
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	f.cosign(t, l.sign(150), 2, true)
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was written anew for a checkpoint: %v", err)
	}
	a.set(down)
	f.cosign(t, l.sign(200), 1, true) // a may have cosigned it
	f.cosign(t, l.sign(210), 1, true) // this it was not likely to hear
	want(f, [2]int64{150, 200}, [2]int64{210, 210})
	a.set(nil)
	f.cosign(t, l.sign(220), 2, true)
	a.set(down)
	f.cosign(t, l.sign(230), 1, true)

	// The process is killed here: b answered last, and may hold more than was written down.
	want(begin(), [2]int64{0, ahead}, [2]int64{220, 230}) // b said at first that it held nothing
	f = begin()
	f.cosign(t, l.sign(300), 1, true)
	want(f, [2]int64{220, 230}, [2]int64{300, 300})

	// When the file does not reach far enough ahead, it is written before the witness hears of more.
	b.set(func(w http.ResponseWriter, r *http.Request) {
		b.Server.ServeHTTP(w, r)
		if s := begin().held.known[b.VKey()]; s.most < 300 {
			t.Errorf("the file says %d to %d, and it was asked to cosign 300", s.least, s.most)
		}
	})
	f.held.known[b.VKey()].kept = [2]int64{0, 290}
	f.cosign(t, l.sign(300), 1, true)
}

// FuzzHeld: what is read is what would be written, and nothing panics.
func FuzzHeld(f *testing.F) {
	f.Add("")
	f.Add("1 2 w+00000000+BAAA\n0 0 x\n")
	f.Add("1 0 w\n")
	f.Add("01 2 w\n")
	f.Fuzz(func(t *testing.T, text string) {
		h := held{known: map[string]*span{}}
		if err := h.parse(text); err != nil {
			if len(h.known) > 0 {
				t.Error("something is known from a malformed file")
			}
			return
		}
		for vkey, s := range h.known {
			if again := formatHeld(vkey, s.kept); s.least < 0 || s.most < s.least || len(again) > len(text)+1 {
				t.Error(fmt.Sprint(again, " from ", text))
			}
		}
	})
}
