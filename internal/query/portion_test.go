package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// largeLog is a log whose values are too large for a batch that is read ahead,
// with small entries around them, and Executes that go back to their Parse.
func largeLog(t *testing.T) *Log {
	t.Helper()
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{})
	parse := w.emit(event.Leaf{Session: 1, Kind: event.KindParse, Who: alice}, parseFrame("s", "SELECT $1", 23))
	w.emit(event.Leaf{Session: 1, Kind: event.KindOutcome, Of: event.Ref(parse)}, nil)
	for i := range 1500 {
		w.statement(fmt.Sprint("SELECT ", i))
		x := w.emit(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(parse)}, join(bindFrame("", "s", []int{1}, be32(i)), executeFrame("", 0)))
		w.emit(event.Leaf{Session: 1, Kind: event.KindOutcome, Of: event.Ref(x), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}, nil)
		if i > 1000 && i%20 == 0 {
			w.statement("SELECT '" + strings.Repeat("x", 250<<10) + "'")
		}
	}
	w.close()
	return openLog(t, dir)
}

// TestRender holds that statements rendered by many are those that Search finds,
// in its order.
func TestRender(t *testing.T) {
	for name, l := range map[string]*Log{"large": largeLog(t), "sealed": openLog(t, sealedLog(t))} {
		for _, f := range []Filter{{}, {Limit: 700}, {Limit: 1}, {Kinds: []string{"execute", "query"}, Text: "7"}, {User: "user2"}, {User: "nobody"}, {SQLState: "42"}} {
			var want, got []string
			if err := l.Search(t.Context(), f, func(s *Statement) error {
				want = append(want, string(s.AppendJSON(nil)))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			err := l.Render(t.Context(), f, func(dst []byte, s *Statement) ([]byte, error) {
				return append(s.AppendJSON(dst), '\n'), nil
			}, func(b []byte) error {
				for line := range bytes.Lines(b) {
					got = append(got, string(bytes.TrimSuffix(line, []byte("\n"))))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: Render of %+v made %d statements, want the %d of Search", name, f, len(got), len(want))
			}
		}
	}
}

// TestRenderErrors holds that an error ends it, whoever makes it.
func TestRenderErrors(t *testing.T) {
	l := openLog(t, sealedLog(t))
	bad := errors.New("bad")
	render := func(dst []byte, _ *Statement) ([]byte, error) { return append(dst, 'x'), nil }
	write := func([]byte) error { return nil }
	canceled, cancel := context.WithCancel(t.Context())
	for name, tt := range map[string]struct {
		ctx    context.Context
		render func([]byte, *Statement) ([]byte, error)
		write  func([]byte) error
		want   error
	}{
		"render": {t.Context(), func(dst []byte, s *Statement) ([]byte, error) {
			if s.Index > 3000 {
				return dst, bad
			}
			return dst, nil
		}, write, bad},
		"write":   {t.Context(), render, func([]byte) error { return bad }, bad},
		"context": {canceled, render, func([]byte) error { cancel(); return nil }, context.Canceled},
	} {
		if err := l.Render(tt.ctx, Filter{}, tt.render, tt.write); !errors.Is(err, tt.want) {
			t.Errorf("an error of %s: Render = %v, want %v", name, err, tt.want)
		}
	}
	cancel()
}

// TestPrunedMeanwhile holds that a search says what to do if what it was about to read went.
func TestPrunedMeanwhile(t *testing.T) {
	l := &fakeLog{pruned: 4}
	for range 8 {
		l.admit(event.KindQuery, queryMsg("SELECT 1"))
	}
	for _, portion := range []int64{0, 2} {
		m, err := new(Filter).compile()
		if err != nil {
			t.Fatal(err)
		}
		j := newJoiner(l, m)
		j.portion, j.after = portion, 0
		err = j.search(t.Context(), l, 0, 8, nil, &taker{statement: func(*Statement) error { return nil }})
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "run it again") {
			t.Errorf("portions of %d entries: %v", portion, err)
		}
	}
}
