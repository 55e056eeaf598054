//go:build !race

package vdi_test

const raceEnabled = false
