package pgvalue

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
)

// OIDs of built-in types, as in the server's pg_type.dat.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt2Vector  = 22
	oidInt4        = 23
	oidRegproc     = 24
	oidText        = 25
	oidOid         = 26
	oidTid         = 27
	oidXid         = 28
	oidCid         = 29
	oidOidVector   = 30
	oidJSON        = 114
	oidXML         = 142
	oidPoint       = 600
	oidLseg        = 601
	oidPath        = 602
	oidBox         = 603
	oidPolygon     = 604
	oidLine        = 628
	oidCidr        = 650
	oidFloat4      = 700
	oidFloat8      = 701
	oidUnknown     = 705
	oidCircle      = 718
	oidMacaddr8    = 774
	oidMacaddr     = 829
	oidInet        = 869
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidInterval    = 1186
	oidTimetz      = 1266
	oidBit         = 1560
	oidVarbit      = 1562
	oidNumeric     = 1700
	oidRefcursor   = 1790
	oidCString     = 2275
	oidRecord      = 2249
	oidUUID        = 2950
	oidLSN         = 3220
	oidTSVector    = 3614
	oidJSONB       = 3802
	oidJSONPath    = 4072
	oidXid8        = 5069
	oidOid8        = 6437
)

// appendBinary appends the text form of a binary value. ok is false, and dst
// as it was, if the bytes are not a value of that type.
func appendBinary(dst []byte, oid uint32, b []byte, in nesting) (out []byte, ok bool) {
	start := len(dst)
	switch oid {
	case oidText, oidVarchar, oidBpchar, oidName, oidUnknown, oidJSON, oidXML, oidCString, oidRefcursor:
		return append(dst, in.text(b)...), true
	case oidJSONB, oidJSONPath:
		if len(b) > 0 && b[0] == 1 {
			return append(dst, in.text(b[1:])...), true
		}
	case oidBytea:
		return appendHex(dst, b), true
	case oidNumeric:
		out, ok = appendNumeric(dst, b)
	case oidInet, oidCidr:
		out, ok = appendInet(dst, b, oid == oidCidr)
	case oidBit, oidVarbit:
		out, ok = appendBits(dst, b)
	case oidPath, oidPolygon:
		out, ok = appendPath(dst, b, oid == oidPath)
	case oidInt2Vector, oidOidVector:
		out, ok = appendVector(dst, b, in)
	case oidRecord:
		out, ok = appendRecord(dst, b, in)
	case oidTSVector:
		out, ok = appendTSVector(dst, b, in)
	default:
		if out, ok = appendFixed(dst, oid, b); ok {
			break
		}
		switch elem, multi := rangeElement(oid); {
		case elem != 0 && multi:
			out, ok = appendMultirange(dst, elem, b, in)
		case elem != 0:
			out, ok = appendRange(dst, elem, b, in)
		case builtin()[oid].array:
			out, ok = appendArray(dst, b, in)
		}
	}
	if !ok {
		return dst[:start], false
	}
	return out, true
}

// sizes holds the length of values of the types appendFixed decodes.
var sizes = map[uint32]int{
	oidBool: 1, oidChar: 1, oidInt2: 2, oidInt4: 4, oidInt8: 8, oidOid: 4, oidXid: 4, oidCid: 4, oidRegproc: 4,
	2202: 4, 2203: 4, 2204: 4, 2205: 4, 2206: 4, 4089: 4, 4096: 4, 3734: 4, 3769: 4, // reg types
	oidXid8: 8, oidOid8: 8, oidLSN: 8, oidTid: 6, oidFloat4: 4, oidFloat8: 8, oidUUID: 16, oidMacaddr: 6, oidMacaddr8: 8,
	oidDate: 4, oidTime: 8, oidTimetz: 12, oidTimestamp: 8, oidTimestamptz: 8, oidInterval: 16,
	oidPoint: 16, oidLseg: 32, oidBox: 32, oidLine: 24, oidCircle: 24,
}

// appendFixed decodes the types whose values all have one length.
func appendFixed(dst []byte, oid uint32, b []byte) ([]byte, bool) {
	size := sizes[oid]
	if size == 0 || len(b) != size {
		return dst, false
	}
	switch oid {
	case oidBool:
		if b[0] != 0 {
			return append(dst, 't'), true
		}
		return append(dst, 'f'), true
	case oidChar:
		switch {
		case b[0] == 0:
			return dst, true
		case b[0] >= 0x80:
			return fmt.Appendf(dst, `\%03o`, b[0]), true
		}
		return append(dst, b[0]), true
	case oidInt2:
		return strconv.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(b))), 10), true
	case oidInt4:
		return strconv.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(b))), 10), true
	case oidInt8:
		return strconv.AppendInt(dst, int64(binary.BigEndian.Uint64(b)), 10), true
	case oidXid8, oidOid8:
		return strconv.AppendUint(dst, binary.BigEndian.Uint64(b), 10), true
	case oidLSN:
		return fmt.Appendf(dst, "%X/%X", binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])), true
	case oidTid:
		return fmt.Appendf(dst, "(%d,%d)", binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:])), true
	case oidFloat4:
		return appendFloat(dst, float64(math.Float32frombits(binary.BigEndian.Uint32(b))), 32), true
	case oidFloat8:
		return appendFloat(dst, float64At(b, 0), 64), true
	case oidUUID:
		for i, group := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
			if i > 0 {
				dst = append(dst, '-')
			}
			dst = hex.AppendEncode(dst, group)
		}
		return dst, true
	case oidMacaddr, oidMacaddr8:
		for i := range b {
			if i > 0 {
				dst = append(dst, ':')
			}
			dst = hex.AppendEncode(dst, b[i:i+1])
		}
		return dst, true
	case oidDate:
		return appendDate(dst, int32(binary.BigEndian.Uint32(b))), true
	case oidTime:
		return appendClock(dst, int64(binary.BigEndian.Uint64(b)))
	case oidTimetz:
		dst, ok := appendClock(dst, int64(binary.BigEndian.Uint64(b)))
		return appendZone(dst, -int64(int32(binary.BigEndian.Uint32(b[8:])))), ok
	case oidTimestamp, oidTimestamptz:
		return appendTimestamp(dst, int64(binary.BigEndian.Uint64(b)), oid == oidTimestamptz), true
	case oidInterval:
		return appendInterval(dst, int64(binary.BigEndian.Uint64(b)),
			int32(binary.BigEndian.Uint32(b[8:])), int32(binary.BigEndian.Uint32(b[12:]))), true
	case oidPoint:
		return appendPoint(dst, b), true
	case oidLseg:
		return append(appendPoint(append(appendPoint(append(dst, '['), b), ','), b[16:]), ']'), true
	case oidBox:
		return appendPoint(append(appendPoint(dst, b), ','), b[16:]), true
	case oidLine:
		dst = append(appendFloat(append(dst, '{'), float64At(b, 0), 64), ',')
		dst = append(appendFloat(dst, float64At(b, 8), 64), ',')
		return append(appendFloat(dst, float64At(b, 16), 64), '}'), true
	case oidCircle:
		dst = append(appendPoint(append(dst, '<'), b), ',')
		return append(appendFloat(dst, float64At(b, 16), 64), '>'), true
	}
	// What is left are numbers that name an object.
	return strconv.AppendUint(dst, uint64(binary.BigEndian.Uint32(b)), 10), true
}

func float64At(b []byte, i int) float64 {
	return math.Float64frombits(binary.BigEndian.Uint64(b[i:]))
}

func appendPoint(dst, b []byte) []byte {
	dst = append(appendFloat(append(dst, '('), float64At(b, 0), 64), ',')
	return append(appendFloat(dst, float64At(b, 8), 64), ')')
}

// appendFloat writes the shortest digits that read back the same, in the
// server's choice between plain and scientific notation.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
	for i := len(dst) - 1; i > start; i-- {
		if dst[i] != 'e' {
			continue
		}
		exp, _ := strconv.Atoi(string(dst[i+1:]))
		if limit := map[int]int{32: 6, 64: 15}[bits]; exp >= -4 && exp < limit {
			dst = strconv.AppendFloat(dst[:start], f, 'f', -1, bits)
		}
		break
	}
	return dst
}

// epoch is 2000-01-01 in Unix seconds, PostgreSQL's day 0.
const epoch = 946684800

func appendDate(dst []byte, days int32) []byte {
	switch days {
	case math.MaxInt32:
		return append(dst, "infinity"...)
	case math.MinInt32:
		return append(dst, "-infinity"...)
	}
	t := time.Unix(epoch+int64(days)*86400, 0).UTC()
	dst = appendDay(dst, t)
	if t.Year() <= 0 {
		dst = append(dst, " BC"...)
	}
	return dst
}

func appendDay(dst []byte, t time.Time) []byte {
	year := t.Year()
	if year <= 0 {
		year = 1 - year
	}
	return fmt.Appendf(dst, "%04d-%02d-%02d", year, t.Month(), t.Day())
}

func appendTimestamp(dst []byte, us int64, zone bool) []byte {
	switch us {
	case math.MaxInt64:
		return append(dst, "infinity"...)
	case math.MinInt64:
		return append(dst, "-infinity"...)
	}
	const day = 86400 * 1e6
	days, rest := us/day, us%day
	if rest < 0 {
		days, rest = days-1, rest+day
	}
	t := time.Unix(epoch+days*86400, 0).UTC()
	dst = append(appendDay(dst, t), ' ')
	dst, _ = appendClock(dst, rest)
	if zone {
		dst = append(dst, "+00"...)
	}
	if t.Year() <= 0 {
		dst = append(dst, " BC"...)
	}
	return dst
}

// appendClock writes microseconds since midnight; 24:00:00 is legal.
func appendClock(dst []byte, us int64) ([]byte, bool) {
	if us < 0 || us > 86400*1e6 {
		return dst, false
	}
	return appendHMS(dst, us), true
}

func appendHMS(dst []byte, us int64) []byte {
	s := us / 1e6
	dst = fmt.Appendf(dst, "%02d:%02d:%02d", s/3600, s/60%60, s%60)
	if frac := us % 1e6; frac != 0 {
		dst = fmt.Appendf(dst, ".%06d", frac)
		for dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
	}
	return dst
}

// appendZone writes seconds east of UTC as +HH, +HH:MM or +HH:MM:SS.
func appendZone(dst []byte, east int64) []byte {
	sign := byte('+')
	if east < 0 {
		sign, east = '-', -east
	}
	dst = fmt.Appendf(append(dst, sign), "%02d", east/3600)
	if east%3600 != 0 {
		dst = fmt.Appendf(dst, ":%02d", east/60%60)
	}
	if east%60 != 0 {
		dst = fmt.Appendf(dst, ":%02d", east%60)
	}
	return dst
}

// appendInterval writes an interval in the server's default style.
func appendInterval(dst []byte, us int64, days, months int32) []byte {
	switch {
	case us == math.MaxInt64 && days == math.MaxInt32 && months == math.MaxInt32:
		return append(dst, "infinity"...)
	case us == math.MinInt64 && days == math.MinInt32 && months == math.MinInt32:
		return append(dst, "-infinity"...)
	}
	first, negative := true, false
	for _, part := range []struct {
		n    int32
		unit string
	}{{months / 12, "year"}, {months % 12, "mon"}, {days, "day"}} {
		if part.n == 0 {
			continue
		}
		if !first {
			dst = append(dst, ' ')
		}
		// After a negative part, a positive one shows its sign.
		if negative && part.n > 0 {
			dst = append(dst, '+')
		}
		dst = fmt.Appendf(dst, "%d %s", part.n, part.unit)
		if part.n != 1 {
			dst = append(dst, 's')
		}
		first, negative = false, part.n < 0
	}
	if us == 0 && !first {
		return dst
	}
	if !first {
		dst = append(dst, ' ')
	}
	switch {
	case us == math.MinInt64: // its negation does not exist
		return append(dst, "-2562047788:00:54.775808"...)
	case us < 0:
		dst, us = append(dst, '-'), -us
	case negative:
		dst = append(dst, '+')
	}
	return appendHMS(dst, us)
}

// appendNumeric decodes digits in base 10,000.
func appendNumeric(dst, b []byte) ([]byte, bool) {
	if len(b) < 8 {
		return dst, false
	}
	n := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	scale := int(binary.BigEndian.Uint16(b[6:]))
	digits := b[8:]
	if len(digits) != 2*n || scale > 0x3fff {
		return dst, false
	}
	switch sign {
	case 0:
	case 0x4000:
		dst = append(dst, '-')
	case 0xc000:
		return append(dst, "NaN"...), true
	case 0xd000:
		return append(dst, "Infinity"...), true
	case 0xf000:
		return append(dst, "-Infinity"...), true
	default:
		return dst, false
	}
	// digit i stands for digits[i] * 10000^(weight-i).
	digit := func(i int) uint16 {
		if i < 0 || i >= n {
			return 0
		}
		return binary.BigEndian.Uint16(digits[2*i:])
	}
	for i := range n {
		if digit(i) > 9999 {
			return dst, false
		}
	}
	if weight < 0 {
		dst = append(dst, '0')
	}
	for i := 0; i <= weight; i++ {
		if i == 0 {
			dst = strconv.AppendUint(dst, uint64(digit(i)), 10)
		} else {
			dst = fmt.Appendf(dst, "%04d", digit(i))
		}
	}
	if scale == 0 {
		return dst, true
	}
	dst = append(dst, '.')
	end := len(dst) + scale
	for i := weight + 1; len(dst) < end; i++ {
		dst = fmt.Appendf(dst, "%04d", digit(i))
	}
	return dst[:end], true
}

// appendInet decodes inet and cidr: family (2 or 3), prefix length, flag,
// length of the address, address.
func appendInet(dst, b []byte, cidr bool) ([]byte, bool) {
	if len(b) < 4 || len(b) != 4+int(b[3]) || (b[0] != 2 || b[3] != 4) && (b[0] != 3 || b[3] != 16) {
		return dst, false
	}
	addr, ok := netip.AddrFromSlice(b[4:])
	if !ok || int(b[1]) > addr.BitLen() {
		return dst, false
	}
	if four := b[len(b)-4:]; b[0] == 3 && [12]byte(b[4:]) == [12]byte{} && (four[0] != 0 || four[1] != 0) { // to the server one of IPv4
		dst = netip.AddrFrom4([4]byte(four)).AppendTo(append(dst, "::"...))
	} else {
		dst = addr.AppendTo(dst)
	}
	if cidr || int(b[1]) != addr.BitLen() {
		dst = strconv.AppendUint(append(dst, '/'), uint64(b[1]), 10)
	}
	return dst, true
}

// appendBits decodes bit and varbit: count of bits, then the bits.
func appendBits(dst, b []byte) ([]byte, bool) {
	if len(b) < 4 {
		return dst, false
	}
	n, bits := int64(int32(binary.BigEndian.Uint32(b))), b[4:]
	if n < 0 || int64(len(bits)) != (n+7)/8 {
		return dst, false
	}
	for i := range n {
		dst = append(dst, '0'+bits[i/8]>>(7-i%8)&1)
	}
	return dst, true
}

// appendPath decodes path (a flag says whether it is closed) and polygon.
func appendPath(dst, b []byte, flagged bool) ([]byte, bool) {
	left, right := byte('('), byte(')')
	if flagged {
		if len(b) == 0 {
			return dst, false
		}
		if b[0] == 0 {
			left, right = '[', ']'
		}
		b = b[1:]
	}
	if len(b) < 4 || int64(len(b)-4) != 16*int64(int32(binary.BigEndian.Uint32(b))) {
		return dst, false
	}
	dst = append(dst, left)
	for i := 4; i < len(b); i += 16 {
		if i > 4 {
			dst = append(dst, ',')
		}
		dst = appendPoint(dst, b[i:])
	}
	return append(dst, right), true
}
