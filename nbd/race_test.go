//go:build race

package nbd_test

// raceDetector is on: pools lose memory on purpose.
const raceDetector = true
