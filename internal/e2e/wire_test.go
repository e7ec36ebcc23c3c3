package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
)

// leaves fetches the leaves under the latest checkpoint by HTTP, as a mirror of the log would: bundles of entries, each with its length in front.
func (n *notary) leaves(t *testing.T) []event.Leaf {
	t.Helper()
	lines := strings.Split(string(n.get(t, "/log/checkpoint")), "\n")
	if len(lines) < 3 {
		t.Fatalf("checkpoint %q", lines)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var all []event.Leaf
	for from := int64(0); from < size; from += 256 {
		path := fmt.Sprintf("%03d", from/256%1000)
		for rest := from / 256 / 1000; rest > 0; rest /= 1000 {
			path = fmt.Sprintf("x%03d/", rest%1000) + path
		}
		if size-from < 256 {
			path += fmt.Sprintf(".p/%d", size-from)
		}
		for b := n.get(t, "/log/tile/entries/"+path); len(b) > 0; {
			length := int(binary.BigEndian.Uint16(b))
			l, err := event.Parse(b[2 : 2+length])
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, l)
			b = b[2+length:]
		}
	}
	if int64(len(all)) != size {
		t.Fatalf("%d leaves, want %d", len(all), size)
	}
	return all
}

func (n *notary) get(t *testing.T, path string) []byte {
	t.Helper()
	r, err := http.Get("http://" + n.http + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", path, r.Status, err)
	}
	return b
}

// recorded builds from the log what tshark should have seen on the server's side of each session.
func recordedStreams(t *testing.T, leaves []event.Leaf, records []record) (all []*stream, counts [2]map[byte]int) {
	t.Helper()
	byIndex := map[int64]*record{}
	for i := range records {
		byIndex[records[i].Index] = &records[i]
	}
	counts = [2]map[byte]int{{}, {}}
	bySession := map[uint64]*stream{}
	for i, l := range leaves {
		if l.Session == 0 {
			continue
		}
		if l.Kind == event.KindConnect {
			s := &stream{client: l.Who.Application}
			s.add(0, '0')
			counts[0]['0']++
			bySession[l.Session] = s
			all = append(all, s)
		}
		s := bySession[l.Session]
		if s == nil {
			continue // refused before it had a connection to the server
		}
		side := 1
		switch l.Kind {
		case event.KindQuery, event.KindParse, event.KindBind, event.KindExecute, event.KindFunctionCall, event.KindDisconnect:
			side = 0
		case event.KindCopy:
			side = 0
			fallthrough
		case event.KindReplication:
			counts[copySide(&l)]['d'] += int(l.Rows)
		}
		if l.Kind == event.KindOutcome {
			counts[1]['D'] += int(l.Rows)
		}
		for _, letter := range l.Msgs {
			s.add(side, letter)
			if letter != 'd' && (letter != 'D' || side == 0) { // of which the entries say how many
				counts[side][letter]++
			}
		}
		if side == 0 && l.Kind != event.KindCopy && l.Kind != event.KindDisconnect {
			r := byIndex[int64(i)]
			if r == nil {
				t.Errorf("entry %d (%s) is not among the records", i, l.Kind)
				continue
			}
			s.admit(&l, r)
		}
	}
	return all, counts
}

func copySide(l *event.Leaf) int {
	for _, f := range l.Facts {
		if f.Key == "direction" && f.Val == "out" {
			return 1
		}
	}
	return 0
}

// admit adds the texts and values that the messages of an admission brought.
func (s *stream) admit(l *event.Leaf, r *record) {
	s.malformed = s.malformed || r.Malformed
	if bytes.ContainsAny(l.Msgs, "QP") && r.Statement != "" { // an empty one tshark does not show
		s.texts = append(s.texts, asTshark(r.Statement))
	}
	if !bytes.ContainsAny(l.Msgs, "BF") {
		return
	}
	for _, p := range r.Params {
		raw, err := base64.StdEncoding.DecodeString(p.Raw)
		switch {
		case err != nil:
			s.values = append(s.values, err.Error())
		case p.Value == nil:
			s.values = append(s.values, "NULL")
		default:
			s.values = append(s.values, hex.EncodeToString(raw))
		}
	}
}

// asTshark writes a text as tshark prints it: control characters escaped, each byte that is not ASCII replaced.
func asTshark(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		switch {
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\r':
			b.WriteString(`\r`)
		case c >= 0x80:
			b.WriteRune('\uFFFD')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// key is what two descriptions of a session must share. What tshark makes of a message that is malformed is its own.
func (s *stream) key(content bool) string {
	k := s.frontend + "\x00" + s.backend
	if content {
		k += "\x00" + strings.Join(s.texts, "\x00") + "\x00" + strings.Join(s.values, "\x00")
	}
	return k
}

func (s *stream) String() string {
	return fmt.Sprintf("client %.300q server %.300q texts %.600q values %.600q", s.frontend, s.backend, s.texts, s.values)
}

// compareStreams demands that the sessions tshark saw on their way to the server and the recorded ones are the same:
// each message, in its order, with texts and values. Only where the server ended a session may there be records of what
// it was not sent any more. Their letters are returned.
func compareStreams(t *testing.T, seen, recorded []*stream) (unsent string) {
	t.Helper()
	byKey := map[string][]*stream{}
	for _, s := range recorded {
		byKey[s.key(!s.malformed)] = append(byKey[s.key(!s.malformed)], s)
	}
	matched := map[*stream]bool{}
	match := func(s *stream, k string) bool {
		n := len(byKey[k])
		if n > 0 {
			matched[s], matched[byKey[k][n-1]] = true, true
			byKey[k] = byKey[k][:n-1]
		}
		return n > 0
	}
	for _, s := range seen {
		if match(s, s.key(true)) || match(s, s.key(false)) {
			continue
		}
		for _, r := range recorded {
			if !matched[r] && s.endedBefore(r) {
				matched[s] = match(r, r.key(true))
				unsent += r.frontend[len(s.frontend):]
				break
			}
		}
		if !matched[s] {
			t.Errorf("seen on a connection to the server, not recorded so: %v%s", s, differences(s, recorded))
		}
	}
	for _, s := range recorded {
		if !matched[s] {
			t.Errorf("recorded, not seen so on a connection to the server: %v%s", s, differences(s, seen))
		}
	}
	return unsent
}

// endedBefore says that r is s and more, where the server ended s by an error.
func (s *stream) endedBefore(r *stream) bool {
	return s.backend == r.backend && strings.HasSuffix(s.backend, "E") && strings.HasPrefix(r.frontend, s.frontend) &&
		len(s.texts) <= len(r.texts) && slices.Equal(s.texts, r.texts[:len(s.texts)]) &&
		len(s.values) <= len(r.values) && slices.Equal(s.values, r.values[:len(s.values)])
}

// differences says where s differs from those with the same beginning.
func differences(s *stream, from []*stream) string {
	for _, f := range from {
		if f.key(false) != s.key(false) {
			continue
		}
		for i := range max(len(s.texts), len(f.texts)) {
			if i >= len(s.texts) || i >= len(f.texts) || s.texts[i] != f.texts[i] {
				return fmt.Sprintf("\n%d texts and %d; text %d differs: %.300q, %.300q", len(s.texts), len(f.texts), i, s.texts[i:min(i+1, len(s.texts))], f.texts[i:min(i+1, len(f.texts))])
			}
		}
		for i := range max(len(s.values), len(f.values)) {
			if i >= len(s.values) || i >= len(f.values) || s.values[i] != f.values[i] {
				return fmt.Sprintf("\n%d values and %d; value %d differs: %.300q, %.300q", len(s.values), len(f.values), i, s.values[i:min(i+1, len(s.values))], f.values[i:min(i+1, len(f.values))])
			}
		}
	}
	return "\nno other session has the same messages"
}

// byClient says which messages each client and its servers sent.
func byClient(all []*stream) string {
	letters := map[string][2]string{}
	for _, s := range all {
		l := letters[s.client]
		l[0], l[1] = l[0]+s.frontend, l[1]+s.backend
		letters[s.client] = l
	}
	set := func(text string) string { return string(slices.Compact(slices.Sorted(slices.Values([]byte(text))))) }
	var b strings.Builder
	for _, client := range slices.Sorted(maps.Keys(letters)) {
		fmt.Fprintf(&b, "%-24.24s %-16s %s\n", client, set(letters[client][0]), set(letters[client][1]))
	}
	return b.String()
}

// compareCounts compares how many messages of each kind went by, and prints both.
func compareCounts(t *testing.T, seen, recorded [2]map[byte]int) {
	t.Helper()
	var b strings.Builder
	for side, name := range []string{"client", "server"} {
		for _, letter := range slices.Sorted(maps.Keys(seen[side])) {
			fmt.Fprintf(&b, "%s %c  seen %7d  recorded %7d\n", name, letter, seen[side][letter], recorded[side][letter])
		}
		if !maps.Equal(seen[side], recorded[side]) {
			t.Errorf("messages of the %s: seen %v, recorded %v", name, seen[side], recorded[side])
		}
	}
	t.Logf("messages by kind, as tshark saw them on the server's connections and as recorded:\n%s", b.String())
}
