// Package report makes the evidence bundle over a stretch of a log: what
// happened by user, database and class; logins; gaps, refusals, prunes,
// erasures and holds; the history of the configuration; and what of common
// audit clauses all that shows, and what it does not.
//
// The figures are read from the log by package query and are no evidence by
// themselves: the checkpoint and the proofs in the bundle are.
package report

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

// maxListed bounds the rows of each list of single entries; how many there
// were is said in any case.
const maxListed = 1000

// maxGroups bounds how many users, databases and so on are told apart.
const maxGroups = 10_000

// Data is all that is said of a stretch of the log.
type Data struct {
	Origin  string    `json:"origin"`
	Program string    `json:"program"` // that made it
	Made    time.Time `json:"made"`
	Since   time.Time `json:"since"` // what was asked for; zero for the beginning
	Until   time.Time `json:"until"`

	First     int64     `json:"first"` // entries, both included
	Last      int64     `json:"last"`
	FirstTime time.Time `json:"first_time"`
	LastTime  time.Time `json:"last_time"`
	Kept      int64     `json:"kept_from"` // the first entry that the log still has
	Size      int64     `json:"size"`      // of the log when the report was made

	Kinds      []Count `json:"kinds"`
	Users      []Count `json:"users"` // statements
	Databases  []Count `json:"databases"`
	Classes    []Count `json:"classes"`
	Relations  []Count `json:"relations"`  // with the user of each
	Clients    []Count `json:"clients"`    // addresses with statements
	Errors     []Count `json:"errors"`     // by SQLSTATE
	Logins     []Count `json:"logins"`     // by user, that succeeded
	BadLogins  []Count `json:"bad_logins"` // by user and address, that failed
	Readers    []Count `json:"readers"`    // of the log over HTTP
	Statements int64   `json:"statements"`
	RolledBack int64   `json:"rolled_back"`
	Unended    int64   `json:"end_not_seen"`

	Roles    List `json:"role_changes"`
	DDL      List `json:"definitions"`
	Failures List `json:"failed_logins"`
	Refusals List `json:"refusals"`
	Gaps     List `json:"gaps"`
	Recovers List `json:"recoveries"`
	Prunes   List `json:"prunes"`
	Erasures List `json:"erasures"`
	Holds    List `json:"holds"`
	Configs  List `json:"configurations"` // starts and reloads
	Stops    List `json:"stops"`

	// Silence is the longest time between two entries that follow each other,
	// while the proxy ran. Heartbeats keep it at a minute.
	Silence      time.Duration `json:"longest_silence_ns"`
	SilenceAfter int64         `json:"longest_silence_after"`
	// Crashes are starts without a stop before them.
	Crashes int64 `json:"starts_without_a_stop"`
	Backs   int64 `json:"clock_set_back"` // entries a second or more older than the one before
}

// A Count is how often something was.
type Count struct {
	Name string `json:"name"`
	N    int64  `json:"n"`
}

// A List is of single entries.
type List struct {
	Total int64  `json:"total"`
	Items []Item `json:"items"` // the first maxListed
}

// An Item is one entry.
type Item struct {
	Index int64     `json:"index"`
	Time  time.Time `json:"time"`
	Who   string    `json:"who,omitempty"`
	What  string    `json:"what"`
}

func (l *List) add(s *query.Statement, what string) {
	if l.Total++; len(l.Items) < maxListed {
		who := s.User
		if s.Client != "" {
			who += " from " + s.Client
		}
		l.Items = append(l.Items, Item{s.Index, time.Unix(0, s.Time).UTC(), who, what})
	}
}

// counts are the figures while they are made.
type counts map[string]int64

func (c counts) add(name string) {
	if _, ok := c[name]; !ok && len(c) >= maxGroups {
		name = "(others)"
	}
	c[name]++
}

func (c counts) sorted() []Count {
	out := make([]Count, 0, len(c))
	for name, n := range c {
		out = append(out, Count{name, n})
	}
	slices.SortFunc(out, func(a, b Count) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Name, b.Name)) })
	return out
}

// A gatherer makes Data of statements.
type gatherer struct {
	*Data
	kinds, users, databases, classes, relations, clients, errors, logins, badLogins, readers counts

	last    *query.Statement // index and time of the one before
	stopped bool
	started bool // a start was seen in this stretch
}

// Gather reads the statements that f selects, which is to be by time or index
// only, and counts them.
func Gather(ctx context.Context, log *query.Log, f query.Filter) (*Data, error) {
	size, err := log.Size()
	if err != nil {
		return nil, err
	}
	g := &gatherer{
		Data:  &Data{Origin: log.Origin(), Since: f.Since.UTC(), Until: f.Until.UTC(), First: -1, Last: -1, Kept: log.First(), Size: size},
		kinds: counts{}, users: counts{}, databases: counts{}, classes: counts{}, relations: counts{}, clients: counts{}, errors: counts{},
		logins: counts{}, badLogins: counts{}, readers: counts{}, stopped: true,
	}
	f.All = true // a report counts what is there, wherever a clock put it
	if err := log.Search(ctx, f, func(s *query.Statement) error {
		g.statement(s)
		return nil
	}); err != nil {
		return nil, err
	}
	d := g.Data
	d.Kinds, d.Users, d.Databases, d.Classes, d.Clients = g.kinds.sorted(), g.users.sorted(), g.databases.sorted(), g.classes.sorted(), g.clients.sorted()
	d.Relations = g.relations.sorted()
	d.Errors, d.Logins, d.BadLogins, d.Readers = g.errors.sorted(), g.logins.sorted(), g.badLogins.sorted(), g.readers.sorted()
	return d, nil
}

func (g *gatherer) statement(s *query.Statement) {
	at := time.Unix(0, s.Time).UTC()
	if g.First < 0 {
		g.First, g.FirstTime = s.Index, at
	}
	g.Last, g.LastTime = max(g.Last, s.Index), at
	if s.Outcome != nil {
		g.Last = max(g.Last, s.Outcome.Index)
	}
	g.order(s)
	g.kinds.add(string(s.Kind))
	switch s.Kind {
	case event.KindQuery, event.KindExecute, event.KindFunctionCall:
		g.ran(s)
	case event.KindAuth:
		if s.SQLState() == "" {
			g.logins.add(s.User)
			break
		}
		g.badLogins.add(s.User + " from " + host(s.Client))
		g.Failures.add(s, describe(s))
	case event.KindViolation:
		g.Refusals.add(s, describe(s))
	case event.KindGap:
		g.Gaps.add(s, describe(s))
	case event.KindRecover:
		g.Recovers.add(s, describe(s))
	case event.KindPrune:
		g.Prunes.add(s, describe(s))
	case event.KindErase:
		g.Erasures.add(s, describe(s))
	case event.KindHold:
		g.Holds.add(s, describe(s))
	case event.KindStart, event.KindConfig:
		g.Configs.add(s, string(s.Kind)+": "+describe(s))
	case event.KindStop:
		g.Stops.add(s, describe(s))
	case event.KindNotice:
		for _, f := range s.Facts {
			if f.Key == "reader" {
				g.readers.add(f.Val)
			}
		}
	}
}

// order looks for silence, for clocks that were set and for ends that were not orderly.
func (g *gatherer) order(s *query.Statement) {
	if g.last != nil {
		apart := time.Duration(s.Time - g.last.Time)
		if apart <= -time.Second {
			g.Backs++
		}
		if apart > g.Silence && s.Kind != event.KindStart && s.Kind != event.KindRecover {
			g.Silence, g.SilenceAfter = apart, g.last.Index
		}
	}
	switch s.Kind {
	case event.KindStart:
		if !g.stopped {
			g.Crashes++
		}
		g.stopped, g.started = false, true
	case event.KindStop:
		g.stopped = true
	default:
		g.stopped = false
	}
	g.last = &query.Statement{Index: s.Index, Time: s.Time}
}

// ran counts a statement.
func (g *gatherer) ran(s *query.Statement) {
	g.Statements++
	g.users.add(s.User)
	g.databases.add(s.Database)
	g.clients.add(host(s.Client))
	if state := s.SQLState(); state != "" {
		g.errors.add(state)
	}
	switch {
	case s.Outcome == nil:
		g.Unended++
	case s.Outcome.Committed < 0:
		g.RolledBack++
	}
	if s.Kind == event.KindFunctionCall {
		g.classes.add("FUNCTION")
		return
	}
	info := s.SQL()
	if info == nil || len(info.Classes) == 0 {
		g.classes.add(query.Unknown)
		return
	}
	for _, r := range info.Relations {
		g.relations.add(r + " by " + s.User)
	}
	for _, c := range info.Classes {
		g.classes.add(string(c))
		switch c {
		case "ROLE":
			g.Roles.add(s, outcome(s)+short(s.Text))
		case "DDL":
			g.DDL.add(s, outcome(s)+short(s.Text))
		}
	}
}

// outcome says in front of a text if it had no effect.
func outcome(s *query.Statement) string {
	switch {
	case s.SQLState() != "":
		return "failed (" + s.SQLState() + "): "
	case s.Outcome == nil:
		return "end not seen: "
	case s.Outcome.Committed < 0:
		return "rolled back: "
	}
	return ""
}

// describe tells an entry by its facts and messages.
func describe(s *query.Statement) string {
	out := ""
	for _, f := range s.Facts {
		if out != "" {
			out += ", "
		}
		out += f.Key + " " + f.Val
	}
	if s.Error != nil && s.Error.Message != "" {
		if out != "" {
			out += ": "
		}
		out += fmt.Sprintf("%s %s", s.Error.SQLState, s.Error.Message)
	}
	return short(out)
}

// short cuts a text for a table.
func short(s string) string {
	const most = 300
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}

// host returns an address without its port, which changes with each connection.
func host(client string) string {
	for i := len(client) - 1; i > 0; i-- {
		if client[i] == ':' {
			return client[:i]
		}
	}
	return client
}
