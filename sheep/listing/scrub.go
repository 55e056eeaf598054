package listing

import (
	"fmt"
	"time"

	"sheepdog/sheep/proto"
)

// A Scrub is what the background scrub of a node, or of several, has found. Its
// JSON form is fixed.
type Scrub struct {
	On      bool       `json:"on"`
	Running bool       `json:"running"`
	Waiting bool       `json:"waiting"`        // it runs, and waits for recovery or for its hours
	Next    int64      `json:"next,omitempty"` // seconds since 1970
	Last    *ScrubPass `json:"last,omitempty"` // the pass that ended last
	Now     *ScrubPass `json:"now,omitempty"`  // the one that runs
	Left    []string   `json:"left"`           // objects whose copies differ
}

// A ScrubPass is one pass over the objects of a node.
type ScrubPass struct {
	Began     int64  `json:"began"`
	Ended     int64  `json:"ended,omitempty"`
	Compared  uint64 `json:"compared"`
	Differing uint64 `json:"differing"`
	Repaired  uint64 `json:"repaired"`
	Bytes     uint64 `json:"bytes"`
}

// NewScrub returns what r says.
func NewScrub(r proto.ScrubReport) Scrub {
	s := Scrub{
		On: r.Bits&proto.ScrubOn != 0, Running: r.Bits&proto.ScrubRunning != 0, Waiting: r.Bits&proto.ScrubHeld != 0,
		Next: int64(r.Next), Left: []string{}, Last: newPass(r.Last), Now: newPass(r.Now),
	}
	for _, id := range r.Left {
		s.Left = append(s.Left, id.String())
	}
	return s
}

func newPass(p proto.ScrubPass) *ScrubPass {
	if p.Began == 0 {
		return nil
	}
	return &ScrubPass{int64(p.Began), int64(p.Ended), p.Compared, p.Differing, p.Repaired, p.Bytes}
}

// Lines says it in words, a line for each thing.
func (s Scrub) Lines(zone *time.Location) string {
	at := func(seconds int64) string { return time.Unix(seconds, 0).In(zone).Format(time.DateTime) }
	found := func(p *ScrubPass) string {
		return fmt.Sprintf("%d objects compared, %d differed, %d repaired", p.Compared, p.Differing, p.Repaired)
	}
	lines := "Last scrub: none\n"
	if s.Last != nil {
		lines = fmt.Sprintf("Last scrub: ended %s, %s\n", at(s.Last.Ended), found(s.Last))
	}
	switch {
	case !s.On:
		lines += "Scrub: off\n"
	case s.Now != nil && s.Waiting:
		lines += fmt.Sprintf("Scrub: waiting since recovery is not finished or outside of its hours, %s\n", found(s.Now))
	case s.Now != nil:
		lines += fmt.Sprintf("Scrub: running since %s, %s\n", at(s.Now.Began), found(s.Now))
	case s.Next != 0:
		lines += fmt.Sprintf("Scrub: next at %s\n", at(s.Next))
	}
	for _, id := range s.Left {
		lines += fmt.Sprintf("Copies of object %s differ: dog vdi check\n", id)
	}
	return lines
}
