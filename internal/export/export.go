// Package export writes statements as records for other programs: JSON lines,
// CSV and OCSF events. Each record carries the origin of the log and the index
// of its entry, so that any copy of it can be traced to its proof.
//
// Records are made from what package query tells; they are copies for work,
// and no evidence.
package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

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

func (t table) Header() []byte {
	b, err := record(columns())
	if err != nil {
		panic(err) // of a fixed text
	}
	return b
}

func record(fields []string) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	if err := w.Write(fields); err != nil {
		return nil, err
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

func (t table) Append(dst []byte, s *query.Statement) ([]byte, error) {
	f := map[string]string{
		"origin": t.origin, "index": number(s.Index), "time": string(event.AppendTime(nil, s.Time)), "user": inert(s.User),
		"database": inert(s.Database), "application": inert(s.Application), "client": inert(s.Client), "kind": string(s.Kind),
		"statement": inert(s.Text), "sqlstate": s.SQLState(),
	}
	if s.Session != 0 {
		f["session"] = string(event.AppendSession(nil, s.Session))
	}
	if info := s.SQL(); info != nil {
		var classes []string
		for _, c := range info.Classes {
			classes = append(classes, string(c))
		}
		f["class"], f["relations"] = strings.Join(classes, " "), inert(strings.Join(info.Relations, " "))
	}
	if len(s.Params) > 0 {
		params, err := json.Marshal(paramTexts(s))
		if err != nil {
			return dst, err
		}
		f["params"] = string(params)
	}
	if len(s.Facts) > 0 {
		var facts []string
		for _, x := range s.Facts {
			facts = append(facts, x.Key+"="+x.Val)
		}
		f["facts"] = inert(strings.Join(facts, " "))
	}
	if m := message(s); m != nil {
		f["message"] = inert(m.Message)
	}
	if o := s.Outcome; o != nil {
		f["tag"], f["rows"], f["bytes"] = strings.Join(o.Tags, ", "), number(o.Rows), number(o.Bytes)
		f["outcome_index"] = number(o.Index)
		if us, ok := s.Duration(); ok {
			f["duration_us"] = number(us)
		}
		if o.Committed != 0 {
			f["committed"] = strconv.FormatBool(o.Committed > 0)
		}
	}
	fields := columns()
	for i, name := range fields {
		fields[i] = f[name]
	}
	b, err := record(fields)
	return append(dst, b...), err
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// inert makes a text no formula.
func inert(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
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
