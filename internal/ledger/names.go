package ledger

import (
	"maps"
	"slices"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/verb"
)

// openSessions follows which sessions go on, by their ids.
type openSessions map[uint64]*openSession

// An openSession is what later entries of a session may go back to.
type openSession struct {
	uses map[int64]use // by entry
	// What the unnamed statement and the unnamed portal are now, and the
	// statement that portal is of: their entries, -1 if there is none.
	unnamed [3]int64
}

// A use says where an entry was gone back to last, and whether that may be
// done for as long as the session goes on, or it has no name of its own.
type use struct {
	at    int64
	lasts bool
}

// maxKept bounds the entries that are kept for one session: those it went back
// to last. It has that many statements at hand.
const maxKept = 1024

// see takes the next entry of the log, or a copy of an older one. n is what it gives names to.
func (s openSessions) see(index int64, leaf *event.Leaf, n verb.Names) {
	switch leaf.Kind {
	case event.KindStart:
		clear(s) // no session outlives its process
		return
	case event.KindDisconnect:
		delete(s, leaf.Session)
		return
	}
	if leaf.Parse == 0 && leaf.Bind == 0 && n == (verb.Names{}) {
		return
	}
	o := s[leaf.Session]
	if o == nil {
		o = &openSession{uses: map[int64]use{}, unnamed: [3]int64{-1, -1, -1}}
		s[leaf.Session] = o
	}
	for _, ref := range []int64{leaf.Parse, leaf.Bind} {
		if to, ok := event.Index(ref); ok {
			u, known := o.uses[to]
			o.uses[to] = use{at: index, lasts: u.lasts || !known && !n.Portal || n.Lasting}
		}
	}
	if n != (verb.Names{}) {
		o.uses[index] = use{at: index, lasts: n.Lasting}
	}
	was := o.unnamed
	if n.Statement && index > was[0] {
		o.unnamed[0] = index
	}
	if n.Portal && index > was[1] {
		o.unnamed[1], o.unnamed[2] = index, -1
		if to, ok := event.Index(leaf.Parse); ok {
			o.unnamed[2] = to
		}
	}
	for _, old := range was {
		if !slices.Contains(o.unnamed[:], old) && !o.uses[old].lasts {
			delete(o.uses, old)
		}
	}
	if len(o.uses) > 2*maxKept {
		at := make([]int64, 0, len(o.uses))
		for _, u := range o.uses {
			at = append(at, u.at)
		}
		slices.Sort(at)
		maps.DeleteFunc(o.uses, func(_ int64, u use) bool { return u.at < at[len(at)-maxKept] })
	}
}

// maxNamePart is how much of a value in a blob is looked at.
const maxNamePart = 4 << 10

// namesOf returns what an entry gives names to. If that cannot be told, they last.
func namesOf(r *segment.Reader, e *journal.Entry, leaf *event.Leaf) (n verb.Names) {
	made := leaf.Kind == event.KindParse || leaf.Kind == event.KindBind
	if !made && leaf.Kind != event.KindExecute && leaf.Kind != event.KindQuery {
		return n
	}
	if leaf.Kind == event.KindExecute && !leaf.HasValue { // it bound the unnamed portal
		return verb.Names{Portal: true}
	}
	value := e.Value
	if e.Blob != nil {
		value = make([]byte, min(e.Blob.Size, maxNamePart))
		f, err := r.OpenBlob(e.Blob)
		if err == nil {
			_, err = f.ReadAt(value, 0)
			_ = f.Close()
		}
		if err != nil {
			value = nil
		}
	}
	if n = verb.NamesIn(value); made && n == (verb.Names{}) {
		n.Lasting = true
	}
	return n
}
