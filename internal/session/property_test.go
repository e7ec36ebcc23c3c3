package session

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// A watched dialogue keeps what went in and came out of each side and checks
// after each read what must always hold.
type watched struct {
	*dialogue
	in, out [2][]byte // 0 of the client, 1 of the server
	ended   bool      // a violation, or Terminate
	quick   bool      // check at the end only
}

func watch(tb testing.TB) *watched {
	w := &watched{dialogue: loggedIn(tb)}
	login := bytes.Join([][]byte{auth(0), keyData(), ready('I')}, nil)
	w.in[1], w.out[1] = login, login
	return w
}

func (w *watched) feed(fromClient bool, b []byte) {
	side := 1
	if fromClient {
		side = 0
	}
	w.in[side] = append(w.in[side], b...)
	read := bytes.Clone(b)
	fwd, err := w.dialogue.feed(fromClient, read)
	w.out[side] = append(w.out[side], fwd...)
	w.ended = w.ended || err != nil || w.s.Done()
	for fromClient && err == nil && w.s.Blob() != nil {
		w.check()
		if err := w.s.Blob().Sync(); err != nil {
			w.tb.Fatal(err)
		}
		fwd, err = w.dialogue.feed(true, nil)
		w.out[0] = append(w.out[0], fwd...)
	}
	for i := range read { // what was returned must not be needed any more
		read[i] = 0xee
	}
	w.check()
}

// letters lists the types of the messages b begins to hold, runs of d and D
// once. whole lists only those it holds to their last byte.
func letters(b []byte, whole bool) string {
	var out []byte
	for len(b) >= wire.HeaderLen {
		typ, length, _ := wire.Header(b)
		if length < 4 && typ == 'E' { // of protocol 2.0
			return collapse(append(out, typ))
		}
		if length < 4 || whole && length+1 > len(b) {
			break
		}
		if typ != 'p' {
			out = append(out, typ)
		}
		b = b[min(len(b), length+1):]
	}
	return collapse(out)
}

func collapse(b []byte) string {
	var out []byte
	for _, c := range b {
		if n := len(out); n == 0 || out[n-1] != c || c != 'd' && c != 'D' {
			out = append(out, c)
		}
	}
	return string(out)
}

func admits(k event.Kind) bool {
	switch k {
	case event.KindQuery, event.KindParse, event.KindBind, event.KindExecute, event.KindFunctionCall:
		return true
	}
	return false
}

// told returns the letters of both sides that the entries have.
func (m *memLog) told() (frontend, backend string) {
	var f, b []byte
	for _, e := range m.entries {
		switch {
		case admits(e.Kind), e.Kind == event.KindCopy, e.Kind == event.KindDisconnect:
			f = append(f, e.Msgs...)
		default:
			b = append(b, e.Msgs...)
		}
	}
	return collapse(f), collapse(b)
}

// check tests what holds between any two reads.
func (w *watched) check() {
	w.tb.Helper()
	if w.quick {
		return
	}
	for side, name := range []string{"client", "server"} {
		if !bytes.HasPrefix(w.in[side], w.out[side]) {
			w.tb.Fatalf("passed on from the %s %.200q of %.200q", name, w.out[side], w.in[side])
		}
	}
	frontend, backend := w.log.told()
	released := letters(w.out[0], true)
	for _, typ := range "QPBEFcf" {
		if w.streams() && (typ == 'c' || typ == 'f') {
			continue // the end of replication is recorded when both sides ended it
		}
		if strings.Count(released, string(typ)) > strings.Count(frontend, string(typ)) {
			w.tb.Fatalf("released %.300q, recorded only %.300q\n%s", released, frontend, w.log.text(0))
		}
	}
	if seen := letters(w.out[1], true); strings.Count(seen, "E") > strings.Count(backend, "E") {
		w.tb.Fatalf("released %.300q, recorded only %.300q\n%s", seen, backend, w.log.text(0))
	}
	outstanding := make(map[int64]bool)
	for i := range w.s.queue.len() {
		outstanding[w.s.queue.at(i).index] = true
	}
	for i, n := range w.outcomes() {
		if e := &w.log.entries[i]; admits(e.Kind) && n == 0 && !outstanding[int64(i)] && !w.ended {
			w.tb.Fatalf("entry %d is not outstanding and has no outcome\n%s", i, w.log.text(0))
		}
	}
}

// streams reports that there was replication.
func (w *watched) streams() bool { return strings.Contains(letters(w.out[1], false), "W") }

// outcomes counts the outcomes of each entry.
func (w *watched) outcomes() []int {
	n := make([]int, len(w.log.entries))
	for i := range w.log.entries {
		if e := &w.log.entries[i]; e.Kind == event.KindOutcome {
			of, ok := event.Index(e.Of)
			if !ok || of >= int64(i) {
				w.tb.Fatalf("entry %d is the outcome of %d\n%s", i, of, w.log.text(0))
			}
			n[of]++
		}
	}
	return n
}

// finish closes the session and checks the whole.
func (w *watched) finish() {
	w.tb.Helper()
	if err := w.s.Close(w.clock, "end"); err != nil {
		w.tb.Fatal(err)
	}
	for i, n := range w.outcomes() {
		e := &w.log.entries[i]
		if admits(e.Kind) && n != 1 || !admits(e.Kind) && n > 0 && e.Kind != event.KindCopy || n > 1 {
			w.tb.Fatalf("entry %d has %d outcomes\n%s", i, n, w.log.text(0))
		}
		w.checkRefs(int64(i), e)
	}
	frontend, backend := w.log.told()
	if strings.Contains(frontend+backend, "+") {
		return
	}
	// A large message that did not end has no letter; it ran nowhere.
	if sent := letters(w.out[0], false); frontend != sent && frontend != letters(w.out[0], true) {
		w.tb.Fatalf("client sent %.300q, recorded %.300q\n%s", sent, frontend, w.log.text(0))
	}
	if sent := letters(w.out[1], false); backend != sent {
		w.tb.Fatalf("server sent %.300q, recorded %.300q\n%s", sent, backend, w.log.text(0))
	}
}

// checkRefs tests what an entry refers to.
func (w *watched) checkRefs(i int64, e *entry) {
	w.tb.Helper()
	holds := func(ref int64, letter string) bool {
		at, ok := event.Index(ref)
		if ok && letter == "P" && w.log.entries[at].Kind == event.KindQuery {
			text := bytes.ToLower(w.log.entries[at].value)
			return at < i && (bytes.Contains(text, []byte("prepare")) || bytes.Contains(text, []byte("declare")))
		}
		return !ok || at < i && admits(w.log.entries[at].Kind) && bytes.Contains(w.log.entries[at].Msgs, []byte(letter))
	}
	since, settles := event.Index(e.Since)
	of, _ := event.Index(e.Of)
	switch {
	case of >= i:
	case !holds(e.Parse, "P"), !holds(e.Bind, "B"):
	case settles && (e.Committed == 0 || since > of || !admits(w.log.entries[since].Kind)):
	default:
		return
	}
	w.tb.Fatalf("references of entry %d\n%s", i, w.log.text(0))
}
