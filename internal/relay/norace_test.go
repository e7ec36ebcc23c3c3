//go:build !race

package relay

// allowedAllocs per statement, for what the runtime does now and then.
const allowedAllocs = 0.1
