// Package size reads and prints amounts of bytes the way Sheepdog's
// administrators write them.
//
// A size is a number and at most one letter: 256G, 1.5M, 0x100000, 1e6. The
// grammar is that of C Sheepdog (fractions, exponents and hexadecimal numbers
// included), but the arithmetic is exact: an integer never loses digits, and
// what C took silently for zero or for a huge number (the empty string,
// negative numbers, inf, nan) is refused.
//
// Printing has two forms, both fixed for ever because scripts read them: plain
// bytes for raw output, and for people a number of at least megabytes with
// about two digits.
package size

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
)

// ErrInvalid says that a string is not a size.
var ErrInvalid = errors.New("invalid size")

// maxLen bounds what Parse looks at, and so the cost of its exact arithmetic.
const maxLen = 64

// The parts of a size: a hexadecimal number with a binary exponent or a decimal
// number with a decimal one, then the suffix.
var (
	hexSize = regexp.MustCompile(`^[ \t\n\v\f\r]*\+?0[xX]([0-9a-fA-F]*)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?[0-9]+))?([bBkKmMgGtTpP]?)$`)
	decSize = regexp.MustCompile(`^[ \t\n\v\f\r]*\+?([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?([bBkKmMgGtTpP]?)$`)
)

// Parse returns the number of bytes that s stands for. Fractions of a byte are
// dropped. A size of 2^64 bytes or more is given as 2^64-1, which is beyond
// every limit that a caller may have.
func Parse(s string) (uint64, error) {
	if len(s) > maxLen {
		return 0, fmt.Errorf("%w %q: too long", ErrInvalid, s[:maxLen]+"...")
	}
	m, base, radix := hexSize.FindStringSubmatch(s), 16, int64(2)
	if m == nil {
		m, base, radix = decSize.FindStringSubmatch(s), 10, 10
	}
	if m == nil || m[1]+m[2] == "" {
		return 0, fmt.Errorf("%w %q", ErrInvalid, s)
	}
	number, ok := new(big.Int).SetString(m[1]+m[2], base)
	if !ok {
		return 0, fmt.Errorf("%w %q", ErrInvalid, s)
	}
	exponent := exponentOf(m[3])
	if number.Sign() == 0 || exponent < -maxExponent {
		return 0, nil
	}
	if exponent > maxExponent {
		return math.MaxUint64, nil
	}
	digits := len(m[2])
	if base == 16 {
		digits *= 4 // the exponent of a hexadecimal number counts bits
	}
	return scale(number, radix, exponent-digits, shiftOf(m[4])), nil
}

// maxExponent is beyond every exponent that makes a difference: the longest
// number that Parse reads has fewer than 64 digits.
const maxExponent = 400

// exponentOf returns the exponent that s stands for, or one just beyond
// maxExponent.
func exponentOf(s string) int {
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil && s[0] == '-' {
		return -maxExponent - 1
	}
	if err != nil {
		return maxExponent + 1
	}
	return max(min(n, maxExponent+1), -maxExponent-1)
}

// shiftOf returns the power of two that a suffix stands for.
func shiftOf(suffix string) uint {
	switch suffix {
	case "k", "K":
		return 10
	case "m", "M":
		return 20
	case "g", "G":
		return 30
	case "t", "T":
		return 40
	case "p", "P":
		return 50
	}
	return 0
}

// scale returns number · radix^exponent · 2^shift, truncated and saturated.
func scale(number *big.Int, radix int64, exponent int, shift uint) uint64 {
	number.Lsh(number, shift)
	power := new(big.Int).Exp(big.NewInt(radix), big.NewInt(int64(max(exponent, -exponent))), nil)
	if exponent < 0 {
		number.Quo(number, power)
	} else {
		number.Mul(number, power)
	}
	if !number.IsUint64() {
		return math.MaxUint64
	}
	return number.Uint64()
}

// Human prints n for people: in megabytes or the first larger unit that leaves
// less than 1024, with one decimal below ten.
func Human(n uint64) string {
	units := [...]string{"MB", "GB", "TB", "PB", "EB", "ZB", "YB"}
	v, i := float64(n)/(1<<20), 0
	for v >= 1024 {
		v, i = v/1024, i+1
	}
	if v >= 10 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// Raw prints n for scripts: plain bytes.
func Raw(n uint64) string { return strconv.FormatUint(n, 10) }
