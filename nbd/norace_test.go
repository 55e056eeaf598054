//go:build !race

package nbd_test

// raceDetector is off.
const raceDetector = false
