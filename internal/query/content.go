package query

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
)

// contentFact is the key of the fact that says what a value has of a COPY's data
// or of a result: "full", a piece of it, or "sha256" of all of it.
const contentFact = "content"

// isPiece reports that an entry holds a piece of content, of which another entry
// of the same kind, or an outcome, has the sums.
func isPiece(v *view) bool {
	return bytes.Contains(v.facts, []byte(`"`+contentFact+`":"full"`))
}

// content fills s from an entry about a COPY, a replication stream or a result.
func (s *Statement) content(v *view, value []byte, cs *charset) {
	if isPiece(v) {
		if s.Raw = value; v.kind == event.KindResult {
			s.Rows = decodeRows(value, cs)
		}
		return
	}
	s.Copy = &Copy{Messages: v.rows, Bytes: v.bytes}
	if len(value) == 32 {
		s.Copy.SHA256 = value
	}
}

// decodeRows reads the rows of a piece of a result: text as such, what is no text
// in hexadecimal behind \x, NULL as nil. It returns nil if the piece does not
// consist of whole messages.
func decodeRows(value []byte, cs *charset) (rows [][]*string) {
	for len(value) > 0 {
		f, rest, ok := nextFrame(value)
		if !ok || len(value)-len(rest) != len(f.body)+5 || uint32(len(f.body)+4) != binary.BigEndian.Uint32(value[1:]) {
			return nil
		}
		value = rest
		if f.letter != 'D' {
			continue
		}
		c := cursor{b: f.body}
		row := make([]*string, c.count(4))
		for i := range row {
			size := c.int32()
			if size == -1 {
				continue
			}
			cell := c.take(int(size))
			if c.bad {
				return nil
			}
			text := `\x` + hex.EncodeToString(cell)
			if cs != nil || utf8.Valid(cell) && bytes.IndexByte(cell, 0) < 0 {
				text = cs.text(cell)
			}
			row[i] = &text
		}
		if c.bad {
			return nil
		}
		rows = append(rows, row)
	}
	return rows
}

// result reads the FunctionCallResponse in an outcome's value, of a call of a
// function with that OID and results in that format.
func decodeResult(value []byte, oid uint32, format int16, cs *charset) *Param {
	body, ok := findFrame(value, 'V')
	if !ok {
		return nil
	}
	c := cursor{b: body}
	p := Param{OID: largeObjects[oid].result, Format: format, charset: cs}
	size := c.int32()
	if p.Null = size == -1; !p.Null {
		// A long one is cut in the log.
		p.Raw = c.take(min(max(0, int(size)), len(c.b)))
	}
	if c.bad {
		return nil
	}
	return &p
}

func appendRows(dst []byte, rows [][]*string) []byte {
	for i, row := range rows {
		dst = append(dst, separator(i, `,"rows":[`)...)
		dst = append(dst, '[')
		for j, cell := range row {
			if j > 0 {
				dst = append(dst, ',')
			}
			if cell == nil {
				dst = append(dst, "null"...)
			} else {
				dst = appendString(dst, *cell)
			}
		}
		dst = append(dst, ']')
	}
	if len(rows) > 0 {
		dst = append(dst, ']')
	}
	return dst
}
