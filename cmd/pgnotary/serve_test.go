package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
	"github.com/pgnotary/pgnotary/internal/web"
)

// A process is a running pgnotary whose diagnostics are collected.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	http string // address
	addr string // for clients
	done chan struct{}
	err  error // of Wait, once done is closed

	mu    sync.Mutex
	lines []map[string]any
	raw   bytes.Buffer
	news  chan struct{} // has room for one token: something was written
}

// program prepares a run of this test binary as pgnotary.
func program(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args = append([]string{"pgnotary"}, args...)
	return cmd
}

// startServe runs "pgnotary serve" with free ports and waits until it listens.
func startServe(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := beginServe(t, env, args...)
	line := p.wait("listening")
	p.addr, _ = line["clients"].(string)
	p.http, _ = line["http"].(string)
	return p
}

// beginServe is startServe without the waiting.
func beginServe(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, done: make(chan struct{}), news: make(chan struct{}, 1)}
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-format", "json"}, args...)
	p.cmd = program(context.WithoutCancel(t.Context()), t, args...)
	p.cmd.Env = append(os.Environ(), env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.collect(stderr)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// collect reads diagnostics until the process has ended.
func (p *process) collect(stderr io.Reader) {
	for s := bufio.NewScanner(stderr); s.Scan(); {
		var line map[string]any
		p.mu.Lock()
		p.raw.Write(append(s.Bytes(), '\n'))
		if json.Unmarshal(s.Bytes(), &line) == nil {
			p.lines = append(p.lines, line)
		}
		p.mu.Unlock()
		p.tell()
	}
	p.err = p.cmd.Wait()
	close(p.done)
	p.tell()
}

func (p *process) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// wait returns the first line with this message, which it removes.
func (p *process) wait(msg string) map[string]any {
	p.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		p.mu.Lock()
		for i, line := range p.lines {
			if line["msg"] == msg {
				p.lines = append(p.lines[:i:i], p.lines[i+1:]...)
				p.mu.Unlock()
				return line
			}
		}
		p.mu.Unlock()
		select {
		case <-p.news:
		case <-p.done:
			select {
			case <-p.news: // the last lines
				continue
			default:
			}
			p.t.Fatalf("the process ended (%v) without the message %q:\n%s", p.err, msg, p.stderr())
		case <-deadline:
			p.t.Fatalf("no message %q:\n%s", msg, p.stderr())
		}
	}
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.raw.String()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// pause stops the process until it gets SIGCONT: when it returns, nothing in it runs.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED, nil); err != nil {
		p.t.Fatal(err)
	}
}

// code waits for the end of the process and returns its exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("the process does not end:\n%s", p.stderr())
	}
	if strings.Contains(p.stderr(), "goroutine ") {
		p.t.Errorf("standard error has a stack trace:\n%s", p.stderr())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) get(path string) (code int, body string) {
	p.t.Helper()
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (p *process) connect(options string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(p.t.Context(), "postgres://postgres@"+p.addr+"/postgres?"+options)
	if err == nil {
		p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

func (p *process) mustConnect() *pgx.Conn {
	p.t.Helper()
	conn, err := p.connect("sslmode=disable")
	if err != nil {
		p.t.Fatalf("connect through the proxy: %v\n%s", err, p.stderr())
	}
	return conn
}

// pgnotary runs another command to its end.
func pgnotary(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := program(t.Context(), t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestFitFiles holds that as many sessions are served as there are files for.
func TestFitFiles(t *testing.T) {
	p := &proxy{log: slog.New(slog.DiscardHandler)}
	s := &settings{Config: config.Default()}
	others := uint64(2*s.MaxUnauthenticated + web.MaxConns + 100)
	for limit, want := range map[uint64]int{1 << 63: 1000, others + 2000: 1000, others + 1999: 999, others + 2: 1, others + 1: 0, 10: 0} {
		if n, err := p.fitFiles(s, limit); n != want || (err != nil) != (want == 0) {
			t.Errorf("with %d files: %d sessions, %v, want %d", limit, n, err, want)
		}
	}
}

// TestSignalsWhileStarting: those that ask a running proxy for something do not
// end one that starts.
func TestSignalsWhileStarting(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p := beginServe(t, nil, "--data", t.TempDir(), "--policy", pipe)
	f, err := os.OpenFile(pipe, os.O_WRONLY, 0) // when it has begun to read
	if err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGUSR1)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if code := p.code(); code != 2 { // an empty policy, not a signal
		t.Errorf("exit code %d, want 2", code)
	}
}

// TestServeSecondSignal holds that a second SIGTERM cuts sessions, and nothing else.
func TestServeSecondSignal(t *testing.T) {
	pg, dir := pgtest.Server(t), t.TempDir()
	p := startServe(t, nil, "--upstream", pg.Addr(), "--data", dir, "--immutable=false", "--drain-timeout", "1h")
	conn := p.mustConnect()
	if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	p.wait("stopping")
	p.signal(syscall.SIGTERM)
	p.wait("sessions were cut: a second signal came")
	if code := p.code(); code != 0 {
		t.Errorf("serve ended with code %d, want 0:\n%s", code, p.stderr())
	}
	if code, out, errs := pgnotary(t, "search", "--data", dir, "--kind", "stop", "--exit-status"); code != 0 {
		t.Errorf("search for the stop = %d, %q, %q, want one", code, out, errs)
	}
}

// TestNobodyReadsDiagnostics holds that serve outlives the reader of its standard error.
func TestNobodyReadsDiagnostics(t *testing.T) {
	cmd := program(t.Context(), t, "serve", "--listen", "127.0.0.1:0", "--http", "off", "--data", filepath.Join(t.TempDir(), "data"), "--immutable=false")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(r); s.Scan() && !strings.Contains(s.Text(), "msg=durability"); {
	}
	if err := errors.Join(r.Close(), cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		t.Errorf("with nobody to read what it says, serve ends with %v, want a stop in order", err)
	}
}

// serviceManager is a socket as systemd gives it to a service.
func serviceManager(t *testing.T) (env string, next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return "NOTIFY_SOCKET=" + path, func() string {
		buf := make([]byte, 100)
		if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// TestServe follows one run from an empty directory to a verified log.
func TestServe(t *testing.T) {
	pg := pgtest.Server(t)
	data := filepath.Join(t.TempDir(), "new", "data")
	env, next := serviceManager(t)
	p := startServe(t, []string{env}, "--upstream", pg.Addr(), "--data", data)

	if got := next(); got != "READY=1" {
		t.Errorf("service manager was told %q, want READY=1", got)
	}
	opened := p.wait("log opened")
	if opened["data"] != data || opened["key"] != filepath.Join(data, "key") || opened["vkey"] == "" {
		t.Errorf("log opened says %v, want data %s and its key", opened, data)
	}
	if code, body := p.get("/readyz"); code != 200 {
		t.Errorf("GET /readyz = %d %q, want 200", code, body)
	}
	conn := p.mustConnect()
	var sum int
	if err := conn.QueryRow(t.Context(), "SELECT $1::int + 1", 41).Scan(&sum); err != nil || sum != 42 {
		t.Fatalf("SELECT through the proxy = %d, %v, want 42", sum, err)
	}
	waitFor(t, "the statement in the metrics", func() bool {
		_, body := p.get("/metrics")
		return strings.Contains(body, "pgnotary_sessions 1\n") && !strings.Contains(body, "pgnotary_statements_total 0\n")
	})

	p.signal(syscall.SIGHUP)
	p.wait("configuration reloaded")

	// A session that does nothing does not hold up the end.
	p.signal(syscall.SIGTERM)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("service manager was told %q, want STOPPING=1", got)
	}
	if code := p.code(); code != 0 {
		t.Fatalf("serve ended with code %d, want 0:\n%s", code, p.stderr())
	}
	checkLog(t, data)
}

// checkLog holds the log of TestServe to what happened.
func checkLog(t *testing.T, data string) {
	t.Helper()
	if code, out, errs := pgnotary(t, "verify", "--data", data); code != 0 {
		t.Errorf("verify = %d\n%s%s", code, out, errs)
	}
	code, out, errs := pgnotary(t, "search", "--data", data, "--json")
	if code != 0 {
		t.Fatalf("search = %d\n%s", code, errs)
	}
	var kinds []string
	for line := range strings.Lines(out) {
		var s struct {
			Kind      string
			Statement string
			Params    []struct{ Value string }
			Outcome   struct{ Tag string }
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("search --json printed %q: %v", line, err)
		}
		if s.Kind == "heartbeat" { // of a run that took a minute
			continue
		}
		kinds = append(kinds, s.Kind)
		if s.Kind == "execute" {
			if got := fmt.Sprint(s.Statement, s.Params, s.Outcome.Tag); got != "SELECT $1::int + 1[{41}]SELECT 1" {
				t.Errorf("the statement was recorded as %s", got)
			}
		}
	}
	got := strings.Join(kinds, " ")
	for _, want := range []string{"start connect", "execute", "config", "disconnect"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log has %s, want %s in it", got, want)
		}
	}
	if !strings.HasSuffix(got, "disconnect stop") {
		t.Errorf("the log ends in %s, want disconnect stop", got)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for %s after 2 min", what)
		}
	}
}

// TestServeRecordingFails holds that a disk that takes no more ends
// everything loudly: client, process, exit code.
func TestServeRecordingFails(t *testing.T) {
	pg := pgtest.Server(t)
	data := t.TempDir()
	p := startServe(t, nil, "--upstream", pg.Addr(), "--data", data)
	conn := p.mustConnect()
	if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE t (a int)"); err != nil {
		t.Fatal(err)
	}
	// From now on no file may grow: the system refuses the next write.
	limit := unix.Rlimit{Cur: 0, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	var failed error
	for i := range 1000 {
		if _, failed = conn.Exec(t.Context(), "INSERT INTO t VALUES ($1)", i); failed != nil {
			break
		}
	}
	if got, ok := errors.AsType[*pgconn.PgError](failed); !ok || got.Severity != "FATAL" || got.Code != "58030" && got.Code != "53100" || got.Hint == "" {
		t.Errorf("the client was told %v, want FATAL 58030 with a hint", failed)
	}
	if code := p.code(); code != 2 {
		t.Errorf("serve ended with code %d, want 2", code)
	}
	p.wait("the proxy stops: nothing runs unrecorded")
	if !strings.Contains(p.stderr(), "\npgnotary: record: ") {
		t.Errorf("standard error does not end in the reason:\n%s", p.stderr())
	}

	// With room again it starts, says what it found, and the log verifies.
	p = startServe(t, nil, "--upstream", pg.Addr(), "--data", data)
	if _, err := p.mustConnect().Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGINT)
	if code := p.code(); code != 0 {
		t.Errorf("serve ended with code %d, want 0", code)
	}
	if code, out, errs := pgnotary(t, "verify", "--data", data); code != 0 {
		t.Errorf("verify = %d\n%s%s", code, out, errs)
	}
}

func TestServeRefusesToStart(t *testing.T) {
	data := t.TempDir()
	p := startServe(t, nil, "--data", data)
	tests := []struct {
		name, stderr string
		args         []string
	}{
		{"second writer", "in use", []string{"--data", data, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"}},
		{"address taken", "listen for clients", []string{"--data", t.TempDir(), "--listen", p.addr, "--http", "off"}},
		{"HTTP address taken", "listen for HTTP", []string{"--data", t.TempDir(), "--listen", "127.0.0.1:0", "--http", p.http}},
		{"certificate missing", "load certificate", []string{"--data", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "off", "--tls-cert", "none", "--tls-key", "none"}},
	}
	for _, tt := range tests {
		code, out, errs := pgnotary(t, append([]string{"serve"}, tt.args...)...)
		last := errs[strings.LastIndex(strings.TrimSpace(errs), "\n")+1:]
		if code != 2 || out != "" || !strings.HasPrefix(last, "pgnotary: ") || !strings.Contains(last, tt.stderr) {
			t.Errorf("%s: code %d, stdout %q, last line %q, want 2, nothing and one that contains %q", tt.name, code, out, last, tt.stderr)
		}
	}
}

// TestServeCheck has all mistakes told at once: those of the file, then what is wrong with the settings, then with
// the files they name.
func TestServeCheck(t *testing.T) {
	conf, sinks := filepath.Join(t.TempDir(), "pgnotary.toml"), filepath.Join(t.TempDir(), "sinks.toml")
	write(t, sinks, "[[sink]]\nname = 'a'\nurl = 'http://a/'\nfilter = 'limit=5'\n[[sink]]\nname = 'b'\nurl = 'http://b/'\nfilter = 'colour=red'\n"+
		"[[sink]]\nname = 'c'\nurl = 'https://c/'\nca = '/none/ca'\ntoken-file = '/none/token'\n")
	for _, tt := range []struct {
		file   string
		args   []string
		stderr string
	}{
		{"durabilty = 'x'\n", nil, "pgnotary: " + conf + ":1:1: unknown key \"durabilty\"\n  1 | durabilty = 'x'\n    | ^\nhint: did you mean durability?\n"},
		{"upstream = 5\nhttp = 'x'\nretain = 7\n", []string{"--log-level", "loud"}, "pgnotary: configuration: 4 problems\n  " +
			conf + ":1:12: found integer where a string belongs\n  " + conf + ":3:10: \"7\" is not a time span such as 15m, 24h or 90d\n  " +
			"http: \"x\" is not host:port\n  log-level is \"loud\", not one of debug, info, warn, error\n"},
		{fmt.Sprintf("sinks = %q\n", sinks), nil, "pgnotary: configuration: 4 problems\n  sinks: sink a: filter: a sink goes on: it has no limit, until or to\n" +
			"  sinks: sink b: filter: colour: there is no such condition\n" +
			"  sinks: sink c: read authorities: open /none/ca: no such file or directory\n" +
			"  sinks: sink c: open /none/token: no such file or directory\n"},
		{"policy = '/none/log.policy'\n", nil, "pgnotary: configuration: policy: open /none/log.policy: no such file or directory\n"},
		{"http-tokens = '/none/tokens'\n", nil, "pgnotary: configuration: http-tokens: stat /none/tokens: no such file or directory\n"},
	} {
		write(t, conf, tt.file)
		code, _, errs := pgnotary(t, append([]string{"serve", "--check", "--config", conf}, tt.args...)...)
		if code != 2 || errs != tt.stderr {
			t.Errorf("serve --check of %q = %d\n%swant 2\n%s", tt.file, code, errs, tt.stderr)
		}
	}
}

// TestServeReload holds that a new certificate is shown without a restart,
// and that mistakes in the configuration change nothing.
func TestServeReload(t *testing.T) {
	pg := pgtest.Server(t)
	dir := t.TempDir()
	cert, key, conf := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "pgnotary.toml")
	writeCertificate(t, cert, key)
	write(t, conf, fmt.Sprintf("tls-cert = %q\ntls-key = %q\nupstream = %q\n", cert, key, pg.Addr()))
	p := startServe(t, nil, "--config", conf, "--data", filepath.Join(dir, "data"))

	first := p.certificate()
	writeCertificate(t, cert, key)
	write(t, conf, fmt.Sprintf("tls-cert = %q\ntls-key = %q\nupstream = %q\nlog-level = 'debug'\nmax-sessions = 5\n", cert, key, pg.Addr()))
	p.signal(syscall.SIGHUP)
	if restart := p.wait("some changed settings need a restart"); fmt.Sprint(restart["settings"]) != "[max-sessions]" {
		t.Errorf("needing a restart: %v, want max-sessions", restart["settings"])
	}
	if line := p.wait("configuration reloaded"); fmt.Sprint(line["changed"]) != "[log-level tls-cert]" {
		t.Errorf("changed: %v, want log-level and the renewed certificate", line["changed"])
	}
	second := p.certificate()
	if bytes.Equal(first, second) {
		t.Error("the certificate did not change")
	}
	p.signal(syscall.SIGHUP)
	if line := p.wait("configuration reloaded"); fmt.Sprint(line["changed"]) != "[]" {
		t.Errorf("changed: %v, want nothing", line["changed"])
	}

	write(t, conf, "lisen = 'x'\n")
	p.signal(syscall.SIGHUP)
	if line := p.wait("configuration not reloaded"); !strings.Contains(fmt.Sprint(line["error"]), `unknown key "lisen"`) {
		t.Errorf("not reloaded because of %v", line["error"])
	}
	if !bytes.Equal(second, p.certificate()) {
		t.Error("the certificate changed although the configuration was wrong")
	}
}

// TestServeNothingToCompare holds that a server that shows no certificate is not asked for one.
func TestServeNothingToCompare(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key)
	p := startServe(t, nil, "--tls-cert", cert, "--tls-key", key, "--upstream", filepath.Join(dir, "nobody"), "--data", filepath.Join(dir, "data"))
	p.signal(syscall.SIGHUP)
	p.wait("configuration reloaded")
	time.Sleep(100 * time.Millisecond)
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 || strings.Contains(p.stderr(), "cannot be compared") {
		t.Errorf("serve ended with code %d, want 0 and no word of certificates to compare:\n%s", code, p.stderr())
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeCertificate(t *testing.T, cert, key string) {
	t.Helper()
	_, c, k, err := pgserver.MakeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert, string(c))
	write(t, key, string(k))
}

// certificate returns the certificate that a client is shown.
func (p *process) certificate() []byte {
	p.t.Helper()
	conn, err := p.connect("sslmode=require")
	if err != nil {
		p.t.Fatalf("connect with TLS: %v\n%s", err, p.stderr())
	}
	state, ok := conn.PgConn().Conn().(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		p.t.Fatal("the connection has no TLS")
	}
	return state.ConnectionState().PeerCertificates[0].Raw
}

// TestServeDrainTimeout holds that a transaction may end while the proxy
// stops, and that one that does not end is cut.
func TestServeDrainTimeout(t *testing.T) {
	pg := pgtest.Server(t)
	holder, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	lock := func(name string) {
		t.Helper()
		if _, err := holder.Exec(t.Context(), "SELECT "+name+"(1)"); err != nil {
			t.Fatal(err)
		}
	}
	lock("pg_advisory_lock")
	// stopping begins a statement and, once it runs, the end of the proxy.
	stopping := func(timeout, sql string) (p *process, result chan error) {
		t.Helper()
		p = startServe(t, nil, "--upstream", pg.Addr(), "--data", t.TempDir(), "--drain-timeout", timeout)
		conn := p.mustConnect()
		sql += " -- by " + p.addr
		result = make(chan error, 1)
		go func() {
			_, err := conn.Exec(context.Background(), sql)
			result <- err
		}()
		waitFor(t, "the statement at the server", func() bool {
			n, err := pg.Psql(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '"+sql+"'")
			return err == nil && strings.TrimSpace(n) == "1"
		})
		p.signal(syscall.SIGTERM)
		p.wait("stopping")
		return p, result
	}
	ended := func(p *process) {
		t.Helper()
		if code := p.code(); code != 0 {
			t.Errorf("serve ended with code %d, want 0:\n%s", code, p.stderr())
		}
	}
	p, result := stopping("1h", "SELECT pg_advisory_xact_lock(1)")
	if code, _ := p.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("GET /readyz while draining = %d, want 503", code)
	}
	lock("pg_advisory_unlock")
	if err := <-result; err != nil {
		t.Errorf("the statement that was running ended with %v", err)
	}
	ended(p)
	p, result = stopping("100ms", "SELECT pg_sleep(600)") // the server goes on with it
	if err := <-result; err == nil {
		t.Error("the endless statement ended well")
	}
	ended(p)
}
