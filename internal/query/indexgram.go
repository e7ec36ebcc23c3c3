package query

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"regexp"
	"regexp/syntax"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// An index knows which parts texts have by trigrams, three bytes in a row: for
// each value of a hash of them there is a row, the bundles whose texts have one. A
// bundle that is not in the rows of all trigrams of a part has it nowhere. Most
// texts are a program's, over and over, so most rows are of no bundle, or of all,
// which takes no room; what does are the digits and names in texts.
const (
	gramBits    = 14 // of the hash
	gramRows    = 1 << gramBits
	gramBuckets = 256
	bucketRows  = gramRows / gramBuckets
	gramLen     = 3
	maxGramText = 64 << 10 // bytes of a text that is indexed; one that is longer may have any part
	maxGrams    = 128      // trigrams of a part that are looked for
)

// How a row is written, in the upper bits of its first byte, whichever is shortest.
const (
	gramsIn  = iota * bucketRows // a list of bundles
	gramsBit                     // a bit for each bundle
	gramsOut                     // a list of all other bundles
)

var errGrams = fmt.Errorf("%w: its trigrams make no sense", errIndex)

// textTerm is the term of entries that may have any text as far as the index knows,
// keptTerm of those whose value is gone, although copies of it may be kept for
// others that go back to it.
const (
	textTerm = "text"
	keptTerm = "kept"
	// unreadTerm is the term of entries of which the index knows neither class, relations
	// nor fingerprint.
	unreadTerm = "unread"
)

// trigrams are rows while an index is made: of 64 bundles each, a word a row.
type trigrams []*[gramRows]uint64

// gramHash returns the row of a trigram.
func gramHash(g uint32) uint32 { return g << 8 * 0x9e3779b1 >> (32 - gramBits) }

// add adds the trigrams of a text in a bundle.
func (t *trigrams) add(bundle int64, text []byte) {
	if len(text) < gramLen {
		return
	}
	for int64(len(*t)) <= bundle/64 {
		*t = append(*t, new([gramRows]uint64))
	}
	rows, bit := (*t)[bundle/64], uint64(1)<<(bundle%64)
	g := uint32(text[0])<<8 | uint32(text[1])
	for _, c := range text[gramLen-1:] {
		g = g<<8 | uint32(c)
		rows[gramHash(g)] |= bit
	}
}

// rowLen returns the bytes of a bit for each bundle.
func rowLen(bundles int64) int64 { return (bundles + 7) / 8 }

// appendGrams appends the places of buckets, and the rows in them.
func (t trigrams) appendGrams(dst []byte, bundles int64) []byte {
	le := binary.LittleEndian
	places := len(dst)
	dst = append(dst, make([]byte, gramBuckets*4)...)
	start := len(dst)
	words := make([]uint64, (bundles+63)/64)
	for row := range gramRows {
		if row%bucketRows == 0 {
			le.PutUint32(dst[places+row/bucketRows*4:], uint32(len(dst)-start))
		}
		n := int64(0)
		for i, rows := range t {
			words[i] = rows[row]
			n += int64(bits.OnesCount64(rows[row]))
		}
		if n > 0 {
			dst = appendRow(dst, byte(row%bucketRows), words, n, bundles)
		}
	}
	return dst
}

// appendRow appends a row of n bundles.
func appendRow(dst []byte, row byte, words []uint64, n, bundles int64) []byte {
	width, from, kind := rowLen(bundles), len(dst), byte(gramsIn)
	if n > bundles/2 {
		kind, n = gramsOut, bundles-n
	}
	if n <= width { // a list takes a byte each, or more
		dst = binary.AppendUvarint(append(dst, kind|row), uint64(n))
		last := int64(0)
		for i, word := range words {
			if kind == gramsOut {
				word = ^word
			}
			for ; word != 0; word &= word - 1 {
				bundle := int64(i)*64 + int64(bits.TrailingZeros64(word))
				if bundle >= bundles {
					break
				}
				dst, last = binary.AppendUvarint(dst, uint64(bundle-last)), bundle
			}
		}
		if int64(len(dst)-from) <= 1+width {
			return dst
		}
	}
	dst = append(dst[:from], gramsBit|row)
	for i := range width {
		dst = append(dst, byte(words[i/8]>>(i%8*8)))
	}
	return dst
}

// part adds to set the bundles that may have a text with a part, of three bytes or more.
func (x *index) part(part string, set *places) error {
	row, err := x.rowOf(part)
	if err != nil {
		return err
	}
	for n := range x.stamp.count / tree.Width {
		if row[n/8]&(1<<(n%8)) != 0 {
			set.add(n, 0, tree.Width-1)
		}
	}
	return x.bundles(term(openTerm, textTerm), set)
}

// rowOf returns the bundles that have all trigrams of a part.
func (x *index) rowOf(part string) (left []byte, err error) {
	left = bytes.Repeat([]byte{0xff}, int(rowLen(x.stamp.count/tree.Width)))
	n := len(part) - gramLen + 1
	for i := range min(n, maxGrams) {
		if n > maxGrams { // from everywhere in it
			i = i * n / maxGrams
		}
		if some, err := x.row(gramHash(uint32(part[i])<<16|uint32(part[i+1])<<8|uint32(part[i+2])), left); err != nil || !some {
			return left, err
		}
	}
	return left, nil
}

// row takes out of left the bundles that are not in a row, and reports whether some are left.
func (x *index) row(row uint32, left []byte) (some bool, err error) {
	bucket, base := int64(row/bucketRows), x.gramsAt()
	b, err := x.read(base+bucket*4, min(2, gramBuckets-bucket)*4)
	if err != nil {
		return false, err
	}
	from, to := int64(binary.LittleEndian.Uint32(b)), x.grams
	if len(b) > 4 {
		to = int64(binary.LittleEndian.Uint32(b[4:]))
	}
	if from > to || to > x.grams {
		return false, errGrams
	}
	if b, err = x.read(base+gramBuckets*4+from, to-from); err != nil {
		return false, err
	}
	var bitmap []byte
	for bitmap == nil {
		if len(b) == 0 || b[0]%bucketRows > byte(row%bucketRows) {
			clear(left) // it is of no bundle
			return false, nil
		}
		kind, found := b[0]/bucketRows*bucketRows, b[0]%bucketRows == byte(row%bucketRows)
		b = b[1:]
		if kind == gramsBit {
			if len(b) < len(left) {
				return false, errGrams
			}
			if found {
				bitmap = b[:len(left)]
			}
			b = b[len(left):]
			continue
		}
		var list []byte
		if found {
			list = make([]byte, len(left))
		}
		if b, err = x.list(b, list); err != nil || kind > gramsOut {
			return false, errGrams
		}
		if found && kind == gramsOut {
			for i := range list {
				list[i] = ^list[i]
			}
		}
		bitmap = list
	}
	for i := range left {
		left[i] &= bitmap[i]
		some = some || left[i] != 0
	}
	return some, nil
}

// list reads a list of bundles off b, and sets their bits if it is to.
func (x *index) list(b, to []byte) (rest []byte, err error) {
	n, size := binary.Uvarint(b)
	last, limit := uint64(0), uint64(x.stamp.count/tree.Width)
	for ; size > 0 && n > 0; n-- {
		b = b[size:]
		var d uint64
		if d, size = binary.Uvarint(b); size <= 0 || d > limit || last+d >= limit {
			return nil, errGrams
		}
		if last += d; to != nil {
			to[last/8] |= 1 << (last % 8)
		}
	}
	if size <= 0 {
		return nil, errGrams
	}
	return b[size:], nil
}

// parts returns what a text must have in it, as far as indexes help to find it.
func (m *matcher) parts() (all []string) {
	for _, p := range append(literals(m.f.Regexp), m.f.Text) {
		if len(p) >= gramLen {
			all = append(all, p)
		}
	}
	return all
}

// literals returns texts that are in each that matches an expression, nil for none.
func literals(e *regexp.Regexp) (all []string) {
	if e == nil {
		return nil
	}
	parsed, err := syntax.Parse(e.String(), syntax.Perl)
	if err != nil {
		return nil
	}
	var walk func(*syntax.Regexp)
	walk = func(r *syntax.Regexp) {
		switch {
		case r.Op == syntax.OpLiteral && r.Flags&syntax.FoldCase == 0:
			all = append(all, string(r.Rune))
		case r.Op == syntax.OpConcat:
			for _, sub := range r.Sub {
				walk(sub)
			}
		case r.Op == syntax.OpCapture, r.Op == syntax.OpPlus, r.Op == syntax.OpRepeat && r.Min > 0:
			walk(r.Sub[0])
		}
	}
	walk(parsed)
	return all
}
