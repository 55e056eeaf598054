package health

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
)

func TestWhatANodeTellsOfTheHealth(t *testing.T) {
	node := sheep.Node{Addr: netip.MustParseAddrPort("10.0.0.1:7000")}
	for _, test := range []struct {
		about string
		node  answer
		word  string
		says  string
	}{
		{"nothing to do", answer{}, "ok", ""},
		{"nothing to recover after a format", answer{recovery: proto.RecoveryState{Active: true}}, "ok", ""},
		{"in recovery", answer{recovery: proto.RecoveryState{Active: true, Finished: 3, Total: 7}}, "recovering", "3 of 7 objects"},
		{"about to be through", answer{recovery: proto.RecoveryState{Active: true, Finished: 7, Total: 7}}, "recovering", "7 of 7 objects"},
		{"objects wait", answer{waiting: proto.WaitingList{Total: 2, Objects: []proto.WaitingObject{{ID: 5, Reason: "a node is absent"}}}}, "degraded", "2 objects current"},
		{"objects that nobody knows", answer{waiting: proto.WaitingList{Total: 1, Objects: []proto.WaitingObject{{Reason: "two nodes are absent"}}},
			recovery: proto.RecoveryState{Active: true, Finished: 7, Total: 7}}, "degraded", "two nodes are absent"},
		{"not formatted", answer{err: fmt.Errorf("ask: %w", sheep.ErrWaitForFormat)}, "ok", ""},
		{"no answer", answer{err: sheep.ErrNetwork}, "degraded", "10.0.0.1:7000 does not answer"},
		{"nearly full", answer{space: listing.Space{Size: 100, Used: 90, Free: 10}}, "degraded", "full to 90 %"},
		{"a mark of its disk is passed", answer{full: "near full", space: listing.Space{Size: 100 << 30, Used: 96 << 30, Free: 4 << 30}}, "degraded", "is near full, 4.0 GB are free"},
		{"copies differ", answer{scrub: proto.ScrubReport{Left: []sheep.ObjectID{5}}}, "degraded", "the copies of 1 objects differ"},
		{"some space", answer{space: listing.Space{Size: 100, Used: 89, Free: 11}}, "ok", ""},
	} {
		t.Run(test.about, func(t *testing.T) {
			test.node.node = node
			var r Report
			r.node(test.node)
			word, reasons := r.Level.String(), strings.Join(r.Reasons, "\n")
			if word != test.word || !strings.Contains(reasons, test.says) || (test.says == "") != (reasons == "") {
				t.Errorf("got %q and the reasons %q, want %q and words like %q", word, reasons, test.word, test.says)
			}
		})
	}
}
