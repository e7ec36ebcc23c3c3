// Package event defines what one record is: the leaf, one line of compact JSON
// in a fixed key order, and its canonical encoder and strict decoder.
//
// A leaf states facts; content (statement text, parameters, error messages)
// is the entry's value, which stays beside the leaf and is bound to it by the
// commitment under key "c". The bytes of a leaf are what the Merkle tree
// hashes, so a leaf is encoded once, stored verbatim and never re-encoded.
// The format is described in docs/format/leaf.md.
//
// The package does no I/O and knows no clock. Its functions may be called
// concurrently on different leaves.
package event

// Version is the leaf format this package writes.
const Version = 1

// MaxLeaf is the largest leaf in bytes. The public limit of an entry bundle is
// 65,535 (c2sp.org/tlog-tiles); ours is stricter because content lives in values.
const MaxLeaf = 16 << 10

// A Kind says what an entry records.
type Kind string

// The kinds of entries. KindOutcome and KindSettle never stand alone for a
// reader: they are joined with the admission they refer to.
const (
	KindStart        Kind = "start"         // the proxy began writing
	KindStop         Kind = "stop"          // the proxy stopped in order
	KindHeartbeat    Kind = "heartbeat"     // the proxy was alive and had nothing else to say
	KindConnect      Kind = "connect"       // a start-up packet arrived
	KindAuth         Kind = "auth"          // a login succeeded or failed
	KindDisconnect   Kind = "disconnect"    // a session ended
	KindQuery        Kind = "query"         // Query message
	KindParse        Kind = "parse"         // Parse without an Execute in the same run of messages
	KindBind         Kind = "bind"          // Bind without an Execute in the same run of messages
	KindExecute      Kind = "execute"       // Execute, with the Parse and Bind sent along with it
	KindCopy         Kind = "copy"          // the content of a COPY: sizes and digest
	KindFunctionCall Kind = "function_call" // FunctionCall message
	KindCancel       Kind = "cancel"        // CancelRequest
	KindReplication  Kind = "replication"   // streamed replication bytes
	KindViolation    Kind = "violation"     // protocol violation or refusal
	KindNotice       Kind = "notice"        // NoticeResponse or NotificationResponse
	KindGap          Kind = "gap"           // recording failed and the policy said continue
	KindPrune        Kind = "prune"
	KindHold         Kind = "hold"
	KindErase        Kind = "erase"
	KindRecover      Kind = "recover" // what a start after a crash found and cut
	KindConfig       Kind = "config"  // configuration in force
	KindResult       Kind = "result"  // rows of the statement "of" refers to, or their digest
	KindOutcome      Kind = "outcome" // end of the statement "of" refers to
	KindSettle       Kind = "settle"  // end of a transaction not told by an outcome
)

// End says how a statement ended when it did not simply complete.
type End string

const (
	EndSkipped   End = "skipped"   // the server ignored it after an error, before Sync
	EndSuspended End = "suspended" // row limit reached, the portal stays open
	EndUnknown   End = "unknown"   // the connection died before its end was seen
	EndDiscarded End = "discarded" // the server dropped it (COPY data outside COPY)
)

// Who identifies a session's user on each of its admissions.
type Who struct {
	User        string // role name of the start-up packet
	Database    string // database, the user's name if the packet had none
	Application string // application_name at start-up
	Client      string // client address as the proxy saw it, "host:port" or "unix"

	enc []byte // cached encoding
}

// FactRead is the fact of a notice of the proxy itself that says that somebody
// looked at the log over HTTP, and how. Its value is the request.
const FactRead = "read"

// A Fact is one rarely used, human-readable detail, e.g. TLS version.
type Fact struct{ Key, Val string }

// A Leaf holds the fields of one leaf. Zero fields are left out of the encoding.
//
// Indexes into the log (Of, Parse, Bind, Since) are stored plus one, so that
// zero means "none" and entry 0 can be referred to; use Ref and Index.
type Leaf struct {
	Time    int64  // "t": Unix nanoseconds
	Session uint64 // "s": random session id, 16 hex digits; 0 for the proxy's own entries
	Seq     uint64 // "n": 1, 2, 3 ... within the session, no gaps; an outcome is counted but has none in its leaf
	Kind    Kind   // "k"
	Who     *Who   // "user", "db", "app", "client": on every admission of a session

	// Msgs is the letters of the protocol messages covered by this entry, in
	// order; runs of D and of d are written once. Over a session the letters of
	// the admissions give the frontend's messages, those of the outcomes the
	// backend's.
	Msgs []byte // "m"

	Of    int64 // "of": the entry this one speaks about
	Parse int64 // "parse": the entry whose value holds the Parse message
	Bind  int64 // "bind": the entry whose value holds the Bind message

	Types []uint32 // "types": parameter type OIDs where the session knew them

	Tags      []string // "tags": command tags in order
	Rows      int64    // "rows": DataRow or CopyData messages
	Bytes     int64    // "bytes": bytes of those messages, headers included
	Micros    int64    // "us": from admission to the end, microseconds
	Tx        byte     // "tx": 'I', 'T' or 'E' of ReadyForQuery
	Committed int8     // "committed": +1 true, -1 false, 0 left out (not settled here, or not known)
	Since     int64    // "since": first admission settled by Committed, if not only Of
	End       End      // "end"
	SQLState  string   // "sqlstate"

	Facts []Fact // "facts": object with string values, in the order given

	// Size is the value's length in bytes. When HasValue is set the encoding
	// ends in the placeholder commitment, which the ledger fills in.
	Size     int64 // "size"
	HasValue bool
	// Commitment is filled by Parse: SHA-256(salt || value).
	Commitment [32]byte // "c"
}

// Ref turns an index into the form Leaf stores.
func Ref(index int64) int64 { return index + 1 }

// Index turns a stored reference back into an index; ok is false for none.
func Index(ref int64) (index int64, ok bool) { return ref - 1, ref > 0 }
