package sink

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

// An rsyslog is a running rsyslogd that takes RFC 5424 over TLS.
type rsyslog struct {
	t    *testing.T
	dir  string
	addr string
	ca   []byte
	cmd  *exec.Cmd
}

func newRsyslog(t *testing.T) *rsyslog {
	t.Helper()
	if _, err := exec.LookPath("rsyslogd"); err != nil {
		t.Fatal("rsyslogd is missing: scripts/setup test installs it")
	}
	r := &rsyslog{t: t, dir: t.TempDir()}
	ca, err := pgserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Server()
	if err != nil {
		t.Fatal(err)
	}
	r.ca = ca.PEM()
	for name, content := range map[string][]byte{"ca.pem": r.ca, "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(r.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r.addr, err = pgserver.FreeAddr(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(r.addr)
	conf := strings.NewReplacer("DIR", r.dir, "PORT", port).Replace(`
global(workDirectory="DIR" maxMessageSize="64k" DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile="DIR/ca.pem"
       DefaultNetstreamDriverCertFile="DIR/cert.pem" DefaultNetstreamDriverKeyFile="DIR/key.pem")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
input(type="imtcp" address="127.0.0.1" port="PORT")
template(name="parts" type="string" string="%pri% %protocol-version% %timereported:::date-rfc3339% %app-name% %msgid% %structured-data% %msg%\n")
action(type="omfile" file="DIR/out" template="parts")
`)
	if err := os.WriteFile(filepath.Join(r.dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kill)
	return r
}

func (r *rsyslog) start() {
	r.t.Helper()
	r.cmd = exec.CommandContext(r.t.Context(), "rsyslogd", "-n", "-f", filepath.Join(r.dir, "conf"), "-i", filepath.Join(r.dir, "pid"))
	var out bytes.Buffer
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", r.addr); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("rsyslogd does not listen:\n%s", out.Bytes())
		}
	}
}

// kill ends it as a crash would.
func (r *rsyslog) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
		_ = os.Remove(filepath.Join(r.dir, "pid"))
	}
}

// received returns how often each index came, and the lines.
func (r *rsyslog) received() (times map[int64]int, lines []string) {
	r.t.Helper()
	times = make(map[int64]int)
	b, err := os.ReadFile(filepath.Join(r.dir, "out"))
	if err != nil {
		return times, nil
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		_, object, ok := strings.Cut(s.Text(), "] {")
		var o struct{ Index int64 }
		if !ok || json.Unmarshal([]byte("{"+object), &o) != nil {
			continue // cut off by the kill
		}
		times[o.Index]++
		lines = append(lines, s.Text())
	}
	return times, lines
}

// TestRsyslog sends to a real receiver over TLS, which is killed under load and
// comes back: nothing is missing, and what it parsed is what was meant.
func TestRsyslog(t *testing.T) {
	r := newRsyslog(t)
	s := newSource(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.ca)
	k := s.sink(NewSyslog(r.addr, &tls.Config{RootCAs: roots}, "my host", `v"1]`), func(c *Config) { c.MaxRecord = 16 << 10 })
	r.start()
	var want []int64
	load := func(what string, until func() bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !until(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, k.Numbers())
			}
			want = append(want, s.statement(fmt.Sprintf("SELECT %d, 'line\nbreak'", len(want))))
		}
	}
	sentMore := func() func() bool {
		before := k.Numbers().Sent
		return func() bool { return k.Numbers().Sent >= before+100 }
	}
	done := make(chan struct{})
	arrived := make(chan struct{})
	go func() {
		defer close(done)
		run(t, k, func() bool {
			select {
			case <-arrived:
				return true
			default:
				return false
			}
		})
	}()
	load("begin", sentMore())
	want = append(want, s.statement("SELECT '"+strings.Repeat("z", 100_000)+"'"))
	load("a large one", sentMore())
	r.kill()
	load("while the receiver is away", func() bool {
		n := k.Numbers()
		return n.Failures > 0 && n.Lag > 0
	})
	r.start()
	load("back", sentMore())
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		times, _ := r.received()
		missing := 0
		for _, i := range want {
			if times[i] == 0 {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d of %d are missing: %+v", missing, len(want), k.Numbers())
			break
		}
	}
	close(arrived)
	<-done
	_, lines := r.received()
	if !strings.HasPrefix(lines[0], "110 1 ") || !strings.Contains(lines[0], ` pgnotary query [origin software="pgnotary" swVersion="v\"1\]"][meta sequenceId="`) ||
		!strings.Contains(lines[0], `{"origin":"example.com/log","index":`) {
		t.Errorf("received %s", lines[0])
	}
	t.Logf("%d statements, %d messages", len(want), len(lines))
}
