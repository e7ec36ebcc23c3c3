package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
)

// once runs serve for one statement.
func (w *watched) once(args ...string) {
	w.t.Helper()
	p := w.serve(args...)
	if err := p.query(); err != nil {
		w.t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		w.t.Fatalf("serve = %d\n%s", code, p.stderr())
	}
}

// TestRotation changes the key of a log with two witnesses. Who trusts the old
// key follows; whoever stole it gains nothing by it.
func TestRotation(t *testing.T) {
	w := newWatched(t, "all")
	w.once()
	kept := filepath.Join(t.TempDir(), "kept")
	copyFile(t, filepath.Join(w.data, "checkpoint"), kept)
	stolen := filepath.Join(t.TempDir(), "stolen")
	copyFile(t, filepath.Join(w.data, "key"), stolen)
	code, next, errs := command(t, "keygen", "--next", w.data)
	if code != 0 || !strings.HasPrefix(next, "pgnotary/test/1+") || strings.TrimSpace(next) == w.vkey {
		t.Fatalf("keygen --next = %d, %q, %s", code, next, errs)
	}
	if code, _, _ := command(t, "keygen", "--next", w.data); code != 2 {
		t.Errorf("a second keygen --next = %d, want 2", code)
	}
	next = strings.TrimSpace(next)
	w.verify(0, "ok") // the key that waits is no part of the log
	for i, p := range []*witnessProcess{w.a, w.b} {
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		addr := strings.Trim(strings.TrimPrefix(p.url, "http:"), "/")
		startWitness(t, w.dirs[i], []string{"witness.example/a", "witness.example/b"}[i], addr, next)
	}
	w.once()
	w.once()
	w.verify(0, "the key was changed by entry", "--online", "--fresh", "5m", "--checkpoint", kept)
	p := w.serve()
	waitFor(t, "a checkpoint with the new key", func() bool {
		_, body := p.get("/log/checkpoint")
		_, err := checkpoint.Open([]byte(body), next)
		return err == nil
	})
	for _, more := range [][]string{{"--policy", w.policy, "--online", "--fresh", "5m"}, nil, {"--checkpoint", kept}} {
		args := append([]string{"verify", "--url", "http://" + p.http}, more...)
		if code, out, errs := pgnotary(t, args...); code != 0 {
			t.Errorf("%q = %d\n%s%s", args, code, out, errs)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Fatalf("serve = %d\n%s", code, p.stderr())
	}
	signed, err := os.ReadFile(filepath.Join(w.data, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Open(signed, next); err != nil {
		t.Errorf("the checkpoint: %v, want it signed with the new key", err)
	}
	for _, tt := range []struct {
		prove []string
		want  string
	}{
		{[]string{"1"}, "a successor of the key that the policy trusts"},
		{[]string{"--from-checkpoint", kept}, "none was changed, removed"},
	} {
		file := filepath.Join(t.TempDir(), "proof")
		if code, _, errs := command(t, append([]string{"prove", "--data", w.data, "-o", file}, tt.prove...)...); code != 0 {
			t.Fatalf("prove %q = %d, %s", tt.prove, code, errs)
		}
		if code, out, errs := command(t, "check", "--policy", w.policy, file); code != 0 || !strings.Contains(out, tt.want) {
			t.Errorf("check of %q = %d\n%s%s", tt.prove, code, out, errs)
		}
	}

	// A report is signed with the new key, and leads to it from the old one.
	bundle := filepath.Join(t.TempDir(), "bundle")
	if code, _, errs := command(t, "report", "--data", w.data, "--policy", w.policy, "--checkpoint", kept, "-o", bundle); code != 0 {
		t.Fatalf("report = %d, %s", code, errs)
	}
	for _, name := range []string{"MANIFEST", "growth.consistency", "first.tlog-proof"} {
		if code, out, errs := command(t, "check", "--policy", w.policy, filepath.Join(bundle, name)); code != 0 || strings.Contains(out, "not signed") {
			t.Errorf("check of the bundle's %s = %d\n%s%s", name, code, out, errs)
		}
	}

	// The old key signs what it may not sign any more.
	skey, err := os.ReadFile(stolen)
	if err != nil {
		t.Fatal(err)
	}
	old, err := checkpoint.NewSigner(string(skey))
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(signed, next)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := checkpoint.Sign(old, c.Origin, c.Size, c.Root)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.data, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("checkpoint", forged)
	w.verify(1, "replaced, and covers that entry: whoever has the old key made it")
	write("checkpoint", signed)
	succession, err := os.ReadFile(filepath.Join(w.data, "succession"))
	if err != nil {
		t.Fatal(err)
	}
	altered := append([]byte{}, succession...)
	altered[len(altered)-10] ^= 1
	write("succession", altered)
	w.verify(1, "succession: ")
	w.refused(nil, "succession has been altered")
	if err := os.Remove(filepath.Join(w.data, "succession")); err != nil {
		t.Fatal(err)
	}
	w.verify(1, "is not signed with the log's key")
	write("succession", succession)
	w.verify(0, "ok")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKeyInAgent: the key of a log is in a real ssh-agent, and then the next one.
func TestKeyInAgent(t *testing.T) {
	w := newWatched(t, "all")
	dir, err := os.MkdirTemp("", "ag") // short: the path of a socket has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	waitFor(t, "ssh-agent", func() bool {
		c, err := net.Dial("unix", socket) // the file is there before somebody listens
		return err == nil && c.Close() == nil
	})
	t.Setenv("SSH_AUTH_SOCK", socket)
	var names []string
	for _, name := range []string{"one", "two"} {
		file := filepath.Join(dir, name)
		for _, args := range [][]string{{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file}, {"ssh-add", "-q", file}} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%q: %v\n%s", args, err, out)
			}
		}
		out, err := exec.Command("ssh-keygen", "-l", "-f", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, "ssh-agent:"+strings.Fields(string(out))[1])
	}
	data := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		p := startServe(t, nil, append([]string{"--upstream", w.pg.Addr(), "--data", data, "--origin", "pgnotary/agent/1"}, args...)...)
		if err := p.query(); err != nil {
			t.Fatal(err)
		}
		p.signal(syscall.SIGTERM)
		if code := p.code(); code != 0 {
			t.Fatalf("serve = %d\n%s", code, p.stderr())
		}
		if code, out, errs := pgnotary(t, "verify", "--data", data); code != 0 {
			t.Errorf("verify = %d\n%s%s", code, out, errs)
		}
	}
	run("--signing-key", names[0])
	run("--signing-key", names[0], "--next-signing-key", names[1])
	run("--signing-key", names[1])
	if _, err := os.Stat(filepath.Join(data, "key")); !os.IsNotExist(err) {
		t.Errorf("there is a key file: %v", err)
	}
	bundle := filepath.Join(dir, "bundle")
	for key, want := range map[string]string{"": "say with --key where it is", names[0]: "the key is not that of the log", "ssh-agent:SHA256:x": "no Ed25519 key"} {
		args := []string{"report", "--data", data, "-o", bundle}
		if key != "" {
			args = append(args, "--key", key)
		}
		if code, _, errs := pgnotary(t, args...); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("report with key %q = %d, %s, want %q", key, code, errs, want)
		}
	}
	if code, out, errs := pgnotary(t, "report", "--data", data, "--key", names[1], "-o", bundle); code != 0 {
		t.Errorf("report = %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pgnotary(t, "check", "--policy", filepath.Join(bundle, "policy"), filepath.Join(bundle, "MANIFEST")); code != 0 {
		t.Errorf("check = %d\n%s%s", code, out, errs)
	}
	w.data = data
	if err := os.Remove(w.policy); err != nil {
		t.Fatal(err)
	}
	args := []string{"serve", "--listen", "127.0.0.1:0", "--http", "off", "--upstream", w.pg.Addr(), "--data", data, "--signing-key"}
	for name, want := range map[string]string{names[0]: "is not that of the log", "ssh-agent:SHA256:x": "no Ed25519 key", filepath.Join(dir, "none"): "no such file"} {
		if code, _, errs := pgnotary(t, append(args, name)...); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("serve with %s = %d, %s, want %q", name, code, errs, want)
		}
	}
	open := filepath.Join(dir, "open")
	if code, _, errs := command(t, "keygen", "--origin", "pgnotary/agent/1", "-o", open); code != 0 {
		t.Fatal(errs)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := pgnotary(t, append(args, open)...); code != 2 || !strings.Contains(errs, "can be read by others") {
		t.Errorf("serve with an open key = %d, %s", code, errs)
	}
}
