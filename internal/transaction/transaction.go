// Package transaction keeps which statements of a session are not settled, and
// tells which of them a COMMIT, a ROLLBACK or a ROLLBACK TO settles.
//
// A statement is known by its admission, the index of an entry; indexes of a
// session grow, with gaps. -1 stands for none. What cannot be told for certain
// from command tags and verbs is not told.
//
// Source: PostgreSQL documentation, "SAVEPOINT", "ROLLBACK TO SAVEPOINT";
// "Frontend/Backend Protocol", "Multiple Statements in a Simple Query".
package transaction

import "github.com/pgnotary/pgnotary/internal/verb"

// maxPoints bounds the savepoints and the parts of a transaction that are
// followed; with more of them it is not known what a ROLLBACK TO undid.
const maxPoints = 64

// A Group is the statements whose work is not settled: those of the open
// transaction. A ROLLBACK TO settles what came after its savepoint and leaves a
// part in front of it, to be settled with the rest. Call Reset first. It is not
// safe for concurrent use, and does not allocate but for savepoints.
type Group struct {
	Settled  int64 // newest statement whose replies all came
	Failed   bool  // an error undoes the group
	Rollback bool  // the newest command was ROLLBACK, perhaps TO
	Blurred  bool  // see Blur; until the server is ready for another Query
	Undone   Mark  // what is perhaps rolled back even if the group commits
	Kept     Mark  // what is perhaps committed even if the group is rolled back

	first  int64   // first statement of the last part, -1 for none
	parts  []Part  // those before it
	points []point // savepoints, the newest last
	blind  bool    // there may be savepoints that points does not have
	turn   turn
}

// A Part is the statements of a session from Since to Of.
type Part struct{ Since, Of int64 }

// A point is a savepoint.
type point struct {
	name uint32 // 0 if not known
	at   int64  // admission of the SAVEPOINT
	next int64  // first statement behind it that the server worked on, -1 for none
}

// A turn is a Query of several statements that a ROLLBACK is among.
type turn struct {
	query  int64 // -1 for none, or if it cannot be told any more what the ROLLBACK ended
	before Part
	begins bool // ROLLBACK is the first command of the Query
}

// A Mark divides the open group: of the statements up to upto the group's end
// does not tell what became of them, of first and those behind it does. Both
// are -1 for none.
type Mark struct{ upto, first int64 }

// Set moves the mark behind a statement.
func (m *Mark) Set(index int64) {
	if index > m.upto {
		*m = Mark{index, -1}
	}
}

func (m *Mark) covered(index int64) {
	if m.upto >= 0 && m.first < 0 && index > m.upto {
		m.first = index
	}
}

// since is the first statement of p of which the group's end tells, -1 for none.
func (m *Mark) since(p Part) int64 {
	switch {
	case p.Since > m.upto:
		return p.Since
	case m.first <= p.Of:
		return m.first
	}
	return -1
}

// Reset begins a new group.
func (g *Group) Reset() {
	g.first, g.Undone, g.Kept, g.turn.query = -1, Mark{-1, -1}, Mark{-1, -1}, -1
	g.Failed, g.Rollback, g.Blurred, g.blind = false, false, false, false
	g.parts, g.points = g.parts[:0], g.points[:0]
	if cap(g.parts)+cap(g.points) > 16 {
		g.parts, g.points = nil, nil
	}
}

// Open reports that something of the group is not settled.
func (g *Group) Open() bool { return g.first >= 0 || len(g.parts) > 0 }

// Covered notes that the server worked on a statement of the open group.
func (g *Group) Covered(index int64) {
	if index < 0 {
		return
	}
	if g.first < 0 {
		g.first = index
	}
	if g.Blurred {
		g.Undone.Set(index)
		g.Kept.Set(index)
	}
	g.Undone.covered(index)
	g.Kept.covered(index)
	for i := len(g.points) - 1; i >= 0 && g.points[i].next < 0; i-- {
		if index > g.points[i].at {
			g.points[i].next = index
		}
	}
	g.Settled = max(g.Settled, index)
}

// last is the part that goes on.
func (g *Group) last() Part { return Part{g.first, g.Settled} }

// End ends the group: all of it but for what is marked was committed (+1) or
// rolled back (-1). It returns the parts settled by that, and since when the last
// one is, -1 for none; that part goes up to Settled. parts is valid until the next call.
func (g *Group) End(committed int8) (parts []Part, since int64) {
	m := &g.Undone
	if committed < 0 {
		m = &g.Kept
	}
	parts, since = m.told(g.parts), -1
	if g.first >= 0 {
		since = m.since(g.last())
	}
	g.Reset()
	return parts, since
}

// told keeps of parts what is not marked.
func (m *Mark) told(parts []Part) []Part {
	n := 0
	for _, p := range parts {
		if p.Since = m.since(p); p.Since >= 0 {
			parts[n] = p
			n++
		}
	}
	return parts[:n]
}

// CommitInside follows a COMMIT among the statements of a Query: it returns the
// parts that it committed, before the Query. What the Query itself committed is
// not known as a whole.
func (g *Group) CommitInside(query int64) (parts []Part, last Part) {
	g.turn.query = -1
	last = g.last()
	if last.Since = g.Undone.since(last); g.first == query {
		last.Since = -1
	}
	parts = g.Undone.told(g.parts)
	g.first, g.parts, g.points, g.blind = -1, g.parts[:0], g.points[:0], false
	g.Kept.Set(query)
	return parts, last
}

// Savepoint follows the tag SAVEPOINT of a statement.
func (g *Group) Savepoint(v verb.Verb, index int64) {
	if len(g.points) >= maxPoints || len(g.parts) >= maxPoints {
		g.blind = true
		return
	}
	p := point{at: index, next: -1}
	if v.Kind == verb.Savepoint {
		p.name = v.Name
	}
	g.points = append(g.points, p)
}

// find returns the place of the savepoint that a name means, -1 if it is not known.
func (g *Group) find(v verb.Verb) int {
	for i := len(g.points) - 1; i >= 0 && !g.blind && g.points[i].name != 0; i-- {
		if g.points[i].name == v.Name {
			return i
		}
	}
	return -1
}

// Release follows the tag RELEASE.
func (g *Group) Release(v verb.Verb) {
	i := g.find(v)
	if v.Kind != verb.Release || i < 0 {
		g.blind = true
		return
	}
	g.points = g.points[:i]
}

// To follows a ROLLBACK TO that succeeded. ok is false if its savepoint is not
// known; else the work behind that is undone, see RollBack.
func (g *Group) To(v verb.Verb) (ok bool) {
	i := g.find(v)
	if i < 0 || g.Undone.upto > g.points[i].at || g.Kept.upto > g.points[i].at {
		return false
	}
	g.points = g.points[:i+1]
	return true
}

// RollBack settles what a ROLLBACK TO undid, for which To was true, after the
// statement itself is Covered. It returns as End does.
func (g *Group) RollBack() (parts []Part, since int64) {
	p := &g.points[len(g.points)-1]
	at, next := p.at, p.next
	p.next = -1
	for n := len(g.parts); n > 0 && g.parts[n-1].Of > at; n = len(g.parts) {
		last := g.parts[n-1]
		g.parts = g.parts[:n-1]
		parts = append(parts, Part{max(last.Since, next), last.Of})
		if last.Since <= at {
			g.parts = append(g.parts, Part{last.Since, at})
		}
	}
	since = max(g.first, next)
	if g.first <= at {
		g.parts = append(g.parts, Part{g.first, at})
	}
	g.first = -1
	return parts, since
}

// RollbackInside follows a ROLLBACK among the statements of a Query, perhaps TO a
// savepoint, or of a text that is not known. begins says that it is the first
// command of a Query.
func (g *Group) RollbackInside(index int64, isQuery, begins bool) {
	t := &g.turn
	t.query = -1
	if isQuery && g.first >= 0 && len(g.parts) == 0 && g.Undone.upto != index {
		before := g.last()
		before.Since = g.Kept.since(before)
		*t = turn{index, before, begins}
	}
	g.Rollback, g.blind = true, true
	g.Undone.Set(index)
}

// Blur follows a COMMIT, SAVEPOINT or the like that an EXECUTE ran: its tag comes, but
// it takes effect only when the server is ready for another Query, for all that comes until then.
func (g *Group) Blur(index int64) {
	g.Blurred, g.blind, g.turn.query = true, true, -1
	g.Undone.Set(index)
	g.Kept.Set(index)
}

// Prepared follows PREPARE TRANSACTION: another statement will end it.
func (g *Group) Prepared(index int64) {
	g.turn.query = -1
	g.Undone.Set(index)
	g.Kept.Set(index)
}

// Turned tells what a ROLLBACK inside a Query ended, when the Query left no block
// open: then it was no ROLLBACK TO, since nothing else has ended the block. All of
// before was rolled back; whole says that all the Query did was committed.
func (g *Group) Turned(query int64) (before Part, whole, ok bool) {
	t := &g.turn
	if t.query < 0 || t.query != query {
		return Part{}, false, false
	}
	return t.before, t.begins && g.Undone.upto == query && g.Kept.upto != query, true
}
