package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

// What is rare in the log that generate writes: each stands in a few statements
// in the middle and at the end, where the journal is not sealed yet.
const (
	rareUser     = "mallory"
	rareRelation = "salaries"
	rareState    = "42501"
	rareText     = "needle"
	rareParam    = "4711-0815"
	rareDuration = 90 * time.Second
)

const (
	sessions     = 400
	sessionTried = 7 // the id of one of them, which are random else
	users        = 40
	databases    = 8
	relations    = 200
	shapes       = 5000 // of texts, that is fingerprints; each text is another
)

// A generator writes a log as a busy proxy would: sessions in turn, each
// statement an admission and an outcome, one in four by the extended protocol.
type generator struct {
	log   *ledger.Ledger
	rand  *rand.Rand
	now   int64
	ids   [sessions]uint64
	seq   map[uint64]uint64 // last number of a session
	who   [sessions + 1]event.Who
	parse [sessions]int64 // of a prepared statement, as a reference
	leaf  []byte
	value []byte
	first int64 // see full
	count int64 // entries, those of the log's own included
}

// generate writes a log of about n entries into dir, the last of them in a journal
// file that is nearly full, and its indexes.
func generate(ctx context.Context, dir string, n int64) error {
	_, missing := os.Stat(filepath.Join(dir, "log.json"))
	if missing != nil && !errors.Is(missing, fs.ErrNotExist) {
		return missing
	}
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "bench.example/search", Lazy: time.Hour})
	if err != nil {
		return err
	}
	g := &generator{log: l, seq: map[uint64]uint64{}, rand: rand.New(rand.NewPCG(1, 2)), now: time.Now().Add(-time.Duration(n) * 50 * time.Microsecond).UnixNano()}
	for i := range g.who {
		g.who[i] = event.Who{
			User: fmt.Sprint("user", i%users), Database: fmt.Sprint("db", i%databases), Application: fmt.Sprint("app", i%3),
			Client: fmt.Sprintf("10.0.%d.%d:%d", i%4, i%100, 40000+i),
		}
	}
	for i := range g.ids {
		g.ids[i] = g.rand.Uint64()
	}
	g.ids[sessionTried-1] = sessionTried
	g.who[sessions].User = rareUser
	if missing != nil { // else it is of a run before, perhaps of another version
		err = g.write(ctx, n)
	}
	if err == nil {
		err = l.SealNow(ctx)
	}
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	return index(ctx, dir)
}

// index makes the indexes that are missing, as the running proxy would.
func index(ctx context.Context, dir string) error {
	q, err := query.Open(dir)
	if err != nil {
		return err
	}
	return q.Index(ctx)
}

func (g *generator) write(ctx context.Context, n int64) error {
	for i := int64(0); ; i++ {
		if full, err := g.full(n, i); full || err != nil {
			return err
		}
		rare := ""
		if every := n/200 + 1; i%every == every/2 {
			rare = []string{"user", "relation", "state", "text", "param", "duration", "ddl", "violation"}[i/every%8]
		}
		if err := g.statement(i, rare); err != nil {
			return err
		}
		// Batches are large, for speed, but in the last journal file.
		batch := int64(500)
		if g.count > n {
			batch = 4
		}
		if i%batch == 0 {
			g.log.Want(g.count)
			for g.log.Backlog() > 8<<20 || batch == 4 && g.log.Durable() < g.count-16 {
				if ctx.Err() != nil || g.log.Err() != nil {
					return errors.Join(ctx.Err(), g.log.Err())
				}
				time.Sleep(50 * time.Microsecond)
			}
		}
	}
}

// full reports whether there are n entries, and a journal file that is nearly full.
func (g *generator) full(n, i int64) (bool, error) {
	if i%10_000 != 0 || g.count < n {
		return false, nil
	}
	files, err := os.ReadDir(filepath.Join(g.log.Dir(), "journal"))
	if err != nil || len(files) == 0 {
		return false, err
	}
	var first int64
	if _, err := fmt.Sscanf(files[len(files)-1].Name(), "%d.journal", &first); err != nil {
		return false, err
	}
	if g.first == 0 {
		g.first = first // the file it was in when there were enough
	}
	g.log.Want(g.count)
	return first > g.first && g.count-first > 200_000, nil
}

// statement appends one statement and its outcome.
func (g *generator) statement(i int64, rare string) error {
	s := g.rand.IntN(sessions)
	g.now += g.rand.Int64N(100_000)
	shape := g.rand.IntN(shapes)
	text := fmt.Sprintf("SELECT c%d, c%d FROM app.t%d WHERE id = %d AND note <> 'n%x' ORDER BY c%d LIMIT 10",
		shape%50, shape/50, shape%relations, g.rand.IntN(1_000_000), g.rand.Uint32(), shape%7)
	tag := "SELECT 10"
	if shape%5 == 0 {
		text = fmt.Sprintf("UPDATE app.t%d SET c%d = c%d + %d WHERE id = %d", shape%relations, shape%50, shape/50, g.rand.IntN(1000), g.rand.IntN(1_000_000))
		tag = "UPDATE 1"
	}
	micros := int64(100 + g.rand.ExpFloat64()*2000)
	who, state, param := &g.who[s], "", fmt.Sprint(g.rand.IntN(1_000_000))
	if i%2000 == 7 {
		state = []string{"23505", "40001", "57014"}[i/2000%3]
	}
	extended := g.rand.IntN(4) == 0
	switch rare {
	case "user":
		who = &g.who[sessions]
	case "relation":
		text = "SELECT sum(amount) FROM hr." + rareRelation
	case "state":
		state = rareState
	case "text":
		text += " /* " + rareText + " */"
	case "param":
		param, extended = rareParam, true
	case "duration":
		micros = rareDuration.Microseconds() + 5
	case "ddl":
		text, tag = "DROP TABLE app.old", "DROP TABLE"
	case "violation":
		return g.append(&event.Leaf{Kind: event.KindViolation, Who: &event.Who{Client: "10.9.9.9:1"}, SQLState: "08P01", Facts: []event.Fact{{Key: "reason", Val: "bench"}}}, nil)
	}
	a := event.Leaf{Session: g.ids[s], Kind: event.KindQuery, Who: who, Msgs: []byte("Q")}
	g.value = frame(g.value[:0], 'Q', text+"\x00")
	if extended && rare != "relation" && rare != "text" && rare != "ddl" {
		if g.parse[s] == 0 || i%50 == 0 {
			g.value = frame(g.value[:0], 'P', "s1\x00SELECT balance FROM app.t"+fmt.Sprint(shape%relations)+" WHERE id = $1 AND 1 = "+fmt.Sprint(i)+"\x00\x00\x01\x00\x00\x00\x19")
			if err := g.append(&event.Leaf{Session: a.Session, Kind: event.KindParse, Who: who, Msgs: []byte("P"), HasValue: true}, g.value); err != nil {
				return err
			}
			g.parse[s] = event.Ref(g.count - 1)
			if err := g.append(&event.Leaf{Session: a.Session, Kind: event.KindOutcome, Of: g.parse[s], Msgs: []byte("1")}, nil); err != nil {
				return err
			}
		}
		a.Kind, a.Parse, a.Msgs = event.KindExecute, g.parse[s], []byte("BES")
		g.value = frame(g.value[:0], 'B', "\x00s1\x00\x00\x00\x00\x01"+string(binary.BigEndian.AppendUint32(nil, uint32(len(param))))+param+"\x00\x00")
		g.value = frame(g.value, 'E', "\x00\x00\x00\x00\x00")
		g.value = frame(g.value, 'S', "")
		tag = "SELECT 1"
	}
	a.HasValue = true
	if err := g.append(&a, g.value); err != nil {
		return err
	}
	of := event.Ref(g.count - 1)
	g.now += micros * 1000 / 100
	o := event.Leaf{Session: a.Session, Kind: event.KindOutcome, Of: of, Msgs: []byte("CZ"), Tags: []string{tag}, Rows: 10, Bytes: 740, Micros: micros, Tx: 'I', Committed: 1}
	if state == "" {
		return g.append(&o, nil)
	}
	o.Tags, o.Rows, o.Bytes, o.Committed, o.SQLState, o.Msgs, o.HasValue = nil, 0, 0, -1, state, []byte("EZ"), true
	return g.append(&o, frame(nil, 'E', "SERROR\x00VERROR\x00C"+state+"\x00Mit did not work\x00\x00"))
}

func (g *generator) append(l *event.Leaf, value []byte) error {
	l.Time, l.Size = g.now, int64(len(value))
	if l.Session != 0 {
		g.seq[l.Session]++
		l.Seq = g.seq[l.Session]
	}
	g.leaf = l.Append(g.leaf[:0])
	index, err := g.log.Append(g.leaf, value)
	if err == nil {
		g.count = index + 1
	}
	return err
}

func frame(dst []byte, letter byte, body string) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, letter), uint32(len(body)+4))
	return append(dst, body...)
}
