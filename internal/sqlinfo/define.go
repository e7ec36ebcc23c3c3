package sqlinfo

// define reads CREATE, ALTER and DROP, whose word is at i, and returns the class.
func (p *parser) define(i, to int) Class {
	verb := p.word(i)
	i = p.skip(i+1, "or", "replace", "global", "local", "temporary", "temp", "unlogged", "unique", "recursive", "constraint",
		"trusted", "procedural")
	if p.word(i) == "event" { // EVENT TRIGGER is on no relation
		return DDL
	}
	if next, ok := p.relationKind(i); ok {
		kind := p.word(next - 1)
		next = p.skip(next, "concurrently", "if", "not", "exists")
		switch {
		case verb == "drop":
			p.relationList(next)
		case verb == "create" && kind == "index":
			p.on(next-1, to)
		case verb == "create":
			p.create(kind, next, to)
		default:
			p.alter(next, to)
		}
		return DDL
	}
	switch p.word(i) {
	case "role", "user", "group":
		if p.word(i) == "user" && p.word(i+1) == "mapping" {
			return DDL
		}
		return Role
	case "default": // ALTER DEFAULT PRIVILEGES; CREATE DEFAULT CONVERSION
		if p.word(i+1) == "privileges" {
			return Role
		}
	case "trigger", "policy", "rule":
		p.onTable(p.word(i), verb, i+1, to)
	case "statistics":
		if verb == "create" {
			p.clauses(i+1, to, nil, false)
		}
	case "schema":
		p.schema(i+1, to, verb)
	case "publication":
		p.publication(i+1, to)
	case "function", "procedure":
		p.body(i+1, to)
	case "routine", "aggregate", "operator", "type", "domain", "cast", "extension", "language", "server",
		"foreign", "subscription", "tablespace", "database", "collation", "conversion", "text", "access", "transform", "system",
		"large", "owned":
		// On no relation, or on none by name.
	default:
		p.unknown()
	}
	return DDL
}

// body looks for the body of a function that is no literal. What it is about
// is read when it runs, as that of one in a literal is.
func (p *parser) body(i, to int) {
	for ; i < to; i++ {
		if p.mark(i, "(") {
			i = p.match[i]
		} else if w := p.word(i); w == "return" || w == "begin" && p.word(i+1) == "atomic" {
			p.unknown()
			return
		}
	}
}

// on reads the relation behind ON.
func (p *parser) on(i, to int) (next int) {
	for ; i < to; i++ {
		if p.mark(i, "(") {
			i = p.match[i]
		} else if p.key(i) == "on" {
			return p.relation(i + 1)
		}
	}
	p.unknown()
	return to
}

// create reads on at the name of a new table, view or sequence.
func (p *parser) create(kind string, i, to int) {
	i = p.relation(i)
	switch kind {
	case "view":
		p.inner(i, to, "as", false)
		return
	case "sequence":
		p.ownedBy(i, to)
		return
	}
	for ; i < to; i++ {
		switch {
		case p.mark(i, "("):
			p.columns(i+1, p.match[i])
			i = p.match[i]
		case p.word(i) == "partition" && p.word(i+1) == "of":
			i = p.relation(i+2) - 1
		case p.word(i) == "inherits" && p.mark(i+1, "("):
			if !p.mark(i+2, ")") {
				p.relationList(i + 2)
			}
			i = p.match[i+1]
		case p.word(i) == "as":
			p.statement(i+1, to, false)
			return
		}
	}
}

// columns reads the definitions of columns and constraints.
func (p *parser) columns(i, to int) {
	if p.word(i) == "like" {
		i = p.relation(i + 1)
	}
	for ; i < to; i++ {
		switch {
		case p.mark(i, ",") && p.word(i+1) == "like":
			i = p.relation(i+2) - 1
		case p.mark(i, "("):
			i = p.paren(i, nil) - 1
		case p.key(i) == "references":
			i = p.relation(i+1) - 1
		}
	}
}

// ownedBy reads on behind the name of a sequence.
func (p *parser) ownedBy(i, to int) {
	for ; i < to; i++ {
		if p.word(i) == "owned" && p.word(i+1) == "by" && p.word(i+2) != "none" {
			p.columnOf(i + 2)
			return
		}
	}
}

// alter reads on at the name of a table, view, index or sequence.
func (p *parser) alter(i, to int) {
	if p.word(i) == "all" { // ALL IN TABLESPACE
		return
	}
	for i = p.relation(i); i < to; i++ {
		switch p.key(i) {
		case "references":
			i = p.relation(i+1) - 1
		case "inherit":
			if !p.constraint(i) {
				i = p.relation(i+1) - 1
			}
		case "partition":
			if w := p.word(i - 1); w == "attach" || w == "detach" {
				i = p.relation(i+1) - 1
			}
		case "owned":
			p.ownedBy(i, to)
			return
		}
		if p.mark(i, "(") {
			p.columns(i+1, p.match[i])
			i = p.match[i]
		}
	}
}

// constraint reports whether INHERIT at i is about a constraint: CHECK (...) NO
// INHERIT and ALTER CONSTRAINT c INHERIT name no relation.
func (p *parser) constraint(i int) bool {
	for i--; i > 0; i-- {
		if p.mark(i, ",") {
			return false
		}
		if w := p.word(i); w == "check" || w == "constraint" {
			return true
		}
	}
	return false
}

// onTable reads on behind TRIGGER, POLICY and RULE.
func (p *parser) onTable(kind, verb string, i, to int) {
	if kind == "rule" && verb == "create" {
		p.rule(i, to)
		return
	}
	next := p.on(p.skip(i, "if", "exists"), to)
	switch {
	case kind == "policy":
		p.expressions(next, to)
	case p.word(next) == "from": // the referenced table of a constraint trigger
		p.relation(next + 1)
	}
}

// rule reads CREATE RULE: its event, its relation and what it does instead.
func (p *parser) rule(i, to int) {
	for i < to && p.word(i) != "to" {
		i++
	}
	i = p.relation(i + 1)
	for ; i < to && p.word(i) != "do"; i++ {
		if p.mark(i, "(") {
			i = p.paren(i, nil) - 1
		}
	}
	if i = p.skip(i+1, "also", "instead"); p.word(i) == "nothing" || i >= to {
		return
	}
	if !p.mark(i, "(") {
		p.statement(i, to, false)
		return
	}
	// Several commands in parentheses.
	for from, end := i+1, p.match[i]; from < end; {
		stop := from
		for stop < end && !p.mark(stop, ";") {
			if p.mark(stop, "(") {
				stop = p.match[stop]
			}
			stop++
		}
		p.statement(from, min(stop, end), false)
		from = stop + 1
	}
}

// schema reads the definitions inside CREATE SCHEMA.
func (p *parser) schema(i, to int, verb string) {
	if verb != "create" {
		return
	}
	for ; i < to; i++ {
		if w := p.word(i); w == "create" || w == "grant" {
			p.unknown() // whose names get the schema's in front
			return
		}
	}
}

// publication reads the tables of a publication.
func (p *parser) publication(i, to int) {
	for ; i < to; i++ {
		if p.word(i) != "table" {
			continue
		}
		for i++; i < to; i++ {
			if p.word(i) == "tables" && p.word(i+1) == "in" { // all of a schema
				return
			}
			if i = p.relation(i); p.mark(i, "(") {
				i = p.match[i] + 1
			}
			if p.word(i) == "where" && p.mark(i+1, "(") {
				i = p.match[i+1] + 1
			}
			if i = p.skip(i, "table"); !p.mark(i, ",") {
				return
			}
			i = p.skip(i+1, "table") - 1
		}
	}
}
