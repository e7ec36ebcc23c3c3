package query

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// A frame is one protocol message as it stands in a value: its type letter
// and its body, without the length word. body aliases the value.
type frame struct {
	letter byte
	body   []byte
}

// nextFrame splits the first frame off b. A value cut short, which only
// damage can bring about, yields what there is of its last frame.
func nextFrame(b []byte) (f frame, rest []byte, ok bool) {
	if len(b) < 5 {
		return f, nil, false
	}
	n := binary.BigEndian.Uint32(b[1:5])
	if n < 4 {
		return f, nil, false
	}
	end := len(b)
	if uint64(n)+1 < uint64(end) {
		end = int(n) + 1
	}
	return frame{b[0], b[5:end]}, b[end:], true
}

// findFrame returns the body of the first frame of value with that letter.
func findFrame(value []byte, letter byte) (body []byte, ok bool) {
	for {
		f, rest, more := nextFrame(value)
		if !more {
			return nil, false
		}
		if f.letter == letter {
			return f.body, true
		}
		value = rest
	}
}

// A parseMsg is the content of a Parse message. Its slices alias the body.
type parseMsg struct {
	name, text []byte
	types      []uint32
}

// A bindMsg is the content of a Bind message, or (without names) the argument
// part of a FunctionCall. A nil parameter is NULL. Slices alias the body.
type bindMsg struct {
	portal, statement []byte
	formats           []int16
	params            [][]byte
	result            int16 // FunctionCall: format of the result
}

// An executeMsg is the content of an Execute message.
type executeMsg struct {
	portal  []byte
	maxRows int32
}

// A cursor reads fields off a message body. Once something is missing, bad is
// set and all further reads give zero values: a malformed message, which the
// proxy passes on unchanged for the server to refuse, is shown as far as it
// goes.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.b, c.bad = nil, true // nothing is left, so that loops over the rest end
		return nil
	}
	t := c.b[:n:n]
	c.b = c.b[n:]
	return t
}

// str reads up to the next NUL; without one, all there is.
func (c *cursor) str() []byte {
	if c.bad {
		return nil
	}
	i := bytes.IndexByte(c.b, 0)
	if i < 0 {
		t := c.b
		c.b, c.bad = nil, true
		return t
	}
	t := c.b[:i:i]
	c.b = c.b[i+1:]
	return t
}

func (c *cursor) int16() int16 {
	if t := c.take(2); t != nil {
		return int16(binary.BigEndian.Uint16(t))
	}
	return 0
}

func (c *cursor) int32() int32 {
	if t := c.take(4); t != nil {
		return int32(binary.BigEndian.Uint32(t))
	}
	return 0
}

// count reads the 16-bit number of fields that follow, each at least size
// bytes long. The protocol's counts are unsigned: 65,535 parameters are legal.
func (c *cursor) count(size int) int {
	n := int(uint16(c.int16()))
	if n*size > len(c.b) {
		c.bad = true
		n = len(c.b) / size
	}
	return n
}

// decodeParse reads a Parse body. ok is false if it is malformed; m then holds
// what could be read.
func decodeParse(body []byte) (m parseMsg, ok bool) {
	c := cursor{b: body}
	m.name = c.str()
	m.text = c.str()
	if c.bad {
		return m, false
	}
	if n := c.count(4); n > 0 {
		m.types = make([]uint32, n)
		for i := range m.types {
			m.types[i] = binary.BigEndian.Uint32(c.b[4*i:])
		}
		c.b = c.b[4*n:]
	}
	return m, !c.bad && len(c.b) == 0
}

// decodeBind reads a Bind body.
func decodeBind(body []byte) (m bindMsg, ok bool) {
	ok = m.decode(body)
	return m, ok
}

// decode is decodeBind into the memory that m has.
func (m *bindMsg) decode(body []byte) (ok bool) {
	c := cursor{b: body}
	m.portal = c.str()
	m.statement = c.str()
	c.arguments(m)
	c.skipFormats()
	return !c.bad && len(c.b) == 0
}

// decodeFunctionCall reads a FunctionCall body.
func decodeFunctionCall(body []byte) (oid uint32, m bindMsg, ok bool) {
	c := cursor{b: body}
	oid = uint32(c.int32())
	c.arguments(&m)
	m.result = c.int16()
	return oid, m, !c.bad && len(c.b) == 0
}

// arguments reads format codes and values, which Bind and FunctionCall share.
func (c *cursor) arguments(m *bindMsg) {
	m.formats, m.params = m.formats[:0], m.params[:0]
	for range c.formatCount() {
		m.formats = append(m.formats, c.int16())
	}
	n := 0
	if !c.bad {
		n = c.count(4)
	}
	if n == 0 {
		return
	}
	bad := c.bad // a count too high is remembered, what is there is read
	c.bad = false
	m.params = slices.Grow(m.params, n)
	for range n {
		size := c.int32()
		if c.bad || size < -1 {
			c.bad = true
			return
		}
		if size == -1 {
			m.params = append(m.params, nil)
			continue
		}
		v := c.take(int(size))
		if c.bad {
			return
		}
		m.params = append(m.params, v)
	}
	c.bad = bad
}

func (c *cursor) formatCount() int {
	n := c.count(2)
	if c.bad {
		return 0
	}
	return n
}

func (c *cursor) skipFormats() {
	c.take(2 * c.formatCount())
}

// decodeExecute reads an Execute body.
func decodeExecute(body []byte) (m executeMsg, ok bool) {
	c := cursor{b: body}
	m.portal = c.str()
	m.maxRows = c.int32()
	return m, !c.bad && len(c.b) == 0
}

// format returns the format code of parameter i: none given means text, one
// is for all.
func (m *bindMsg) format(i int) int16 {
	switch {
	case len(m.formats) == 1:
		return m.formats[0]
	case i < len(m.formats):
		return m.formats[i]
	}
	return 0
}

// A ServerMessage is an ErrorResponse or NoticeResponse, decoded. Fields the
// server did not send are empty.
type ServerMessage struct {
	Severity, SQLState, Message, Detail, Hint, Position  string
	InternalPosition, InternalQuery, Where               string
	Schema, Table, Column, DataType, Constraint, Routine string
}

// decodeServerMessage reads the body of an ErrorResponse or NoticeResponse.
// The severity that is never translated wins over the translated one.
func decodeServerMessage(body []byte, text func([]byte) string) ServerMessage {
	var m ServerMessage
	c := cursor{b: body}
	for len(c.b) > 0 && c.b[0] != 0 {
		field := c.b[0]
		c.b = c.b[1:]
		v := text(c.str())
		switch field {
		case 'S':
			if m.Severity == "" {
				m.Severity = v
			}
		case 'V':
			m.Severity = v
		case 'C':
			m.SQLState = v
		case 'M':
			m.Message = v
		case 'D':
			m.Detail = v
		case 'H':
			m.Hint = v
		case 'P':
			m.Position = v
		case 'p':
			m.InternalPosition = v
		case 'q':
			m.InternalQuery = v
		case 'W':
			m.Where = v
		case 's':
			m.Schema = v
		case 't':
			m.Table = v
		case 'c':
			m.Column = v
		case 'd':
			m.DataType = v
		case 'n':
			m.Constraint = v
		case 'R':
			m.Routine = v
		}
	}
	return m
}

// A Notification is a NotificationResponse: what NOTIFY sent.
type Notification struct {
	PID              uint32
	Channel, Payload string
}

func decodeNotification(body []byte, text func([]byte) string) Notification {
	c := cursor{b: body}
	return Notification{PID: uint32(c.int32()), Channel: text(c.str()), Payload: text(c.str())}
}

// A Setting is a name and its value from a start-up packet.
type Setting struct{ Name, Value string }

// decodeStartup reads the settings of a start-up packet, its length word and
// version first, in the order sent, repeated names included (the server takes
// the last).
func decodeStartup(packet []byte, text func([]byte) string) (version uint32, settings []Setting) {
	c := cursor{b: packet}
	c.int32()
	version = uint32(c.int32())
	for len(c.b) > 0 && c.b[0] != 0 {
		name := text(c.str())
		settings = append(settings, Setting{name, text(c.str())})
	}
	return version, settings
}
