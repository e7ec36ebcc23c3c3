package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// limitMemory makes the kernel refuse the process more than so many bytes of data, as a small machine would.
func (n *notary) limitMemory(t *testing.T, limit uint64) {
	t.Helper()
	if err := unix.Prlimit(n.cmd.Process.Pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		t.Fatal(err)
	}
}

// sink is a server that reads everything, keeps nothing, and says that all went well.
func sink(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ready, done := pgraw.Msg('Z', "I"), append(pgraw.Msg('C', "SELECT 1", 0), pgraw.Msg('Z', "I")...)
	serve := func(c net.Conn) {
		defer c.Close()
		var head [5]byte
		if _, err := io.ReadFull(c, head[:4]); err != nil {
			return
		}
		startup := make([]byte, binary.BigEndian.Uint32(head[:4])-4)
		if _, err := io.ReadFull(c, startup); err != nil {
			return
		}
		if _, err := c.Write(append(append(pgraw.Msg('R', int32(0)), pgraw.Msg('K', int32(1), int32(2))...), ready...)); err != nil {
			return
		}
		for {
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			body := io.LimitReader(c, int64(binary.BigEndian.Uint32(head[1:]))-4)
			first := make([]byte, 4)
			k, _ := io.ReadFull(body, first)
			if _, err := io.Copy(io.Discard, body); err != nil {
				return
			}
			var answer []byte
			switch {
			case head[0] == 'Q' && string(first[:k]) == "COPY":
				answer = pgraw.Msg('G', 0, int16(0))
			case head[0] == 'Q', head[0] == 'c':
				answer = done
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// TestGigabyte sends single messages of 900 MiB through a pgnotary that may have 256 MiB of memory.
func TestGigabyte(t *testing.T) {
	const size, most = 900 << 20, 256 << 20
	t.Setenv("GOMEMLIMIT", "64MiB")
	n := start(t, sink(t))
	n.limitMemory(t, most)
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	send := func(typ byte, head, tail string) {
		t.Helper()
		packet := append(binary.BigEndian.AppendUint32([]byte{typ}, size+4), head...)
		body := io.MultiReader(bytes.NewReader(packet), io.LimitReader(endless('y'), int64(size-len(head)-len(tail))), strings.NewReader(tail))
		if _, err := io.CopyBuffer(struct{ io.Writer }{c.Conn}, body, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	until := func(typ byte) {
		t.Helper()
		if _, err := c.Until(typ); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"CopyData", func() {
			if err := c.Send(query("COPY t FROM STDIN")); err != nil {
				t.Fatal(err)
			}
			until('G')
			send('d', "", "\n")
			if err := c.Send(pgraw.CopyDone()); err != nil {
				t.Fatal(err)
			}
			until('Z')
		}},
		{"Query", func() { send('Q', "SELECT /*", "*/ 1\x00"); until('Z') }},
		{"Bind", func() {
			if err := c.Send(parse("", "SELECT $1")); err != nil {
				t.Fatal(err)
			}
			send('B', "\x00\x00\x00\x00\x00\x01"+string(binary.BigEndian.AppendUint32(nil, size-12)), "\x00\x00")
		}},
	} {
		began := time.Now()
		step.run()
		t.Logf("%s of %d MiB: %v, peak %d MiB", step.name, size>>20, time.Since(began).Round(time.Millisecond), n.peak(t)>>20)
	}
	if peak := n.peak(t); peak > 100<<20 {
		t.Errorf("pgnotary took %d MiB of memory", peak>>20)
	}
}

// TestDeclared has many clients say that a message of the largest size comes, and then send one byte of it.
func TestDeclared(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr())
	before := n.peak(t)
	const clients = 50
	for i := range clients {
		c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Conn.Close()
		if err := c.Send(binary.BigEndian.AppendUint32([]byte{"QPBFd"[i%5]}, 1<<30-2), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Query("SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if grown := n.peak(t) - before; grown > 30<<20 {
		t.Errorf("%d messages that were only begun took %d MiB", clients, grown>>20)
	}
}

// TestMalformed sends messages that a server refuses without ending the session: they pass unchanged, and the record says
// what they are.
func TestMalformed(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr())
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	rows := []struct {
		name   string
		packet []byte
		ok     bool // the server takes it all the same
	}{
		{"query without end", pgraw.Msg('Q', "SELECT 'm1'"), false},
		{"query with a zero byte", pgraw.Msg('Q', "SELECT 'm2'", 0, "SELECT 'm2b'", 0), false},
		{"empty query", pgraw.Msg('Q'), false},
		{"parse without end", pgraw.Msg('P', 0, "SELECT 'm3'"), false},
		{"parse with more behind", pgraw.Msg('P', 0, "SELECT 'm4'", 0, int16(0), "more"), false},
		{"parse with too few types", pgraw.Msg('P', 0, "SELECT 'm5'", 0, int16(3), int32(23)), false},
		{"bind without end", pgraw.Msg('B', "portal"), false},
		{"bind with a negative length", pgraw.Msg('B', 0, 0, int16(0), int16(1), int32(-2), int16(0)), false},
		{"bind with a long value", pgraw.Msg('B', 0, 0, int16(0), int16(1), int32(100), "short"), false},
		{"bind with more behind", pgraw.Msg('B', 0, 0, int16(0), int16(0), int16(0), "more"), false},
		{"execute without limit", pgraw.Msg('E', 0), false},
		{"execute with more behind", pgraw.Msg('E', 0, int32(0), "more"), false},
		{"function call without end", pgraw.Msg('F', int32(1397), int16(1)), false},
		{"function call with more behind", pgraw.Msg('F', int32(1397), int16(0), int16(1), int32(2), "-5", int16(0), "more"), false},
	}
	for _, row := range rows {
		packets := [][]byte{row.packet}
		if typ := row.packet[0]; typ != 'Q' && typ != 'F' {
			packets = append(packets, sync())
		}
		if err := c.Send(packets...); err != nil {
			t.Fatal(err)
		}
		ms, err := c.Until('Z')
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		if ms[0].Type != 'E' {
			t.Errorf("%s: the server answers %v", row.name, ms[0])
		}
	}
	if _, err := c.Query("SELECT 'well-formed'"); err != nil {
		t.Errorf("the session ended: %v", err)
	}
	c.Close()
	var got []record
	for _, r := range n.finish(t) {
		switch r.Kind {
		case "query", "parse", "bind", "execute", "function_call":
			got = append(got, r)
		}
	}
	if len(got) != len(rows)+1 {
		t.Fatalf("%d statements, want %d", len(got), len(rows)+1)
	}
	for i, row := range rows {
		if !got[i].Malformed {
			t.Errorf("%s: recorded as %s, not as malformed", row.name, got[i])
		}
	}
	if got[len(rows)].Malformed {
		t.Error("a well-formed statement is said to be malformed")
	}
}

// TestSmuggled does what a client with a wrapped length does: the messages in its value are run by the server, and are in the
// record as what they were, in the order of the server's own log.
func TestSmuggled(t *testing.T) {
	s := pgtest.Start(t, pgserver.Options{Settings: map[string]string{"log_statement": "all", "log_line_prefix": "LINE "}})
	n := start(t, s.Addr())
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	// The driver declares the length of its Bind in 32 bits: 4 GiB and 17 bytes become 17, and the Bind ends within its value.
	if err := c.Send(parse("", "SELECT $1::text"), pgraw.Msg('B', 0, 0, int16(0), int16(1), int32(1), "A", int16(0)), query("CREATE TABLE smuggled (i int)"),
		query("INSERT INTO smuggled VALUES (1)"), sync()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Until('Z'); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if out, err := s.Psql(t.Context(), "postgres", "SELECT count(*) FROM smuggled"); err != nil || out != "1\n" {
		t.Errorf("the server did not run it: %q, %v", out, err)
	}
	all := n.finish(t)
	find(t, all, "CREATE TABLE smuggled")
	compareWithServer(t, s, all, "INTO smuggled")
}

// compareWithServer holds the record to the statements with a mark that the server's log has.
func compareWithServer(t *testing.T, s *pgserver.Server, all []record, mark string) {
	t.Helper()
	log, err := os.ReadFile(s.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	ran, recorded := 0, map[string]int{}
	for _, r := range statements(all) {
		recorded[r.Statement]++
	}
	for line := range strings.Lines(string(log)) {
		line, whole := strings.CutSuffix(line, "\n") // what the server runs of a dead proxy's is still being written
		_, sql, ok := strings.Cut(line, "LOG:  statement: ")
		if !whole || !ok || !strings.Contains(sql, mark) {
			continue
		}
		ran++
		if recorded[sql]--; recorded[sql] < 0 {
			t.Errorf("the server ran %q, which is not recorded", sql)
		}
	}
	if ran == 0 {
		t.Error("the server's log has no statement")
	}
	t.Logf("%d statements in the server's log, each recorded", ran)
}

// TestDiskFullMidPipeline lets the log's disk run full while a client has sent far more than was answered: what the
// server itself says it ran is recorded, all of it.
func TestDiskFullMidPipeline(t *testing.T) {
	s := pgtest.Start(t, pgserver.Options{Settings: map[string]string{"log_statement": "all", "log_line_prefix": "LINE "}})
	disk := smallDisk(t, "20m")
	n := startIn(t, filepath.Join(disk, "data"), s.Addr())
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	go func() { // writes on until the connection ends
		padding := strings.Repeat("padding ", 100)
		for id := 0; ; id++ {
			if err := c.Send(query(fmt.Sprintf("SELECT 'pipelined (%d)' -- %s", id, padding))); err != nil {
				return
			}
		}
	}()
	var refusal []byte
	for answered := 0; ; answered++ {
		ms, err := c.Until('Z')
		for _, m := range ms {
			if m.Type == 'E' {
				refusal = m.Body
			}
		}
		if err != nil {
			t.Logf("%d statements were answered, then: %v", answered, err)
			break
		}
	}
	if code := pgraw.Field(refusal, 'C'); code != "53100" {
		t.Errorf("refusal: %q, want 53100", refusal)
	}
	<-n.done
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	n.launch(t)
	compareWithServer(t, s, n.finish(t), "pipelined (")
}

// TestPasswords sends passwords in SQL that is too large to be held, and that the server refuses and quotes.
func TestPasswords(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr())
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pad := strings.Repeat("-- padding\n", 100_000)
	refusals := 0
	for _, packets := range [][][]byte{
		{query("CREATE ROLE p_small PASSWORD 'sesame-1'; DROP ROLE p_small")},
		{query(pad + "CREATE ROLE p_large PASSWORD 'sesame-2'; DROP ROLE p_large; SELECT 'large and whole'")},
		{parse("", pad+"CREATE ROLE p_parse PASSWORD 'sesame-3'"), bindText("", ""), execute("", 0), sync()},
		{query("DROP ROLE p_parse")},
		{query("ALTER ROLE postgres SET PASSWORD 'sesame-4'")},
		{query("CREATE ROLE p_bad PASSWORD 'sesame-5' 'sesame-6'")},
		{query("DO $$ BEGIN EXECUTE 'ALTER ROLE p_missing PASSWORD ''sesame-7'''; END $$")},
		{query(pad + "ALTER ROLE postgres SET PASSWORD 'sesame-8'")},
	} {
		if err := c.Send(packets...); err != nil {
			t.Fatal(err)
		}
		ms, err := c.Until('Z')
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			if m.Type == 'E' {
				refusals++
				t.Logf("%s: %s", pgraw.Field(m.Body, 'M'), pgraw.Field(m.Body, 'W'))
			}
		}
	}
	if refusals != 4 {
		t.Errorf("%d refusals, want 4", refusals)
	}
	c.Close()
	find(t, n.finish(t), "large and whole")
	noSecrets(t, n.data, "sesame")
}

// TestHostileTable holds docs/hostile.md to the tests it names.
func TestHostileTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "hostile.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([a-z0-9]+)\\.((?:Test|Fuzz)\\w+)(?:/([^`]+))?`").FindAllStringSubmatch(string(text), -1)
	if len(names) < 40 {
		t.Errorf("the table names %d tests", len(names))
	}
	for _, m := range names {
		files, err := filepath.Glob(filepath.Join("..", m[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(source, []byte("func "+m[2]+"("))
			if found && m[3] != "" {
				found = bytes.Contains(source, []byte(`"`+m[3]+`"`)) || strings.Contains(string(source), m[3])
			}
			if found {
				break
			}
		}
		if !found {
			t.Errorf("docs/hostile.md names %s, which is not there", m[0])
		}
	}
}
