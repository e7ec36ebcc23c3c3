package query

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

const (
	// maxRefs bounds the bytes of one generation of refs, maxAtHand those of what a
	// decoder knows without asking.
	maxRefs   = 16 << 20
	maxAtHand = 1 << 20
	// outcomeSpan is how many entries behind a Parse its outcome is looked for
	// when the types of its parameters are in nothing else.
	outcomeSpan = 512
)

// A ref is an entry that others refer to: the one with their Parse, or their Bind.
type ref struct {
	ok        bool // its value is there
	tooLarge  bool // it is, but is not read
	value     []byte
	charset   *charset
	parse     int64 // reference to the Parse it goes back to, itself
	types     []uint32
	hasParse  bool
	isQuery   bool // PREPARE or DECLARE in a Query: text is all of it
	parsed    parseMsg
	text      string
	name      string // of the prepared statement
	malformed bool
	shared    *shared

	seek   sync.Once // sets sought
	sought []uint32
}

// refs are what decoders remember of entries that others refer to. They may be
// used concurrently.
type refs struct {
	mu sync.RWMutex
	// When young has taken maxRefs bytes it becomes old, and old goes. What is
	// used again moves on to the new one.
	young, old map[int64]*ref
	bytes      int
}

func newRefs() *refs { return &refs{young: make(map[int64]*ref)} }

// size returns about how many bytes of memory r takes.
func (r *ref) size() int {
	size := 200 + len(r.value) + len(r.text)
	if len(r.text) <= maxShared {
		size += len(r.text)
	}
	return size
}

// get returns what is known of the entry at index, nil if it is not.
func (x *refs) get(index int64) *ref {
	x.mu.RLock()
	r, aged := x.young[index], false
	if r == nil {
		r = x.old[index]
		aged = r != nil
	}
	x.mu.RUnlock()
	if aged {
		x.put(index, r)
	}
	return r
}

func (x *refs) put(index int64, r *ref) {
	size := r.size()
	if size > maxRefs {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.bytes += size; x.bytes > maxRefs {
		x.old, x.young, x.bytes = x.young, make(map[int64]*ref), size
	}
	x.young[index] = r
}

// ref returns the entry at a reference, nil if there is none.
func (d *decoder) ref(reference int64) (*ref, error) {
	i, ok := event.Index(reference)
	if !ok {
		return nil, nil
	}
	if r := d.atHand[i]; r != nil {
		return r, nil
	}
	r := d.refs.get(i)
	if r == nil && d.near <= i && i < d.by {
		if err := d.rememberAll(i - i%tree.Width); err != nil {
			return nil, err
		}
		r = d.refs.get(i)
	}
	if r == nil {
		e, err := d.src.Entry(i)
		if errors.Is(err, fs.ErrNotExist) || err == nil && e.Gone == journal.Expired {
			if c, cerr := d.src.Copy(i); cerr == nil {
				e, err = c, nil
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // pruned, for good
			r = new(ref)
			d.hold(i, r)
			return r, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read entry %d, which others refer to: %w", i, err)
		}
		var v view
		if err := v.scan(e.Leaf); err != nil {
			return nil, fmt.Errorf("read entry %d: %w", i, err)
		}
		value, ok := d.value(&e)
		r = newRef(value, ok, &v)
		r.tooLarge = d.tooLarge(&e)
		d.refs.put(i, r)
	}
	d.hold(i, r)
	return r, nil
}

// hold keeps r at hand, unless it is large.
func (d *decoder) hold(i int64, r *ref) {
	size := r.size()
	if size > maxAtHand/16 {
		return
	}
	if d.atHandBytes += size; d.atHandBytes > maxAtHand {
		clear(d.atHand)
		d.atHandBytes = size
	}
	d.atHand[i] = r
}

// rememberAll keeps the entries of a bundle that others will go back to: where one is
// needed, others are.
func (d *decoder) rememberAll(from int64) error {
	for e, err := range d.src.Entries(from, from+tree.Width) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read entries from %d on, which others refer to: %w", from, err)
		}
		if !bytes.Contains(e.Leaf, parseKind) && !bytes.Contains(e.Leaf, bindKind) {
			continue
		}
		var v view
		if err := v.scan(e.Leaf); err != nil {
			return fmt.Errorf("read entry %d: %w", e.Index, err)
		}
		d.remember(&e, &v)
	}
	return nil
}

// What leaves have that rememberAll looks for, and perhaps others.
var parseKind, bindKind = []byte(`"k":"` + event.KindParse + `"`), []byte(`"k":"` + event.KindBind + `"`)

// remember keeps an entry that is at hand and that others will go back to.
func (d *decoder) remember(e *journal.Entry, v *view) {
	if (v.kind == event.KindParse || v.kind == event.KindBind) && e.Value != nil {
		r := newRef(bytes.Clone(e.Value), true, v)
		d.refs.put(e.Index, r)
		d.hold(e.Index, r)
	}
}

func newRef(value []byte, ok bool, v *view) *ref {
	r := &ref{value: value, ok: ok, charset: v.charset(), parse: v.parse, types: typeList(v.types)}
	if body, found := findFrame(value, 'P'); found {
		r.hasParse = true
		r.parsed, r.ok = decodeParse(body)
		r.malformed, r.ok = !r.ok, true
		r.text, r.name = r.charset.text(r.parsed.text), r.charset.text(r.parsed.name)
	} else if body, found := findFrame(value, 'Q'); found {
		c := cursor{b: body}
		r.isQuery, r.text = true, r.charset.text(c.str())
	}
	if r.hasParse || r.isQuery {
		r.shared = &shared{text: r.text}
	}
	return r
}

// soughtTypes looks for the types that the server told when it answered the
// Parse at index i, whose ref r is.
func (d *decoder) soughtTypes(r *ref, i int64) []uint32 {
	r.seek.Do(func() {
		n := 0
		for e, err := range d.src.Entries(i+1, i+1+outcomeSpan) {
			var v view
			if n++; err != nil || n > outcomeSpan || v.scan(e.Leaf) != nil {
				break
			}
			if v.kind == event.KindOutcome && v.of == event.Ref(i) {
				r.sought = typeList(v.types)
				break
			}
		}
	})
	return r.sought
}

// mergeTypes returns a with its zeros, and what is behind its end, from b. It
// changes neither.
func mergeTypes(a, b []uint32) []uint32 {
	if len(a) == 0 {
		return b
	}
	own := false
	for i, t := range b {
		if i < len(a) && (a[i] != 0 || t == 0) {
			continue
		}
		if !own {
			a, own = slices.Clone(a), true
		}
		if i < len(a) {
			a[i] = t
		} else {
			a = append(a, t)
		}
	}
	return a
}
