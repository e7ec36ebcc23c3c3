package session

import (
	"strings"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/redact"
)

// settings is what the server last told of how it reads texts. A change lags
// behind the statement that makes it.
type settings struct {
	encoding    string // client_encoding
	nonStandard bool   // standard_conforming_strings is off
}

// maxRedacted is the largest streamed message, in bytes, of which the text is
// kept in memory until it ends, to look for passwords in it.
const maxRedacted = 4 << 20

// redacted returns the frames of a run as they are recorded: with the
// passwords in statement texts replaced. The frames that pass on are not
// touched.
func (s *Session) redacted(frames []byte, outstanding bool) (out []byte, found bool) {
	return redact.Frames(frames, redact.Options{
		StandardConforming: !s.settings.nonStandard, Encoding: s.settings.encoding, Unsure: outstanding,
	})
}

// tellRedacted has the entry say that a password was replaced in it.
func (r *run) tellRedacted() {
	r.redacted = true
	r.facts = append(r.facts, event.Fact{Key: "redacted", Val: "password"})
}

// learn keeps a setting the server told.
func (t *settings) learn(name, val string) {
	switch name {
	case "client_encoding":
		t.encoding = val
	case "standard_conforming_strings":
		t.nonStandard = val == "off"
	}
}

// foreign appends the encoding of texts if readers must be told: if it is
// neither UTF8, which they take for granted, nor SQL_ASCII, which is none.
func (t *settings) foreign(facts []event.Fact) []event.Fact {
	if e := t.encoding; e != "" && !strings.EqualFold(e, "UTF8") && !strings.EqualFold(e, "SQL_ASCII") {
		return append(facts, event.Fact{Key: "encoding", Val: e})
	}
	return facts
}
