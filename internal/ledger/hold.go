package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/segment"
)

// learn brings the holds up to date with the log: they are nowhere else. A log
// that may not be pruned before the entry of a hold in force still has all of these.
// So it does with the sessions that go on: nothing of theirs is pruned before it was called.
func (k *clerk) learn() error {
	r, err := segment.OpenReaderFS(k.l.cfg.FS, k.l.cfg.Dir)
	if err != nil {
		return err
	}
	kind := []byte(`,"k":"`)
	for e, err := range r.Leaves(max(k.scanned, r.First()), k.l.Durable()) {
		if err != nil {
			return fmt.Errorf("look for holds: %w", err)
		}
		k.scanned = e.Index + 1
		_, rest, _ := bytes.Cut(e.Leaf, kind)
		word, _, _ := bytes.Cut(rest[:min(len(rest), 16)], []byte(`"`))
		switch event.Kind(word) {
		case event.KindHold, event.KindStart, event.KindConnect, event.KindDisconnect:
		default:
			continue
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			continue
		}
		switch leaf.Kind {
		case event.KindHold:
			k.note(e.Index, &leaf)
		case event.KindStart:
			clear(k.sessions) // none outlives its process
			for _, f := range leaf.Facts {
				if f.Key == WitnessMode {
					k.watched = f.Val != "off"
				}
			}
		case event.KindConnect:
			k.sessions[leaf.Session] = struct{}{}
		case event.KindDisconnect:
			delete(k.sessions, leaf.Session)
		}
	}
	return nil
}

// note takes a hold entry.
func (k *clerk) note(index int64, leaf *event.Leaf) {
	h := hold{entry: index}
	var name, phase string
	for _, f := range leaf.Facts {
		n, _ := strconv.ParseInt(f.Val, 10, 64) // the writer's own numbers
		switch f.Key {
		case "case":
			name = f.Val
		case "phase":
			phase = f.Val
		case "from":
			h.From = n
		case "to":
			h.To = n
		case "since":
			h.Since = n
		case "until":
			h.Until = n
		case "user":
			h.User = f.Val
		case "database":
			h.Database = f.Val
		}
	}
	if phase == "release" {
		delete(k.holds, name)
	} else {
		k.holds[name] = h
	}
}

func (k *clerk) hold(ctx context.Context, o *Order) (*Answer, error) {
	if o.Case == "" || len(o.Case) > 100 {
		return nil, errors.New("a hold needs a name of at most 100 bytes")
	}
	if err := k.learn(); err != nil {
		return nil, err
	}
	_, known := k.holds[o.Case]
	facts := []event.Fact{{Key: "case", Val: o.Case}, {Key: "phase", Val: o.Kind}}
	switch {
	case o.Kind == "release" && !known:
		return nil, fmt.Errorf("there is no hold %q", o.Case)
	case o.Kind == "hold" && (o.Hold == nil || len(o.Hold.User) > 100 || len(o.Hold.Database) > 100):
		return nil, errors.New("a hold needs to say what it holds")
	case o.Kind == "hold" && known:
		return nil, fmt.Errorf("there is a hold %q already", o.Case)
	case o.Kind == "hold":
		for _, f := range []struct {
			key string
			n   int64
		}{{"from", o.Hold.From}, {"to", o.Hold.To}, {"since", o.Hold.Since}, {"until", o.Hold.Until}} {
			if f.n != 0 {
				facts = append(facts, event.Fact{Key: f.key, Val: strconv.FormatInt(f.n, 10)})
			}
		}
		for _, f := range []event.Fact{{Key: "user", Val: o.Hold.User}, {Key: "database", Val: o.Hold.Database}} {
			if f.Val != "" {
				facts = append(facts, f)
			}
		}
	}
	index, err := k.say(ctx, event.KindHold, o, facts...)
	if err != nil {
		return nil, err
	}
	if err := k.learn(); err != nil {
		return nil, err
	}
	what := "holds"
	if o.Kind == "release" {
		what = "was released"
	}
	return &Answer{OK: true, Text: fmt.Sprintf("%s %s, entry %d says so", o.Case, what, index)}, nil
}

// A holder finds out which entries are held. Sessions are told by their
// admissions, so it is to see these first. What is of a session that it did not
// see an admission of may be anybody's, and counts as held.
type holder struct {
	holds    map[string]hold
	sessions map[uint64][]string // names of the holds of user or database that a session is under
	who      bool                // some hold is by user or database
	all      bool                // it saw the whole log
}

func (k *clerk) holder() *holder {
	h := &holder{holds: k.holds, sessions: map[uint64][]string{}}
	for _, x := range k.holds {
		h.who = h.who || x.User != "" || x.Database != ""
	}
	return h
}

// see learns whose a session is, if that matters and the entry says so.
func (h *holder) see(leaf *event.Leaf) {
	if leaf.Who == nil || leaf.Session == 0 || !h.who {
		return
	}
	var names []string
	for name, x := range h.holds {
		if (x.User != "" || x.Database != "") && (x.User == "" || x.User == leaf.Who.User) && (x.Database == "" || x.Database == leaf.Who.Database) {
			names = append(names, name)
		}
	}
	h.sessions[leaf.Session] = names
}

// ask finds out whose an entry is that does not say so: of a session that began
// before what is there of the log, a later entry may say it.
func (h *holder) ask(r *segment.Reader, size int64, leaf *event.Leaf) error {
	if _, seen := h.sessions[leaf.Session]; seen || h.all || !h.who || leaf.Who != nil || leaf.Session == 0 {
		return nil
	}
	h.all = true
	for e, err := range r.Leaves(r.First(), size) {
		if err != nil {
			return err
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		h.see(&leaf)
	}
	return nil
}

// held returns the name of a hold that the entry is under, "" if there is none.
func (h *holder) held(index int64, leaf *event.Leaf) string {
	h.see(leaf)
	under, seen := h.sessions[leaf.Session]
	for name, x := range h.holds {
		if index < x.From || x.To != 0 && index >= x.To || leaf.Time < x.Since || x.Until != 0 && leaf.Time > x.Until {
			continue
		}
		if x.User == "" && x.Database == "" || slices.Contains(under, name) || leaf.Session != 0 && !seen {
			return name
		}
	}
	return ""
}
