package sqllex

// A Charset says how long characters are. It matters only for the encodings in which a byte
// below 0x80 can be the second half of a character; all of them are
// client encodings only, and the server converts before it lexes.
type Charset uint8

const (
	CharsetSafe    Charset = iota // UTF8, LATIN1, EUC_*...: high bytes only
	CharsetTwo                    // BIG5, GBK, UHC: a high byte and any other
	CharsetSJIS                   // as CharsetTwo, but for single bytes 0xA1-0xDF
	CharsetJOHAB                  // as CharsetTwo, but three bytes after 0x8F
	CharsetGB18030                // two bytes, four if the second is a digit
)

// CharsetOf knows the names and aliases of PostgreSQL, which compares letters and digits only.
func CharsetOf(name string) Charset {
	var buf [16]byte
	n := 0
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if 'a' <= c && c <= 'z' || Digit(c) {
			if n == len(buf) {
				return CharsetSafe
			}
			buf[n] = c
			n++
		}
	}
	switch string(buf[:n]) {
	case "big5", "win950", "windows950", "gbk", "win936", "windows936", "uhc", "win949", "windows949":
		return CharsetTwo
	case "sjis", "shiftjis", "mskanji", "win932", "windows932", "shiftjis2004":
		return CharsetSJIS
	case "johab":
		return CharsetJOHAB
	case "gb18030":
		return CharsetGB18030
	}
	return CharsetSafe
}

// Width returns how many bytes the character at p has. It may reach behind the end.
func (s Charset) Width(b []byte, p int) int {
	c := b[p]
	if c < 0x80 || s == CharsetSafe {
		return 1
	}
	switch {
	case s == CharsetSJIS && 0xa1 <= c && c <= 0xdf:
		return 1
	case s == CharsetJOHAB && c == 0x8f:
		return 3
	case s == CharsetGB18030 && p+1 < len(b) && Digit(b[p+1]):
		return 4
	}
	return 2
}
