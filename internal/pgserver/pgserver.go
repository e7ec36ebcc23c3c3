// Package pgserver runs throwaway PostgreSQL servers for tests, benchmarks and
// the demonstration. A server lives in a temporary directory of its own, listens
// on a free port of 127.0.0.1 and on a Unix socket, does not sync (unless its
// settings say so), and dies with the process that started it.
//
// PostgreSQL refuses to run as root; started by root, it runs as user postgres,
// or nobody.
package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options says what kind of server to start. The zero value is a server that
// trusts everybody who reaches it.
type Options struct {
	// Bin is the directory of the server's programs; Find's answer if empty.
	Bin string
	// Settings are added to postgresql.conf, after the defaults of this package.
	Settings map[string]string
	// HBA replaces pg_hba.conf; if empty everybody is trusted.
	HBA string
	// TLS gives the server a certificate for localhost and 127.0.0.1, signed by an authority
	// of its own, see Server.CAFile.
	TLS bool
	// TempParent is where the server's directory is made; os.TempDir if empty. The
	// user the server runs as must be able to enter it.
	TempParent string
}

// A Server is a running PostgreSQL server. Its superuser is postgres, its
// databases are those of initdb. Its methods may be called concurrently.
type Server struct {
	Host      string // 127.0.0.1
	Port      int
	SocketDir string // directory of the Unix socket
	Bin       string // directory of the server's programs
	Dir       string // temporary directory, removed by Stop
	DataDir   string
	LogFile   string // what the server wrote to standard error
	CAFile    string // certificate of the authority that signed CertFile
	CertFile  string // the server's own certificate, with TLS only, as are CAFile and KeyFile
	KeyFile   string

	proc *process
	who  *account
}

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 20 * time.Second
	portTries    = 20
)

// Start makes a database cluster, starts a server on it and waits until it
// accepts connections: about two seconds. Ending ctx ends the attempt, not
// the server; the caller must call Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{Host: "127.0.0.1", Bin: o.Bin}
	if s.Bin == "" {
		bin, err := Find(ctx)
		if err != nil {
			return nil, err
		}
		s.Bin = bin
	}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL of %s: %w", s.Bin, err), s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, o Options) (err error) {
	if s.who, err = unprivileged(); err != nil {
		return err
	}
	if err := s.makeDirs(o.TempParent); err != nil {
		return err
	}
	if err := s.initdb(ctx); err != nil {
		return err
	}
	if o.TLS {
		if err := s.makeCertificate(); err != nil {
			return err
		}
	}
	if o.HBA != "" {
		if err := s.who.writeFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(o.HBA+"\n")); err != nil {
			return err
		}
	}
	// The port is free when it is chosen, and may be taken when the server
	// wants it: then choose another one.
	for try := 1; ; try++ {
		if s.Port, err = freePort(); err != nil {
			return err
		}
		if err = s.launch(ctx, o.Settings); err == nil || try == portTries || !s.portTaken() {
			return err
		}
	}
}

// makeDirs makes the server's directory and the one of its socket, whose path must be
// short enough for a socket address (107 bytes with the file's name).
func (s *Server) makeDirs(parent string) (err error) {
	if s.Dir, err = os.MkdirTemp(parent, "pgserver-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	s.DataDir = filepath.Join(s.Dir, "data")
	s.LogFile = filepath.Join(s.Dir, "log")
	s.SocketDir = filepath.Join(s.Dir, "s")
	if err := s.who.own(s.Dir, 0o755); err != nil {
		return err
	}
	if len(s.SocketDir) > 107-len("/.s.PGSQL.32767.lock") {
		if s.SocketDir, err = os.MkdirTemp("", "pgs-"); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	} else if err := os.Mkdir(s.SocketDir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return s.who.own(s.SocketDir, 0o755)
}

func (s *Server) initdb(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, "initdb"), "-D", s.DataDir, "-U", "postgres", "-A", "trust",
		"-N", "-E", "UTF8", "--locale=C")
	cmd.Dir = s.Dir
	cmd.Env = cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// config is the text added to postgresql.conf.
func (s *Server) config(settings map[string]string) string {
	all := map[string]string{
		"listen_addresses":        s.Host,
		"port":                    strconv.Itoa(s.Port),
		"unix_socket_directories": s.SocketDir,
		"fsync":                   "off",
		"full_page_writes":        "off",
		"max_connections":         "200",
		"logging_collector":       "off",
		"log_line_prefix":         "%m [%p] ",
		"lc_messages":             "C",
	}
	if s.CertFile != "" {
		all["ssl"], all["ssl_cert_file"], all["ssl_key_file"] = "on", s.CertFile, s.KeyFile
	}
	for name, value := range settings {
		all[name] = value
	}
	var b strings.Builder
	for name, value := range all {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	}
	return b.String()
}

// launch starts the server process and waits until it accepts connections.
func (s *Server) launch(ctx context.Context, settings map[string]string) error {
	if err := s.who.writeFile(filepath.Join(s.DataDir, "postgresql.auto.conf"), []byte(s.config(settings))); err != nil {
		return err
	}
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open server log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.Bin, "postgres"), "-D", s.DataDir)
	cmd.Dir = s.Dir
	cmd.Env = cleanEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: s.who.credential(),
		Pdeathsig:  syscall.SIGQUIT, // an immediate shutdown of all its processes
		Setpgid:    true,            // a terminal's Ctrl-C is for the one who stops us
	}
	if s.proc, err = startProcess(cmd); err != nil {
		return err
	}
	return s.waitReady(ctx)
}

// waitReady waits for the word "ready" that the server writes into its lock file.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w: %s", ctx.Err(), s.logTail())
		case <-s.proc.done:
			return fmt.Errorf("the server ended: %w: %s", s.proc.err, s.logTail())
		case <-tick.C:
			text, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
			lines := strings.Split(string(text), "\n")
			if err == nil && len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready" {
				return nil
			}
		}
	}
}

// Stop ends the server and removes its directory. It may be called more than once.
func (s *Server) Stop() error {
	var err error
	if s.proc != nil {
		err = s.proc.stop(stopTimeout)
	}
	for _, dir := range []string{s.SocketDir, s.Dir} {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// Pid returns the process id of the postmaster.
func (s *Server) Pid() int { return s.proc.cmd.Process.Pid }

// URL returns the connection string of a database for the superuser.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", s.Addr(), database)
}

// Tool returns the path of a client program such as psql: beside the server's
// programs or in PATH.
func (s *Server) Tool(name string) (string, error) {
	if path, err := exec.LookPath(filepath.Join(s.Bin, name)); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither in %s nor in PATH: install Debian's package postgresql-client", name, s.Bin)
	}
	return path, nil
}

// Psql runs SQL in a database as superuser, by psql over TCP, and returns what it printed,
// unaligned and without headers. It stops at the first error.
func (s *Server) Psql(ctx context.Context, database, sql string) (string, error) {
	psql, err := s.Tool("psql")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", s.URL(database), "-f", "-")
	cmd.Env = cleanEnv()
	cmd.Stdin = strings.NewReader(sql)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("psql: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

func (s *Server) logTail() string {
	text, _ := os.ReadFile(s.LogFile)
	const most = 2000
	return string(bytes.TrimSpace(text[max(0, len(text)-most):]))
}

func (s *Server) portTaken() bool {
	return strings.Contains(s.logTail(), "Address already in use")
}

// ports are those that FreeAddr gives out: below the range from which the kernel takes the ports of outgoing
// connections. A process has blocks of them for itself, as long as it lives, by listening on the first of each: who is
// given one may take a while to listen on it, in which another process looks for one too.
var ports struct {
	sync.Mutex
	guards []net.Listener // of the blocks of this process
	left   []int          // of the last of them
}

const (
	firstPort, lastPort = 15000, 32000
	portBlock           = 50
)

// FreeAddr returns an address of 127.0.0.1 that nobody listens on. It returns each only once, and no other process
// is given it while this one runs.
func FreeAddr() (string, error) {
	ports.Lock()
	defer ports.Unlock()
	for {
		if len(ports.left) == 0 {
			if err := morePorts(); err != nil {
				return "", err
			}
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.left[0]))
		ports.left = ports.left[1:]
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
}

// morePorts takes a block of ports that no process has.
func morePorts() error {
	const blocks = (lastPort - firstPort) / portBlock
	var err error
	for _, i := range rand.Perm(blocks) {
		first := firstPort + i*portBlock
		var guard net.Listener
		if guard, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first))); err != nil {
			continue
		}
		ports.guards = append(ports.guards, guard)
		for port := first + 1; port < first+portBlock; port++ {
			ports.left = append(ports.left, port)
		}
		return nil
	}
	return fmt.Errorf("find free ports: %w", err)
}

func freePort() (int, error) {
	addr, err := FreeAddr()
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// cleanEnv is the environment without the variables that steer PostgreSQL's programs.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, BinEnv) || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG")
	})
}

// A process is a child that ends with us. The kernel sends the death signal when
// the thread ends that made the child, so one goroutine keeps that thread for as long as the child lives.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // valid after done
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return p, nil
}

// stop asks for a fast shutdown, and after the timeout for less and less civil ones.
func (p *process) stop(timeout time.Duration) error {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop the server: %w", err)
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(timeout):
		}
	}
	return errors.New("stop the server: it does not end")
}
