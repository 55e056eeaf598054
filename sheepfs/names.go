package sheepfs

import (
	"strconv"
	"strings"
	"syscall"

	"sheepdog/sheep/remote"
)

// maxName is the most bytes of names and tags.
const maxName = 255

// checkName refuses names that disks cannot have.
func checkName(name string) error {
	switch {
	case name == "":
		return refuse(syscall.EINVAL, "the name is empty")
	case len(name) > maxName:
		return refuse(syscall.EINVAL, "the name is longer than %d bytes", maxName)
	case strings.IndexByte(name, 0) >= 0:
		return refuse(syscall.EINVAL, "the name has a byte 0")
	}
	return nil
}

// numeric reports whether dog would take s for a snapshot id.
func numeric(s string) bool {
	_, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 10, 64)
	return s != "" && (err == nil || strings.Contains(err.Error(), strconv.ErrRange.Error()))
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// version returns what the name of a snapshot's directory stands for: a tag, or
// an id if it is a number.
func version(label string) (remote.Version, error) {
	if !numeric(label) {
		if len(label) > maxName {
			return remote.Version{}, refuse(syscall.ENAMETOOLONG, "the tag is longer than %d bytes", maxName)
		}
		return remote.Version{Tag: label}, nil
	}
	n, err := strconv.ParseUint(label, 10, 32)
	if err != nil || n == 0 || decimal(uint32(n)) != label {
		return remote.Version{}, refuse(syscall.ENOENT, "no snapshot has the id %s", label)
	}
	return remote.Version{ID: uint32(n)}, nil
}

// words splits a line at its blanks. A backslash makes the next byte a part of
// the word, as in the raw list of VDIs.
func words(line string) ([]string, error) {
	var all []string
	var word []byte
	in := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			if i++; i == len(line) {
				return nil, refuse(syscall.EINVAL, "nothing follows the last backslash")
			}
			word, in = append(word, line[i]), true
		case c == ' ' || c == '\t':
			if in {
				all = append(all, string(word))
			}
			word, in = nil, false
		default:
			word, in = append(word, c), true
		}
	}
	if in {
		all = append(all, string(word))
	}
	return all, nil
}
