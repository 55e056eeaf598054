package command

import (
	"errors"
	"math"
	"net"
	"strconv"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/remote"
)

// checkAddress refuses what is no address. Names are resolved when they are used.
func checkAddress(s string) error {
	if strings.HasPrefix(s, "unix:") && len(s) > len("unix:") || net.ParseIP(s) != nil {
		return nil
	}
	if _, err := net.LookupHost(s); s == "" || err != nil {
		return fail(ExitFailure, "Invalid ip address %s", s)
	}
	return nil
}

func checkPort(s string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimLeft(s, " \t"), "+"), 10, 16)
	if err != nil || n == 0 {
		return fail(ExitUsage, "Invalid port number '%s'", s)
	}
	return nil
}

// parseVersion parses a snapshot id or, if s is no number, a tag.
func parseVersion(s string) (remote.Version, error) {
	digits := strings.TrimLeft(s, " \t\n\v\f\r")
	n, err := strconv.ParseInt(digits, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		if len(s) > maxName {
			return remote.Version{}, fail(ExitUsage, "The snapshot tag is longer than %d bytes", maxName)
		}
		return remote.Version{Tag: s}, nil
	}
	if err != nil || n > math.MaxUint32 {
		return remote.Version{}, fail(ExitFailure, "The snapshot id must be smaller than 4294967296")
	}
	if n <= 0 {
		return remote.Version{}, fail(ExitFailure, "The snapshot id must be larger than zero")
	}
	return remote.Version{ID: uint32(n)}, nil
}

// parsePolicy parses N, a number of copies, or D:P, an erasure code.
func parsePolicy(o *options, s string) error {
	invalid := fail(ExitFailure, "Invalid parameter %s", s).
		and("To create replicated vdi, set -c x").
		and("  x(1 to 31)   - number of replicated copies").
		and("To create erasure coded vdi, set -c x:y").
		and("  x(2,4,8,16)  - number of data strips").
		and("  y(1 to 15)   - number of parity strips")
	policy, err := sheep.ParsePolicy(s)
	if err != nil {
		return invalid
	}
	o.policy, o.hasPolicy = policy, true
	return nil
}

func parseShift(o *options, s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || n < sheep.MinBlockShift {
		return fail(ExitFailure, "Object Size is larger than 2^20. Please set shift bit larger than 20")
	}
	if n > sheep.MaxBlockShift {
		return fail(ExitFailure, "Object Size is limited to 2^31. Please set shift bit lower than 31")
	}
	o.shift = uint8(n)
	return nil
}

func parseIndex(o *options, s string) error {
	digits, base := s, 10
	if hex, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if errors.Is(err, strconv.ErrRange) {
		n, err = math.MaxUint32, nil // too large for every VDI, which is for the command to say
	}
	if err != nil {
		return fail(ExitFailure, "The index must be a decimal integer or a hexadecimal integer started with 0x")
	}
	o.index, o.hasIndex = uint32(n), true
	return nil
}

func parseOID(o *options, s string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0x"), 16, 64)
	if err != nil {
		return fail(ExitFailure, "object id must be a hex integer")
	}
	o.oid, o.hasOID = sheep.ObjectID(n), true
	return nil
}

func parsePositive(s, complaint string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 {
		return 0, fail(ExitFailure, "%s", complaint)
	}
	return n, nil
}
