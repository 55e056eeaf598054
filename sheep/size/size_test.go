package size_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"sheepdog/sheep/size"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     uint64
	}{
		{"a plain number is bytes", "4096", 4096},
		{"zero is a size", "0", 0},
		{"a size of gigabytes", "256G", 274877906944},
		{"a size of terabytes", "4T", 4398046511104},
		{"a fraction of a megabyte", "1.5M", 1572864},
		{"a fraction without digits before the point", ".5k", 512},
		{"a fraction without digits after the point", "2.k", 2048},
		{"a fraction of a byte is dropped", "1.9", 1},
		{"bytes may be named", "10b", 10},
		{"bytes may be named in upper case", "10B", 10},
		{"kilobytes in lower case", "3k", 3072},
		{"petabytes", "16P", 16 << 50},
		{"an exponent", "1e6", 1000000},
		{"a negative exponent with a suffix", "5E-1m", 524288},
		{"a hexadecimal number", "0x100000", 1048576},
		{"a hexadecimal number swallows b as a digit", "0x10b", 0x10b},
		{"a hexadecimal number with a suffix", "0x10K", 16384},
		{"a hexadecimal fraction with a binary exponent", "0x1.8p4", 24},
		{"white space and a plus sign before the number", " \t+7", 7},
		{"an integer beyond 2^53 keeps its digits", "9007199254740993", 9007199254740993},
		{"the largest size", "18446744073709551615", math.MaxUint64},
		{"a larger one is the largest", "18446744073709551616", math.MaxUint64},
		{"a much larger one is the largest", "1e999999999999", math.MaxUint64},
		{"zero with a large exponent is zero", "0e999999999999", 0},
		{"a tiny one is zero", "1e-999999999999", 0},
		{"leading zeros are not octal", "010", 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := size.Parse(test.in)
			if err != nil || got != test.want {
				t.Errorf("Parse(%q) = %d, %v, want %d", test.in, got, err, test.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, in string }{
		{"the empty string", ""},
		{"blanks", "  "},
		{"a suffix alone", "M"},
		{"a point alone", "."},
		{"a sign alone", "+"},
		{"two letters", "1GB"},
		{"three letters", "1MiB"},
		{"a blank before the suffix", "10 M"},
		{"a word", "bar"},
		{"an unknown suffix", "1x"},
		{"an exponent without digits", "1e"},
		{"negative numbers", "-1"},
		{"minus zero", "-0"},
		{"infinity", "inf"},
		{"spelled-out infinity", "infinity"},
		{"what is not a number", "nan"},
		{"hexadecimal without digits", "0x"},
		{"digits with separators", "1_000"},
		{"trailing blanks", "1 "},
		{"endless digits", strings.Repeat("9", 100000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := size.Parse(test.in); !errors.Is(err, size.ErrInvalid) {
				t.Errorf("Parse = %d, %v, want ErrInvalid", got, err)
			}
		})
	}
}

func TestHuman(t *testing.T) {
	for _, test := range []struct {
		in   uint64
		want string
	}{
		{0, "0.0 MB"},
		{1, "0.0 MB"},
		{4 << 20, "4.0 MB"},
		{10 << 20, "10 MB"},
		{12587576, "12 MB"},
		{1 << 30, "1.0 GB"},
		{5 << 40, "5.0 TB"},
		{153335357440, "143 GB"},
		{16 << 50, "16 PB"},
		{math.MaxUint64, "16 EB"},
	} {
		if got := size.Human(test.in); got != test.want {
			t.Errorf("Human(%d) = %q, want %q", test.in, got, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"1.5M", "0x1.8p4", "1e6", "1GB", "-1", "nan", "18446744073709551616"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := size.Parse(s)
		if err != nil {
			if !errors.Is(err, size.ErrInvalid) {
				t.Errorf("Parse(%q): %v does not match ErrInvalid", s, err)
			}
			return
		}
		again, err := size.Parse(size.Raw(n))
		if err != nil || again != n {
			t.Errorf("Parse(%q) = %d, but Parse of that = %d, %v", s, n, again, err)
		}
	})
}
