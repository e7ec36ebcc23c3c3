package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

const (
	largeSize = 300 << 20 // bytes of the COPYs and of the statement
	mostRSS   = 100 << 20 // what pgnotary may take for them
)

// TestLarge sends and receives much more than pgnotary may hold in memory.
func TestLarge(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr())
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	if _, err := c.Query("CREATE TEMP TABLE large (t text)"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		run  func(c *pgraw.Conn) error
	}{
		{"COPY from the client", largeCopyIn}, {"COPY to the client", largeCopyOut}, {"rows", largeRows}, {"query", largeQuery},
	} {
		begin := time.Now()
		if err := step.run(c); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		peak := n.peak(t)
		t.Logf("%s: %v, peak %d MiB", step.name, time.Since(begin).Round(time.Millisecond), peak>>20)
		if peak > mostRSS {
			t.Errorf("%s: pgnotary took %d MiB of memory, want at most %d", step.name, peak>>20, mostRSS>>20)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	n.stop(t)
	n.verify(t)
	checkBlob(t, n)
}

func largeCopyIn(c *pgraw.Conn) error {
	if err := c.Send(query("COPY large FROM STDIN WHERE false")); err != nil {
		return err
	}
	if _, err := c.Until('G'); err != nil {
		return err
	}
	row := append(bytes.Repeat([]byte("x"), 1023), '\n')
	message := pgraw.CopyData(bytes.Repeat(row, 1024))
	for sent := 0; sent < largeSize; sent += len(row) * 1024 {
		if err := c.Send(message); err != nil {
			return err
		}
	}
	if err := c.Send(pgraw.CopyDone()); err != nil {
		return err
	}
	_, err := c.SkipTo('Z')
	return err
}

func largeCopyOut(c *pgraw.Conn) error {
	return receive(c, fmt.Sprintf("COPY (SELECT repeat('x', 1023) FROM generate_series(1, %d)) TO STDOUT", largeSize>>10))
}

func largeRows(c *pgraw.Conn) error {
	return receive(c, fmt.Sprintf("SELECT repeat('x', 50000000) FROM generate_series(1, %d)", largeSize/50000000+1))
}

func receive(c *pgraw.Conn, sql string) error {
	if err := c.Send(query(sql)); err != nil {
		return err
	}
	got, err := c.SkipTo('Z')
	if err == nil && got < largeSize {
		err = fmt.Errorf("%d bytes came, want %d", got, largeSize)
	}
	return err
}

// largeStatement is a query as sent, in a form that can be read again and again.
func largeStatement() io.Reader {
	const head, tail = "SELECT length('", "')\x00"
	body := largeSize - len(head) - len(tail)
	packet := pgraw.Msg('Q')
	packet[1], packet[2], packet[3], packet[4] = (largeSize+4)>>24, (largeSize+4)>>16&0xff, (largeSize+4)>>8&0xff, (largeSize+4)&0xff
	return io.MultiReader(bytes.NewReader(packet), bytes.NewReader([]byte(head)), io.LimitReader(endless('y'), int64(body)), bytes.NewReader([]byte(tail)))
}

// endless is a row without end of one byte.
type endless byte

func (z endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(z)
	}
	return len(p), nil
}

func largeQuery(c *pgraw.Conn) error {
	if _, err := io.Copy(c.Conn, largeStatement()); err != nil {
		return err
	}
	_, err := c.SkipTo('Z')
	return err
}

// checkBlob finds the large statement in the data directory, byte by byte as it was sent.
func checkBlob(t *testing.T, n *notary) {
	t.Helper()
	want := sha256.New()
	if _, err := io.Copy(want, largeStatement()); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(n.data, "blob", "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("blobs %v, %v, want one", names, err)
	}
	f, err := os.Open(names[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := sha256.New()
	if _, err := io.Copy(got, f); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("the blob is not the statement as sent")
	}
}
