//go:build race

package vdi_test

// The race detector makes sync.Pool forget at random.
const raceEnabled = true
