// Package verifiers finds the SCRAM verifiers of users: in a file, or by a function of the
// server that may read what others may not.
//
// A verifier lets its holder check a login and pass for the server; it does not let him log in.
// It is looked up anew for each login, is nowhere stored, and is in no error or diagnostic.
package verifiers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"github.com/pgnotary/pgnotary/internal/scram"
)

// maxFile bounds a file of verifiers, in bytes: some 100,000 users.
const maxFile = 32 << 20

// A File holds the verifiers of a file with a line for each user, the format of PgBouncer's auth_file:
//
//	"alice" "SCRAM-SHA-256$4096:salt$StoredKey:ServerKey"
//
// Quotes within quotes are doubled. Empty lines and those that begin with ; or # are skipped. Users
// with an MD5 hash are as users that are not there. A password in the clear is an error, as is a file
// that others can read. Its methods may be called concurrently.
type File struct {
	users atomic.Pointer[map[string]string] // texts of verifiers, parsed anew for each login
}

// OpenFile reads a file.
func OpenFile(path string) (*File, error) {
	users, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read verifiers %s: %w", path, err)
	}
	f := new(File)
	f.users.Store(&users)
	return f, nil
}

// Replace puts what other holds into force.
func (f *File) Replace(other *File) { f.users.Store(other.users.Load()) }

// Users returns how many users have a verifier.
func (f *File) Users() int { return len(*f.users.Load()) }

// Verifier returns the verifier of a user, nil if there is none.
func (f *File) Verifier(_ context.Context, user string) (*scram.Verifier, error) {
	text, ok := (*f.users.Load())[user]
	if !ok {
		return nil, nil
	}
	return scram.ParseVerifier(text)
}

func readFile(path string) (map[string]string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		var where *fs.PathError
		if errors.As(err, &where) {
			err = where.Err
		}
		return nil, err
	case info.Mode().Perm()&0o007 != 0:
		return nil, errors.New("everybody may read it: chmod o-rwx")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(string(data))
}

// parse reads the content of a file. Its errors name the line and repeat nothing of it.
func parse(text string) (map[string]string, error) {
	users, n := map[string]string{}, 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		user, rest, ok := quoted(line)
		secret, rest, ok1 := quoted(strings.TrimSpace(rest))
		switch _, twice := users[user]; {
		case !ok || !ok1 || rest != "" && !strings.HasPrefix(rest, " "): // PgBouncer ignores what follows a space
			return nil, fmt.Errorf("line %d is not \"user\" \"verifier\"", n)
		case user == "":
			return nil, fmt.Errorf("line %d names no user", n)
		case twice:
			return nil, fmt.Errorf("line %d: the user has a line already", n)
		case strings.HasPrefix(secret, "md5"), secret == "":
			continue
		case !strings.HasPrefix(secret, scram.Mechanism+"$"):
			return nil, fmt.Errorf("line %d has a password in the clear: put the verifier from pg_authid there", n)
		}
		if _, err := scram.ParseVerifier(secret); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		users[user] = secret
	}
	return users, nil
}

// quoted cuts a quoted string off the front of s.
func quoted(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '"':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		default:
			return b.String(), s[i+1:], true
		}
	}
	return "", s, false
}
