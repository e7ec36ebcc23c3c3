package sqlinfo

import (
	"strings"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// A parser walks the tokens of one statement. Ranges are half open; places
// behind the end hold nothing.
type parser struct {
	*result
	t     []tok
	match []int // of each opening parenthesis the closing one
	depth int
	quiet bool // what is read does not run now, and does not count for the class
}

func (p *parser) class(c Class) {
	if !p.quiet {
		p.result.class(c)
	}
}

func newParser(r *result, toks []tok) *parser {
	p := &parser{result: r, t: toks, match: make([]int, len(toks))}
	var open []int
	for i := range toks {
		switch {
		case toks[i].is("("):
			p.match[i] = len(toks) // unless it is closed
			open = append(open, i)
		case toks[i].is(")"):
			if len(open) == 0 {
				p.unknown()
				continue
			}
			p.match[open[len(open)-1]] = i
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		p.unknown()
	}
	return p
}

// word returns the key word or plain identifier at i, "" if there is none.
func (p *parser) word(i int) string {
	if i >= 0 && i < len(p.t) && p.t[i].kind == sqllex.Word {
		return p.t[i].text
	}
	return ""
}

// key is word where a key word matters: behind a dot or AS any word is a name.
func (p *parser) key(i int) string {
	if i > 0 && (p.mark(i-1, ".") || p.word(i-1) == "as") {
		return ""
	}
	return p.word(i)
}

func (p *parser) mark(i int, m string) bool { return i >= 0 && i < len(p.t) && p.t[i].is(m) }

// skip returns the place behind the words at i that are among those given.
func (p *parser) skip(i int, words ...string) int {
	for i < len(p.t) && p.t[i].kind == sqllex.Word && contains(words, p.t[i].text) {
		i++
	}
	return i
}

func contains(words []string, w string) bool {
	for _, x := range words {
		if x == w {
			return true
		}
	}
	return false
}

// reserved are words that are never the name of a relation without quotes.
const reserved = " all and any array as asc both case cast check collate column constraint create default desc distinct do else end " +
	"except false fetch for foreign from grant group having in initially intersect into lateral leading limit not null offset on only or " +
	"order placing primary references returning select some table then to trailing true union unique using values variadic when where window with "

// name reads a name, perhaps with a schema, and returns it as SQL writes it;
// "" if there is none.
func (p *parser) name(i int) (name string, next int) {
	var b strings.Builder
	for ; i < len(p.t); i++ {
		t := &p.t[i]
		switch {
		case t.kind == sqllex.Name && !plainIdentifier(t.text):
			b.WriteString(quoteIdentifier(t.text))
		case t.kind == sqllex.Name:
			b.WriteString(t.text)
		case t.kind == sqllex.Word && (b.Len() > 0 || !strings.Contains(reserved, " "+t.text+" ")):
			b.WriteString(t.text)
		default:
			return "", i
		}
		if !p.mark(i+1, ".") {
			return b.String(), i + 1
		}
		b.WriteByte('.')
		i++
	}
	return "", i
}

// relation reads a relation's name, with ONLY in front or an asterisk behind
// it, and reports it.
func (p *parser) relation(i int) (next int) {
	i = p.skip(i, "only")
	if p.mark(i, "(") { // ONLY (t)
		end := p.match[i]
		p.relation(i + 1)
		return end + 1
	}
	name, next := p.name(i)
	if name == "" {
		p.unknown()
		return i
	}
	p.relations = append(p.relations, name)
	if p.mark(next, "*") {
		next++
	}
	return next
}

// relationList reads names with commas between them, each perhaps with a list
// of columns behind it.
func (p *parser) relationList(i int) (next int) {
	for {
		if i = p.relation(i); p.mark(i, "(") {
			i = p.match[i] + 1
		}
		if !p.mark(i, ",") {
			return i
		}
		i++
	}
}

// A scope holds the names that WITH gave to queries.
type scope struct {
	names []string
	outer *scope
}

func (s *scope) has(name string) bool {
	for ; s != nil; s = s.outer {
		if contains(s.names, name) {
			return true
		}
	}
	return false
}

// startsQuery reports whether a query is between from and to, rather than an
// expression or a list of tables.
func (p *parser) startsQuery(from, to int) bool {
	for from < to && p.mark(from, "(") {
		// ((SELECT ...) UNION ...) is one, ((SELECT ...) AS x JOIN ...) is not.
		switch end := p.match[from] + 1; {
		case end >= to:
		case !contains([]string{"union", "intersect", "except", "order", "limit", "offset", "fetch", "for"}, p.word(end)):
			return false
		}
		from++
	}
	if from >= to {
		return false
	}
	switch p.word(from) {
	case "select", "values", "with", "table", "insert", "update", "delete", "merge":
		return true
	}
	return false
}

// enter bounds nesting.
func (p *parser) enter() bool {
	if p.depth >= maxDepth {
		p.unknown()
		return false
	}
	p.depth++
	return true
}

// query reads SELECT, VALUES, TABLE, INSERT, UPDATE, DELETE or MERGE, with what
// WITH puts before it. Below the top only what it writes counts for the class.
func (p *parser) query(i, to int, s *scope, top bool) {
	if !p.enter() {
		return
	}
	defer func() { p.depth-- }()
	if p.word(i) == "with" {
		i, s = p.with(i+1, to, s)
	}
	if p.mark(i, "(") {
		end := p.match[i]
		p.query(i+1, min(end, to), s, top)
		p.clauses(end+1, to, s, false)
		return
	}
	switch p.word(i) {
	case "select", "values":
		if top {
			p.class(Read)
		}
		p.clauses(i+1, to, s, false)
	case "table":
		if top {
			p.class(Read)
		}
		p.clauses(p.source(i+1, to, s), to, s, false)
	case "insert":
		p.class(Write)
		p.insert(i+1, to, s)
	case "update":
		p.class(Write)
		p.clauses(p.relation(i+1), to, s, false)
	case "delete":
		p.class(Write)
		p.clauses(p.relation(p.skip(i+1, "from")), to, s, true)
	case "merge":
		p.class(Write)
		p.clauses(p.relation(p.skip(i+1, "into")), to, s, true)
	default:
		p.unknown()
	}
}

// with reads the queries of WITH and returns the place behind them.
func (p *parser) with(i, to int, outer *scope) (next int, inner *scope) {
	recursive := p.word(i) == "recursive"
	if recursive {
		i++
	}
	inner = &scope{outer: outer}
	type named struct{ from, to int }
	var queries []named
	for i < to {
		name, next := p.name(i)
		if name == "" {
			p.unknown()
			return i, inner
		}
		if i = next; p.mark(i, "(") { // columns
			i = p.match[i] + 1
		}
		if i = p.skip(i, "as", "not", "materialized"); !p.mark(i, "(") {
			p.unknown()
			return i, inner
		}
		q := named{i + 1, min(p.match[i], to)}
		i = p.match[i] + 1
		if recursive {
			queries = append(queries, q)
		} else {
			p.query(q.from, q.to, inner, false) // it sees those before it
		}
		inner = &scope{names: []string{name}, outer: inner}
		// SEARCH and CYCLE clauses name columns only.
		for i < to && !p.mark(i, ",") && !p.mark(i, "(") &&
			!contains([]string{"select", "values", "table", "insert", "update", "delete", "merge"}, p.word(i)) {
			i++
			// A column list of theirs has commas, up to SET, USING, or the end.
			if w := p.word(i - 1); w == "by" || w == "cycle" {
				for i < to && p.word(i) != "set" {
					i++
				}
			}
		}
		if !p.mark(i, ",") {
			break
		}
		i++
	}
	for _, q := range queries {
		p.query(q.from, q.to, inner, false)
	}
	return i, inner
}

// insert reads on behind INSERT.
func (p *parser) insert(i, to int, s *scope) {
	i = p.relation(p.skip(i, "into"))
	if p.word(i) == "as" {
		i += 2
	}
	if p.mark(i, "(") && !p.startsQuery(i, to) && !p.startsQuery(i+1, p.match[i]) {
		i = p.match[i] + 1 // columns
	}
	if p.word(i) == "overriding" {
		i += 3
	}
	if p.word(i) == "with" || p.mark(i, "(") {
		p.query(i, to, s, false)
		return
	}
	if p.word(i) == "table" {
		i = p.source(i+1, to, s)
	}
	p.clauses(i, to, s, false)
}

// paren reads what is in the parentheses that open at i and returns the place
// behind them.
func (p *parser) paren(i int, s *scope) (next int) {
	end := p.match[i]
	if p.startsQuery(i+1, end) {
		p.query(i+1, end, s, false)
	} else if p.enter() {
		for j := i + 1; j < end; j++ {
			if p.mark(j, "(") {
				j = p.paren(j, s) - 1
			}
		}
		p.depth--
	}
	return end + 1
}

// clauses reads the clauses of a statement, looking for those that name
// relations. using says that USING is one of them.
func (p *parser) clauses(i, to int, s *scope, using bool) {
	into := true // SELECT ... INTO may come
	for i < to {
		if p.mark(i, "(") {
			i = p.paren(i, s)
			continue
		}
		switch p.key(i) {
		case "from":
			// IS [NOT] DISTINCT FROM compares.
			if p.word(i-1) == "distinct" && (p.word(i-2) == "is" || p.word(i-2) == "not") {
				i++
				continue
			}
			into = false
			i = p.from(i+1, to, s)
		case "using":
			i++
			if using {
				i = p.from(i, to, s)
			}
		case "into":
			i++
			if into {
				p.class(DDL)
				i = p.relation(p.skip(i, "temporary", "temp", "local", "global", "unlogged", "table"))
			}
		case "union", "intersect", "except":
			into = false
			if i = p.skip(i+1, "all", "distinct"); p.word(i) == "table" {
				i = p.source(i+1, to, s)
			}
		case "when", "do": // of MERGE, ON CONFLICT: INSERT has no INTO there
			into = false
			i++
		default:
			i++
		}
	}
}

// from reads a list of tables with their joins and returns the place of the
// clause behind it.
func (p *parser) from(i, to int, s *scope) (next int) {
	if i >= to {
		p.unknown() // nothing to read from
	}
	cases := 0
	for item := true; i < to; {
		if item {
			i, item = p.item(i, to, s), false
			continue
		}
		if p.mark(i, ",") {
			item = true
			i++
			continue
		}
		if p.mark(i, "(") {
			i = p.paren(i, s)
			continue
		}
		switch w := p.key(i); w {
		case "join":
			item = true
		case "case":
			cases++
		case "end":
			cases--
		case "where", "group", "having", "window", "union", "intersect", "except", "order", "limit", "offset", "fetch",
			"for", "returning", "set", "when":
			if cases == 0 {
				return i
			}
		}
		i++
	}
	return to
}

// item reads a table, function or subquery of a FROM clause.
func (p *parser) item(i, to int, s *scope) (next int) {
	if i = p.skip(i, "lateral"); p.mark(i, "(") {
		end := p.match[i]
		if p.startsQuery(i+1, end) {
			p.query(i+1, end, s, false)
		} else if p.enter() {
			p.from(i+1, min(end, to), s)
			p.depth--
		}
		return end + 1
	}
	if p.word(i) == "rows" && p.word(i+1) == "from" {
		return i + 2
	}
	return p.source(i, to, s)
}

// source reads a name that is a relation's unless it is a function's or one
// that WITH gave.
func (p *parser) source(i, to int, s *scope) (next int) {
	if p.word(i) == "only" {
		return p.relation(i)
	}
	if contains(valueFunctions(), p.word(i)) && !p.mark(i+1, ".") {
		return i + 1
	}
	name, next := p.name(i)
	switch {
	case i >= to || name == "":
		p.unknown()
		return i + 1
	case p.mark(next, "("), s.has(name):
		return next
	case name == "collation" && p.word(next) == "for":
		return next + 1
	}
	return p.relation(i)
}

// valueFunctions are functions that are called without parentheses.
func valueFunctions() []string {
	return []string{
		"current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp",
		"current_user", "localtime", "localtimestamp", "session_user", "system_user", "user",
	}
}
