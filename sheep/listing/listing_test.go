package listing_test

import (
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
)

func TestTheLineOfANodeSaysHowFullItsDiskIs(t *testing.T) {
	s := listing.SpaceOf(100<<30, 4<<30)
	if got, want := listing.NodeSpace(3, s), " 3\t100 GB\t96 GB\t4.0 GB\t 96%\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.Full = "near full"
	if got, want := listing.NodeSpace(3, s), " 3\t100 GB\t96 GB\t4.0 GB\t 96%\tnear full\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatIsSaidOfTheScrub(t *testing.T) {
	last := proto.ScrubPass{Began: 60, Ended: 120, Compared: 9, Differing: 2, Repaired: 1}
	now := proto.ScrubPass{Began: 180, Compared: 3}
	const ended = "Last scrub: ended 1970-01-01 00:02:00, 9 objects compared, 2 differed, 1 repaired\n"
	for _, test := range []struct {
		about  string
		report proto.ScrubReport
		want   string
	}{
		{"off", proto.ScrubReport{}, "Last scrub: none\nScrub: off\n"},
		{"before the first", proto.ScrubReport{Bits: proto.ScrubOn, Next: 3600}, "Last scrub: none\nScrub: next at 1970-01-01 01:00:00\n"},
		{"between two", proto.ScrubReport{Bits: proto.ScrubOn, Next: 3600, Last: last, Left: []sheep.ObjectID{5}},
			ended + "Scrub: next at 1970-01-01 01:00:00\nCopies of object 0000000000000005 differ: dog vdi check\n"},
		{"running", proto.ScrubReport{Bits: proto.ScrubOn | proto.ScrubRunning, Last: last, Now: now},
			ended + "Scrub: running since 1970-01-01 00:03:00, 3 objects compared, 0 differed, 0 repaired\n"},
		{"waiting", proto.ScrubReport{Bits: proto.ScrubOn | proto.ScrubRunning | proto.ScrubHeld, Now: now},
			"Last scrub: none\nScrub: waiting since recovery is not finished or outside of its hours, 3 objects compared, 0 differed, 0 repaired\n"},
	} {
		t.Run(test.about, func(t *testing.T) {
			if got := listing.NewScrub(test.report).Lines(time.UTC); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
