package verb

import (
	"bytes"
	"encoding/binary"
)

// Names says what messages of a client give names to.
type Names struct {
	Lasting   bool // a statement or portal with a name, by Parse, Bind, PREPARE or DECLARE
	Statement bool // the unnamed statement
	Portal    bool // the unnamed portal
}

// NamesIn goes through a client's messages as they came over the wire. The last may be cut
// short; a name that is counts as one that lasts.
func NamesIn(frames []byte) (n Names) {
	const header = 5 // letter and length
	for len(frames) > header {
		size := 1 + int64(binary.BigEndian.Uint32(frames[1:]))
		m := frames[:min(size, int64(len(frames)))]
		if len(m) < header {
			break
		}
		switch body := m[header:]; m[0] {
		case 'P', 'B':
			switch {
			case bytes.IndexByte(body, 0) != 0:
				n.Lasting = true
			case m[0] == 'P':
				n.Statement = true
			default:
				n.Portal = true
			}
		case 'Q':
			v, _ := Of(body)
			n.Lasting = n.Lasting || v.Kind == Prepare || v.Kind == Declare
		}
		frames = frames[len(m):]
	}
	return n
}
