package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// An entry is one record a session made.
type entry struct {
	event.Leaf
	value []byte
}

// A memLog keeps entries in memory and checks each of them.
type memLog struct {
	tb      testing.TB
	entries []entry
	blobs   []*memBlob
	fail    error // what the next call returns
}

type memBlob struct {
	bytes.Buffer
	synced, aborted bool
}

func (b *memBlob) Sync() error { b.synced = true; return nil }
func (b *memBlob) Abort()      { b.aborted = true }

func (m *memLog) Emit(l *event.Leaf, value []byte) (int64, error) {
	if m.fail != nil {
		return -1, m.fail
	}
	b := l.Append(nil)
	parsed, err := event.Parse(b)
	if err != nil {
		m.tb.Fatalf("leaf %.300q: %v", b, err)
	}
	want := uint64(len(m.entries) + 1)
	if l.Seq != want {
		m.tb.Fatalf("seq of %s = %d, want %d", b, l.Seq, want)
	}
	if l.Kind == event.KindOutcome {
		want = 0
	}
	if parsed.Seq != want {
		m.tb.Fatalf("seq in %s = %d, want %d", b, parsed.Seq, want)
	}
	if l.HasValue != (value != nil) || l.HasValue && l.Size != int64(len(value)) {
		m.tb.Fatalf("leaf says value %v of %d bytes, it has %d", l.HasValue, l.Size, len(value))
	}
	m.entries = append(m.entries, entry{parsed, bytes.Clone(value)})
	return int64(len(m.entries) - 1), nil
}

func (m *memLog) NewBlob() (Blob, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	b := new(memBlob)
	m.blobs = append(m.blobs, b)
	return b, nil
}

func (m *memLog) EmitBlob(l *event.Leaf, b Blob) (int64, error) {
	mb := b.(*memBlob)
	if !mb.synced || mb.aborted {
		m.tb.Fatalf("blob recorded with synced %v, aborted %v", mb.synced, mb.aborted)
	}
	return m.Emit(l, mb.Bytes())
}

// String writes an entry so that a table can hold it.
func (e *entry) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", e.Kind)
	if len(e.Msgs) > 0 {
		fmt.Fprintf(&b, " %s", e.Msgs)
	}
	for _, r := range []struct {
		key string
		ref int64
	}{{"of", e.Of}, {"parse", e.Parse}, {"bind", e.Bind}} {
		if i, ok := event.Index(r.ref); ok {
			fmt.Fprintf(&b, " %s=%d", r.key, i)
		}
	}
	if len(e.Types) > 0 {
		fmt.Fprintf(&b, " types=%v", e.Types)
	}
	if len(e.Tags) > 0 {
		fmt.Fprintf(&b, " %q", e.Tags)
	}
	if e.Rows > 0 {
		fmt.Fprintf(&b, " rows=%d", e.Rows)
	}
	if e.Tx != 0 {
		fmt.Fprintf(&b, " tx=%c", e.Tx)
	}
	if e.Committed != 0 {
		fmt.Fprintf(&b, " committed=%v", e.Committed > 0)
	}
	if i, ok := event.Index(e.Since); ok {
		fmt.Fprintf(&b, " since=%d", i)
	}
	if e.End != "" {
		fmt.Fprintf(&b, " end=%s", e.End)
	}
	if e.SQLState != "" {
		fmt.Fprintf(&b, " %s", e.SQLState)
	}
	for _, f := range e.Facts {
		fmt.Fprintf(&b, " %s:%s", f.Key, f.Val)
	}
	return b.String()
}

// text lists the entries from the index on, one a line, each with its index.
func (m *memLog) text(from int) string {
	var b strings.Builder
	for i := from; i < len(m.entries); i++ {
		fmt.Fprintf(&b, "%d %s\n", i, m.entries[i].String())
	}
	return b.String()
}

// A step is bytes from one side in one read.
type step struct {
	client    bool
	b         []byte
	violation string // SQLSTATE of the violation it must bring
}

func client(msgs ...[]byte) step { return step{client: true, b: bytes.Join(msgs, nil)} }
func server(msgs ...[]byte) step { return step{b: bytes.Join(msgs, nil)} }

func (s step) breaks(code string) step { s.violation = code; return s }

// A dialogue runs a session on a memLog.
type dialogue struct {
	tb    testing.TB
	s     *Session
	log   *memLog
	clock int64
}

func newDialogue(tb testing.TB) *dialogue {
	log := &memLog{tb: tb}
	return &dialogue{tb: tb, log: log, s: New(Config{ID: 7, Client: "10.0.0.1:999", Log: log}), clock: 1e18}
}

// loggedIn returns a dialogue with the entries 0 (connect) and 1 (auth).
func loggedIn(tb testing.TB) *dialogue {
	d := newDialogue(tb)
	d.start(startup(wire.Version30, "user", "u", "database", "d"))
	d.play(server(auth(0), keyData(), ready('I')))
	return d
}

func (d *dialogue) start(packet []byte) []byte {
	fwd, err := d.s.Start(d.clock, packet)
	if err != nil {
		d.tb.Fatal(err)
	}
	return fwd
}

// feed gives the session bytes of one side and returns what it released.
func (d *dialogue) feed(fromClient bool, b []byte) ([]byte, error) {
	d.clock += 1000
	if fromClient {
		return d.s.FromClient(d.clock, b)
	}
	return d.s.FromServer(d.clock, b)
}

// play runs steps; each must pass on exactly the bytes it has, or break as it says.
func (d *dialogue) play(steps ...step) {
	d.tb.Helper()
	for i, s := range steps {
		in := bytes.Clone(s.b)
		fwd, err := d.feed(s.client, in)
		if s.violation != "" {
			var v *Violation
			if !errors.As(err, &v) || v.Code != s.violation {
				d.tb.Fatalf("step %d: %v, want violation %s", i, err, s.violation)
			}
			continue
		}
		if err != nil {
			d.tb.Fatalf("step %d (%.60q): %v\n%s", i, s.b, err, d.log.text(0))
		}
		if !bytes.Equal(fwd, s.b) {
			d.tb.Fatalf("step %d passed on %.80q of %.80q", i, fwd, s.b)
		}
	}
}

// want compares the entries from index 2 on, or 0 if login is wanted too.
func (d *dialogue) want(from int, lines ...string) {
	d.tb.Helper()
	var b strings.Builder
	for i, l := range lines {
		fmt.Fprintf(&b, "%d %s\n", from+i, l)
	}
	if diff := cmp.Diff(b.String(), d.log.text(from)); diff != "" {
		d.tb.Errorf("entries (-want +got):\n%s", diff)
	}
}

// Messages of either side.

func msg(typ byte, body ...any) []byte {
	b := []byte{typ, 0, 0, 0, 0}
	for _, x := range body {
		switch x := x.(type) {
		case string: // with its NUL
			b = append(append(b, x...), 0)
		case []byte:
			b = append(b, x...)
		case byte:
			b = append(b, x)
		case int16:
			b = binary.BigEndian.AppendUint16(b, uint16(x))
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(x))
		default:
			panic(fmt.Sprintf("message part %T", x))
		}
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

func startup(version uint32, pairs ...string) []byte {
	var params []wire.Param
	for i := 0; i < len(pairs); i += 2 {
		params = append(params, wire.Param{Name: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	return wire.AppendStartup(nil, version, params)
}

func query(text string) []byte { return msg('Q', text) }

func parse(name, text string, types ...int) []byte {
	parts := []any{name, text, int16(len(types))}
	for _, t := range types {
		parts = append(parts, t)
	}
	return msg('P', parts...)
}

// bind binds one text parameter.
func bind(portal, stmt string) []byte {
	return msg('B', portal, stmt, int16(0), int16(1), 1, byte('7'), int16(0))
}

func describe(what byte, name string) []byte { return msg('D', what, name) }
func closing(what byte, name string) []byte  { return msg('C', what, name) }
func execute(portal string, limit int) []byte {
	return msg('E', portal, limit)
}
func flush() []byte              { return msg('H') }
func syncMsg() []byte            { return msg('S') }
func call(oid int) []byte        { return msg('F', oid, int16(0), int16(0), int16(0)) }
func data(content string) []byte { return msg('d', []byte(content)) }
func copyDone() []byte           { return msg('c') }
func copyFail(why string) []byte { return msg('f', why) }
func password(secret string) []byte {
	return msg('p', secret)
}
func terminate() []byte { return msg('X') }

func auth(code int, more ...any) []byte { return msg('R', append([]any{code}, more...)...) }
func keyData() []byte                   { return msg('K', 4711, 815) }
func setting(name, val string) []byte   { return msg('S', name, val) }
func ready(tx byte) []byte              { return msg('Z', tx) }
func tag(t string) []byte               { return msg('C', t) }
func parsed() []byte                    { return msg('1') }
func bound() []byte                     { return msg('2') }
func closed() []byte                    { return msg('3') }
func noData() []byte                    { return msg('n') }
func suspended() []byte                 { return msg('s') }
func empty() []byte                     { return msg('I') }
func paramTypes(types ...int) []byte {
	parts := []any{int16(len(types))}
	for _, t := range types {
		parts = append(parts, t)
	}
	return msg('t', parts...)
}

func rowDescription() []byte {
	return msg('T', int16(1), "a", 0, int16(0), 23, int16(4), -1, int16(0))
}

func dataRow(val string) []byte { return msg('D', int16(1), len(val), []byte(val)) }

func copyStart(typ byte) []byte { return msg(typ, byte(0), int16(1), int16(0)) }

func problem(severity, code string) []byte {
	return wire.AppendError(nil, severity, code, "it went wrong", "")
}

func failure(code string) []byte { return problem("ERROR", code) }

func notice(code string) []byte {
	n := problem("NOTICE", code)
	n[0] = 'N'
	return n
}

func notification(channel string) []byte { return msg('A', 99, channel, "payload") }
