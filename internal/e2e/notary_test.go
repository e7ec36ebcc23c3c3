package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// patience is how long a test waits for what has to come: no test passes slower by it.
const patience = 2 * time.Minute

// A notary is a running pgnotary serve.
type notary struct {
	addr string // where clients connect
	http string
	data string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	args []string
	log  string // its standard error
}

// start starts pgnotary in front of a server with a new data directory. When the test
// ends it is stopped and its log must verify.
func start(t *testing.T, upstream string, args ...string) *notary {
	t.Helper()
	return startIn(t, filepath.Join(t.TempDir(), "data"), upstream, args...)
}

// startIn is start with a data directory that may hold a log.
func startIn(t *testing.T, data, upstream string, args ...string) *notary {
	t.Helper()
	n := &notary{data: data, addr: pgtest.FreeAddr(t), http: pgtest.FreeAddr(t), log: filepath.Join(t.TempDir(), "stderr")}
	n.args = append([]string{"serve", "--listen", n.addr, "--upstream", upstream, "--data", n.data, "--http", n.http, "--drain-timeout", "2s"}, args...)
	t.Cleanup(func() {
		if n.running() {
			n.stop(t)
			n.verify(t)
		}
		if t.Failed() {
			t.Logf("standard error of pgnotary:\n%s", n.stderr())
		}
	})
	n.launch(t)
	return n
}

// launch runs the process and waits until it is ready.
func (n *notary) launch(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n.cmd, n.done = exec.Command(program, n.args...), make(chan struct{})
	n.cmd.Stderr, n.cmd.Stdout = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait() // its ProcessState says all
		close(done)
	}(n.cmd, n.done)
	for deadline := time.Now().Add(patience); ; {
		if r, err := http.Get("http://" + n.http + "/readyz"); err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-n.done:
			t.Fatalf("pgnotary ended with %v:\n%s", n.cmd.ProcessState, n.stderr())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("pgnotary is not ready:\n%s", n.stderr())
		}
	}
}

func (n *notary) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// stop ends the process with SIGTERM; it must exit 0.
func (n *notary) stop(t *testing.T) {
	t.Helper()
	if !n.running() {
		return
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.done:
		if code := n.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("pgnotary after SIGTERM: %v:\n%s", n.cmd.ProcessState, n.stderr())
		}
	case <-time.After(patience):
		_ = n.cmd.Process.Signal(syscall.SIGQUIT) // with the goroutines' stacks
		<-n.done
		t.Fatalf("pgnotary did not end after SIGTERM:\n%s", n.stderr())
	}
}

// kill ends the process with SIGKILL.
func (n *notary) kill(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-n.done
}

func (n *notary) stderr() string {
	text, _ := os.ReadFile(n.log)
	return string(text)
}

// peak returns the greatest resident memory of the process so far, in bytes.
func (n *notary) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// verify checks the log with pgnotary verify and returns the number of entries.
func (n *notary) verify(t *testing.T) int64 {
	t.Helper()
	cmd := exec.Command(program, "verify", "--data", n.data, "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var answer struct {
		OK      bool
		Entries int64
	}
	if jsonErr := json.Unmarshal(out, &answer); err != nil || jsonErr != nil || !answer.OK {
		t.Errorf("verify: %v: %s%s", err, out, stderr.Bytes())
	}
	return answer.Entries
}

// A record is a line of pgnotary search --json.
type record struct {
	Index       int64
	Time        time.Time
	Session     string
	User        string
	Database    string
	Application string
	Client      string
	Kind        string
	Statement   string
	Params      []param
	Function    struct {
		OID  uint32
		Name string
	}
	Of        int64
	Messages  int64
	SHA256    string
	Rows      [][]*string
	Raw       []byte
	Facts     map[string]string
	Malformed bool
	Outcome   *outcome
}

type param struct {
	Type   string
	Format string
	Value  *string
	Raw    string
}

type outcome struct {
	Index     int64
	Tag       string
	Tags      []string
	Rows      int64
	Bytes     int64
	TX        string
	Skipped   bool
	Committed *bool
	Facts     map[string]string
	Result    *param
	Error     *struct{ SQLState, Message string }
}

func (r record) String() string {
	s := fmt.Sprintf("%d %s %.200q", r.Index, r.Kind, r.Statement)
	for _, p := range r.Params {
		s += fmt.Sprintf(" %.80s", p)
	}
	if o := r.Outcome; o != nil {
		s += fmt.Sprintf(" -> %s %d", o.Tag, o.Rows)
		if o.Error != nil {
			s += " " + o.Error.SQLState
		}
		if o.Committed != nil {
			s += fmt.Sprintf(" committed=%v", *o.Committed)
		}
	}
	return s
}

func (p param) String() string {
	if p.Value == nil {
		return "NULL"
	}
	return *p.Value
}

// search returns what pgnotary search prints.
func (n *notary) search(t *testing.T, filters ...string) []record {
	t.Helper()
	cmd := exec.Command(program, append([]string{"search", "--data", n.data, "--json"}, filters...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []record
	for d := json.NewDecoder(bufio.NewReaderSize(out, 1<<20)); ; {
		var r record
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Errorf("search: %v", err)
			break
		}
		all = append(all, r)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("search: %v: %s", err, stderr.Bytes())
	}
	return all
}

// await is search of a log in use, until so many are found: what nobody waits for is written a little later.
func (n *notary) await(t *testing.T, want int, filters ...string) []record {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if all := n.search(t, filters...); len(all) >= want || time.Now().After(deadline) {
			return all
		}
	}
}

// finish stops pgnotary, verifies its log and returns all of it.
func (n *notary) finish(t *testing.T) []record {
	t.Helper()
	n.stop(t)
	n.verify(t)
	return n.search(t)
}

// statements returns the records of statements.
func statements(all []record) []record {
	var some []record
	for _, r := range all {
		switch r.Kind {
		case "query", "execute", "function_call":
			some = append(some, r)
		}
	}
	return some
}

// ofKind returns the records of one kind.
func ofKind(all []record, kind string) []record {
	var some []record
	for _, r := range all {
		if r.Kind == kind {
			some = append(some, r)
		}
	}
	return some
}

// find returns the first statement that contains text, and fails the test if there is none.
func find(t *testing.T, all []record, text string) record {
	t.Helper()
	for _, r := range statements(all) {
		if strings.Contains(r.Statement, text) {
			return r
		}
	}
	t.Errorf("no statement with %q was recorded; there are %d", text, len(statements(all)))
	return record{}
}

// url is the address of a database by way of pgnotary.
func (n *notary) url(database string) string {
	return "postgres://postgres@" + n.addr + "/" + database + "?sslmode=disable"
}

// port is the port of an address.
func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// tool runs one of PostgreSQL's client programs and returns what it printed.
func tool(t *testing.T, s *pgserver.Server, stdin string, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(t, s, nil, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// tryTool is tool with more environment and without the demand that it succeeds.
func tryTool(t *testing.T, s *pgserver.Server, env []string, stdin, name string, args ...string) (string, error) {
	t.Helper()
	path, err := s.Tool(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// createDatabase makes an empty database, dropped when the test ends.
func createDatabase(t *testing.T, s *pgserver.Server, name string) {
	t.Helper()
	if _, err := s.Psql(t.Context(), "postgres", "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's context is over by now.
		psql, err := s.Tool("psql")
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(psql, "-Xqd", s.URL("postgres"), "-c", "DROP DATABASE "+name+" WITH (FORCE)").CombinedOutput()
		if err != nil {
			t.Errorf("drop database: %v: %s", err, out)
		}
	})
}

// runProgram runs pgnotary to its end and returns what it printed and its exit code.
func runProgram(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
