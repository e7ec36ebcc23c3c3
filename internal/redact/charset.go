package redact

// A charset says how long characters are. It matters only for the encodings in which a byte
// below 0x80 can be the second half of a character; all of them are
// client encodings only, and the server converts before it lexes.
type charset uint8

const (
	charsetSafe    charset = iota // UTF8, LATIN1, EUC_*...: high bytes only
	charsetTwo                    // BIG5, GBK, UHC: a high byte and any other
	charsetSJIS                   // as charsetTwo, but for single bytes 0xA1-0xDF
	charsetJOHAB                  // as charsetTwo, but three bytes after 0x8F
	charsetGB18030                // two bytes, four if the second is a digit
)

// charsetOf knows the names and aliases of PostgreSQL, which compares letters and digits only.
func charsetOf(name string) charset {
	var buf [16]byte
	n := 0
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if 'a' <= c && c <= 'z' || digit(c) {
			if n == len(buf) {
				return charsetSafe
			}
			buf[n] = c
			n++
		}
	}
	switch string(buf[:n]) {
	case "big5", "win950", "windows950", "gbk", "win936", "windows936", "uhc", "win949", "windows949":
		return charsetTwo
	case "sjis", "shiftjis", "mskanji", "win932", "windows932", "shiftjis2004":
		return charsetSJIS
	case "johab":
		return charsetJOHAB
	case "gb18030":
		return charsetGB18030
	}
	return charsetSafe
}

// width returns how many bytes the character at p has. It may reach behind the end.
func (s charset) width(b []byte, p int) int {
	c := b[p]
	if c < 0x80 || s == charsetSafe {
		return 1
	}
	switch {
	case s == charsetSJIS && 0xa1 <= c && c <= 0xdf:
		return 1
	case s == charsetJOHAB && c == 0x8f:
		return 3
	case s == charsetGB18030 && p+1 < len(b) && digit(b[p+1]):
		return 4
	}
	return 2
}
