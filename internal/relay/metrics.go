package relay

import "sync/atomic"

// HoldBounds are the upper bounds of the buckets of Metrics.HoldTimes, in
// nanoseconds; a last bucket takes what is longer.
var HoldBounds = [...]int64{50e3, 100e3, 200e3, 500e3, 1e6, 2e6, 5e6, 10e6, 50e6, 200e6, 1e9}

// Refusals by reason; see Metrics.
const (
	RefusedProtocol  = iota // a first packet that is none, or of a protocol nobody speaks
	RefusedTLS              // TLS handshake failed or its rules were broken
	RefusedLimit            // too many connections
	RefusedTimeout          // first packet or login took too long
	RefusedUpstream         // the server cannot be reached
	RefusedRecording        // the connect entry could not be recorded
	RefusedShutdown         // the proxy is ending
	RefusedLogin            // a login that the proxy does not let through
	refusalReasons   = iota
)

// RefusalNames are the labels of the reasons.
var RefusalNames = [refusalReasons]string{"protocol", "tls", "limit", "timeout", "upstream", "recording", "shutdown", "login"}

// Metrics counts what the relay does. All fields only grow, but for those
// named Open and Unauthenticated. Read them at any time.
type Metrics struct {
	Accepted        atomic.Int64 // connections
	Silent          atomic.Int64 // connections closed by the client without a byte
	Unauthenticated atomic.Int64 // connections whose login is not complete
	SessionsOpen    atomic.Int64
	SessionsTotal   atomic.Int64
	Statements      atomic.Int64 // query, execute and function_call entries
	Entries         atomic.Int64 // all entries the relay appended
	FromClients     atomic.Int64 // bytes, after TLS
	FromServers     atomic.Int64
	Violations      atomic.Int64 // sessions ended because a peer broke the protocol
	Panics          atomic.Int64 // sessions ended by a fault of the proxy
	Refused         [refusalReasons]atomic.Int64
	Cancels         atomic.Int64 // requests forwarded
	CancelsUnknown  atomic.Int64 // requests that named no session
	TLSFailed       atomic.Int64 // handshakes with clients
	Paused          atomic.Int64 // times reading from clients stopped because the log was behind

	// HoldTimes counts runs of held bytes by the time they waited for their
	// entry; HoldNanos is the sum of these times.
	HoldTimes [len(HoldBounds) + 1]atomic.Int64
	HoldNanos atomic.Int64
}

func (m *Metrics) held(nanos int64) {
	i := 0
	for i < len(HoldBounds) && nanos > HoldBounds[i] {
		i++
	}
	m.HoldTimes[i].Add(1)
	m.HoldNanos.Add(nanos)
}
