package sqlinfo

// statement reads a whole statement. If it does not run now, it does not count
// for the class.
func (p *parser) statement(i, to int, runs bool) {
	if i >= to || !p.enter() {
		return
	}
	defer func(was bool) { p.quiet, p.depth = was, p.depth-1 }(p.quiet)
	p.quiet = p.quiet || !runs
	if p.mark(i, "(") || contains([]string{"select", "values", "with", "table", "insert", "update", "delete", "merge"}, p.word(i)) {
		p.query(i, to, nil, true)
		return
	}
	switch p.word(i) {
	case "create", "alter", "drop":
		p.class(p.define(i, to))
	case "truncate":
		p.class(Write)
		p.relationList(p.skip(i+1, "table"))
	case "copy":
		p.class(p.copy(i+1, to))
	case "grant", "revoke":
		p.class(Role)
		p.grant(i+1, to)
	case "comment", "security":
		p.class(DDL)
		p.comment(i+1, to)
	case "refresh":
		p.class(DDL)
		p.relation(p.skip(i+1, "materialized", "view", "concurrently"))
	case "import", "reassign":
		p.class(DDL)
	case "do":
		p.class(Function)
		p.unknown() // its body is a program
	case "call":
		p.class(Function)
		p.expressions(i+1, to)
	case "explain":
		p.class(Misc)
		p.explain(i+1, to)
	case "prepare":
		if p.word(i+1) == "transaction" {
			p.class(Misc)
			return
		}
		p.inner(i+1, to, "as", true)
	case "declare":
		p.class(Misc)
		p.inner(i+1, to, "for", false)
	case "execute":
		p.class(Misc)
		p.unknown() // the text was given by PREPARE
	case "lock":
		p.class(Misc)
		p.relationList(p.skip(i+1, "table"))
	case "vacuum", "analyze", "analyse":
		p.class(Misc)
		p.maintain(i+1, to)
	case "cluster":
		p.class(DDL)
		p.cluster(i+1, to)
	case "reindex":
		p.class(Misc)
		p.reindex(i+1, to)
	case "abort", "begin", "checkpoint", "close", "commit", "deallocate", "discard", "end", "fetch", "listen", "load",
		"move", "notify", "release", "reset", "rollback", "savepoint", "set", "show", "start", "unlisten":
		p.class(Misc)
	default:
		p.unknown()
	}
}

// expressions looks for subqueries.
func (p *parser) expressions(i, to int) {
	for i < to {
		if p.mark(i, "(") {
			i = p.paren(i, nil)
		} else {
			i++
		}
	}
}

// inner reads the statement behind a key word, which follows outside of parentheses.
func (p *parser) inner(i, to int, behind string, runs bool) {
	for ; i < to; i++ {
		if p.mark(i, "(") {
			i = p.match[i]
		} else if p.word(i) == behind {
			p.statement(i+1, to, runs)
			return
		}
	}
	p.unknown()
}

func (p *parser) explain(i, to int) {
	run := false
	if p.mark(i, "(") && !p.startsQuery(i, to) {
		for j := i + 1; j < p.match[i]; j++ {
			if w := p.word(j); w == "analyze" || w == "analyse" {
				run = !contains([]string{"false", "off"}, p.word(j+1))
			}
		}
		i = p.match[i] + 1
	}
	for w := p.word(i); w == "analyze" || w == "analyse" || w == "verbose"; w = p.word(i) {
		run = run || w != "verbose"
		i++
	}
	if p.word(i) == "execute" { // of a text that PREPARE gave
		p.unknown()
		return
	}
	p.statement(i, to, run)
}

func (p *parser) copy(i, to int) Class {
	i = p.skip(i, "binary")
	if p.mark(i, "(") {
		p.paren(i, nil)
		return Read
	}
	i = p.relation(i)
	if p.mark(i, "(") {
		i = p.match[i] + 1
	}
	switch p.word(i) {
	case "from":
		for ; i < to; i++ { // COPY FROM ... WHERE has expressions
			if p.word(i) == "where" {
				p.expressions(i, to)
			}
		}
		return Write
	case "to":
		return Read
	}
	p.unknown()
	return Misc
}

// objects are kinds of objects that are relations, by how they are written.
func (p *parser) relationKind(i int) (next int, ok bool) {
	switch p.word(i) {
	case "table", "view", "index", "sequence":
		return i + 1, true
	case "foreign":
		return i + 2, p.word(i+1) == "table"
	case "materialized":
		return i + 2, p.word(i+1) == "view"
	}
	return i, false
}

// grant reads on behind GRANT and REVOKE.
func (p *parser) grant(i, to int) {
	for ; i < to; i++ {
		if p.mark(i, "(") {
			i = p.match[i]
			continue
		}
		if p.word(i) != "on" {
			continue
		}
		switch i++; p.word(i) {
		case "table", "sequence":
			p.relationList(i + 1)
		case "all", "database", "domain", "foreign", "function", "language", "large", "parameter", "procedure", "routine",
			"schema", "tablespace", "type":
			// Not relations, or none by name.
		default:
			p.relationList(i)
		}
		return
	}
}

// comment reads on behind COMMENT and SECURITY.
func (p *parser) comment(i, to int) {
	for i < to && p.word(i) != "on" {
		i++
	}
	i++
	if next, ok := p.relationKind(i); ok {
		p.relation(next)
		return
	}
	switch p.word(i) {
	case "column":
		p.columnOf(i + 1)
	case "constraint", "policy", "rule", "trigger":
		for ; i < to; i++ {
			if p.word(i) == "on" {
				if p.word(i+1) != "domain" {
					p.relation(i + 1)
				}
				return
			}
		}
	}
}

// columnOf reads the name of a column with its relation's in front.
func (p *parser) columnOf(i int) {
	end := i
	for p.mark(end+1, ".") {
		end += 2
	}
	if end == i || end > len(p.t) {
		p.unknown()
		return
	}
	q := newParser(p.result, p.t[i:end-1])
	q.relation(0)
}

// maintain reads on behind VACUUM and ANALYZE.
func (p *parser) maintain(i, to int) {
	if p.mark(i, "(") {
		i = p.match[i] + 1
	}
	if i = p.skip(i, "full", "freeze", "verbose", "analyze", "analyse"); i < to {
		p.relationList(i)
	}
}

func (p *parser) cluster(i, to int) {
	if p.mark(i, "(") {
		i = p.match[i] + 1
	}
	if i = p.skip(i, "verbose"); i >= to {
		return
	}
	if p.word(i+1) == "on" { // CLUSTER index ON table
		i += 2
	}
	p.relation(i)
}

func (p *parser) reindex(i, to int) {
	if p.mark(i, "(") {
		i = p.match[i] + 1
	}
	switch p.word(i) {
	case "table", "index":
		p.relation(p.skip(i+1, "concurrently"))
	case "schema", "database", "system":
	default:
		p.unknown()
	}
}
