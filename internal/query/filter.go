package query

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
)

// A Filter selects statements; all conditions that are set must hold. The
// zero Filter selects everything but Bind messages on their own, which are
// shown only if they failed or if Kinds asks for them: what was bound is shown
// with each Execute.
type Filter struct {
	Since, Until time.Time // admissions from Since on, up to and with Until

	User, Database, Application string // as in the start-up packet, exactly
	Client                      string // address, address:port, network or beginning
	Session                     string // id, or the beginning of it, in hexadecimal
	Kinds                       []string
	Text                        string         // part of the statement's text
	Regexp                      *regexp.Regexp // found in the statement's text
	Classes                     []string       // of package sqlinfo, or Unknown
	Relation                    string         // named in the text
	Fingerprint                 string         // of the text
	Param                       *string        // the value of one of the parameters, as text
	SQLState                    string         // of the error, or its beginning (a class: 23), or * for any
	MinDuration                 time.Duration  // statements whose end is known only

	From, End int64 // indexes from From up to but without End; 0 means no end
	Limit     int   // statements, 0 for all

	// All reads every entry and trusts neither an index nor the order of times: for
	// whoever must not miss one.
	All bool

	everyBind bool // show Bind messages on their own in any case
}

// A matcher is a Filter made ready for use.
type matcher struct {
	f            *Filter
	since, until []byte // as in leaves
	stop         []byte // until, and the slack
	session      uint64
	sessionMask  uint64
	kinds        []event.Kind
	user, db     string
	app          string
	relation     string
	mention      string // what a text with the relation has in it, in any case
	fingerprint  string
	client       func(string) bool
	minMicros    int64
	end          int64

	without func(index int64) bool // see plan.without; nil without a plan
}

// leafText is how many bytes of a name a leaf keeps.
const leafText = 128

// leafName returns a name as a leaf has it: cut, and bytes that are no UTF-8, also of
// a character that was cut in two, replaced. What a leaf has stays as it is.
func leafName(s string) string {
	if shown, ok := strings.CutSuffix(s, "…"); ok {
		whole := strings.TrimRight(shown, "\ufffd")
		if len(whole)+utf8.RuneCountInString(shown[len(whole):]) == leafText {
			return s
		}
	}
	if len(s) > leafText {
		return string([]rune(s[:leafText])) + "…"
	}
	return string([]rune(s))
}

// slack is how far apart entries may stand in the log from the order of their
// times: sessions stamp their entries before they queue for an index, and
// clocks are set. Searches by time look that much further.
const slack = time.Minute

func (f *Filter) compile() (*matcher, error) {
	m := &matcher{f: f, user: leafName(f.User), db: leafName(f.Database), app: leafName(f.Application), end: f.End}
	if m.end == 0 {
		m.end = 1<<63 - 1
	}
	if f.From < 0 || f.End < 0 {
		return nil, fmt.Errorf("index %d is below 0", min(f.From, f.End))
	}
	if !f.Since.IsZero() {
		m.since = event.AppendTime(nil, f.Since.UnixNano())
	}
	if !f.Until.IsZero() {
		m.until = event.AppendTime(nil, f.Until.UnixNano())
		m.stop = event.AppendTime(nil, f.Until.Add(slack).UnixNano())
	}
	if f.Session != "" {
		id := strings.ToLower(f.Session)
		if len(id) > 16 {
			return nil, fmt.Errorf("session id %q is longer than 16 digits", f.Session)
		}
		n, err := strconv.ParseUint(id+strings.Repeat("0", 16-len(id)), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("session id %q is not hexadecimal", f.Session)
		}
		m.session, m.sessionMask = n, ^uint64(0)<<(64-4*len(id))
	}
	for _, c := range f.Classes {
		if c != Unknown && !slices.Contains(sqlinfo.Classes(), sqlinfo.Class(c)) {
			return nil, fmt.Errorf("unknown class %q", c)
		}
	}
	if f.Relation != "" {
		var ok bool
		if m.relation, ok = sqlinfo.ParseRelation(f.Relation); !ok {
			return nil, fmt.Errorf("%q is not the name of a relation", f.Relation)
		}
		if m.mention = lastName(m.relation); strings.Contains(m.mention, `"`) {
			m.mention = "" // it may be spelled in several ways
		}
	}
	if f.Fingerprint != "" && !strings.Contains(f.Fingerprint, ":") {
		m.fingerprint = sqlinfo.Engine + ":" + f.Fingerprint
	} else {
		m.fingerprint = f.Fingerprint
	}
	for _, k := range f.Kinds {
		kind := event.KindOf([]byte(k))
		if kind == "" || joined(kind) {
			return nil, fmt.Errorf("unknown kind %q", k)
		}
		m.kinds = append(m.kinds, kind)
	}
	if f.Client != "" {
		m.client = clientMatcher(f.Client)
	}
	m.minMicros = f.MinDuration.Microseconds()
	return m, nil
}

// clientMatcher returns a test for client addresses as they stand in leaves:
// "host:port", "[host]:port" or "unix".
func clientMatcher(want string) func(string) bool {
	host := func(client string) (netip.Addr, bool) {
		h, _, err := net.SplitHostPort(client)
		if err != nil {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(h)
		return a.Unmap(), err == nil
	}
	if a, err := netip.ParseAddr(strings.Trim(want, "[]")); err == nil {
		return func(client string) bool {
			h, ok := host(client)
			return ok && h == a.Unmap()
		}
	}
	if p, err := netip.ParsePrefix(want); err == nil {
		return func(client string) bool {
			h, ok := host(client)
			return ok && p.Contains(h)
		}
	}
	return func(client string) bool {
		return strings.HasPrefix(client, want) && (!strings.Contains(want, ":") || strings.HasSuffix(want, ":") || client == want)
	}
}

// joined says that entries of this kind are never statements of their own.
func joined(k event.Kind) bool { return k == event.KindOutcome || k == event.KindSettle }

// concludes says that entries of this kind are followed by an outcome.
func concludes(k event.Kind) bool {
	switch k {
	case event.KindQuery, event.KindParse, event.KindBind, event.KindExecute, event.KindFunctionCall:
		return true
	}
	return false
}

// settles says that it matters whether a statement of this kind was committed.
func settles(k event.Kind) bool {
	return k == event.KindQuery || k == event.KindExecute || k == event.KindFunctionCall
}

// leaf tests what an admission's leaf tells. A Bind passes: whether it is
// shown depends on its outcome.
func (m *matcher) leaf(index int64, v *view) bool {
	if index < m.f.From || index >= m.end || joined(v.kind) {
		return false
	}
	if v.session&m.sessionMask != m.session || m.sessionMask != 0 && v.session == 0 { // the proxy's own are of none
		return false
	}
	if len(m.kinds) > 0 && !slices.Contains(m.kinds, v.kind) {
		return false
	}
	if m.since != nil && bytes.Compare(v.time, m.since) < 0 || m.until != nil && bytes.Compare(v.time, m.until) > 0 {
		return false
	}
	if !m.owner(v) {
		return false
	}
	if !concludes(v.kind) {
		return m.f.MinDuration == 0 && (m.f.SQLState == "" || v.kind != event.KindNotice && m.sqlstate(v.sqlstate))
	}
	return true
}

// owner tests whose a leaf is.
func (m *matcher) owner(v *view) bool {
	w := v.who
	if w != nil && w.asked == m {
		return w.wanted
	}
	user, db, app, client := v.whose()
	wanted := sameText(user, m.user) && sameText(db, m.db) && sameText(app, m.app) &&
		(m.client == nil || client != nil && m.client(unescape(client)))
	if w != nil {
		w.asked, w.wanted = m, wanted
	}
	return wanted
}

// past reports whether no later entry can be wanted, by its time.
func (m *matcher) past(v *view) bool {
	return m.stop != nil && !m.f.All && bytes.Compare(v.time, m.stop) > 0
}

// sameText compares an escaped string of a leaf with what is wanted, "" for anything.
func sameText(b []byte, want string) bool {
	if want == "" || string(b) == want {
		return true
	}
	return bytes.IndexByte(b, '\\') >= 0 && unescape(b) == want
}

func (m *matcher) sqlstate(b []byte) bool {
	return len(b) > 0 && (m.f.SQLState == anyState || bytes.HasPrefix(b, []byte(m.f.SQLState)))
}

// byText says that the text of statements must be looked at.
func (m *matcher) byText() bool { return m.f.Text != "" || m.f.Regexp != nil || m.bySQL() }

// bySQL says that statements are selected by what package sqlinfo tells of them.
func (m *matcher) bySQL() bool {
	return len(m.f.Classes) > 0 || m.relation != "" || m.fingerprint != ""
}

func (m *matcher) text(s *Statement) bool {
	if s.TooLarge {
		return true
	}
	if !s.HasText {
		return s.Kind == event.KindFunctionCall && m.f.Text == "" && m.f.Regexp == nil && m.relation == "" && m.fingerprint == "" &&
			slices.Contains(m.f.Classes, string(sqlinfo.Function))
	}
	return strings.Contains(s.Text, m.f.Text) && (m.f.Regexp == nil || m.f.Regexp.MatchString(s.Text)) && (!m.bySQL() || m.sql(s.SQL()))
}

// absent reports whether the value of an admission, as it was sent, shows that
// its text cannot be wanted. In every client encoding ASCII characters are
// themselves, one behind the other, so that most texts need not be decoded.
func (m *matcher) absent(e *journal.Entry, v *view) bool {
	switch v.kind {
	case event.KindQuery, event.KindParse, event.KindBind, event.KindExecute:
	default:
		return false
	}
	if e.Value == nil {
		return false
	}
	if of, ok := event.Index(v.parse); ok && of != e.Index { // its text is elsewhere
		if m.without == nil || v.kind == event.KindQuery {
			return false
		}
		_, own := findFrame(e.Value, 'P')
		return !own && m.without(of)
	}
	if ascii(m.f.Text) && !bytes.Contains(e.Value, []byte(m.f.Text)) {
		return true
	}
	return m.mention != "" && ascii(m.mention) && !containsFold(e.Value, m.mention) && !containsFold(e.Value, `u&"`)
}

// absentParam reports whether an admission as it was sent shows that it cannot
// have the parameter that is wanted, which spares looking up the Parse it goes back to.
func (m *matcher) absentParam(e *journal.Entry, v *view) bool {
	if m.f.Param == nil || v.kind == event.KindFunctionCall {
		return false
	}
	switch v.kind {
	case event.KindParse, event.KindBind, event.KindExecute:
	default:
		return true // has none
	}
	body, found := findFrame(e.Value, 'B')
	if !found {
		return false // what was bound is elsewhere
	}
	bind, _ := decodeBind(body)
	cs := v.charset()
	for i, raw := range bind.params {
		if raw != nil && (bind.format(i) != pgvalue.FormatText || cs.text(raw) == *m.f.Param) {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// containsFold reports whether s has sub in it, ASCII letters in any case. sub
// is in lower case and not empty. It spares most texts a closer look.
func containsFold(s []byte, sub string) bool {
	first, other := sub[0], sub[0]
	if 'a' <= first && first <= 'z' {
		other -= 'a' - 'A'
	}
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i] != first && s[i] != other {
			continue
		}
		j := 1
		for ; j < len(sub); j++ {
			c := s[i+j]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			if c != sub[j] {
				break
			}
		}
		if j == len(sub) {
			return true
		}
	}
	return false
}

// Unknown is the class of texts that could not be followed to their end.
const Unknown = "UNKNOWN"

func (m *matcher) sql(info *sqlinfo.Info) bool {
	if len(m.f.Classes) > 0 && !slices.ContainsFunc(m.f.Classes, func(c string) bool {
		return slices.Contains(info.Classes, sqlinfo.Class(c)) || c == Unknown && !info.Complete
	}) {
		return false
	}
	if m.relation != "" && !slices.ContainsFunc(info.Relations, func(r string) bool { return sqlinfo.Matches(r, m.relation) }) {
		return false
	}
	return m.fingerprint == "" || info.Fingerprint == m.fingerprint
}

// mayHaveParam tests the parameters of a statement as far as their types are
// known before its outcome is: most need not wait for theirs.
func (m *matcher) mayHaveParam(s *Statement) bool {
	return m.f.Param == nil || m.params(s) || slices.ContainsFunc(s.Params, func(p Param) bool {
		return p.OID == 0 && p.Format != pgvalue.FormatText
	})
}

// params tests the parameters of a statement, once their types are known.
func (m *matcher) params(s *Statement) bool {
	return m.f.Param == nil || s.TooLarge || slices.ContainsFunc(s.Params, func(p Param) bool {
		text, ok := p.Text()
		return ok && text == *m.f.Param
	})
}

// byOutcome says that a statement is selected by how it ended.
func (m *matcher) byOutcome() bool { return m.f.SQLState != "" || m.f.MinDuration > 0 }

// outcome tests the leaf of the outcome of a statement of this kind; v is nil
// if the end was never seen.
func (m *matcher) outcome(kind event.Kind, v *view) bool {
	if kind == event.KindBind && len(m.kinds) == 0 && !m.f.everyBind && (v == nil || v.sqlstate == nil) {
		return false
	}
	if m.f.SQLState != "" && (v == nil || !m.sqlstate(v.sqlstate)) && !m.hangs(kind, v) {
		return false
	}
	return m.f.MinDuration == 0 || v != nil && string(v.end) != string(event.EndUnknown) &&
		string(v.end) != string(event.EndSkipped) && v.micros >= m.minMicros
}

// hangs reports whether a statement that completed may yet match, by an error
// that undoes it.
func (m *matcher) hangs(kind event.Kind, v *view) bool {
	return m.f.SQLState != "" && settles(kind) && v != nil && v.sqlstate == nil &&
		(v.end == nil || string(v.end) == string(event.EndSuspended))
}
