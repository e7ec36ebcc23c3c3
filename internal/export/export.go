// Package export writes statements as records for other programs: JSON lines,
// CSV and OCSF events. Each record carries the origin of the log and the index
// of its entry, so that any copy of it can be traced to its proof.
//
// Records are made from what package query tells; they are copies for work,
// and no evidence.
package export

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

// A Format makes records of statements, in the order of the log. It is for one
// goroutine, unless Concurrent says otherwise.
type Format interface {
	// Header returns what comes before the first record, nil for nothing.
	Header() []byte
	// Append appends the record of s, with the line feed at its end.
	Append(dst []byte, s *query.Statement) ([]byte, error)
}

// Formats returns the names of all formats.
func Formats() []string { return []string{"jsonl", "csv", "ocsf"} }

// NewFormat returns the format of this name for a log. version is the program's.
func NewFormat(name, origin, version string) (Format, error) {
	switch name {
	case "jsonl":
		return newLines(origin)
	case "csv":
		return table{origin}, nil
	case "ocsf":
		return &ocsf{origin: origin, version: version}, nil
	}
	return nil, fmt.Errorf("format is %q, not one of %s", name, strings.Join(Formats(), ", "))
}

// Concurrent reports whether the records of f say nothing of each other: they
// may then be made in any order, by several goroutines at once.
func Concurrent(f Format) bool {
	_, remembers := f.(*ocsf)
	return !remembers
}

// lines are the objects of `search --json` with the origin in front.
type lines struct{ head []byte }

func newLines(origin string) (Format, error) {
	name, err := json.Marshal(origin)
	return lines{append(append([]byte(`{"origin":`), name...), ',')}, err
}

func (lines) Header() []byte { return nil }

func (l lines) Append(dst []byte, s *query.Statement) ([]byte, error) {
	was := len(dst)
	dst = s.AppendJSON(append(dst, l.head[:len(l.head)-1]...))
	dst[was+len(l.head)-1] = ',' // for the brace that begins the object
	return append(dst, '\n'), nil
}

// table is CSV as RFC 4180 has it. Texts that a spreadsheet would take for a
// formula have an apostrophe in front: what is in them is a client's choice.
type table struct{ origin string }

func columns() []string {
	return []string{
		"origin", "index", "time", "session", "user", "database", "application", "client", "kind", "class", "relations",
		"statement", "params", "tag", "rows", "bytes", "duration_us", "committed", "sqlstate", "message", "outcome_index", "facts",
	}
}

func (t table) Header() []byte { return appendRecord(nil, columns()) }

// appendRecord appends a row as encoding/csv writes it, but with CRLF at its end:
// line ends inside a field stay what they are, for a text is shown as it was sent.
func appendRecord(dst []byte, fields []string) []byte {
	for i, f := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendField(dst, f)
	}
	return append(dst, '\r', '\n')
}

func appendField(dst []byte, f string) []byte {
	first, _ := utf8.DecodeRuneInString(f)
	if f == "" || f != `\.` && !unicode.IsSpace(first) && !strings.ContainsAny(f, "\",\r\n") {
		return append(dst, f...)
	}
	dst = append(dst, '"')
	for {
		i := strings.IndexByte(f, '"')
		if i < 0 {
			return append(append(dst, f...), '"')
		}
		dst = append(append(dst, f[:i]...), '"', '"')
		f = f[i+1:]
	}
}

func (t table) Append(dst []byte, s *query.Statement) ([]byte, error) {
	var session, class, relations, params, tag, rows, sent, took, committed, text, outcome, facts string
	if s.Session != 0 {
		session = string(event.AppendSession(nil, s.Session))
	}
	if info := s.SQL(); info != nil {
		for i, c := range info.Classes {
			if i > 0 {
				class += " "
			}
			class += string(c)
		}
		relations = inert(strings.Join(info.Relations, " "))
	}
	if len(s.Params) > 0 {
		b, err := json.Marshal(paramTexts(s))
		if err != nil {
			return dst, err
		}
		params = string(b)
	}
	if len(s.Facts) > 0 {
		var all []string
		for _, x := range s.Facts {
			all = append(all, x.Key+"="+x.Val)
		}
		facts = inert(strings.Join(all, " "))
	}
	if m := message(s); m != nil {
		text = inert(m.Message)
	}
	if o := s.Outcome; o != nil {
		tag, rows, sent, outcome = strings.Join(o.Tags, ", "), number(o.Rows), number(o.Bytes), number(o.Index)
		if us, ok := s.Duration(); ok {
			took = number(us)
		}
		if o.Committed != 0 {
			committed = strconv.FormatBool(o.Committed > 0)
		}
	}
	return appendRecord(dst, []string{ // as columns has them
		t.origin, number(s.Index), string(event.AppendTime(nil, s.Time)), session, inert(s.User), inert(s.Database), inert(s.Application),
		inert(s.Client), string(s.Kind), class, relations, inert(s.Text), params, tag, rows, sent, took, committed, s.SQLState(), text,
		outcome, facts,
	}), nil
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// inert makes a text no formula. Some spreadsheets read wide characters as the others.
func inert(s string) string {
	if first, _ := utf8.DecodeRuneInString(s); s != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) {
		return "'" + s
	}
	return s
}

// paramTexts returns the parameters as texts, nil for NULL.
func paramTexts(s *query.Statement) []*string {
	out := make([]*string, len(s.Params))
	for i := range s.Params {
		if text, ok := s.Params[i].Text(); ok {
			out[i] = &text
		}
	}
	return out
}

// message returns what the server said about s, nil if nothing.
func message(s *query.Statement) *query.ServerMessage {
	switch {
	case s.Outcome != nil && s.Outcome.Error != nil:
		return s.Outcome.Error
	case s.Error != nil:
		return s.Error
	}
	return s.Notice
}
