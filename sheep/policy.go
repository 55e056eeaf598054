package sheep

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxCopies bounds the copies of an object, and data plus parity strips.
const MaxCopies = 31

// A Policy says how an object is made redundant: Copies whole copies, or Data
// data strips and Parity parity strips. Exactly one of the two is set.
type Policy struct {
	Copies uint8
	Data   uint8
	Parity uint8
}

// Replicated returns the policy of n whole copies.
func Replicated(n uint8) Policy { return Policy{Copies: n} }

// ParsePolicy parses what String prints: a number of copies, or D:P.
func ParsePolicy(s string) (Policy, error) {
	first, second, coded := strings.Cut(s, ":")
	n, err := strconv.ParseUint(first, 10, 8)
	if err != nil || len(first) > 2 {
		return Policy{}, fmt.Errorf("%w: redundancy %q", ErrInvalid, s)
	}
	if !coded {
		return PolicyFromWire(uint8(n), 0)
	}
	parity, err := strconv.ParseUint(second, 10, 8)
	if err != nil || len(second) > 2 || parity > 15 || n > 16 || n%2 != 0 {
		return Policy{}, fmt.Errorf("%w: redundancy %q", ErrInvalid, s)
	}
	return PolicyFromWire(uint8(n+parity), uint8(n/2<<4|parity))
}

// PolicyFromWire turns the two bytes that inodes and requests carry into a
// Policy. copyPolicy is zero for replication, else (data/2)<<4 | parity.
func PolicyFromWire(copies, copyPolicy uint8) (Policy, error) {
	if copyPolicy == 0 {
		if copies == 0 || copies > MaxCopies {
			return Policy{}, fmt.Errorf("%w: %d copies", ErrInvalid, copies)
		}
		return Policy{Copies: copies}, nil
	}
	p := Policy{Data: copyPolicy >> 4 * 2, Parity: copyPolicy & 0xf}
	switch p.Data {
	case 2, 4, 8, 16:
	default:
		return Policy{}, fmt.Errorf("%w: copy policy %#x", ErrInvalid, copyPolicy)
	}
	if p.Parity == 0 {
		return Policy{}, fmt.Errorf("%w: copy policy %#x", ErrInvalid, copyPolicy)
	}
	return p, nil
}

// Wire returns the two bytes that stand for p in inodes and requests.
func (p Policy) Wire() (copies, copyPolicy uint8) {
	if p.Data == 0 {
		return p.Copies, 0
	}
	return p.Data + p.Parity, p.Data/2<<4 | p.Parity
}

// Width returns the number of nodes that an object is spread over.
func (p Policy) Width() int { return int(p.Copies) + int(p.Data) + int(p.Parity) }

// Erasure reports whether p is an erasure code.
func (p Policy) Erasure() bool { return p.Data != 0 }

func (p Policy) String() string {
	if p.Erasure() {
		return fmt.Sprintf("%d:%d", p.Data, p.Parity)
	}
	return fmt.Sprint(p.Copies)
}
