//go:build race

package flight_test

// The race detector makes sync.Pool forget at random.
const raceEnabled = true
