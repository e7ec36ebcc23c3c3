package relay

import "github.com/pgnotary/pgnotary/internal/session"

// A Recorder takes entries and makes them durable. The relay knows the log
// only through it. All methods may be called concurrently and none waits for
// a disk, except where said.
type Recorder interface {
	// Append queues an entry and returns its index in the log. Leaf and value
	// are copied. A nil value means the entry has none; otherwise leaf ends in
	// an empty commitment (event.Leaf.HasValue), which the recorder fills in.
	// After a failed write every call returns the same error.
	Append(leaf, value []byte) (index int64, err error)

	// NewBlob begins a value too large to be held in memory.
	NewBlob() (session.Blob, error)

	// AppendBlob queues an entry whose value is a blob that was synced.
	AppendBlob(leaf []byte, b session.Blob) (index int64, err error)

	// Want asks that the entry at index becomes durable as soon as possible.
	// Entries nobody wants become durable within a few milliseconds.
	Want(index int64)

	// TryCommit commits on the thread of its caller, which spares waking the
	// committer and being woken by it: it returns when the entry at index is durable
	// or recording failed. It returns false at once, and has done nothing, if it
	// cannot, as when a commit is under way. Subscribers are told as by any commit.
	TryCommit(index int64) bool

	// Between Attend and Leave the caller sees to the entries nobody wants in
	// place of a timer: it calls Tend again and again, each time before as many
	// milliseconds have passed as that returned, one or more.
	Attend()
	Tend() int
	Leave()

	// Durable returns the number of durable entries: those with a smaller index.
	Durable() int64

	// Backlog returns the bytes queued and not yet durable.
	Backlog() int64

	// Subscribe makes the recorder call f after each commit with the number
	// of durable entries, or with the error that ended recording for good. f
	// is called from the committer: it must return at once. Call it before the first Append.
	Subscribe(f func(durable int64, err error))
}
