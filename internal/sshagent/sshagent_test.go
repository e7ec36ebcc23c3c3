package sshagent

import (
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// agent starts OpenSSH's ssh-agent with a new key and returns its socket and
// the key's fingerprint as ssh-keygen prints it.
func agent(t *testing.T) (socket, fingerprint string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ag") // short: the path of a socket has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil { // the file is there before somebody listens
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("ssh-agent does not start")
		}
	}
	for _, kind := range []string{"ecdsa", "ed25519"} {
		file := filepath.Join(dir, kind)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
		add := exec.Command("ssh-add", "-q", file)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("ssh-add: %v\n%s", err, out)
		}
		out, err := exec.Command("ssh-keygen", "-l", "-f", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		fingerprint = strings.Fields(string(out))[1]
	}
	return socket, fingerprint
}

// TestAgent signs with a real agent.
func TestAgent(t *testing.T) {
	socket, fingerprint := agent(t)
	k, err := Open(socket, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range []string{"", "a message", strings.Repeat("x", 10_000)} {
		sig, err := k.Sign(nil, []byte(msg), crypto.Hash(0))
		if err != nil || !ed25519.Verify(k.pub, []byte(msg), sig) {
			t.Errorf("signature of %d bytes: %x, %v", len(msg), sig, err)
		}
	}
	if _, err := k.Sign(nil, nil, crypto.SHA256); err == nil {
		t.Error("a hash was signed")
	}
	if _, err := Open(socket, "SHA256:x"); err == nil || !strings.Contains(err.Error(), fingerprint) {
		t.Errorf("another key: %v, want the ones there are", err)
	}
	remove := exec.Command("ssh-add", "-q", "-D")
	remove.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := remove.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add -D: %v\n%s", err, out)
	}
	if _, err := k.Sign(nil, nil, crypto.Hash(0)); err == nil || !strings.Contains(err.Error(), "does not have the key any more") {
		t.Errorf("a key that was removed: %v", err)
	}
	for _, s := range []string{"", socket + "x"} {
		if _, err := Open(s, fingerprint); err == nil {
			t.Errorf("an agent at %q", s)
		}
	}
}

// TestNonsense: an agent that answers with anything is an error, never a panic.
func TestNonsense(t *testing.T) {
	dir, err := os.MkdirTemp("", "ag")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	answers := make(chan []byte, 1) // one for each connection
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			var head [4]byte
			if _, err := io.ReadFull(c, head[:]); err == nil {
				_, _ = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[:])))
			}
			_, _ = c.Write(<-answers)
			c.Close()
		}
	}()
	framed := func(b string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	for _, a := range [][]byte{
		nil,
		{0},
		{0, 0, 0, 0},
		{255, 255, 255, 255},
		framed("\x05"), framed("\x0c"), framed("\x0c\x00\x00\x00\x01"),
		framed("\x0c\xff\xff\xff\xff"), framed("\x0c\x00\x00\x00\x00x"), framed("\x0c\x00\x00\x00\x01\x00\x00\x00\x09x"),
		{0, 0, 0, 9, 12},
	} {
		answers <- a
		if _, err := Open(socket, "SHA256:x"); err == nil {
			t.Errorf("answer %q: a key", a)
		}
	}
	k := &Key{socket: socket}
	for _, a := range [][]byte{nil, framed("\x0e"), framed("\x0e\x00\x00\x00\x00"), framed("\x0e" + string(appendString(nil, string(appendString(appendString(nil, keyType), "short")))))} {
		answers <- a
		if sig, err := k.Sign(nil, nil, crypto.Hash(0)); err == nil {
			t.Errorf("answer %q: signature %x", a, sig)
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add(appendString(appendString([]byte{0, 0, 0, 1}, string(appendString(appendString(nil, keyType), strings.Repeat("k", 32)))), "comment"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if err != nil {
			return
		}
		for _, k := range keys {
			parseKey(k, ed25519.PublicKeySize)
		}
	})
}
