package query

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync/atomic"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
)

// A Statement is one object of `search --json`: a statement with its
// parameters and its end, or another event of the log. Which fields are set
// depends on the kind; AppendJSON leaves out what does not apply.
//
// Strings are valid UTF-8. Raw bytes belong to the statement and stay valid.
type Statement struct {
	Index   int64
	Time    int64  // Unix nanoseconds
	Session uint64 // 0 in the proxy's own entries

	User, Database, Application, Client string

	Kind event.Kind

	HasText bool
	Text    string
	Params  []Param

	// Malformed says that the message could not be read to its end. It was
	// recorded and passed on as it came; only the decoded form is incomplete.
	Malformed bool
	// Unavailable says that the value this entry or its Parse or Bind refers
	// to is no longer there (erased, expired or damaged; verify tells), or TooLarge.
	Unavailable bool
	// TooLarge says that it is there, but larger than Log.MaxValue. Whether the statement fits conditions on
	// texts and parameters is not known then, and it is taken to fit them.
	TooLarge bool

	Executes string // query: the text that its EXECUTE or FETCH goes back to
	Prepared string // name of the prepared statement, if it has one
	Portal   string // name of the portal, if it has one
	MaxRows  int32  // row limit of Execute, 0 for none

	Function *Function    // function_call
	Version  uint32       // connect: protocol version, major in the upper half
	Settings []Setting    // connect: settings of the start-up packet, in order
	Facts    []event.Fact // what only a few kinds have
	Of       int64        // index plus one of the entry this one speaks about (event.Index)
	Copy     *Copy        // copy
	Request  string       // notice of a look at the log: what was asked for
	Notice   *ServerMessage
	Notify   *Notification
	Error    *ServerMessage // auth: why a login failed
	Raw      []byte         // violation: the bytes at its place; copy, result: a piece of the content
	Rows     [][]*string    // result: the rows in Raw, nil for NULL

	Outcome *Outcome // nil if the end was never seen

	sql      analysis // see SQL
	analyses *analyses
	who      *identity // whose it is, nil if not known so
	shared   *shared   // its text, if it may be that of others too
}

// shared is a text that many statements have, and what they show of it.
type shared struct {
	text string
	sql  atomic.Pointer[analysis]
	json atomic.Pointer[[]byte] // the text as a JSON string

	terms *recentText // what an indexBuilder, whose text it is, knows of it
}

// maxShared bounds the bytes of a text that is kept as JSON.
const maxShared = 64 << 10

// appendText appends the text as a JSON string.
func (s *Statement) appendText(dst []byte) []byte {
	c := s.shared
	if c == nil || c.text != s.Text || len(c.text) > maxShared {
		return appendString(dst, s.Text)
	}
	if b := c.json.Load(); b != nil {
		return append(dst, *b...)
	}
	b := appendString(nil, c.text)
	c.json.Store(&b)
	return append(dst, b...)
}

// SQL returns what package sqlinfo knows of the statement's text, nil if it
// has none. It is worked out at the first call.
func (s *Statement) SQL() *sqlinfo.Info { return s.analysis().Info }

func (s *Statement) analysis() analysis {
	if s.sql.Info != nil || !s.HasText {
		return s.sql
	}
	c := s.shared
	if c == nil || c.text != s.Text {
		s.sql = s.analyses.of(s.Text)
		return s.sql
	}
	if known := c.sql.Load(); known != nil {
		s.sql = *known
		return s.sql
	}
	found := s.analyses.of(s.Text)
	c.sql.Store(&found)
	s.sql = found
	return found
}

// An analysis is what package sqlinfo knows of a text, nil if there is none, and how
// AppendJSON shows it. Statements share what it points to: nobody changes it.
type analysis struct {
	*sqlinfo.Info
	json []byte
}

func newAnalysis(info sqlinfo.Info) analysis { return analysis{&info, appendSQL(nil, &info)} }

// analyses remembers what was found of texts, by their shape: hardly a text
// comes again, but most are those of a program with other literals; and the
// last time. It is not for concurrent use; a nil one remembers nothing.
type analyses struct {
	known       map[uint64]shaped // by the hash of the shape
	seed        maphash.Seed
	bytes       int // of what is known
	text, shape []byte

	second int64                             // a time without its fraction
	prefix [len("2006-01-02T15:04:05.")]byte // how it is written, if it has been
}

// shaped is the analysis of the texts of a shape. The shape and how the analysis is shown
// lie side by side: of what is not in the processor's cache less costs less.
type shaped struct {
	shape []byte
	analysis
}

// appendTime is event.AppendTime; most times are of the second of the one before.
func (a *analyses) appendTime(dst []byte, t int64) []byte {
	if a == nil {
		return event.AppendTime(dst, t)
	}
	nano := t - a.second
	if nano < 0 || nano >= 1e9 || a.prefix[0] == 0 {
		if dst = event.AppendTime(dst, t); t >= 0 {
			a.second = t - t%1e9
			copy(a.prefix[:], dst[len(dst)-timeLen:])
		}
		return dst
	}
	dst = append(dst, a.prefix[:]...)
	dst = append(dst, "000000000Z"...)
	for i, n := len(dst)-2, uint32(nano); n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// Bounds of what is remembered.
const (
	maxAnalysed   = 16 << 10 // bytes of one text
	maxAnalyses   = 16 << 20 // bytes of all shapes, and of how they are shown
	maxAnalysesNo = 1 << 16
)

func (a *analyses) of(text string) analysis {
	if a == nil || len(text) > maxAnalysed {
		return newAnalysis(sqlinfo.Analyze(text))
	}
	a.text = append(a.text[:0], text...)
	a.shape = sqlinfo.AppendShape(a.shape[:0], a.text)
	if a.known == nil || a.bytes > maxAnalyses || len(a.known) >= maxAnalysesNo {
		a.known, a.seed, a.bytes = make(map[uint64]shaped), maphash.MakeSeed(), 0
	}
	hash := maphash.Bytes(a.seed, a.shape)
	known := a.known[hash]
	if known.Info != nil && string(known.shape) == string(a.shape) {
		return known.analysis
	}
	found := newAnalysis(sqlinfo.Analyze(string(a.text))) // of a copy: it may keep names
	both := append(bytes.Clone(a.shape), found.json...)
	known.shape, found.json = both[:len(a.shape):len(a.shape)], both[len(a.shape):]
	known.analysis = found
	a.known[hash] = known
	a.bytes += len(both)
	return found
}

// A Param is a parameter of a statement or an argument of a function call.
type Param struct {
	OID    uint32 // type, 0 if not known
	Format int16  // 0 text, 1 binary
	Null   bool
	Raw    []byte // as on the wire

	charset *charset // of text in it
	shown   *string  // of one that was read from JSON: what Text returned there
}

// Text returns the value as PostgreSQL would print it. ok is false for NULL.
// Binary values of unknown types are hexadecimal behind \x.
func (p *Param) Text() (s string, ok bool) {
	if p.Null {
		return "", false
	}
	if p.shown != nil {
		return *p.shown, true
	}
	return pgvalue.TextFrom(p.charset.text, p.OID, p.Format, p.Raw), true
}

// An Outcome is how a statement ended.
type Outcome struct {
	Index     int64    // of the entry that says so
	Tags      []string // command tags in order
	Rows      int64    // DataRow messages
	Bytes     int64    // their bytes, headers included
	Micros    int64    // from admission to end
	Tx        byte     // transaction status afterwards, 0 if not known
	Committed int8     // +1 committed, -1 rolled back, 0 not known
	Skipped   bool     // the server ignored the statement after an earlier error
	Suspended bool     // row limit reached, the portal stayed open
	Discarded bool     // the server dropped it
	Error     *ServerMessage
	Facts     []event.Fact // settings the server told of, such as client_encoding
	Result    *Param       // function_call: what it returned

	value []byte
}

// A Function names the function of a FunctionCall.
type Function struct {
	OID  uint32
	Name string // "" if not one of the large-object functions

	resultFormat int16
}

// A Copy is what a copy entry says of the data that went through.
type Copy struct {
	Messages int64 // CopyData messages
	Bytes    int64 // their content
	SHA256   []byte
}

// Clone returns a copy of s that stays valid. It shares no memory with s but
// strings, facts and messages from the server, which nobody changes.
func (s *Statement) Clone() *Statement {
	c := *s
	c.analyses = nil // its owner goes on using it
	c.Params = slices.Clone(s.Params)
	for i := range c.Params {
		c.Params[i].Raw = bytes.Clone(c.Params[i].Raw)
	}
	c.Raw = bytes.Clone(s.Raw)
	if s.Copy != nil {
		copied := *s.Copy
		copied.SHA256 = bytes.Clone(copied.SHA256)
		c.Copy = &copied
	}
	if s.Outcome != nil {
		o := *s.Outcome
		o.Tags = slices.Clone(o.Tags)
		if o.Result != nil {
			result := *o.Result
			result.Raw = bytes.Clone(result.Raw)
			o.Result, o.value = &result, nil
		}
		c.Outcome = &o
	}
	return &c
}

// Duration returns microseconds from admission to end; ok is false while the
// end is not known.
func (s *Statement) Duration() (us int64, ok bool) {
	if s.Outcome == nil || s.Outcome.Skipped {
		return 0, false
	}
	return s.Outcome.Micros, true
}

// SQLState returns the code of the error this statement or event ended with,
// or "".
func (s *Statement) SQLState() string {
	switch {
	case s.Outcome != nil && s.Outcome.Error != nil:
		return s.Outcome.Error.SQLState
	case s.Error != nil:
		return s.Error.SQLState
	}
	return ""
}

// A largeObjectFunction is one that client libraries call with FunctionCall.
type largeObjectFunction struct {
	name   string
	args   []uint32
	result uint32
}

const (
	oidBytea = 17
	oidInt8  = 20
	oidInt4  = 23
	oidOid   = 26
)

// largeObjects maps the OIDs of the server's large-object functions, fixed
// since PostgreSQL 6, 9.3 for the 64-bit ones.
var largeObjects = map[uint32]largeObjectFunction{
	715:  {"lo_create", []uint32{oidOid}, oidOid},
	952:  {"lo_open", []uint32{oidOid, oidInt4}, oidInt4},
	953:  {"lo_close", []uint32{oidInt4}, oidInt4},
	954:  {"loread", []uint32{oidInt4, oidInt4}, oidBytea},
	955:  {"lowrite", []uint32{oidInt4, oidBytea}, oidInt4},
	956:  {"lo_lseek", []uint32{oidInt4, oidInt4, oidInt4}, oidInt4},
	957:  {"lo_creat", []uint32{oidInt4}, oidOid},
	958:  {"lo_tell", []uint32{oidInt4}, oidInt4},
	964:  {"lo_unlink", []uint32{oidOid}, oidInt4},
	1004: {"lo_truncate", []uint32{oidInt4, oidInt4}, oidInt4},
	3170: {"lo_lseek64", []uint32{oidInt4, oidInt8, oidInt4}, oidInt8},
	3171: {"lo_tell64", []uint32{oidInt4}, oidInt8},
	3172: {"lo_truncate64", []uint32{oidInt4, oidInt8}, oidInt4},
}
