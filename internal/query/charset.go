package query

import (
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// A charset decodes text of one of PostgreSQL's client encodings. It cuts the
// text into characters as the server does, so that a byte that looks like a
// quote or a backslash but is half of a character is never shown as one. Bytes
// below 0x80 stand for themselves. A character that is not known, or cut
// short, becomes U+FFFD, with any ASCII that it swallowed behind it.
//
// Two encodings are decoded in part only, since there are no free tables at
// hand: EUC_TW shows only ASCII, and JOHAB only Hangul. Of EUC_JIS_2004 and
// SHIFT_JIS_2004 the part that JIS X 0208 has is shown, of MULE_INTERNAL the
// common sets. A nil charset is UTF-8, and what claims to have no encoding.
type charset struct {
	// width returns the bytes of the character that b begins with, which has
	// the high bit set; it may be more than b has.
	width func(b []byte) int
	// decode appends the character, or returns false.
	decode func(dst, char []byte) ([]byte, bool)
}

// encodingFact is the key of the fact that names the encoding of an entry's
// texts, where it is not UTF-8.
const encodingFact = "encoding"

// charsets holds those used so far, by the name they were asked for with.
var charsets sync.Map

// charsetOf returns the charset that PostgreSQL calls name, or by an alias.
// Of names it does not know ASCII remains.
func charsetOf(name string) *charset {
	if c, ok := charsets.Load(name); ok {
		return c.(*charset)
	}
	key := plainName(name)
	if name, ok := encodingAliases[key]; ok {
		key = name
	}
	if key == "utf8" || key == "sqlascii" {
		return nil
	}
	c := newCharset(key)
	if c == nil {
		return asciiOnly
	}
	known, _ := charsets.LoadOrStore(name, c)
	return known.(*charset)
}

// plainName keeps the letters and digits of a name, as PostgreSQL does to compare them.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return -1
	}, name)
}

// text returns b as valid UTF-8.
func (c *charset) text(b []byte) string {
	if c == nil {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	i := 0
	for i < len(b) && b[i] < utf8.RuneSelf {
		i++
	}
	if i == len(b) {
		return string(b)
	}
	out := make([]byte, 0, len(b)+len(b)/2)
	for out = append(out, b[:i]...); i < len(b); {
		if b[i] < utf8.RuneSelf {
			out = append(out, b[i])
			i++
			continue
		}
		n := c.width(b[i:])
		char, whole := b[i:min(i+n, len(b))], i+n <= len(b)
		i += len(char)
		if whole {
			if longer, ok := c.decode(out, char); ok {
				out = longer
				continue
			}
		}
		out = append(out, "\uFFFD"...)
		for _, x := range char[1:] {
			if x < utf8.RuneSelf {
				out = append(out, x)
			}
		}
	}
	return string(out)
}

var asciiOnly = &charset{single, func(dst, _ []byte) ([]byte, bool) { return dst, false }}

func newCharset(key string) *charset {
	if m := singleByte[key]; m != nil {
		iso := strings.HasPrefix(key, "iso") || strings.HasPrefix(key, "latin")
		return &charset{single, except(exceptions[key], func(dst, char []byte) ([]byte, bool) {
			r := m.DecodeByte(char[0])
			if r == utf8.RuneError && iso && char[0] < 0xa0 {
				r = rune(char[0])
			}
			return utf8.AppendRune(dst, r), r != utf8.RuneError
		})}
	}
	switch key {
	case "sjis":
		return &charset{sjisWidth, by(japanese.ShiftJIS)}
	case "shiftjis2004":
		return &charset{sjisWidth, shiftJIS2004}
	case "eucjp":
		return &charset{eucWidth, by(japanese.EUCJP)}
	case "eucjis2004":
		return &charset{eucWidth, eucJIS2004}
	case "big5":
		return &charset{double, big5}
	case "gbk":
		return &charset{double, by(simplifiedchinese.GBK)}
	case "uhc":
		return &charset{double, by(korean.EUCKR)}
	case "gb18030":
		return &charset{gb18030Width, by(simplifiedchinese.GB18030)}
	case "euccn":
		return &charset{eucWidth, decodeEUCCN}
	case "euckr":
		return &charset{eucWidth, decodeEUCKR}
	case "euctw":
		return &charset{eucTWWidth, asciiOnly.decode}
	case "johab":
		return &charset{eucWidth, johab}
	case "muleinternal":
		return &charset{muleWidth, mule}
	}
	return nil
}

// by returns a decoder of characters by a library's encoding.
func by(e encoding.Encoding) func(dst, char []byte) ([]byte, bool) {
	return func(dst, char []byte) ([]byte, bool) {
		var buf [16]byte
		n, used, err := e.NewDecoder().Transform(buf[:], char, true)
		if err != nil || used != len(char) {
			return dst, false
		}
		for _, r := range string(buf[:n]) {
			if r == utf8.RuneError || r < utf8.RuneSelf {
				return dst, false
			}
		}
		return append(dst, buf[:n]...), true
	}
}

// eucOnly leaves out what an encoding has beyond its EUC form.
func eucOnly(e encoding.Encoding) func(dst, char []byte) ([]byte, bool) {
	decode := by(e)
	return func(dst, char []byte) ([]byte, bool) {
		if len(char) != 2 || char[0] < 0xa1 || char[1] < 0xa1 {
			return dst, false
		}
		return decode(dst, char)
	}
}

// Widths of characters, as the server counts them.

func single([]byte) int { return 1 }
func double([]byte) int { return 2 }

func sjisWidth(b []byte) int {
	if 0xa1 <= b[0] && b[0] <= 0xdf {
		return 1
	}
	return 2
}

func eucWidth(b []byte) int {
	if b[0] == 0x8f {
		return 3
	}
	return 2
}

func eucTWWidth(b []byte) int {
	switch b[0] {
	case 0x8e:
		return 4
	case 0x8f:
		return 3
	}
	return 2
}

func gb18030Width(b []byte) int {
	if len(b) > 1 && '0' <= b[1] && b[1] <= '9' {
		return 4
	}
	return 2
}

func muleWidth(b []byte) int {
	switch c := b[0]; {
	case 0x81 <= c && c <= 0x8d:
		return 2
	case 0x90 <= c && c <= 0x9b:
		return 3
	case 0x9c <= c && c <= 0x9d:
		return 4
	}
	return 1
}
