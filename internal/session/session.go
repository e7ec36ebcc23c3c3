package session

import "github.com/pgnotary/pgnotary/internal/event"

// A Log takes the entries a session makes. The session calls it in the order
// the entries have in the log; value is only valid during the call.
type Log interface {
	// Emit records an entry; a nil value means it has none. It returns the
	// entry's index in the log.
	Emit(l *event.Leaf, value []byte) (index int64, err error)
	// NewBlob begins a value too large for memory.
	NewBlob() (Blob, error)
	// EmitBlob records an entry whose value is a blob the relay has synced.
	EmitBlob(l *event.Leaf, b Blob) (index int64, err error)
}

// A Blob is a large value on its way into the log.
type Blob interface {
	// Write appends to the value.
	Write(p []byte) (int, error)
	// Sync ends the value and makes it durable; it may take long and is
	// called by the relay, never by the session.
	Sync() error
	// Abort throws an unfinished value away.
	Abort()
}
