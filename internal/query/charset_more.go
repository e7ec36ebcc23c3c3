package query

import (
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// encodingAliases maps PostgreSQL's other names of encodings, letters and digits only.
var encodingAliases = map[string]string{
	"unicode":  "utf8",
	"shiftjis": "sjis", "mskanji": "sjis", "win932": "sjis", "windows932": "sjis",
	"win936": "gbk", "windows936": "gbk",
	"win949": "uhc", "windows949": "uhc",
	"win950": "big5", "windows950": "big5",
	"iso88591": "latin1", "iso88592": "latin2", "iso88593": "latin3", "iso88594": "latin4",
	"iso88599": "latin5", "iso885910": "latin6", "iso885913": "latin7",
	"iso885914": "latin8", "iso885915": "latin9", "iso885916": "latin10",
	"koi8": "koi8r", "alt": "win866", "windows866": "win866", "windows874": "win874", "win": "win1251",
	"windows1250": "win1250", "windows1251": "win1251", "windows1252": "win1252", "windows1253": "win1253",
	"windows1254": "win1254", "windows1255": "win1255", "windows1256": "win1256", "windows1257": "win1257",
	"windows1258": "win1258", "abc": "win1258", "tcvn": "win1258", "tcvn5712": "win1258", "vscii": "win1258",
}

var singleByte = map[string]*charmap.Charmap{
	"latin1": charmap.ISO8859_1, "latin2": charmap.ISO8859_2, "latin3": charmap.ISO8859_3,
	"latin4": charmap.ISO8859_4, "latin5": charmap.ISO8859_9, "latin6": charmap.ISO8859_10,
	"latin7": charmap.ISO8859_13, "latin8": charmap.ISO8859_14, "latin9": charmap.ISO8859_15,
	"latin10":  charmap.ISO8859_16,
	"iso88595": charmap.ISO8859_5, "iso88596": charmap.ISO8859_6,
	"iso88597": charmap.ISO8859_7, "iso88598": charmap.ISO8859_8,
	"koi8r": charmap.KOI8R, "koi8u": charmap.KOI8U, "win866": charmap.CodePage866,
	"win874": charmap.Windows874, "win1250": charmap.Windows1250, "win1251": charmap.Windows1251,
	"win1252": charmap.Windows1252, "win1253": charmap.Windows1253, "win1254": charmap.Windows1254,
	"win1255": charmap.Windows1255, "win1256": charmap.Windows1256, "win1257": charmap.Windows1257,
	"win1258": charmap.Windows1258,
}

var (
	decodeSJIS  = by(japanese.ShiftJIS)
	decodeEUCJP = by(japanese.EUCJP)
	decodeBig5  = by(traditionalchinese.Big5)
	decodeEUCCN = except(exceptions["euccn"], eucOnly(simplifiedchinese.GBK))
	decodeEUCKR = eucOnly(korean.EUCKR)
)

// exceptions are the characters that PostgreSQL has otherwise than the library.
var exceptions = map[string]map[string]string{
	"euccn": {"\xa1\xa4": "・", "\xa1\xaa": "―"},
	"koi8u": {"\xae": "╝", "\xbe": "╬"},
	"shiftjis2004": { // where two of these are a backslash and a tilde to the server
		"\x81\x5c": "—", "\x81\x5f": "\\", "\x81\x60": "〜", "\x81\x61": "‖", "\x81\x7c": "−",
		"\x81\x91": "¢", "\x81\x92": "£", "\x81\xb0": "~", "\x81\xca": "¬",
	},
	"eucjis2004": {
		"\xa1\xb1": "‾", "\xa1\xbd": "—", "\xa1\xc1": "〜", "\xa1\xc2": "‖", "\xa1\xdd": "−",
		"\xa1\xef": "¥", "\xa1\xf1": "¢", "\xa1\xf2": "£", "\xa2\xcc": "¬",
	},
}

// except returns decode but for the characters in a table.
func except(table map[string]string, decode func(dst, char []byte) ([]byte, bool)) func(dst, char []byte) ([]byte, bool) {
	if table == nil {
		return decode
	}
	return func(dst, char []byte) ([]byte, bool) {
		if s, ok := table[string(char)]; ok {
			return append(dst, s...), true
		}
		return decode(dst, char)
	}
}

// big5Ranges are the characters of BIG5 that PostgreSQL has otherwise than the
// library, which follows the Hong Kong set: kana, Cyrillic and numbers.
var big5Ranges = []struct {
	from, to uint16
	r        rune
}{
	{0xa145, 0xa145, '•'},
	{0xa14e, 0xa14e, '､'},
	{0xa1c2, 0xa1c2, '‾'},
	{0xa1e3, 0xa1e3, '∼'},
	{0xa1f2, 0xa1f2, '♁'},
	{0xa1f3, 0xa1f3, '☉'},
	{0xa241, 0xa241, '／'},
	{0xa242, 0xa242, '＼'},
	{0xa244, 0xa244, '¥'},
	{0xa246, 0xa247, '¢'},
	{0xc6a1, 0xc6a1, 'ヾ'},
	{0xc6a2, 0xc6a3, 'ゝ'},
	{0xc6a4, 0xc6a4, '々'},
	{0xc6a5, 0xc6f7, 'ぁ'},
	{0xc6f8, 0xc7b0, 'ァ'},
	{0xc7b1, 0xc7b2, 'Д'},
	{0xc7b3, 0xc7b3, 'Ё'},
	{0xc7b4, 0xc7ba, 'Ж'},
	{0xc7bb, 0xc7cd, 'У'},
	{0xc7ce, 0xc7ce, 'ё'},
	{0xc7cf, 0xc7e8, 'ж'},
	{0xc7e9, 0xc7f2, '①'},
	{0xc7f3, 0xc7fc, '⑴'},
}

func big5(dst, char []byte) ([]byte, bool) {
	code := uint16(char[0])<<8 | uint16(char[1])
	for _, x := range big5Ranges {
		if x.from <= code && code <= x.to {
			return utf8.AppendRune(dst, x.r+rune(big5Place(code)-big5Place(x.from))), true
		}
	}
	return decodeBig5(dst, char)
}

// big5Place is the place of a character in the order of its rows of 157.
func big5Place(code uint16) int {
	second := int(code & 0xff)
	if second >= 0xa1 {
		second -= 0xa1 - 0x7f
	}
	return int(code>>8)*157 + second
}

// shiftJIS2004 decodes what JIS X 0213 has in common with JIS X 0208: rows up
// to 84 of its first plane. Behind them the tables at hand have other characters.
var shiftJIS2004 = except(exceptions["shiftjis2004"], func(dst, char []byte) ([]byte, bool) {
	if char[0] >= 0xeb {
		return dst, false
	}
	return decodeSJIS(dst, char)
})

var eucJIS2004 = except(exceptions["eucjis2004"], func(dst, char []byte) ([]byte, bool) {
	if char[0] == 0x8f || char[0] > 0xa0+84 {
		return dst, false
	}
	return decodeEUCJP(dst, char)
})

// mule decodes MULE_INTERNAL: a byte that names a character set, and the
// character in it with the high bits set.
func mule(dst, char []byte) ([]byte, bool) {
	var single *charmap.Charmap
	switch char[0] {
	case 0x81:
		single = charmap.ISO8859_1
	case 0x82:
		single = charmap.ISO8859_2
	case 0x83:
		single = charmap.ISO8859_3
	case 0x84:
		single = charmap.ISO8859_4
	case 0x8b:
		single = charmap.KOI8R
	case 0x8c:
		single = charmap.ISO8859_5
	case 0x8d:
		single = charmap.ISO8859_9
	case 0x91:
		return decodeEUCCN(dst, char[1:])
	case 0x92:
		return decodeEUCJP(dst, char[1:])
	case 0x93:
		return decodeEUCKR(dst, char[1:])
	case 0x94:
		return decodeEUCJP(dst, []byte{0x8f, char[1], char[2]})
	}
	if single == nil || char[1] < 0xa0 {
		return dst, false
	}
	r := single.DecodeByte(char[1])
	return utf8.AppendRune(dst, r), r != utf8.RuneError
}

// The letters of Hangul by their five bits in JOHAB: their place in Unicode's
// order plus one, 0 for none.
var (
	johabInitial = [32]uint8{2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7, 9: 8, 10: 9, 11: 10, 12: 11, 13: 12, 14: 13, 15: 14, 16: 15, 17: 16, 18: 17, 19: 18, 20: 19}
	johabMedial  = [32]uint8{3: 1, 4: 2, 5: 3, 6: 4, 7: 5, 10: 6, 11: 7, 12: 8, 13: 9, 14: 10, 15: 11, 18: 12, 19: 13, 20: 14, 21: 15, 22: 16, 23: 17, 26: 18, 27: 19, 28: 20, 29: 21}
	johabFinal   = [32]uint8{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 10: 10, 11: 11, 12: 12, 13: 13, 14: 14, 15: 15, 16: 16, 17: 17, 19: 18, 20: 19, 21: 20, 22: 21, 23: 22, 24: 23, 25: 24, 26: 25, 27: 26, 28: 27, 29: 28}
)

// johab decodes syllables: a bit that is set, and five bits for each letter.
func johab(dst, char []byte) ([]byte, bool) {
	if len(char) != 2 {
		return dst, false
	}
	code := uint16(char[0])<<8 | uint16(char[1])
	initial, medial, final := johabInitial[code>>10&31], johabMedial[code>>5&31], johabFinal[code&31]
	if initial == 0 || medial == 0 || final == 0 {
		return dst, false
	}
	r := 0xac00 + (rune(initial-1)*21+rune(medial-1))*28 + rune(final-1)
	return utf8.AppendRune(dst, r), true
}
