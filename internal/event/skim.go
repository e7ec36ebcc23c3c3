package event

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Skimmed is what a Skimmer tells of a leaf, as in Leaf.
type Skimmed struct {
	Time                   int64
	Session, Seq           uint64
	Kind                   Kind
	Of, Parse, Bind, Since int64
	Discarded              bool // End is EndDiscarded

	// Head is 0, or a number that one Skimmer gives only to entries of one session
	// that are of the same kind, user, database, application and client.
	Head uint32
}

// A Promise is what a leaf says of its value, as in Leaf.
type Promise struct {
	Size       int64
	HasValue   bool
	Commitment [32]byte
}

// A Skimmer does what Skim does, faster for the leaves of a log in their
// order: what repeats from leaf to leaf it remembers in the spelling that was
// checked. Those are the second, and of each session its id and the heads of its
// entries. The zero value is ready. It is not for concurrent use.
type Skimmer struct {
	second   [4]uint64                  // the leaf up to the fraction: {"v":1,"t":"2006-01-02T15:04:05.
	nano     int64                      // and the time that means
	count    uint32                     // of the heads remembered so far
	sessions [1 << skimBits]*remembered // by hash of the spelling of the id
}

// skimBits is how many sessions a Skimmer may remember, as a power of two. Of 400
// that are open at once, one in twenty is in another's way.
const skimBits = 13

// remembered is what a Skimmer knows of a session.
type remembered struct {
	id    uint64
	text  [2]uint64 // its spelling
	heads [8]head   // by the kind's first letter, but none of outcomes
}

// head is the part of a leaf from the kind to the message letters.
type head struct {
	text   []byte
	kind   Kind
	number uint32 // 0 if there were too many to count
}

// Skim checks b exactly as Parse does, and says in f and p what it found; if it
// returns an error, they mean nothing. It keeps no reference to b.
func (s *Skimmer) Skim(b []byte, f *Skimmed, p *Promise) error {
	if s.usual(b, f, p) {
		return nil
	}
	var l Leaf
	d := decoder{b: b, skim: true}
	if err := l.parse(&d); err != nil {
		return err
	}
	*f = Skimmed{l.Time, l.Session, l.Seq, l.Kind, l.Of, l.Parse, l.Bind, l.Since, l.End == EndDiscarded, 0}
	*p = Promise{l.Size, l.HasValue, l.Commitment}
	if l.Session != 0 && l.Time > 0 && l.Time < math.MaxInt64-1_000_000_000 { // so that a second has all its fractions
		s.remember(b, &l, b[d.head.from:d.head.to])
	}
	return nil
}

// Places in a leaf with a session, and where what follows it begins.
const (
	atNano    = len(`{"v":1,"t":"2006-01-02T15:04:05.`)
	atSession = atNano + len(`000000000Z","s":"`)
	atNext    = atSession + len(`0123456789abcdef"`)
)

func word(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

// place returns where the session so spelled is remembered.
func (s *Skimmer) place(text [2]uint64) **remembered {
	x := text[0] ^ text[1] // the digits differ in a few bits each
	return &s.sessions[(x^x>>32)*0x9E3779B97F4A7C15>>(64-skimBits)]
}

// remember takes a leaf that was checked.
func (s *Skimmer) remember(b []byte, l *Leaf, text []byte) {
	s.second = [4]uint64{word(b, 0), word(b, 8), word(b, 16), word(b, 24)}
	s.nano = l.Time - l.Time%1_000_000_000
	id := [2]uint64{word(b, atSession), word(b, atSession+8)}
	place := s.place(id)
	if *place == nil {
		*place = new(remembered)
	}
	r := *place
	if r.id != l.Session {
		r.id, r.text = l.Session, id
		for i := range r.heads {
			r.heads[i].text = r.heads[i].text[:0]
		}
	}
	if l.Kind == KindOutcome {
		return
	}
	if s.count < math.MaxUint32 {
		s.count++
	}
	h := r.head(text)
	h.text, h.kind, h.number = append(h.text[:0], text...), l.Kind, s.count
	if s.count == math.MaxUint32 {
		h.number = 0
	}
}

// head returns where the head that a text begins with is remembered.
func (r *remembered) head(text []byte) *head { return &r.heads[text[len(`,"k":"`)]&7] }

// usual is Skim for what most leaves are: of a session, without facts, errors
// and all but plain characters. It reports false for others, and for those
// with something in front that is not remembered; whether such a leaf is good is
// for others to say, and f and p mean nothing.
func (s *Skimmer) usual(b []byte, f *Skimmed, p *Promise) bool {
	if len(b) < atNext+24 || len(b) > MaxLeaf ||
		word(b, 0) != s.second[0] || word(b, 8) != s.second[1] || word(b, 16) != s.second[2] || word(b, 24) != s.second[3] {
		return false
	}
	nano, n := Digits(word(b, atNano))
	last := b[atNano+8] - '0'
	id := [2]uint64{word(b, atSession), word(b, atSession+8)}
	r := *s.place(id)
	if n != 8 || last > 9 || r == nil || r.text != id || string(b[atNano+9:atSession]) != `Z","s":"` || b[atNext-1] != '"' {
		return false
	}
	f.Time, f.Session = s.nano+int64(nano)*10+int64(last), r.id
	at := atNext
	f.Of, f.Parse, f.Bind, f.Since, f.Discarded = 0, 0, 0, 0, false
	if next(b, at, `,"k":"outcome"`) {
		f.Seq, f.Kind, f.Head = 0, KindOutcome, 0
		if at += len(`,"k":"outcome"`); next(b, at, `,"m":"`) {
			at = textEnd(b, at+len(`,"m":"`))
		}
	} else {
		if !next(b, at, `,"n":`) {
			return false
		}
		var seq int64
		seq, at = count(b, at+len(`,"n":`))
		h := r.headAt(b, at)
		if h == nil {
			return false
		}
		f.Seq, f.Kind, f.Head = uint64(seq), h.kind, h.number
		at += len(h.text)
	}
	if next(b, at, `,"of":`) {
		f.Of, at = refAt(b, at+len(`,"of":`))
	}
	if next(b, at, `,"parse":`) {
		f.Parse, at = refAt(b, at+len(`,"parse":`))
	}
	if next(b, at, `,"bind":`) {
		f.Bind, at = refAt(b, at+len(`,"bind":`))
	}
	if next(b, at, `,"types":[`) {
		at = typesEnd(b, at+len(`,"types":[`))
	}
	// The value comes last, and most leaves with one have nothing else here.
	if p.Size = 0; !next(b, at, `,"size":`) {
		f.Since, at = outcomeEnd(b, at)
	}
	if next(b, at, `,"size":`) {
		p.Size, at = count(b, at+len(`,"size":`))
	}
	if p.HasValue = next(b, at, `,"c":"`); p.HasValue {
		at += len(`,"c":"`)
		if len(b)-at != CommitmentLen+len(`"}`) || !decodeCommitment(&p.Commitment, (*[CommitmentLen]byte)(b[at:])) {
			return false
		}
		at += CommitmentLen
		return next(b, at, `"}`)
	}
	return at == len(b)-1 && b[at] == '}'
}

// The functions below walk over a part of a leaf from at on, and return where it
// ends. If there is something else, or what is rare, they return nowhere:
// nothing comes next there, for any of them.
const nowhere = math.MaxInt

// next reports whether s comes next.
func next(b []byte, at int, s string) bool {
	return at <= len(b)-len(s) && string(b[at:at+len(s)]) == s
}

// headAt returns the head that comes next, nil if it is not remembered.
func (r *remembered) headAt(b []byte, at int) *head {
	if at > len(b)-len(`,"k":"?`) {
		return nil
	}
	h := r.head(b[at:])
	n := len(h.text)
	if n == 0 || at > len(b)-n || string(b[at:at+n]) != string(h.text) {
		return nil
	}
	return h
}

// outcomeEnd walks over what came of a statement.
func outcomeEnd(b []byte, at int) (since int64, end int) {
	if next(b, at, `,"tags":["`) {
		at = textEnd(b, at+len(`,"tags":["`))
		for next(b, at, `,"`) {
			at = textEnd(b, at+len(`,"`))
		}
		if !next(b, at, `]`) {
			return 0, nowhere
		}
		at++
	}
	if next(b, at, `,"rows":`) {
		_, at = count(b, at+len(`,"rows":`))
	}
	if next(b, at, `,"bytes":`) {
		_, at = count(b, at+len(`,"bytes":`))
	}
	if next(b, at, `,"us":`) {
		_, at = count(b, at+len(`,"us":`))
	}
	if next(b, at, `,"tx":"`) {
		at += len(`,"tx":"`)
		if !next(b, at, `T"`) && !next(b, at, `I"`) && !next(b, at, `E"`) {
			return 0, nowhere
		}
		at += len(`T"`)
	}
	switch {
	case next(b, at, `,"committed":true`):
		at += len(`,"committed":true`)
	case next(b, at, `,"committed":false`):
		at += len(`,"committed":false`)
	}
	if next(b, at, `,"since":`) {
		return refAt(b, at+len(`,"since":`))
	}
	return 0, at
}

// typesEnd walks over type OIDs and the bracket behind them.
func typesEnd(b []byte, at int) int {
	for {
		var v uint64
		if v, at = number(b, at); v > math.MaxUint32 {
			return nowhere
		}
		if !next(b, at, `,`) {
			break
		}
		at++
	}
	if !next(b, at, `]`) {
		return nowhere
	}
	return at + 1
}

// textEnd walks over plain characters, at least one, and the quote behind them.
func textEnd(b []byte, at int) int {
	if at >= len(b) || !plain[b[at]] {
		return nowhere
	}
	for at++; at < len(b) && plain[b[at]]; at++ {
	}
	if at >= len(b) || b[at] != '"' {
		return nowhere
	}
	return at + 1
}

// number decodes a decimal number without a sign or a leading zero.
func number(b []byte, at int) (v uint64, end int) {
	if at <= len(b)-8 {
		v, n := Digits(word(b, at))
		if n == 0 || n > 1 && b[at] == '0' {
			return 0, nowhere
		}
		if n < 8 {
			return v, at + n
		}
	}
	return longNumber(b, at)
}

// longNumber is number where there may be more than seven digits, or the end is near.
func longNumber(b []byte, at int) (v uint64, end int) {
	d := decoder{b: b, pos: at}
	if at > len(b) {
		return 0, nowhere
	}
	if v = d.number(); d.err != nil {
		return 0, nowhere
	}
	return v, d.pos
}

// count decodes a number that is not zero.
func count(b []byte, at int) (v int64, end int) {
	n, end := number(b, at)
	if n == 0 || n > math.MaxInt64 {
		return 0, nowhere
	}
	return int64(n), end
}

// refAt decodes an index, in the form of Leaf.
func refAt(b []byte, at int) (ref int64, end int) {
	n, end := number(b, at)
	if n >= math.MaxInt64 {
		return 0, nowhere
	}
	return int64(n) + 1, end
}

// Digits decodes the decimal digits that eight characters, the first in the lowest
// byte, begin with, and returns how many those are.
func Digits(w uint64) (v uint64, n int) {
	w ^= 0x3030303030303030 // a digit is its value now, all else is more than 9
	n = bits.TrailingZeros64((w|(w+0x7676767676767676))&0x8080808080808080) / 8
	w <<= 64 - 8*n // as if zeros came first
	w = w*10 + w>>8
	return ((w&0x000000FF000000FF)*(100+1_000_000<<32) + (w>>16&0x000000FF000000FF)*(1+10_000<<32)) >> 32, n
}
