package proto

import (
	"encoding/binary"
	"fmt"
	"time"

	"sheepdog/sheep"
)

// PeerStateSize is the size of an encoded PeerState.
const PeerStateSize = NodeSize + 16

// The bits of a PeerState.
const (
	PeerMember  uint8 = 0x01 // of the cluster at present; else Node has the address of its cluster traffic
	PeerVoter   uint8 = 0x02 // one of those that decide
	PeerLeader  uint8 = 0x04
	PeerSuspect uint8 = 0x08 // not heard of as it should be
)

// A PeerState is what the leader of a cluster knows of one node, an element of
// the answer to GET_MEMBERS:
//
//	offset  size  field
//	     0    80  node
//	    80     8  time since it was heard of last, in nanoseconds
//	    88     1  bits
//	    89     7  zero
type PeerState struct {
	Node   sheep.Node
	Silent time.Duration
	Bits   uint8
}

// AppendPeerStates appends peers to b.
func AppendPeerStates(b []byte, peers []PeerState) []byte {
	for _, p := range peers {
		b = AppendNode(b, p.Node)
		b = binary.LittleEndian.AppendUint64(b, uint64(p.Silent))
		b = append(b, p.Bits, 0, 0, 0, 0, 0, 0, 0)
	}
	return b
}

// DecodePeerStates decodes b.
func DecodePeerStates(b []byte) ([]PeerState, error) {
	if len(b)%PeerStateSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes of members", ErrMalformed, len(b))
	}
	var peers []PeerState
	for ; len(b) > 0; b = b[PeerStateSize:] {
		node, err := DecodeNode(b[:NodeSize])
		if err != nil {
			return nil, err
		}
		if [7]byte(b[NodeSize+9:]) != [7]byte{} {
			return nil, fmt.Errorf("%w: members", ErrMalformed)
		}
		peers = append(peers, PeerState{
			Node: node, Silent: time.Duration(binary.LittleEndian.Uint64(b[NodeSize:])), Bits: b[NodeSize+8],
		})
	}
	return peers, nil
}
