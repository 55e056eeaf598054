package command

import (
	"net/netip"
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

func TestJudgeMajority(t *testing.T) {
	const leader, voter, silent = proto.PeerLeader | proto.PeerVoter, proto.PeerVoter, proto.PeerSuspect
	tests := []struct {
		name  string
		peers []uint8
		kept  int // -1: the majority is there
	}{
		{"there is a leader", []uint8{leader, voter | silent, voter | silent}, -1},
		{"two of three voters answer", []uint8{voter, voter, voter | silent}, -1},
		{"one of three voters answers", []uint8{voter, voter | silent, voter | silent}, 1},
		{"half is no majority", []uint8{voter, voter, voter | silent, voter | silent}, 2},
		{"followers do not count", []uint8{0, 0, voter, voter | silent, voter | silent}, 3},
		{"the only voter is lost", []uint8{0, voter | silent}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var peers []proto.PeerState
			for i, bits := range tt.peers {
				addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 7000)
				peers = append(peers, proto.PeerState{Node: sheep.Node{Addr: addr}, Bits: bits})
			}
			lost := judgeMajority(peers)
			if lost == nil {
				if tt.kept >= 0 {
					t.Error("the majority is not lost")
				}
				return
			}
			if len(lost.kept) != tt.kept || len(lost.kept)+len(lost.gone) != len(peers) {
				t.Errorf("kept %v, gone %v; want %d kept", lost.kept, lost.gone, tt.kept)
			}
			if got := strings.Count(lost.warning(), "  - 10.0.0."); got != len(peers) {
				t.Errorf("the warning names %d of %d nodes", got, len(peers))
			}
		})
	}
}
