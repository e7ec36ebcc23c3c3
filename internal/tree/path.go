package tree

import (
	"fmt"
	"strconv"
	"strings"
)

// Entries is the level ParseTilePath gives for the path of an entry bundle.
const Entries = -1

// maxLevel is the highest level c2sp.org/tlog-tiles allows in a path.
const maxLevel = 63

// TilePath returns the path of a tile, as in tile/1/x001/067 or, with fewer
// than 256 hashes, tile/1/x001/067.p/8.
func TilePath(level int, n int64, width int) string {
	return path(strconv.Itoa(level), n, width)
}

// BundlePath returns the path of an entry bundle, as in tile/entries/x001/067.
func BundlePath(n int64, width int) string { return path("entries", n, width) }

func path(level string, n int64, width int) string {
	// Groups of three digits; all but the last have an x in front.
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	s = "tile/" + level + "/" + s
	if width != Width {
		s += ".p/" + strconv.Itoa(width)
	}
	return s
}

// ParseTilePath is the inverse of TilePath and BundlePath, which gives level
// Entries. It accepts exactly what they return.
func ParseTilePath(p string) (level int, n int64, width int, err error) {
	bad := fmt.Errorf("malformed tile path %.80q", p)
	rest, ok := strings.CutPrefix(p, "tile/")
	if !ok || len(p) > 80 {
		return 0, 0, 0, bad
	}
	name, rest, _ := strings.Cut(rest, "/")
	level = Entries
	if name != "entries" {
		if level, err = strconv.Atoi(name); err != nil || level < 0 || level > maxLevel {
			return 0, 0, 0, bad
		}
	}
	width = Width
	if digits, w, partial := strings.Cut(rest, ".p/"); partial {
		rest = digits
		if width, err = strconv.Atoi(w); err != nil || width < 1 || width >= Width {
			return 0, 0, 0, bad
		}
	}
	digits := strings.NewReplacer("x", "", "/", "").Replace(rest)
	if n, err = strconv.ParseInt(digits, 10, 64); err != nil || n < 0 {
		return 0, 0, 0, bad
	}
	// Whatever else could be spelled differently shows when it is spelled again.
	if again := TilePath(level, n, width); again != p && (level != Entries || BundlePath(n, width) != p) {
		return 0, 0, 0, bad
	}
	return level, n, width, nil
}
