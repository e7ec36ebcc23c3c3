package verb

import "bytes"

// endingOf looks for a CALL or a DO, and whatever else commits a part of its work by itself, at the
// beginning of a text or behind a semicolon, and for an EXECUTE there. It errs on the side of EndsAny and of
// EXECUTE. The code of a DO is there to be read if it is in dollar quotes and in PL/pgSQL; what it does beyond that
// it must CALL.
func endingOf(text []byte) (ends Ending, runs bool) {
	for {
		for len(text) > 0 && (blank(text[0]) || text[0] == ';' || text[0] == '(') {
			text = text[1:]
		}
		t := space(text)
		if bytes.HasPrefix(t, []byte("/*")) {
			return EndsAny, true // a comment not looked behind
		}
		if len(t) > 1 {
			ends = max(ends, beginning(t))
			word, _ := nextWord(t[:min(len(t), 8)])
			runs = runs || is(word, "execute")
		}
		i := bytes.IndexByte(t, ';')
		if i < 0 {
			return ends, runs
		}
		text = t[i+1:]
	}
}

// beginning is endingOf for the statement that t begins with; what is behind it may count, too.
func beginning(t []byte) Ending {
	switch t[0] | 0x20 {
	case 'a', 'c', 'd', 'r', 'v':
	default:
		return EndsNone
	}
	word, _ := nextWord(t[:min(len(t), 8)])
	rest := t[len(word):]
	switch {
	case is(word, "call"):
		return EndsAny
	case is(word, "do"):
		if r := space(rest); len(r) == 0 || r[0] != '$' || containsFold(r, "rollback") || containsFold(r, "call") || containsFold(r, "language") {
			return EndsAny
		}
		return EndsCommit
	case is(word, "vacuum"), is(word, "analyze"), is(word, "analyse"), is(word, "cluster"), is(word, "reindex"),
		(is(word, "create") || is(word, "drop") || is(word, "alter")) && containsFold(rest, "concurrently"):
		return EndsAlone
	}
	return EndsNone
}

// Alone reports whether a command with this tag may commit at once, by itself, in the middle of a pipeline.
func Alone(tag []byte) bool {
	switch string(tag) {
	case "VACUUM", "ANALYZE", "CLUSTER", "REINDEX", "CREATE INDEX", "DROP INDEX", "ALTER TABLE",
		"CREATE DATABASE", "ALTER DATABASE", "DROP DATABASE", "CREATE TABLESPACE", "DROP TABLESPACE",
		"CREATE SUBSCRIPTION", "ALTER SUBSCRIPTION", "DROP SUBSCRIPTION", "ALTER SYSTEM",
		"COMMIT PREPARED", "ROLLBACK PREPARED", "DISCARD ALL", "DEALLOCATE ALL":
		return true
	}
	return false
}

// Turns reports whether a command with this tag begins or ends a part of a transaction block. One that
// an EXECUTE ran does so only later, with what comes behind it.
func Turns(tag []byte) bool {
	switch string(tag) {
	case "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PREPARE TRANSACTION":
		return true
	}
	return false
}

// containsFold looks for a lower-case ASCII word in any case.
func containsFold(b []byte, word string) bool {
	for len(b) >= len(word) {
		if b[0]|0x20 == word[0] && bytes.EqualFold(b[:len(word)], []byte(word)) {
			return true
		}
		b = b[1:]
	}
	return false
}
