package pgvalue

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// A reader takes counted parts off a container value.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint32() uint32 {
	if r.bad || len(r.b) < 4 {
		r.bad = true
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

// part reads a length and as many bytes; length -1 is NULL.
func (r *reader) part() (b []byte, null bool) {
	n := int32(r.uint32())
	if n == -1 {
		return nil, true
	}
	if r.bad || n < 0 || int(n) > len(r.b) {
		r.bad = true
		return nil, false
	}
	b = r.b[:n]
	r.b = r.b[n:]
	return b, false
}

// done says that all was read and nothing was missing.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }

// An array is the head of a binary array.
type array struct {
	elem  uint32
	dims  []int
	lower []int32
}

func (r *reader) array() (a array, ok bool) {
	n := r.uint32()
	r.uint32() // flag: has NULLs
	a.elem = r.uint32()
	if r.bad || n > 6 {
		return a, false
	}
	total := 1
	for range n {
		d := int32(r.uint32())
		a.lower = append(a.lower, int32(r.uint32()))
		// Each element takes 4 bytes at least, so no dimension and no product
		// of them can be more than a quarter of what follows.
		if r.bad || d < 0 || int(d) > len(r.b)/4+1 {
			return a, false
		}
		a.dims = append(a.dims, int(d))
		if total *= int(d); total > len(r.b)/4+1 {
			return a, false
		}
	}
	return a, true
}

// appendArray decodes an array of any type; the element type is in it.
func appendArray(dst, b []byte, in nesting) ([]byte, bool) {
	r := reader{b: b}
	a, ok := r.array()
	if !ok || in.depth >= maxDepth {
		return dst, false
	}
	for _, d := range a.dims {
		if d == 0 {
			a.dims = nil
		}
	}
	if len(a.dims) == 0 {
		return append(dst, "{}"...), r.done()
	}
	shifted := false
	for _, l := range a.lower {
		shifted = shifted || l != 1
	}
	if shifted {
		for i, l := range a.lower {
			dst = strconv.AppendInt(append(dst, '['), int64(l), 10)
			dst = strconv.AppendInt(append(dst, ':'), int64(l)+int64(a.dims[i])-1, 10)
			dst = append(dst, ']')
		}
		dst = append(dst, '=')
	}
	dst, ok = appendDim(dst, &r, a.elem, a.dims, in)
	return dst, ok && r.done()
}

func appendDim(dst []byte, r *reader, elem uint32, dims []int, in nesting) ([]byte, bool) {
	delimiter := byte(',')
	if elem == oidBox {
		delimiter = ';'
	}
	dst = append(dst, '{')
	for i := range dims[0] {
		if i > 0 {
			dst = append(dst, delimiter)
		}
		if len(dims) > 1 {
			var ok bool
			if dst, ok = appendDim(dst, r, elem, dims[1:], in); !ok {
				return dst, false
			}
			continue
		}
		v, null := r.part()
		if r.bad {
			return dst, false
		}
		if null {
			dst = append(dst, "NULL"...)
			continue
		}
		start := len(dst)
		dst = appendElement(dst, elem, v, in.deeper())
		if dst = quoteArray(dst, start, delimiter); len(dst) > in.limit {
			return dst, false
		}
	}
	return append(dst, '}'), true
}

// appendElement appends an element's text, hexadecimal if it cannot be read.
func appendElement(dst []byte, oid uint32, v []byte, in nesting) []byte {
	if out, ok := appendBinary(dst, oid, v, in); ok {
		return out
	}
	return appendHex(dst, v)
}

// quoteArray quotes dst[start:] if it could not stand bare in an array.
func quoteArray(dst []byte, start int, delimiter byte) []byte {
	s := string(dst[start:])
	if s != "" && !strings.EqualFold(s, "null") &&
		!strings.ContainsAny(s, "{}\"\\ \t\n\v\f\r"+string(delimiter)) {
		return dst
	}
	return appendQuoted(dst[:start], s, '"', '\\')
}

// appendQuoted appends s in quotes. Quotes and backslashes get a backslash in
// front (arrays) or are doubled (ranges, records and words: escape is 0).
func appendQuoted(dst []byte, s string, quote, escape byte) []byte {
	dst = append(dst, quote)
	for i := range len(s) {
		if c := s[i]; c == quote || c == '\\' {
			if escape != 0 {
				dst = append(dst, escape)
			} else {
				dst = append(dst, c)
			}
		}
		dst = append(dst, s[i])
	}
	return append(dst, quote)
}

// appendVector decodes int2vector and oidvector: arrays printed with spaces.
func appendVector(dst, b []byte, in nesting) ([]byte, bool) {
	r := reader{b: b}
	a, ok := r.array()
	if !ok || len(a.dims) > 1 {
		return dst, false
	}
	for i := range len(a.dims) * sum(a.dims) {
		if i > 0 {
			dst = append(dst, ' ')
		}
		v, null := r.part()
		if null || r.bad {
			return dst, false
		}
		if dst = appendElement(dst, a.elem, v, in.deeper()); len(dst) > in.limit {
			return dst, false
		}
	}
	return dst, r.done()
}

func sum(dims []int) (n int) {
	for _, d := range dims {
		n += d
	}
	return n
}

// rangeElement returns the element type of a built-in range or multirange.
func rangeElement(oid uint32) (elem uint32, multi bool) {
	switch oid {
	case 3904, 4451:
		return oidInt4, oid == 4451
	case 3906, 4532:
		return oidNumeric, oid == 4532
	case 3908, 4533:
		return oidTimestamp, oid == 4533
	case 3910, 4534:
		return oidTimestamptz, oid == 4534
	case 3912, 4535:
		return oidDate, oid == 4535
	case 3926, 4536:
		return oidInt8, oid == 4536
	}
	return 0, false
}

// appendRange decodes a range: flags, then the bounds that are not infinite.
func appendRange(dst []byte, elem uint32, b []byte, in nesting) ([]byte, bool) {
	const empty, lowerInc, upperInc, lowerInf, upperInf = 1, 2, 4, 8, 16
	if len(b) == 0 || in.depth >= maxDepth {
		return dst, false
	}
	flags, r := b[0], reader{b: b[1:]}
	if flags&empty != 0 {
		return append(dst, "empty"...), r.done()
	}
	if flags&lowerInc != 0 {
		dst = append(dst, '[')
	} else {
		dst = append(dst, '(')
	}
	bound := func() bool {
		v, null := r.part()
		if null || r.bad {
			return false
		}
		start := len(dst)
		dst = quoteComposite(appendElement(dst, elem, v, in.deeper()), start)
		return true
	}
	if flags&lowerInf == 0 && !bound() {
		return dst, false
	}
	dst = append(dst, ',')
	if flags&upperInf == 0 && !bound() {
		return dst, false
	}
	if flags&upperInc != 0 {
		dst = append(dst, ']')
	} else {
		dst = append(dst, ')')
	}
	return dst, r.done()
}

func appendMultirange(dst []byte, elem uint32, b []byte, in nesting) ([]byte, bool) {
	r := reader{b: b}
	n := r.uint32()
	if r.bad || int64(n) > int64(len(r.b)/4) {
		return dst, false
	}
	dst = append(dst, '{')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		v, null := r.part()
		if null || r.bad {
			return dst, false
		}
		var ok bool
		if dst, ok = appendRange(dst, elem, v, in.deeper()); !ok || len(dst) > in.limit {
			return dst, false
		}
	}
	return append(dst, '}'), r.done()
}

// appendRecord decodes an anonymous record: each field with its type.
func appendRecord(dst, b []byte, in nesting) ([]byte, bool) {
	r := reader{b: b}
	n := r.uint32()
	if r.bad || int64(n) > int64(len(r.b)/8) || in.depth >= maxDepth {
		return dst, false
	}
	dst = append(dst, '(')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		oid := r.uint32()
		v, null := r.part()
		if r.bad {
			return dst, false
		}
		if null {
			continue
		}
		start := len(dst)
		if dst = quoteComposite(appendElement(dst, oid, v, in.deeper()), start); len(dst) > in.limit {
			return dst, false
		}
	}
	return append(dst, ')'), r.done()
}

// quoteComposite quotes dst[start:] if it could not stand bare in a range or
// record. Empty fields are quoted, since nothing at all means NULL or infinity.
func quoteComposite(dst []byte, start int) []byte {
	s := string(dst[start:])
	if s != "" && !strings.ContainsAny(s, "\"\\()[], \t\n\v\f\r") {
		return dst
	}
	return appendQuoted(dst[:start], s, '"', 0)
}

// appendTSVector decodes a tsvector: how many words, and for each a string, how many
// places it has, and these, with their weight in the two upper bits.
func appendTSVector(dst, b []byte, in nesting) ([]byte, bool) {
	r := reader{b: b}
	for i := range r.uint32() {
		end := bytes.IndexByte(r.b, 0)
		if end < 0 || len(r.b) < end+3 {
			return dst, false
		}
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = appendQuoted(dst, in.text(r.b[:end]), '\'', 0)
		places := int(binary.BigEndian.Uint16(r.b[end+1:]))
		if r.b = r.b[end+3:]; len(r.b) < 2*places {
			return dst, false
		}
		for j := range places {
			place := binary.BigEndian.Uint16(r.b[2*j:])
			dst = strconv.AppendUint(append(dst, ":,"[min(j, 1)]), uint64(place&0x3fff), 10)
			if weight := place >> 14; weight > 0 {
				dst = append(dst, "CBA"[weight-1])
			}
		}
		r.b = r.b[2*places:]
	}
	return dst, r.done()
}
