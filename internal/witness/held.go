package witness

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
)

// held is what the witnesses of a log hold as far as it knows, and keeps it in
// a file, so that pruning leaves what a witness needs which is away since
// before the start. The file says between which sizes that is. While a witness
// answers, that reaches ahead of what it holds, so the file is written once in
// so many entries, not for each checkpoint; when it stops answering, it is
// written with what it may hold.
type held struct {
	file string // empty: nowhere

	mu    sync.Mutex
	known map[string]*span // by verifier key
}

type span struct {
	least, most int64    // sizes that the witness may hold
	kept        [2]int64 // what the file says
	answers     bool     // it did when it was asked last, in this process
}

// ahead is how many entries the file reaches ahead. Pruning keeps 8 KiB for
// each 256 of these if a crash comes and the witness is not seen again.
const ahead = 1 << 16

// load reads the file. Without one nothing is known.
func (h *held) load(file string) error {
	h.file, h.known = file, map[string]*span{}
	if file == "" {
		return nil
	}
	b, err := durable.ReadFile(durable.OS, file, checkpoint.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return h.parse(string(b))
}

// parse accepts exactly what format writes.
func (h *held) parse(text string) error {
	for line := range strings.Lines(text) {
		var least, most int64
		var vkey string
		if n, err := fmt.Sscanf(line, "%d %d %s\n", &least, &most, &vkey); n != 3 || err != nil || line != formatHeld(vkey, [2]int64{least, most}) ||
			least < 0 || most < least || most > maxSize {
			clear(h.known)
			return fmt.Errorf("%s is malformed", h.file)
		}
		h.known[vkey] = &span{least: least, most: most, kept: [2]int64{least, most}}
	}
	return nil
}

func formatHeld(vkey string, kept [2]int64) string {
	return fmt.Sprintf("%d %d %s\n", kept[0], kept[1], vkey)
}

// asked is called before a witness is asked to cosign a checkpoint.
func (h *held) asked(vkey string, size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.known[vkey]
	if s == nil || !s.answers {
		return nil // it is not likely to hear it
	}
	s.most = max(s.most, size)
	if size <= s.kept[1] {
		return nil
	}
	return h.keep(s, s.least, size+ahead)
}

// holds is called when a witness says what it holds.
func (h *held) holds(vkey string, size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.known[vkey]
	if s == nil {
		s = &span{}
		h.known[vkey] = s
	}
	s.least, s.most = size, size
	if s.answers && size >= s.kept[0] && size <= s.kept[1] {
		return nil
	}
	s.answers = true
	return h.keep(s, size, size+ahead)
}

// lost is called when a witness did not answer. It may have cosigned what it was asked for.
func (h *held) lost(vkey string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.known[vkey]
	if s == nil || !s.answers {
		return nil
	}
	s.answers = false
	return h.keep(s, s.least, s.most)
}

// keep writes the file. Called with mu held.
func (h *held) keep(s *span, least, most int64) error {
	s.kept = [2]int64{least, most}
	if h.file == "" {
		return nil
	}
	var b strings.Builder
	for _, vkey := range slices.Sorted(maps.Keys(h.known)) {
		b.WriteString(formatHeld(vkey, h.known[vkey].kept))
	}
	if err := durable.WriteFile(durable.OS, h.file, []byte(b.String()), 0o600); err != nil {
		s.kept = [2]int64{} // the next answer writes it
		s.answers = false
		return err
	}
	return nil
}

// sizes returns what Feeder.Held does.
func (h *held) sizes() (sizes [][2]int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.known {
		sizes = append(sizes, [2]int64{s.least, s.most})
	}
	return sizes
}
