package verify

import "time"

// maxSkew is how far the clocks of a log and its witnesses may be apart.
const maxSkew = 5 * time.Minute

// A bound says that witnesses knew a checkpoint of that size at a time: what it
// covers was recorded before, the rest cosigned later. It costs an attacker who has
// the log's key the freedom to date entries as he likes.
type bound struct {
	name  string
	size  int64
	at    time.Time
	found bool // one entry is enough
}

// bound is called for each checkpoint that enough witnesses cosigned.
func (c *check) bound(name string, size int64, at time.Time) {
	if !at.IsZero() {
		c.bounds = append(c.bounds, bound{name: name, size: size, at: at})
	}
}

// dated holds the time of an entry to the bounds.
func (o *order) dated(e *entry) {
	for i := range o.bounds {
		b := &o.bounds[i]
		switch {
		case b.found:
		case e.index < b.size && e.Time > b.at.Add(maxSkew).UnixNano():
			b.found = true
			o.findAt(e.index, "leaf", "is dated later than witnesses cosigned %s, which covers it, at %s: the entry was dated ahead, or the log's clock was wrong",
				b.name, b.at.UTC().Format(time.RFC3339))
		case e.index >= b.size && e.Time < b.at.Add(-maxSkew).UnixNano():
			b.found = true
			o.findAt(e.index, "leaf", "is dated earlier than witnesses cosigned %s, which does not cover it, at %s: the entry was dated back, or the log's clock was wrong",
				b.name, b.at.UTC().Format(time.RFC3339))
		}
	}
}
