package recovery

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/replica"
)

// errNoCopy says that an object exists and no node can read its copy.
var errNoCopy = fmt.Errorf("%w: no copy can be read", sheep.ErrIO)

// A verdict says what is to be done with this node's copy of an object.
type verdict struct {
	source  int  // index of the copy that is the truth; -1 if the object does not exist
	compare bool // this node's copy may be equal to the source's: compare before fetching
	same    bool // this node's copy is as good as the source's
	stamp   bool // the copy is to be known as one of this epoch, for good
}

// A candidate is a copy that may be the truth.
type candidate struct {
	replica.State
	joined uint64 // when the life of its node began, by the index of the cluster log
}

// judge finds the truth about one object.
//
// copies are all members' copies in the order of preference: the
// holders as placement orders them, then the others. self is this node's
// place. absent names the members of an epoch that are not among those asked; it
// returns "" if there are none.
//
// A trusted copy is the truth. Without one it is the newest of those that there are.
func judge(copies []candidate, self int, now sheep.Epoch, absent func(sheep.Epoch) string) (verdict, error) {
	best := trusted(copies)
	if best < 0 {
		var err error
		if best, err = newest(copies, now, absent); err != nil {
			return verdict{}, err
		}
	}
	v := verdict{source: best}
	if !copies[best].Exists {
		v.source = -1
	}
	mine, its := copies[self], copies[best]
	switch {
	case best == self, !mine.Exists && !its.Exists:
		v.same = true
	case mine.Exists && its.Exists && !mine.Bad:
		v.compare = mine.Hot || its.Hot
		v.same = !v.compare && mine.Written == its.Written
	}
	v.stamp = its.Exists && (mine.Hot || its.Hot)
	return v, nil
}

// trusted returns the first copy that is trusted, or -1. A node that says that there is
// none, though others have one, has lost its own and is not believed.
func trusted(copies []candidate) int {
	at := -1
	for i, c := range copies {
		if c.Trusted && (at < 0 || c.Exists && !copies[at].Exists) {
			at = i
		}
	}
	return at
}

// newest returns the copy that was current last, none being trusted: whatever was
// answered in the epochs up to that one is in it. Copies that were written later carry
// the later epoch and are therefore current later. What is left are the epochs after
// the best copy's: if a member of one of them is absent, or has a copy that cannot be
// read and was written in one of them, there is something newer, and no older copy may
// take its place.
func newest(copies []candidate, now sheep.Epoch, absent func(sheep.Epoch) string) (int, error) {
	best, bad := -1, false
	var lost sheep.Epoch // the latest write of those that cannot be read
	for i, c := range copies {
		switch {
		case c.Bad:
			bad, lost = true, max(lost, c.Written)
		case best < 0 || better(c, copies[best]):
			best = i
		}
	}
	if bad && (best < 0 || !copies[best].Exists || lost > copies[best].Current) {
		return -1, fmt.Errorf("object %v: %w", copies[0].ID, errNoCopy)
	}
	for e := copies[best].Current + 1; e <= now; e++ {
		if names := absent(e); names != "" {
			return -1, fmt.Errorf("object %v: %s, of epoch %d, may hold a newer copy and is absent: %w",
				copies[best].ID, names, e, sheep.ErrAgain)
		}
	}
	return best, nil
}

// better reports whether copy a is to be preferred to b, neither being trusted.
//
// Of copies that were current in the same epoch, that of a node which has lived
// since then has the deferred writes, too; one that has started again may have
// lost them, and has joined later.
func better(a, b candidate) bool {
	if a.Current != b.Current {
		return a.Current > b.Current
	}
	if a.Exists != b.Exists {
		return a.Exists
	}
	if a.joined != b.joined {
		return a.joined < b.joined
	}
	return a.Written > b.Written
}

// accounted returns nil if the present nodes must have at least one copy of
// every object. epochs are the members of the epochs from the last one for
// which all copies were current, copies is the fewest that any object has.
//
// An object made in an epoch had a copy in as many zones as it has copies, or
// as there were. If fewer zones are absent, one of them is present.
func accounted(epochs [][]sheep.Node, present []sheep.Node, copies int) error {
	here := make(map[netip.AddrPort]bool)
	for _, n := range present {
		here[n.Addr] = true
	}
	var absent []string
	zones := make(map[sheep.ZoneID]bool)
	for _, nodes := range epochs {
		all := make(map[sheep.ZoneID]bool)
		for _, n := range nodes {
			if n.VNodes == 0 {
				continue
			}
			all[n.Zone] = true
			if !here[n.Addr] && !slices.Contains(absent, n.String()) {
				absent = append(absent, n.String())
				zones[n.Zone] = true
			}
		}
		copies = min(copies, len(all))
	}
	if len(zones) < copies || len(absent) == 0 {
		return nil
	}
	return fmt.Errorf("there may be objects that only absent nodes have (%s): %w", strings.Join(absent, ", "), sheep.ErrAgain)
}
