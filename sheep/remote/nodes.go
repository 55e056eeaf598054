package remote

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Membership is the nodes of an epoch, ordered by address and port.
type Membership struct {
	Nodes []sheep.Node
	Epoch sheep.Epoch
}

// Membership returns the nodes of the cluster as they are now.
func (c *Cluster) Membership(ctx context.Context) (Membership, error) {
	room := make([]byte, proto.MaxNodes*proto.NodeSize)
	resp, data, err := c.Do(ctx, Request{Op: proto.OpGetNodeList, Into: room})
	if err != nil {
		return Membership{}, err
	}
	if n := proto.DecodeNodeReply(resp.Body).Nodes; int(n) < len(data)/proto.NodeSize {
		data = data[:int(n)*proto.NodeSize]
	}
	nodes, err := proto.DecodeNodes(data)
	if err != nil {
		return Membership{}, fmt.Errorf("node list: %w", err)
	}
	return Membership{Nodes: nodes, Epoch: resp.Epoch}, nil
}

// Address returns where to dial n.
func Address(n sheep.Node) string {
	return net.JoinHostPort(n.Addr.Addr().String(), strconv.Itoa(int(n.Addr.Port())))
}

// Space returns the size of n's store and how much of it is free.
func (c *Cluster) Space(ctx context.Context, n sheep.Node) (size, free uint64, err error) {
	resp, _, err := c.Do(ctx, Request{Op: proto.OpStatSheep, To: Address(n)})
	if err != nil {
		return 0, 0, err
	}
	reply := proto.DecodeNodeReply(resp.Body)
	return reply.Size, reply.Free, nil
}

// Epochs returns what is known of the epochs, newest first, and the state of
// the cluster: nil while it serves, else the reason why not. The third result
// is why there is no answer at all.
func (c *Cluster) Epochs(ctx context.Context, newest sheep.Epoch, nodes int) ([]proto.EpochRecord, error, error) {
	for slots := max(nodes, 1); ; slots *= 2 {
		slots = min(slots, proto.MaxNodes)
		size := proto.EpochRecordSize(slots)
		room := make([]byte, min(size*max(int(newest), 1), maxEpochRoom/size*size))
		body := proto.ClusterBody{Nodes: uint32(slots)}.Body()
		_, data, err := c.Do(ctx, Request{Op: proto.OpStatCluster, Body: body, Into: room})
		status := Result(err)
		if err != nil && status == proto.ResultSuccess {
			return nil, nil, err
		}
		if status == proto.ResultBufferSmall && slots < proto.MaxNodes {
			continue
		}
		var epochs []proto.EpochRecord
		for len(data) >= size {
			e, err := proto.DecodeEpochRecord(data, slots)
			if err != nil {
				return nil, nil, fmt.Errorf("epoch log: %w", err)
			}
			epochs, data = append(epochs, e), data[size:]
		}
		return epochs, err, nil
	}
}

// maxEpochRoom bounds how many epochs are asked for: as many of the newest as
// fit into so many bytes.
const maxEpochRoom = 64 << 20

// Info returns what the daemon at addr, or the entry if that is empty, knows of
// its cluster.
func (c *Cluster) Info(ctx context.Context, addr string) (proto.ClusterInfo, error) {
	room := make([]byte, proto.ClusterInfoSize)
	_, data, err := c.Do(ctx, Request{Op: proto.OpClusterInfo, To: addr, Into: room})
	if err != nil {
		return proto.ClusterInfo{}, err
	}
	info, err := proto.DecodeClusterInfo(data)
	if err != nil {
		return proto.ClusterInfo{}, fmt.Errorf("cluster info: %w", err)
	}
	return info, nil
}
