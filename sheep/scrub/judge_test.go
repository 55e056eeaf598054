package scrub_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/scrub"
)

// holder is the node with the number.
func holder(i int) sheep.Node {
	return sheep.Node{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7000), VNodes: 1, Zone: sheep.ZoneID(i)}
}

// copies makes copies of words, one for each node: "x7" is the content x written
// in epoch 7, with a ? one that waits for recovery, "-" none, "!" one that cannot
// be read, and "@" a node that does not answer.
func copies(t *testing.T, words string) []scrub.Copy {
	t.Helper()
	var all []scrub.Copy
	for i, word := range strings.Fields(words) {
		c := scrub.Copy{Node: holder(i)}
		c.Joined = uint64(100 - i)
		waits := strings.HasSuffix(word, "?")
		if word = strings.TrimSuffix(word, "?"); !waits {
			c.Bits |= proto.CopyTrusted
		}
		switch word[0] {
		case '-':
		case '@':
			c.Err = errors.New("no answer")
		case '!':
			c.Bits |= proto.CopyExists
			c.Read = proto.ResultIO
		default:
			c.Bits |= proto.CopyExists
			c.Digest[0] = word[0]
			c.WriteEpoch = sheep.Epoch(word[1] - '0')
		}
		all = append(all, c)
	}
	return all
}

func TestWhichCopyIsRight(t *testing.T) {
	for _, test := range []struct {
		about, copies string
		force         bool
		right         int
		wrong         []int
		why           string
	}{
		{"one of three differs", "a1 b1 a1", false, 0, []int{1}, "2 of 3 agree"},
		{"one of three is newer, but the others agree", "b9 a1 a1", false, 1, []int{0}, "2 of 3 agree"},
		{"one of two is newer", "a1 b2", false, 1, []int{0}, "written last, in epoch 2"},
		{"two of two are equally new", "a2 b2", false, -1, nil, "10.0.0.1:7000 and 10.0.0.2:7000 differ and are equally new"},
		{"the same, and somebody has decided", "a2 b2", true, 1, []int{0}, "oldest member"},
		{"all three differ", "a1 b3 c2", false, 1, []int{0, 2}, "written last"},
		{"the newest two differ", "a1 b3 c3", false, -1, nil, "10.0.0.2:7000 and 10.0.0.3:7000"},
		{"one is missing", "a1 a1 -", false, 0, []int{2}, "2 of 2 agree"},
		{"one is missing and the others differ", "- a1 b2", false, 2, []int{0, 1}, "written last"},
		{"only one is left", "- - a1", false, 2, []int{0, 1}, "the only one"},
		{"one cannot be read", "! a1 a1", false, 1, []int{0}, "2 of 2 agree"},
		{"all but one cannot be read", "! ! a1", false, 2, []int{0, 1}, "the only one"},
		{"none can be read", "! ! -", true, -1, nil, "no copy can be read"},
		{"there is none", "- - -", true, -1, nil, "no node has it"},
		{"nobody has it, as far as one can ask", "- @ -", false, -1, nil, "no copy can be read"},
		{"who does not answer cannot be repaired", "@ a1 -", false, 1, []int{2}, "the only one"},
		{"what waits for recovery has no say", "a9? a9? b1", false, 2, []int{0, 1}, "the only one"},
		{"unless all wait", "a9? a9? b1?", false, 0, []int{2}, "2 of 3 agree"},
	} {
		t.Run(test.about, func(t *testing.T) {
			all := copies(t, test.copies)
			if scrub.Same(all) {
				t.Error("the copies count as the same")
			}
			v := scrub.Judge(all, test.force)
			if v.Right != test.right || !slices.Equal(v.Wrong, test.wrong) || !strings.Contains(v.Why, test.why) {
				t.Errorf("got %+v, want %d to replace %v because of %q", v, test.right, test.wrong, test.why)
			}
		})
	}
}

func TestCopiesThatAreTheSame(t *testing.T) {
	for words, want := range map[string]bool{"a1 a1 a1": true, "a1 a2": true, "a1? a1": true, "": false, "- -": false, "a1 -": false, "! !": false, "a1 @": false} {
		if got := scrub.Same(copies(t, words)); got != want {
			t.Errorf("%q: got %v", words, got)
		}
	}
}
