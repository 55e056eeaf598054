// Package tests tries the programs as their users do: real processes, real
// clients, real failures. The tests that lose power are in here too, on disks
// of package powerfs; package harness runs the daemons, package load judges
// what they kept. A test that needs a program which is not installed says so
// and is skipped; .ci/run installs them all.
package tests_test

import (
	"testing"

	"sheepdog/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
