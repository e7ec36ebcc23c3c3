package sink

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

// A natsServer is a running nats-server with JetStream.
type natsServer struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
}

func newNATS(t *testing.T) *natsServer {
	t.Helper()
	if _, err := exec.LookPath("nats-server"); err != nil {
		t.Fatal("nats-server is missing: scripts/setup test installs it")
	}
	n := &natsServer{t: t, dir: t.TempDir()}
	var err error
	if n.addr, err = pgserver.FreeAddr(); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(n.addr)
	conf := fmt.Sprintf("host: %q\nport: %s\nmax_payload: 65536\njetstream { store_dir: %q }\nauthorization { user: log, password: pw }\n", host, port, n.dir)
	if err := os.WriteFile(filepath.Join(n.dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.kill)
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	n.cmd = exec.CommandContext(n.t.Context(), "nats-server", "-c", filepath.Join(n.dir, "conf"))
	var out bytes.Buffer
	n.cmd.Stdout, n.cmd.Stderr = &out, &out
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := n.connect(); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("nats-server does not listen:\n%s", out.Bytes())
		}
	}
}

func (n *natsServer) connect() (*nats.Conn, error) {
	return nats.Connect("nats://"+n.addr, nats.UserInfo("log", "pw"), nats.Timeout(time.Minute))
}

// kill ends it as a crash would.
func (n *natsServer) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

// stream makes a stream of the subjects.
func (n *natsServer) stream(ctx context.Context, subjects ...string) jetstream.Stream {
	n.t.Helper()
	c, err := n.connect()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // 5 s without
	defer cancel()
	s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "AUDIT", Subjects: subjects, Storage: jetstream.FileStorage, MaxMsgSize: 60_000})
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// indexes reads what a stream has of a subject.
func indexes(t *testing.T, s jetstream.Stream, subject string) (all []int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	info, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq > 0 && seq <= info.State.LastSeq; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != subject {
			continue
		}
		i, err := strconv.ParseInt(m.Header.Get("Pgnotary-Index"), 10, 64)
		if err != nil || m.Header.Get("Pgnotary-Origin") != "example.com/log" || !bytes.Contains(m.Data, fmt.Appendf(nil, `"index":%d,`, i)) {
			t.Fatalf("message %d: %v, %.200s", seq, m.Header, m.Data)
		}
		all = append(all, i)
	}
	return all
}

// TestNATS sends to a real server, which is killed under load and comes back:
// the stream then has every record once and in order.
func TestNATS(t *testing.T) {
	n := newNATS(t)
	n.start()
	n.stream(t.Context(), "audit.pg")
	s := newSource(t)
	k := s.sink(NewNATS(NATSConfig{Server: n.addr, Subject: "audit.pg", User: "log", Password: "pw", Origin: "example.com/log"}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	await := func(what string, until func() bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !until(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, k.Numbers())
			}
		}
	}
	var want []int64
	load := func(count int) {
		for range count {
			want = append(want, s.statement(fmt.Sprint("SELECT ", len(want))))
		}
	}
	load(1200)
	await("sent", sent(k, 1))
	n.kill()
	load(300)
	await("away", func() bool { return k.Numbers().Failures > 0 })
	n.start()
	load(300)
	want = append(want, s.statement("SELECT '"+strings.Repeat("z", 100_000)+"'")) // larger than the server takes
	want = append(want, s.statement("SELECT '"+strings.Repeat("y", 62_000)+"'"))  // than the stream takes
	load(100)
	await("all sent", func() bool { return k.Numbers().Lag <= 0 && k.Numbers().Next > want[len(want)-1] })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got := indexes(t, n.stream(t.Context(), "audit.pg"), "audit.pg")
	if !slices.Equal(got, want) {
		t.Errorf("the stream has %d records, want %d, once and in order", len(got), len(want))
	}
	if k.Numbers().Shortened != 2 {
		t.Errorf("%+v, want two shortened", k.Numbers())
	}
}

// TestNATSShared holds that others may publish to the same stream.
func TestNATSShared(t *testing.T) {
	n := newNATS(t)
	n.start()
	stream := n.stream(t.Context(), "audit.>")
	c, err := n.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := newSource(t)
	var want []int64
	for i := range batchRecords + 50 {
		want = append(want, s.statement(fmt.Sprint("SELECT ", i)))
	}
	stop, others := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(others)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			m := nats.NewMsg("audit.other")
			m.Header.Set(nats.MsgIdHdr, fmt.Sprint("other ", i))
			if _, err := c.RequestMsg(m, 2*time.Minute); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	k := s.sink(NewNATS(NATSConfig{Server: n.addr, Subject: "audit.pg", User: "log", Password: "pw", Origin: "example.com/log"}))
	run(t, k, sent(k, uint64(len(want))))
	close(stop)
	<-others
	if got := indexes(t, stream, "audit.pg"); !slices.Equal(got, want) {
		t.Errorf("the stream has %d records, want %d, once and in order", len(got), len(want))
	}
}
