//go:build race

package server_test

// raceDetector reports whether the race detector is on, under which pools drop
// what they are given at random.
const raceDetector = true
