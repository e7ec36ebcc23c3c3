package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

// A target is one way from a client to a server.
type target struct {
	name    string
	missing string           // why it cannot run; empty if it can
	addr    string           // where clients connect
	proxy   *process         // nil where there is none between
	server  *pgserver.Server // behind it
	// stored returns the bytes it has recorded so far; nil if it records nothing.
	stored func() (int64, error)
	// told returns how many of those say who, where from and with which program, in
	// lines that say so only if asked to; nil where all entries do.
	told  func() (int64, error)
	data  string // its log's directory, pgnotary only
	pools bool   // it keeps sessions with the server for the next client
}

func (t *target) host() string { h, _, _ := net.SplitHostPort(t.addr); return h }
func (t *target) port() string { _, p, _ := net.SplitHostPort(t.addr); return p }

// A field holds all that a run started.
type field struct {
	dir      string
	cred     *syscall.Credential
	plain    *pgserver.Server
	audited  *pgserver.Server // with pgaudit, nil if that is missing
	targets  []*target
	pgnotary string // its program, empty if it could not be built
}

// modes are pgnotary's, in the order of the table.
var modes = []string{"before-forward", "before-reply", "async"}

// serverSettings make a server of the size such a machine would get. It syncs, as
// servers do: the disk is shared with whoever records.
func serverSettings() map[string]string {
	return map[string]string{
		"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "4GB",
		"max_connections": "1200", "checkpoint_timeout": "1h", "autovacuum": "off", "jit": "off",
	}
}

func newField(ctx context.Context, dir string, o *options) (*field, error) {
	f := &field{dir: dir}
	var err error
	if f.cred, err = pgserver.Credential(); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if f.plain, err = startServer(ctx, dir, o.scale, nil); err != nil {
		return nil, err
	}
	starts := []struct {
		name  string
		start func(context.Context, *target) error
	}{
		{"direct", f.direct},
		{"haproxy", f.haproxy},
		{"pgbouncer", f.pgbouncer},
		{"pgaudit", func(ctx context.Context, t *target) error { return f.pgaudit(ctx, t, o.scale) }},
	}
	for _, mode := range modes {
		starts = append(starts, struct {
			name  string
			start func(context.Context, *target) error
		}{mode, func(ctx context.Context, t *target) error { return f.notary(ctx, t, o.binary, mode) }})
	}
	for _, s := range starts {
		if !o.wantsTarget(s.name) {
			continue
		}
		t := &target{name: s.name, server: f.plain}
		if err := s.start(ctx, t); err != nil {
			t.missing = err.Error()
		}
		f.targets = append(f.targets, t)
	}
	return f, nil
}

// startServer starts a server and fills pgbench's tables.
func startServer(ctx context.Context, dir string, scale int, more map[string]string) (*pgserver.Server, error) {
	settings := serverSettings()
	for k, v := range more {
		settings[k] = v
	}
	s, err := pgserver.Start(ctx, pgserver.Options{Settings: settings, TempParent: dir})
	if err != nil {
		return nil, err
	}
	tool, err := s.Tool("pgbench")
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	cmd := exec.CommandContext(ctx, tool, "-i", "-q", "-s", strconv.Itoa(scale), "-h", s.Host, "-p", strconv.Itoa(s.Port), "-U", "postgres", "postgres")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("fill the tables: %w: %s", err, lastLine(out)), s.Stop())
	}
	return s, nil
}

func (f *field) stop() error {
	var err error
	for _, t := range f.targets {
		if t.proxy != nil {
			err = errors.Join(err, t.proxy.stop())
		}
	}
	for _, s := range []*pgserver.Server{f.plain, f.audited} {
		if s != nil {
			err = errors.Join(err, s.Stop())
		}
	}
	return err
}

func (f *field) direct(_ context.Context, t *target) error {
	t.addr = f.plain.Addr()
	return nil
}

func (f *field) haproxy(_ context.Context, t *target) error {
	addr, err := pgserver.FreeAddr()
	if err != nil {
		return err
	}
	t.addr = addr
	conf := fmt.Sprintf(`global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind %s
    server one %s
`, addr, f.plain.Addr())
	return f.run(t, "haproxy", conf, nil, "-db", "-f")
}

func (f *field) pgbouncer(_ context.Context, t *target) error {
	addr, err := pgserver.FreeAddr()
	if err != nil {
		return err
	}
	t.addr, t.pools = addr, true
	users := filepath.Join(f.dir, "pgbouncer.users")
	if err := os.WriteFile(users, []byte("\"postgres\" \"\"\n"), 0o644); err != nil {
		return err
	}
	conf := fmt.Sprintf(`[databases]
postgres = host=%s port=%d dbname=postgres
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = session
max_client_conn = 2000
default_pool_size = 1100
server_reset_query = DISCARD ALL
server_idle_timeout = 3
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
`, f.plain.Host, f.plain.Port, t.host(), t.port(), users)
	return f.run(t, "pgbouncer", conf, f.cred)
}

// run starts an installed proxy with a configuration file as its last argument.
func (f *field) run(t *target, program, conf string, cred *syscall.Credential, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			return fmt.Errorf("not installed (Debian's package %s)", program)
		}
	}
	file := filepath.Join(f.dir, program+".conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return err
	}
	p, err := startProcess(filepath.Join(f.dir, program+".log"), cred, path, append(args, file)...)
	if err != nil {
		return err
	}
	t.proxy = p
	return p.waitFor(func() bool { return canConnect(t.addr) })
}

func (f *field) pgaudit(ctx context.Context, t *target, scale int) error {
	// Statements, their parameters and what they touch go to the server's log, which it does not sync.
	s, err := startServer(ctx, f.dir, scale, map[string]string{
		"shared_preload_libraries": "pgaudit", "pgaudit.log": "all", "pgaudit.log_parameter": "on", "pgaudit.log_catalog": "on",
		"log_line_prefix": "%m [%p] {%u@%d %a %r} ", // what stands in braces is not in PostgreSQL's own default
	})
	if err != nil {
		if strings.Contains(err.Error(), `could not access file "pgaudit"`) {
			return errors.New("not installed (Debian's package postgresql-NN-pgaudit)")
		}
		return err
	}
	f.audited = s
	t.server, t.addr = s, s.Addr()
	t.stored = func() (int64, error) {
		info, err := os.Stat(s.LogFile)
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	t.told = func() (int64, error) {
		f, err := os.Open(s.LogFile)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return inBraces(f)
	}
	return nil
}

func (f *field) notary(ctx context.Context, t *target, binary, mode string) error {
	if binary == "" && f.pgnotary == "" {
		f.pgnotary = filepath.Join(f.dir, "pgnotary")
		build := exec.CommandContext(ctx, "go", "build", "-o", f.pgnotary, "github.com/pgnotary/pgnotary/cmd/pgnotary")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("does not build: %s", lastLine(out))
		}
	} else if binary != "" {
		f.pgnotary = binary
	}
	var err error
	if t.addr, err = pgserver.FreeAddr(); err != nil {
		return err
	}
	web, err := pgserver.FreeAddr()
	if err != nil {
		return err
	}
	t.data = filepath.Join(f.dir, "log-"+mode)
	t.stored = func() (int64, error) { return usedBytes(t.data) }
	t.proxy, err = startProcess(filepath.Join(f.dir, mode+".log"), nil, f.pgnotary, "serve", "--listen", t.addr,
		"--upstream", f.plain.Addr(), "--data", t.data, "--http", web, "--durability", mode,
		"--max-sessions", "2000", "--max-unauthenticated", "2000",
		"--immutable=false")
	if err != nil {
		return err
	}
	return t.proxy.waitFor(func() bool {
		r, err := http.Get("http://" + web + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

func canConnect(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	return c.Close() == nil
}
