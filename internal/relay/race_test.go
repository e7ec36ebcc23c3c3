//go:build race

package relay

// allowedAllocs per statement: the race detector empties sync.Pools at random.
const allowedAllocs = 4
