package scrub

import (
	"fmt"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Copy is one of the copies of an object, as the node that should hold it
// describes it. Err is why it does not answer.
type Copy struct {
	Node sheep.Node
	proto.CopyReport
	Err error
}

// readable reports whether the content of the copy is known.
func (c *Copy) readable() bool {
	return c.Err == nil && c.Exists() && c.Bits&proto.CopyBad == 0 && c.Read == proto.ResultSuccess
}

// agrees reports whether two copies are the same thing, wherever they are.
func (c *Copy) agrees(o *Copy) bool {
	return c.readable() && o.readable() && c.Digest == o.Digest
}

// Same reports whether all copies are there and equal.
func Same(copies []Copy) bool {
	for i := range copies {
		if !copies[i].agrees(&copies[0]) {
			return false
		}
	}
	return len(copies) > 0
}

// Unchanged reports whether two looks at the copies of an object have seen the
// same.
func Unchanged(a, b []Copy) bool {
	return slices.EqualFunc(a, b, func(a, b Copy) bool {
		return a.Node.Addr == b.Node.Addr && a.Exists() == b.Exists() && a.Digest == b.Digest && a.Read == b.Read &&
			(a.Err == nil) == (b.Err == nil)
	})
}

// A Verdict says which copy of an object is right.
type Verdict struct {
	Right int    // index of the copy that is to replace those that differ; -1 if nobody can tell
	Wrong []int  // the copies that are to be replaced
	Why   string // for people: why that copy, or why none
}

// Judge decides between copies of an object that are not all the same. It is the
// right of the majority of those that can be read; else of the one that was
// written in the newest epoch. If several are equally new, force takes that of the
// node which has been a member longest. Copies that wait for recovery have a say
// only if all do.
func Judge(copies []Copy, force bool) Verdict {
	v := Verdict{Right: -1}
	voters := electorate(copies)
	if len(voters) == 0 {
		v.Why = "no node has it"
		if slices.ContainsFunc(copies, func(c Copy) bool { return c.Err != nil || c.Exists() }) {
			v.Why = "no copy can be read"
		}
		return v
	}
	if v.Right, v.Why = majority(copies, voters); v.Right < 0 {
		v.Right, v.Why = newest(copies, voters, force)
	}
	if v.Right < 0 {
		return v
	}
	for i := range copies {
		if copies[i].Err == nil && !copies[i].agrees(&copies[v.Right]) {
			v.Wrong = append(v.Wrong, i)
		}
	}
	return v
}

// electorate returns the copies that have a say.
func electorate(copies []Copy) []int {
	var all, trusted []int
	for i := range copies {
		if copies[i].readable() {
			all = append(all, i)
			if copies[i].Trusted() {
				trusted = append(trusted, i)
			}
		}
	}
	if len(trusted) > 0 {
		return trusted
	}
	return all
}

// majority returns a copy that more than half of the voters agree with, or -1.
func majority(copies []Copy, voters []int) (int, string) {
	for _, i := range voters {
		votes := 0
		for _, k := range voters {
			if copies[i].agrees(&copies[k]) {
				votes++
			}
		}
		switch {
		case len(voters) == 1:
			return i, "the only one that can be relied on"
		case 2*votes > len(voters):
			return i, fmt.Sprintf("%d of %d agree", votes, len(voters))
		}
	}
	return -1, ""
}

// newest returns the copy that was written in the newest epoch, or -1 if copies
// that were differ.
func newest(copies []Copy, voters []int, force bool) (int, string) {
	best := voters[0]
	for _, i := range voters {
		if copies[i].WriteEpoch > copies[best].WriteEpoch {
			best = i
		}
	}
	epoch := copies[best].WriteEpoch
	var rivals []int
	equal := true
	for _, i := range voters {
		if copies[i].WriteEpoch == epoch {
			rivals = append(rivals, i)
			equal = equal && copies[i].agrees(&copies[best])
		}
	}
	if equal {
		return best, fmt.Sprintf("it was written last, in epoch %d", epoch)
	}
	if !force {
		var names []string
		for _, i := range rivals {
			names = append(names, copies[i].Node.String())
		}
		return -1, "the copies of " + strings.Join(names, " and ") + " differ and are equally new"
	}
	for _, i := range rivals {
		if copies[i].Joined < copies[best].Joined {
			best = i
		}
	}
	return best, "of those that are equally new, that of the oldest member"
}
