package server

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"path/filepath"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
)

// getNodeList serves GET_NODE_LIST: the nodes of the epoch with the weights
// that placement uses, before that whoever is present.
func (d *Daemon) getNodeList(r *Request) {
	nodes := d.present()
	n := min(len(nodes), int(r.Header.Room())/proto.NodeSize)
	b := proto.AppendNodes(r.Room(n * proto.NodeSize)[:0], nodes[:n])
	r.Reply(proto.Response{Body: proto.NodeReply{Nodes: uint32(n)}.Body()}, b)
}

func (d *Daemon) present() []sheep.Node {
	v := d.Cluster.View()
	if v.Status == cluster.OK {
		return v.Nodes
	}
	if len(v.Members) == 0 {
		return []sheep.Node{d.Hello.Node}
	}
	nodes := make([]sheep.Node, len(v.Members))
	for i, m := range v.Members {
		nodes[i] = m.Node
	}
	return nodes
}

// self returns this node as placement sees it.
func (d *Daemon) self() sheep.Node {
	v := d.Cluster.View()
	if v.Self >= 0 && v.Self < len(v.Nodes) {
		return v.Nodes[v.Self]
	}
	return d.Hello.Node
}

// stores reports whether this node stores data.
func (d *Daemon) stores() bool { return d.Cluster.View().Stores(d.self()) }

// membersPatience bounds the wait for the leader's word about the members.
const membersPatience = 5 * time.Second

// getMembers serves GET_MEMBERS.
func (d *Daemon) getMembers(r *Request) {
	ctx, cancel := context.WithTimeout(r.Ctx, membersPatience)
	defer cancel()
	peers, err := d.Cluster.Peers(ctx)
	if err != nil {
		d.fail(r, err)
		return
	}
	v := d.Cluster.View()
	var states []proto.PeerState
	for _, p := range peers[:min(len(peers), int(r.Header.Room())/proto.PeerStateSize)] {
		states = append(states, peerState(v, p))
	}
	r.Reply(proto.Response{}, proto.AppendPeerStates(nil, states))
}

func peerState(v *cluster.View, p cluster.Peer) proto.PeerState {
	s := proto.PeerState{Silent: p.Silent}
	if m, ok := v.Member(p.Member); ok {
		s.Node, s.Bits = m.Node, proto.PeerMember
	} else if addr, err := netip.ParseAddrPort(p.Addr); err == nil {
		s.Node.Addr = addr
	}
	for bit, on := range map[uint8]bool{
		proto.PeerVoter: p.Voter, proto.PeerLeader: p.Leader, proto.PeerSuspect: p.Suspect,
	} {
		if on {
			s.Bits |= bit
		}
	}
	return s
}

// killNode serves KILL_NODE: the answer is sent while the daemon stops.
func (d *Daemon) killNode(r *Request) {
	d.Log.Warn("this node is stopped by an administrator")
	succeed(d, r)
	d.Kill()
}

// statSheep serves STAT_SHEEP.
func (d *Daemon) statSheep(r *Request) {
	var body proto.NodeReply
	if d.stores() {
		body.Size, body.Free = d.Store.Space()
	}
	r.Reply(proto.Response{Body: body.Body()})
}

// getStoreList serves GET_STORE_LIST.
func (d *Daemon) getStoreList(r *Request) {
	if int(r.Header.Room()) < len(storeNames) {
		d.fail(r, sheep.ErrBufferSmall)
		return
	}
	b := r.Room(len(storeNames))
	copy(b, storeNames)
	r.Reply(proto.Response{}, b)
}

// getObjList serves GET_OBJ_LIST: the ids of all objects that this node has.
func (d *Daemon) getObjList(r *Request) {
	ids, err := d.Store.IDs(0)
	if err == nil && 8*len(ids) > int(r.Header.Room()) {
		err = sheep.ErrBufferSmall
	}
	if err != nil {
		d.fail(r, err)
		return
	}
	r.Reply(proto.Response{}, proto.AppendObjectIDs(nil, ids))
}

// getEpoch serves GET_EPOCH: the nodes of an epoch and when it began.
func (d *Daemon) getEpoch(r *Request) {
	e := proto.DecodeObjectBody(r.Header.Body).TargetEpoch
	rec, ok := d.epochRecord(d.Cluster.View(), e)
	if !ok || e == 0 {
		d.fail(r, sheep.ErrNoTag)
		return
	}
	b := proto.AppendNodes(nil, rec.Nodes)
	b = binary.LittleEndian.AppendUint64(b, uint64(rec.Time.Unix()))
	if len(b) > int(r.Header.Room()) {
		d.fail(r, sheep.ErrBufferSmall)
		return
	}
	r.Reply(proto.Response{}, b)
}

// mdInfo serves MD_INFO: one disk.
func (d *Daemon) mdInfo(r *Request) {
	if r.Header.Room() != proto.DiskTableSize {
		invalid(d, r)
		return
	}
	var disks []proto.Disk
	if d.stores() {
		total, free := d.Store.Space()
		disks = []proto.Disk{{Free: free, Used: total - free, Path: filepath.Join(d.Dir, "obj")}}
	}
	r.Reply(proto.Response{}, proto.AppendDiskTable(r.Room(proto.DiskTableSize)[:0], disks))
}

// setVNodes serves SET_VNODES. dog sends eight bytes of which four count.
func (d *Daemon) setVNodes(r *Request) {
	n := int32(binary.LittleEndian.Uint32(r.Data))
	switch {
	case n < 1 || n > 65535:
		invalid(d, r)
	case d.self().VNodes == 0:
		d.fail(r, proto.ErrGatewayMode)
	case d.Cluster.View().Settings.Flags&cluster.FlagAutoVNode != 0:
		d.fail(r, proto.ErrVNodesStrategy)
	default:
		d.finish(r, d.Cluster.SetVNodes(r.Ctx, uint16(n)))
	}
}

// getVNodes serves GET_VNODES.
func (d *Daemon) getVNodes(r *Request) {
	d.number(r, uint32(d.self().VNodes))
}

// number answers with four bytes.
func (d *Daemon) number(r *Request, n uint32) {
	if r.Header.Room() < 4 {
		invalid(d, r)
		return
	}
	b := r.Room(4)
	binary.LittleEndian.PutUint32(b, n)
	r.Reply(proto.Response{}, b)
}

// getLogLevel serves GET_LOGLEVEL.
func (d *Daemon) getLogLevel(r *Request) {
	if d.Level == nil {
		unsupported(d, r)
		return
	}
	d.number(r, uint32(d.Level.Get()))
}

// setLogLevel serves SET_LOGLEVEL.
func (d *Daemon) setLogLevel(r *Request) {
	n := int32(binary.LittleEndian.Uint32(r.Data))
	switch {
	case d.Level == nil:
		unsupported(d, r)
	case d.Level.Set(int(n)) != nil:
		invalid(d, r)
	default:
		succeed(d, r)
	}
}

// exist serves EXIST.
func (d *Daemon) exist(r *Request) {
	if !d.Store.Has(proto.DecodeObjectBody(r.Header.Body).ID) {
		d.fail(r, sheep.ErrNoObject)
		return
	}
	succeed(d, r)
}

// oidsExist serves OIDS_EXIST: success, or those that are missing.
func (d *Daemon) oidsExist(r *Request) {
	ids, err := proto.DecodeObjectIDs(r.Data)
	if err != nil {
		d.fail(r, err)
		return
	}
	missing := ids[:0]
	for _, id := range ids {
		if !d.Store.Has(id) {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		succeed(d, r)
		return
	}
	b := proto.AppendObjectIDs(r.Room(8 * len(missing))[:0], missing)
	r.Reply(proto.Response{Result: proto.ResultNoObject}, b)
}

// getHash serves GET_HASH, by which dog compares copies. dog's idea of the
// epoch is not held against it.
func (d *Daemon) getHash(r *Request) {
	id := proto.DecodeObjectBody(r.Header.Body).ID
	for {
		e := d.Epoch()
		sum, err := d.copies().Digest(r.Ctx, e, id)
		if stale := (*sheep.StaleEpochError)(nil); errors.As(err, &stale) && d.Epoch() != e {
			continue
		}
		if err != nil {
			d.fail(r, err)
			return
		}
		r.Reply(proto.Response{Body: proto.HashReply{Digest: sum}.Body()})
		return
	}
}

// repairReplica serves REPAIR_REPLICA.
func (d *Daemon) repairReplica(r *Request) {
	if d.Recovery == nil {
		unsupported(d, r)
		return
	}
	b := proto.DecodeForwBody(r.Header.Body)
	d.finish(r, d.Recovery.Repair(r.Ctx, b.ID, b.From))
}
