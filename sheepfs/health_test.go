package sheepfs

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
		node  nodeHealth
		word  string
		says  string
	}{
		{"nothing to do", nodeHealth{}, "ok", ""},
		{"nothing to recover after a format", nodeHealth{recovery: proto.RecoveryState{Active: true}}, "ok", ""},
		{"in recovery", nodeHealth{recovery: proto.RecoveryState{Active: true, Finished: 3, Total: 7}}, "recovering", "3 of 7 objects"},
		{"about to be through", nodeHealth{recovery: proto.RecoveryState{Active: true, Finished: 7, Total: 7}}, "recovering", "7 of 7 objects"},
		{"not formatted", nodeHealth{err: fmt.Errorf("ask: %w", sheep.ErrWaitForFormat)}, "ok", ""},
		{"no answer", nodeHealth{err: sheep.ErrNetwork}, "degraded", "10.0.0.1:7000 does not answer"},
		{"nearly full", nodeHealth{space: listing.Space{Size: 100, Used: 90, Free: 10}}, "degraded", "full to 90 %"},
		{"some space", nodeHealth{space: listing.Space{Size: 100, Used: 89, Free: 11}}, "ok", ""},
	} {
		t.Run(test.about, func(t *testing.T) {
			test.node.node = node
			var d diagnosis
			d.node(test.node)
			word, reasons, _ := strings.Cut(string(d.content().(text)), "\n")
			if word != test.word || !strings.Contains(reasons, test.says) || (test.says == "") != (reasons == "") {
				t.Errorf("got %q and the reasons %q, want %q and words like %q", word, reasons, test.word, test.says)
			}
		})
	}
}
