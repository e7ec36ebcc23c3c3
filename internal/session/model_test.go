package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/event"
)

// The commands the model knows. insert has an effect, copy too.
var commands = []string{
	"insert", "insert", "insert", "insert", "begin", "begin", "commit", "rollback", "bad", "copy", "end and chain", "rollback work and chain",
	"savepoint a", "savepoint b", "SavePoint \"b\"", "rollback to a", "rollback to savepoint b", "release a", "release savepoint b", "deferred",
}

// A modelServer answers like PostgreSQL and keeps, for each statement, whether
// its effects lasted. Statements have numbers: queries and executes each 0, 1, 2 ...
type modelServer struct {
	rnd func(n int) int
	out []byte

	stmts   map[string]string // Parse name -> command
	portals map[string]string

	tx      byte // I, T or E
	skip    bool
	points  []savepoint
	effects []string
	kept    map[string]int // effects committed, by statement
	lost    map[string]int // effects undone

	deferred bool // what was done is to fail when it is committed
	copying  bool // reading COPY data
	copyOf   string
	simple   []string // commands of the Query behind its COPY
	simpleID string
	nq, ne   int

	told, open int // statements with effects, of which the entries say what became, and not
}

type savepoint struct {
	name    string
	effects int // before it
}

func newModel(rnd func(int) int) *modelServer {
	return &modelServer{
		rnd: rnd, tx: 'I', stmts: map[string]string{}, portals: map[string]string{},
		kept: map[string]int{}, lost: map[string]int{},
	}
}

func (m *modelServer) send(b ...[]byte) { m.out = append(m.out, bytes.Join(b, nil)...) }

func (m *modelServer) end(to map[string]int) {
	for _, id := range m.effects {
		to[id]++
	}
	m.effects, m.points, m.tx, m.deferred = nil, nil, 'I', false
}

// run does one command for the statement id; ok is false if it failed.
func (m *modelServer) run(id, cmd string, inBlock bool) (ok bool) {
	cmd, chained := strings.CutSuffix(cmd, " and chain")
	words := strings.Fields(strings.ReplaceAll(strings.ToLower(cmd), `"`, ""))
	name := words[len(words)-1]
	switch words[0] {
	case "commit", "end", "rollback":
	default:
		if m.tx == 'E' {
			return m.fail("25P02")
		}
	}
	if chained && m.tx == 'I' {
		return m.fail("25P01")
	}
	switch words[0] {
	case "insert":
		m.effects = append(m.effects, id)
		m.send(tag("INSERT 0 1"))
	case "deferred":
		m.effects, m.deferred = append(m.effects, id), true
		m.send(tag("INSERT 0 1"))
	case "begin":
		m.tx = 'T'
		m.send(tag("BEGIN"))
	case "commit", "end":
		if m.tx == 'E' {
			m.end(m.lost)
			m.send(tag("ROLLBACK"))
		} else if m.deferred {
			m.end(m.lost)
			return m.fail("23505")
		} else {
			m.end(m.kept)
			m.send(tag("COMMIT"))
		}
	case "rollback":
		if len(words) > 1 && words[1] == "to" {
			i := m.point(name)
			if i < 0 {
				return m.fail("3B001")
			}
			for _, id := range m.effects[m.points[i].effects:] {
				m.lost[id]++
			}
			m.effects, m.points, m.tx = m.effects[:m.points[i].effects], m.points[:i+1], 'T'
		} else {
			m.end(m.lost)
		}
		m.send(tag("ROLLBACK"))
	case "savepoint":
		if m.tx != 'T' {
			return m.fail("25P01")
		}
		m.points = append(m.points, savepoint{name, len(m.effects)})
		m.send(tag("SAVEPOINT"))
	case "release":
		i := m.point(name)
		if i < 0 {
			return m.fail("3B001")
		}
		m.points = m.points[:i]
		m.send(tag("RELEASE"))
	case "copy":
		m.send(copyStart('G'))
		if m.rnd(4) == 0 {
			return m.fail("P0001")
		}
		m.copying, m.copyOf = true, id
	default:
		return m.fail("42601")
	}
	if chained {
		m.tx = 'T'
	}
	return true
}

// point returns the place of a savepoint, -1 if there is none.
func (m *modelServer) point(name string) int {
	for i := len(m.points) - 1; i >= 0; i-- {
		if m.points[i].name == name {
			return i
		}
	}
	return -1
}

func (m *modelServer) fail(code string) bool {
	m.send(failure(code))
	if m.tx == 'I' {
		m.end(m.lost)
	} else {
		m.tx = 'E'
	}
	return false
}

// query runs the commands of a Query from cmds on.
func (m *modelServer) query(id string, cmds []string) {
	for len(cmds) > 0 {
		cmd := cmds[0]
		cmds = cmds[1:]
		if !m.run(id, cmd, true) {
			break
		}
		if m.copying {
			m.simple, m.simpleID = cmds, id
			return
		}
	}
	m.ready()
}

func (m *modelServer) ready() {
	if m.tx == 'I' && m.deferred {
		m.fail("23505")
	} else if m.tx == 'I' {
		m.end(m.kept)
	}
	m.send(ready(m.tx))
}

// copyEnded follows CopyDone or CopyFail.
func (m *modelServer) copyEnded(failed bool) {
	m.copying = false
	ok := !failed && m.rnd(4) > 0
	if ok {
		m.effects = append(m.effects, m.copyOf)
		m.send(tag("COPY 1"))
	} else {
		m.fail("22P02")
	}
	switch {
	case m.simpleID != "" && ok:
		id := m.simpleID
		m.simpleID = ""
		m.query(id, m.simple)
	case m.simpleID != "":
		m.simpleID = ""
		m.ready()
	default:
		m.skip = !ok
	}
}

// A request is a frontend message as the model reads it.
type request struct {
	typ      byte
	name, of string   // P: statement; B: portal, statement; E: portal
	cmds     []string // Q, P
	id       string   // Q, E
	frontend []byte
}

func (m *modelServer) receive(r *request) {
	if m.copying {
		if r.typ == 'c' || r.typ == 'f' {
			m.copyEnded(r.typ == 'f')
		}
		return
	}
	if m.skip && r.typ != 'S' {
		return
	}
	switch r.typ {
	case 'Q':
		delete(m.stmts, "")
		m.query(r.id, r.cmds)
	case 'P':
		if _, there := m.stmts[r.name]; there && r.name != "" {
			m.skip = !m.fail("42P05")
			return
		}
		m.stmts[r.name] = r.cmds[0]
		m.send(parsed())
	case 'B':
		cmd, there := m.stmts[r.of]
		if !there || m.tx == 'E' && cmd == "insert" {
			m.skip = !m.fail("26000")
			return
		}
		m.portals[r.name] = cmd
		m.send(bound())
	case 'E':
		cmd, there := m.portals[r.name]
		if !there {
			m.skip = !m.fail("34000")
			return
		}
		m.skip = !m.run(r.id, cmd, false)
	case 'S':
		m.skip = false
		m.ready()
	}
}

// next makes up the client's next messages.
func (m *modelServer) next() []*request {
	pick := func() string { return commands[m.rnd(len(commands))] }
	name := func() string { return []string{"", "s", "t"}[m.rnd(3)] }
	wrap := func(r request) *request {
		switch r.typ {
		case 'Q':
			r.id = fmt.Sprintf("Q%d", m.nq)
			m.nq++
			r.frontend = query(strings.Join(r.cmds, "; "))
		case 'P':
			r.frontend = parse(r.name, r.cmds[0])
		case 'B':
			r.frontend = bind(r.name, r.of)
		case 'E':
			r.id = fmt.Sprintf("E%d", m.ne)
			m.ne++
			r.frontend = execute(r.name, 0)
		case 'd':
			r.frontend = data("row\n")
		default:
			r.frontend = msg(r.typ)
		}
		return &r
	}
	data := []*request{wrap(request{typ: 'd'}), wrap(request{typ: 'd'}), wrap(request{typ: "cf"[m.rnd(2)]})}
	switch m.rnd(6) {
	case 0:
		r := request{typ: 'Q'}
		for range 1 + m.rnd(3) {
			r.cmds = append(r.cmds, pick())
		}
		out := []*request{wrap(r)}
		for _, c := range r.cmds {
			if c == "copy" {
				if m.rnd(3) == 0 {
					out = append(out, wrap(request{typ: 'S'}))
				}
				out = append(out, data...)
			}
		}
		return out
	case 1:
		return []*request{wrap(request{typ: 'P', name: name(), cmds: []string{pick()}})}
	case 2:
		return []*request{wrap(request{typ: 'S'})}
	case 3:
		return []*request{wrap(request{typ: 'H'})}
	}
	st, p := name(), name()
	cmd := pick()
	out := []*request{wrap(request{typ: 'B', name: p, of: st}), wrap(request{typ: 'E', name: p})}
	if m.rnd(3) > 0 {
		out = []*request{wrap(request{typ: 'P', cmds: []string{cmd}}), wrap(request{typ: 'B'}), out[1]}
		out[2].name, out[2].frontend = "", execute("", 0)
	}
	// The client does not know whether its portal is a COPY: it sends data
	// if it may be, as libpq would after CopyInResponse.
	if m.rnd(2) == 0 {
		out = append(out, wrap(request{typ: 'S'}))
	}
	return append(out, append(data, wrap(request{typ: 'S'}))...)
}

// runModel plays a client against the model, in any chunks and interleaving.
func runModel(tb testing.TB, rnd func(int) int) *modelServer {
	w := watch(tb)
	w.s.results, w.s.copies = content.Mode(rnd(3)), content.Mode(1+rnd(2))
	m := newModel(rnd)
	var fromClient []byte
	var reading []*request // sent, not read by the server
	arrived := 0
	for step := 0; step < 60; step++ {
		switch rnd(4) {
		case 0:
			for _, r := range m.next() {
				fromClient = append(fromClient, r.frontend...)
				reading = append(reading, r)
			}
		case 1:
			n := rnd(len(fromClient) + 1)
			w.feed(true, fromClient[:n])
			fromClient = fromClient[n:]
		case 2: // the server reads what was passed on to it
			for len(reading) > 0 && arrived+len(reading[0].frontend) <= len(w.out[0]) {
				arrived += len(reading[0].frontend)
				m.receive(reading[0])
				reading = reading[1:]
			}
		case 3:
			n := rnd(len(m.out) + 1)
			w.feed(false, m.out[:n])
			m.out = m.out[n:]
		}
	}
	w.feed(true, fromClient)
	for _, r := range reading {
		m.receive(r)
	}
	w.feed(false, m.out)
	for side := range w.in {
		if len(w.out[side]) != len(w.in[side]) || w.ended {
			tb.Fatalf("not all of side %d passed, ended %v\n%s", side, w.ended, w.log.text(0))
		}
	}
	w.finish()
	m.end(m.lost) // what was open when the connection ended
	w.compare(m)
	return m
}

// claims returns what the entries say became of each: 1 committed, -1 rolled
// back, 0 not known.
func (w *watched) claims() []int8 {
	claim := make([]int8, len(w.log.entries))
	for _, e := range w.log.entries {
		of, ok := event.Index(e.Of)
		if e.Committed == 0 || !ok {
			continue
		}
		since, other := event.Index(e.Since)
		if !other {
			since = of
		}
		for i := since; i <= of; i++ {
			if claim[i] == -e.Committed {
				w.tb.Fatalf("entry %d is told to be committed and rolled back\n%s", i, w.log.text(0))
			}
			claim[i] = e.Committed
		}
	}
	return claim
}

// compare tests what the entries say became of each statement.
func (w *watched) compare(m *modelServer) {
	claim := w.claims()
	var nq, ne int
	for i := range w.log.entries {
		var id string
		switch w.log.entries[i].Kind {
		case event.KindQuery:
			id = fmt.Sprintf("Q%d", nq)
			nq++
		case event.KindExecute:
			id = fmt.Sprintf("E%d", ne)
			ne++
		default:
			continue
		}
		switch {
		case m.lost[id]+m.kept[id] == 0:
		case claim[i] == 0:
			m.open++
		default:
			m.told++
		}
		if claim[i] > 0 && m.lost[id] > 0 || claim[i] < 0 && m.kept[id] > 0 {
			w.tb.Fatalf("entry %d (%s) committed %d, but %d effects lasted and %d were undone\n%s",
				i, id, claim[i], m.kept[id], m.lost[id], w.log.text(0))
		}
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		runModel(&forRapid{TB: t, rt: rt}, func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") })
	})
}

// Many more runs, each from a seed; TestModel shrinks what they find.
func TestModelSeeds(t *testing.T) {
	told, open := 0, 0
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := runModel(t, r.IntN)
		told, open = told+m.told, open+m.open
	}
	t.Logf("what became of a statement is told of %d, not of %d", told, open)
	if told < 20*open {
		t.Error("want it told of 20 in 21")
	}
}

func FuzzModel(f *testing.F) {
	for seed := range byte(20) {
		f.Add(bytes.Repeat([]byte{seed, seed * 7, 3, seed * 13, 5}, 30))
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		runModel(t, func(n int) int {
			if len(choices) == 0 || n < 2 {
				return 0
			}
			c := int(choices[0])
			choices = choices[1:]
			return c % n
		})
	})
}

// forRapid makes failures rapid's, so that it can shrink them.
type forRapid struct {
	testing.TB
	rt *rapid.T
}

func (f *forRapid) Fatalf(format string, args ...any) { f.rt.Fatalf(format, args...) }
func (f *forRapid) Fatal(args ...any)                 { f.rt.Fatal(args...) }
func (f *forRapid) Helper()                           {}
