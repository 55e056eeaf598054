package gossip

import (
	"cmp"
	"fmt"
)

// A clusterID names a cluster, and one timeline of its history. Nodes of one
// cluster have the same UUID; those of one Raft group the same timeline, too.
// The zero value is that of a node that knows of no cluster.
//
//	offset  size  field
//	     0    16  UUID, drawn at random when the cluster began
//	    16     4  how often recovery was forced without a majority
//	    20     4  drawn at random then: two parts of a cluster may both be forced
type clusterID struct {
	uuid   [16]byte
	forced uint32
	random uint32
}

const clusterIDSize = 24

func (id clusterID) append(b []byte) []byte {
	b = le.AppendUint32(append(b, id.uuid[:]...), id.forced)
	return le.AppendUint32(b, id.random)
}

func decodeClusterID(b []byte) (clusterID, error) {
	if len(b) != clusterIDSize {
		return clusterID{}, fmt.Errorf("%w: cluster ID of %d bytes", errBadCommand, len(b))
	}
	return clusterID{[16]byte(b), le.Uint32(b[16:]), le.Uint32(b[20:])}, nil
}

// known reports whether id is that of any cluster.
func (id clusterID) known() bool { return id.uuid != [16]byte{} }

// supersedes reports whether nodes of the timeline other must give it up for
// this one.
func (id clusterID) supersedes(other clusterID) bool {
	return id.uuid == other.uuid && cmp.Or(cmp.Compare(id.forced, other.forced), cmp.Compare(id.random, other.random)) > 0
}

// next returns a new timeline, which supersedes this one.
func (id clusterID) next() clusterID {
	id.forced++
	id.random = uint32(randomNumber())
	return id
}

func (id clusterID) String() string { return fmt.Sprintf("%x.%d", id.uuid[:4], id.forced) }
