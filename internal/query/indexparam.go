package query

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// An index knows parameters by hash and bundle only. There may be as many as
// statements and most come once, so each takes three bytes instead of the
// seventeen of a term of its own: in buckets by the first bits of the hash, a
// pair of some bits more of it and the bundle. Of 64 pairs that a search looks at one
// is wrong in a few hundred segments; then it reads a bundle in vain.
const (
	paramHashBits   = 40
	paramBundleBits = 64 - paramHashBits // while it is made
	bucketPairs     = 64
	maxParams       = 4 << 20  // pairs of an index
	maxParamText    = 4 << 10  // bytes of a parameter that is indexed; longer ones are searched for without
	maxParamRaw     = 64 << 10 // bytes of one that is looked at
)

// paramTerm is the term of entries with a parameter that may be anything as far
// as the index knows: its type is told later, say.
const paramTerm = "param"

// paramPrefix is what paramHash hashes before a text.
const paramPrefix = "param\x00"

// paramHash returns the hash by which an index knows a parameter.
func paramHash(text string) uint64 { return term("param", text) >> paramBundleBits }

// param adds a parameter of the entry at.
func (b *indexBuilder) param(at int64, p *Param) {
	if p.Null {
		return
	}
	bundle := uint64(at / tree.Width)
	if p.OID == 0 && p.Format != pgvalue.FormatText || len(p.Raw) > maxParamRaw || len(b.params) >= maxParams || bundle >= 1<<paramBundleBits {
		b.of(openTerm, paramTerm).put(at)
		return
	}
	b.buf = append(b.buf[:0], paramPrefix...)
	if p.Format == pgvalue.FormatText && p.charset == nil && utf8.Valid(p.Raw) { // as most are
		b.buf = append(b.buf, p.Raw...)
	} else {
		text, _ := p.Text()
		b.buf = append(b.buf, text...)
	}
	if len(b.buf) <= len(paramPrefix)+maxParamText {
		sum := sha256.Sum256(b.buf)
		b.params = append(b.params, binary.BigEndian.Uint64(sum[:])>>paramBundleBits<<paramBundleBits|bundle)
	}
}

// sortedParams returns the pairs in order, each once. What was in order before
// stays, so that an index that grows is not sorted again and again.
func (b *indexBuilder) sortedParams() []uint64 {
	old, fresh := b.params[:b.ordered], b.params[b.ordered:]
	slices.Sort(fresh)
	if len(old) > 0 && len(fresh) > 0 {
		all := make([]uint64, 0, len(b.params)+len(b.params)/4)
		for len(old) > 0 && len(fresh) > 0 {
			if old[0] <= fresh[0] {
				all, old = append(all, old[0]), old[1:]
			} else {
				all, fresh = append(all, fresh[0]), fresh[1:]
			}
		}
		b.params = append(append(all, old...), fresh...)
	}
	b.params = slices.Compact(b.params)
	b.ordered = len(b.params)
	return b.params
}

// A paramLayout says how the parameters of an index are laid out.
type paramLayout struct {
	buckets    int64
	width      int64 // bytes of a pair
	bundleBits int   // the lower ones of a pair; the others are of the hash
}

func layoutParams(pairs, bundles int64) paramLayout {
	l := paramLayout{buckets: pairs/bucketPairs + 1, width: 3, bundleBits: bits.Len64(uint64(max(0, bundles-1)))}
	if l.bundleBits > 16 {
		l.width = 4
	}
	return l
}

func (l paramLayout) size(pairs int64) int64 { return l.buckets*4 + pairs*l.width }

// place returns the bucket of a hash, and the bits of it that stand in a pair.
func (l paramLayout) place(hash uint64) (bucket int64, rest uint64) {
	at := hash * uint64(l.buckets)
	return int64(at >> paramHashBits), at & (1<<paramHashBits - 1) >> (paramHashBits - (8*int(l.width) - l.bundleBits))
}

// appendParams appends buckets and pairs.
func appendParams(dst []byte, pairs []uint64, bundles int64) []byte {
	l := layoutParams(int64(len(pairs)), bundles)
	le := binary.LittleEndian
	next := int64(0)
	for i, p := range pairs {
		bucket, _ := l.place(p >> paramBundleBits)
		for ; next <= bucket; next++ {
			dst = le.AppendUint32(dst, uint32(i))
		}
	}
	for ; next < l.buckets; next++ {
		dst = le.AppendUint32(dst, uint32(len(pairs)))
	}
	for _, p := range pairs {
		_, rest := l.place(p >> paramBundleBits)
		v := rest<<l.bundleBits | p&(1<<paramBundleBits-1)
		dst = append(dst, byte(v), byte(v>>8), byte(v>>16))
		if l.width == 4 {
			dst = append(dst, byte(v>>24))
		}
	}
	return dst
}

// param adds to set the bundles that may have a parameter.
func (x *index) param(hash uint64, set *places) error {
	bundles := x.stamp.count / tree.Width
	l := layoutParams(x.params, bundles)
	bucket, rest := l.place(hash)
	base := indexHeader + x.terms*termLen + x.bytes
	b, err := x.read(base+bucket*4, min(2, l.buckets-bucket)*4)
	if err != nil {
		return err
	}
	from, to := int64(binary.LittleEndian.Uint32(b)), x.params
	if len(b) > 4 {
		to = int64(binary.LittleEndian.Uint32(b[4:]))
	}
	if from > to || to > x.params {
		return fmt.Errorf("%w: its parameters are out of order", errIndex)
	}
	if from == to {
		return nil
	}
	if b, err = x.read(base+l.buckets*4+from*l.width, (to-from)*l.width); err != nil {
		return err
	}
	for ; len(b) > 0; b = b[l.width:] {
		v := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
		if l.width == 4 {
			v |= uint64(b[3]) << 24
		}
		if v>>l.bundleBits != rest {
			continue
		}
		bundle := int64(v & (1<<l.bundleBits - 1))
		if bundle >= bundles {
			return fmt.Errorf("%w: it has a parameter in a bundle that is not there", errIndex)
		}
		set.add(bundle, 0, tree.Width-1)
	}
	return nil
}
