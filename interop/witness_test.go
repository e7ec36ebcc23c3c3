package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/query"
)

// output collects what a program prints while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// background is a program that runs until stop or the end of the test.
type background struct {
	cmd  *exec.Cmd
	out  *output
	once sync.Once
}

func startProgram(t *testing.T, bin string, args ...string) *background {
	t.Helper()
	p := &background{cmd: exec.Command(bin, args...), out: new(output)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(bin), p.out)
		}
	})
	return p
}

// stop ends the program and waits for that.
func (p *background) stop() {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = p.cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			_ = p.cmd.Process.Kill()
			<-done
		}
	})
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting for %s", what)
		}
	}
}

// printed waits for a program to print what matches, and returns it.
func (p *background) printed(t *testing.T, re string) []string {
	t.Helper()
	var m []string
	until(t, "output that matches "+re, func() bool {
		m = regexp.MustCompile(re).FindStringSubmatch(p.out.String())
		return m != nil
	})
	return m
}

// freePort returns a port that was free a moment ago, for programs that
// cannot say which one they took.
func freePort(t *testing.T) string {
	t.Helper()
	addr, err := pgserver.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// foreignWitness is a witness somebody else wrote.
type foreignWitness struct{ name, vkey, url string }

// litewitness starts torchwood's witness, with its key in an ssh-agent and the log in its database.
func litewitness(t *testing.T, vkey string) foreignWitness {
	t.Helper()
	bin := program(t, ".", "litewitness", "filippo.io/torchwood/cmd/litewitness")
	dir, err := os.MkdirTemp("", "lw") // short: the path of a socket has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: &priv}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "agent")
	ln, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, c) }()
		}
	}()
	pub, err := ssh.NewPublicKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	db, addr := filepath.Join(dir, "db"), freePort(t)
	conn, err := sqlite.OpenConn(db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := startProgram(t, bin, "-name", "litewitness.example/1", "-db", db, "-ssh-agent", sock, "-listen", addr, "-key", ssh.FingerprintSHA256(pub))
	own := p.printed(t, `vkey=(\S+)`)[1]
	until(t, "litewitness", func() bool { return answers(addr) })
	origin, _, _ := strings.Cut(vkey, "+")
	empty := tlog.Hash(sha256.Sum256(nil))
	if err := sqlitex.Execute(conn, "INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", &sqlitex.ExecOptions{Args: []any{origin, empty.String()}}); err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.Execute(conn, "INSERT INTO key (origin, key) VALUES (?, ?)", &sqlitex.ExecOptions{Args: []any{origin, vkey}}); err != nil {
		t.Fatal(err)
	}
	return foreignWitness{"Lite", own, "http://" + addr}
}

// omniwitness starts the witness of transparency.dev.
func omniwitness(t *testing.T, vkey string) foreignWitness {
	t.Helper()
	bin := program(t, ".", "omniwitness", "github.com/transparency-dev/witness/cmd/omniwitness")
	dir, addr := t.TempDir(), freePort(t)
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, "a key of a test and nothing else")
	priv := ed25519.NewKeyFromSeed(seed)
	// The private key is a note's, of type 1; what it signs with is of type 4.
	skey, _, err := note.GenerateKey(bytes.NewReader(seed), "omniwitness.example/1")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := torchwood.NewCosignatureSigner("omniwitness.example/1", priv)
	if err != nil {
		t.Fatal(err)
	}
	origin, _, _ := strings.Cut(vkey, "+")
	files := map[string]string{"key": skey + "\n", "logs.yaml": fmt.Sprintf("Logs:\n  - Origin: %s\n    URL: http://127.0.0.1:1/\n    PublicKey: %s\n", origin, vkey)}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	metrics := freePortAfter(t, addr)
	startProgram(t, bin, "--listen", addr, "--metrics_listen", metrics, "--private_key_path", filepath.Join(dir, "key"),
		"--additional_logs", filepath.Join(dir, "logs.yaml"), "--db_file", filepath.Join(dir, "db"))
	until(t, "omniwitness", func() bool { return answers(addr) })
	return foreignWitness{"Omni", signer.Verifier().String(), "http://" + addr}
}

func freePortAfter(t *testing.T, addr string) string {
	t.Helper()
	ln, err := net.Listen("tcp", addr) // held meanwhile, so that another one is found
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return freePort(t)
}

// ourWitness starts pgnotary witness.
func ourWitness(t *testing.T, bin, vkey string) foreignWitness {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command(bin, "witness", "--data", dir, "--name", "pgnotary.example/1", "--add", vkey).Output()
	if err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, bin, "witness", "--data", dir, "--listen", "127.0.0.1:0")
	addr := p.printed(t, `msg=listening address=(\S+)`)[1]
	return foreignWitness{"Ours", strings.TrimSpace(string(out)), "http://" + addr}
}

// policyOf returns a policy file that wants all of these witnesses.
func policyOf(vkey string, ws ...foreignWitness) string {
	text, names := "log "+vkey+"\n", ""
	for _, w := range ws {
		text += "witness " + w.name + " " + w.vkey + " " + w.url + "\n"
		names += " " + w.name
	}
	return text + "group all-of-them all" + names + "\nquorum all-of-them\n"
}

// TestWitnesses has litewitness, omniwitness and our own witness cosign one
// running log; torchwood accepts its checkpoint and a proof under the policy file.
// Then the log is put back, and forked, and each of them is what stops it.
func TestWitnesses(t *testing.T) {
	bin := program(t, "..", "pgnotary", "./cmd/pgnotary")
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, "keygen", "--origin", "pgnotary/interop/1", "-o", filepath.Join(data, "key")).Output()
	if err != nil {
		t.Fatal(err)
	}
	vkey := strings.TrimSpace(string(out))
	all := []foreignWitness{litewitness(t, vkey), omniwitness(t, vkey), ourWitness(t, bin, vkey)}
	policy := policyOf(vkey, all...)
	file := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	serve := func(dir string, more ...string) *background {
		return startProgram(t, bin, append([]string{"serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--data", dir}, more...)...)
	}
	p := serve(data, "--policy", file)
	addr := p.printed(t, `http=(127\S+)`)[1]
	var served []byte
	until(t, "a checkpoint cosigned by all", func() bool {
		resp, err := http.Get("http://" + addr + "/log/checkpoint")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		served = b.Bytes()
		return err == nil && strings.Count(b.String(), "— ") == 4
	})
	if _, _, err := torchwood.VerifyCheckpoint(served, theirs); err != nil {
		t.Errorf("torchwood does not accept the cosigned checkpoint: %v\n%s", err, served)
	}
	proof := filepath.Join(t.TempDir(), "0.tlog-proof")
	if out, err := exec.Command(bin, "prove", "--data", data, "0", "-o", proof).CombinedOutput(); err != nil {
		t.Fatalf("prove: %v\n%s", err, out)
	}
	log, err := query.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	e, err := log.Entry(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	if err := torchwood.VerifyProof(theirs, tlog.RecordHash(e.Leaf), b); err != nil {
		t.Errorf("torchwood does not accept the proof under the policy: %v", err)
	}
	if torchwood.VerifyProof(theirs, tlog.RecordHash(e.Leaf), without(b, "litewitness.example/1")) == nil {
		t.Error("torchwood accepts the proof without litewitness: this test could not fail")
	}
	p.stop()
	older := filepath.Join(t.TempDir(), "older")
	if err := os.CopyFS(older, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(older, "key"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = serve(data, "--policy", file)
	p.printed(t, `http=(127\S+)`)
	p.stop()
	verify := func(dir, policy string) (string, int) {
		cmd := exec.Command(bin, "verify", "--data", dir, "--policy", policy, "--online", "--fresh", "5m")
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := verify(data, file); code != 0 {
		t.Errorf("verify --online = %d\n%s", code, out)
	}

	// Every witness by itself finds that the log was put back, at a start and in verify.
	single := func(w foreignWitness) string {
		name := filepath.Join(t.TempDir(), "policy")
		if err := os.WriteFile(name, []byte(policyOf(vkey, w)), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, w := range all {
		if out, code := verify(older, single(w)); code != 1 || !strings.Contains(out, "rolled back") {
			t.Errorf("%s: verify of the log that was put back = %d\n%s", w.name, code, out)
		}
		refused(t, bin, older, single(w), w.name+": put back", "an old state was put back")
	}
	// It goes on all the same, and is another log now, first longer.
	if err := os.Remove(filepath.Join(older, "witnessed")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		q := serve(older)
		q.printed(t, `http=(127\S+)`)
		q.stop()
	}
	for _, w := range all {
		if out, code := verify(older, single(w)); code != 1 {
			t.Errorf("%s: verify of the fork = %d\n%s", w.name, code, out)
		}
		refused(t, bin, older, single(w), w.name+": fork", "the witness says that it cosigned another history")
	}
}

// refused wants that serve does not start.
func refused(t *testing.T, bin, dir, policy, name, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "serve", "--listen", "127.0.0.1:0", "--http", "off", "--upstream", "127.0.0.1:1", "--data", dir, "--policy", policy)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), want) || !strings.Contains(string(out), "ALARM") {
		t.Errorf("%s: serve = %d, want 2 and %q\n%s", name, code, want, out)
	}
}

// without removes the signature lines of a key.
func without(signed []byte, name string) []byte {
	var out []byte
	for line := range bytes.Lines(signed) {
		if !bytes.HasPrefix(line, []byte("— "+name+" ")) {
			out = append(out, line...)
		}
	}
	return out
}

// TestTesseraAsksOurWitness: a log of Tessera, with its own client of the
// protocol, gets cosignatures of pgnotary witness, and none for a fork.
func TestTesseraAsksOurWitness(t *testing.T) {
	bin := program(t, "..", "pgnotary", "./cmd/pgnotary")
	oneshot := program(t, ".", "posix-oneshot", "github.com/transparency-dev/tessera/cmd/examples/posix-oneshot")
	skey, vkey, err := note.GenerateKey(nil, "tessera.example/log")
	if err != nil {
		t.Fatal(err)
	}
	w := ourWitness(t, bin, vkey)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	key, policy := write("key", skey), write("policy", policyOf(vkey, w))
	ours, err := checkpoint.ParsePolicy([]byte(policyOf(vkey, w)))
	if err != nil {
		t.Fatal(err)
	}
	add := func(storage, entry string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, oneshot, "--storage_dir", storage, "--entries", write("entry", entry), "--private_key", key, "--witness_policy_file", policy)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	storage := filepath.Join(dir, "log")
	var size int64
	for i := range 5 {
		if err := add(storage, fmt.Sprintf("entry %d", i)); err != nil {
			t.Fatal(err)
		}
		signed, err := os.ReadFile(filepath.Join(storage, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := ours.Verify(signed)
		if err != nil || v.Size <= size {
			t.Fatalf("after entry %d: size %d, %v\n%s", i, v.Size, err, signed)
		}
		size = v.Size
	}
	// A second history with the same key is not published: the witness does not cosign it.
	if err := add(filepath.Join(dir, "fork"), "another entry"); err == nil {
		signed, _ := os.ReadFile(filepath.Join(dir, "fork", "checkpoint"))
		if _, err := ours.Verify(signed); err == nil {
			t.Errorf("a fork was cosigned:\n%s", signed)
		}
	}
}
