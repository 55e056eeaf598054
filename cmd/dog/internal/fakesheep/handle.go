package fakesheep

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
)

type reply = [28]byte

// handle answers one request to node i.
func (c *Cluster) handle(i int, h proto.Header, data []byte) (reply, []byte, proto.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, h.Op.String())
	if r := c.failing[h.Op]; r != proto.ResultSuccess {
		return reply{}, nil, r
	}
	if !h.Op.AcceptsVersion(h.Version) {
		return reply{}, nil, proto.ResultVersion
	}
	if c.info.Ctime == 0 && !h.Op.Force() {
		return reply{}, nil, proto.ResultWaitForFormat
	}
	switch h.Op {
	case proto.OpReadObj, proto.OpWriteObj, proto.OpCreateAndWriteObj:
		return c.object(h, data)
	case proto.OpNewVDI, proto.OpDelVDI, proto.OpGetVDIInfo, proto.OpLockVDI, proto.OpReleaseVDI, proto.OpGetVDIAttr:
		return c.vdi(i, h, data)
	case proto.OpRemoveObj:
		return c.remove(proto.DecodeObjectBody(h.Body).ID)
	case proto.OpGetObjList:
		return c.list(c.nodes[i], h)
	case proto.OpExist, proto.OpOIDsExist, proto.OpGetHash, proto.OpGetCopy, proto.OpRepairReplica:
		return c.copy(c.nodes[i], h, data)
	}
	return c.admin(c.nodes[i], h, data)
}

func (c *Cluster) admin(n *node, h proto.Header, data []byte) (reply, []byte, proto.Result) {
	le := binary.LittleEndian
	switch h.Op {
	case proto.OpGetNodeList:
		nodes := c.members()
		return proto.NodeReply{Nodes: uint32(len(nodes))}.Body(), proto.AppendNodes(nil, nodes), 0
	case proto.OpStatCluster:
		return c.epochList(h)
	case proto.OpClusterInfo:
		info := c.info
		if info.Ctime != 0 {
			info.Nodes = c.members()
		}
		return reply{}, info.Append(nil), 0
	case proto.OpStatSheep:
		used := uint64(0)
		for _, o := range n.objects {
			used += uint64(len(o))
		}
		return proto.NodeReply{Size: n.Space, Free: n.Space - used}.Body(), nil, 0
	case proto.OpGetStoreList:
		return reply{}, []byte("tree plain \x00"), 0
	case proto.OpMakeFS:
		return c.format(proto.Text(data), proto.DecodeClusterBody(h.Body))
	case proto.OpShutdown, proto.OpKillNode:
		return reply{}, nil, 0
	case proto.OpForceRecover:
		return reply{}, nil, proto.ResultForceRecover
	case proto.OpEnableRecover, proto.OpDisableRecover:
		c.epochs[0].RecoveryDisabled = h.Op == proto.OpDisableRecover
		return reply{}, nil, 0
	case proto.OpReadVDIs:
		return reply{}, bitmap(c.used), 0
	case proto.OpReadDelVDIs:
		return reply{}, bitmap(c.deleted), 0
	case proto.OpGetVDICopies:
		return c.states(h)
	case proto.OpFlushVDI:
		if c.Defers {
			return reply{}, nil, 0
		}
		return reply{}, nil, proto.ResultInvalid
	case proto.OpStat:
		return reply{}, proto.Stat{GatewayActive: 1, GatewayTotal: 20, GatewayReads: 3, GatewayWrites: 4, GatewayRx: 4 << 20}.Append(nil), 0
	case proto.OpStatRecovery:
		return reply{}, n.recover.Append(nil), 0
	case proto.OpGetHealing, proto.OpSetHealDelay, proto.OpMaintainNode, proto.OpDrainNode, proto.OpSetHealRate:
		return c.heal(n, h, data)
	case proto.OpGetMembers:
		if len(c.nodes) < 2 {
			return reply{}, nil, proto.ResultNotSupported
		}
		return reply{}, proto.AppendPeerStates(nil, []proto.PeerState{
			{Node: sheep.Node{Addr: netip.MustParseAddrPort("127.0.0.1:7909")}, Silent: time.Hour, Bits: proto.PeerVoter | proto.PeerSuspect},
			{Node: c.nodes[1].Node, Silent: 1600 * time.Millisecond, Bits: proto.PeerMember | proto.PeerSuspect},
			{Node: c.nodes[0].Node, Silent: 120 * time.Millisecond, Bits: proto.PeerMember | proto.PeerVoter | proto.PeerLeader},
		}), 0
	case proto.OpGetWaiting:
		var w proto.WaitingList
		if n.recover.Active {
			w = proto.WaitingList{Total: 300, Objects: []proto.WaitingObject{
				{ID: sheep.DataObject(0x7c2b25, 3), Since: 1700000000, Reason: "node 127.0.0.1:7009 is absent:\nask again"}}}
		}
		return reply{}, w.Append(nil), 0
	case proto.OpGetVDIStatus, proto.OpSetDeadline:
		return c.status(h, data)
	case proto.OpGetSlow:
		if c.Plain {
			return reply{}, nil, proto.ResultInvalid
		}
		return reply{}, proto.SlowList{Total: uint32(len(n.slow)), Requests: n.slow}.Append(nil), 0
	case proto.OpGetSpace:
		return reply{}, proto.SpaceReport{Size: nodeSpace, Free: n.free, NearFull: nodeSpace / 20, Reserve: nodeSpace / 100}.Append(nil), 0
	case proto.OpGetScrub:
		if c.Plain {
			return reply{}, nil, proto.ResultInvalid
		}
		began := uint64(c.now.Unix())
		return reply{}, proto.ScrubReport{
			Bits: proto.ScrubOn, Next: began + 3600,
			Last: proto.ScrubPass{Began: began, Ended: began + 60, Objects: 10, Compared: 9, Differing: 2, Repaired: 1, Bytes: 9 << 22},
		}.Append(nil), 0
	case proto.OpGetRecovery:
		return reply{}, c.throttle.Append(nil), 0
	case proto.OpSetRecovery:
		t, err := proto.DecodeThrottle(data)
		c.throttle = t
		return reply{}, nil, proto.ResultOf(err)
	case proto.OpGetLogLevel:
		return reply{}, le.AppendUint32(nil, c.level), 0
	case proto.OpSetLogLevel:
		c.level = le.Uint32(data)
		return reply{}, nil, 0
	case proto.OpSetVNodes:
		return reply{}, nil, proto.ResultVNodes
	case proto.OpMDInfo:
		return reply{}, proto.AppendDiskTable(nil, []proto.Disk{{Free: 3 << 30, Used: 1 << 30, Path: "/srv/obj"}}), 0
	}
	return reply{}, nil, proto.ResultInvalid
}

// members returns the nodes that are up.
func (c *Cluster) members() []sheep.Node {
	var nodes []sheep.Node
	for _, n := range c.nodes {
		shown := n.Node
		if slices.ContainsFunc(c.healing.drained, func(d sheep.Node) bool { return d.Addr == n.Addr }) {
			shown.VNodes = 0
		}
		nodes = append(nodes, shown)
	}
	return nodes
}

func (c *Cluster) epochList(h proto.Header) (reply, []byte, proto.Result) {
	slots := int(proto.DecodeClusterBody(h.Body).Nodes)
	result := proto.ResultSuccess
	if c.info.Ctime == 0 {
		result = proto.ResultWaitForFormat
	}
	if slots > 0 && slots < len(c.nodes) {
		return reply{}, nil, proto.ResultBufferSmall
	}
	var b []byte
	for _, e := range c.epochs {
		b = e.Append(b, slots)
	}
	return reply{}, b, result
}

// format makes the cluster empty.
func (c *Cluster) format(store string, b proto.ClusterBody) (reply, []byte, proto.Result) {
	c.used, c.deleted = make(map[sheep.VDIID]bool), make(map[sheep.VDIID]bool)
	c.locks = make(map[sheep.VDIID]sheep.Lock)
	for _, n := range c.nodes {
		n.objects = make(map[sheep.ObjectID][]byte)
	}
	if b.BlockShift == 0 {
		b.BlockShift = sheep.DefaultBlockShift
	}
	c.info = proto.ClusterInfo{
		Version: proto.InternalVersion, Epoch: 1, Ctime: b.Ctime, Flags: b.Flags, Copies: b.Copies,
		CopyPolicy: b.CopyPolicy, Status: proto.StatusOK, BlockShift: b.BlockShift, Store: store,
	}
	c.epochs = []proto.EpochRecord{{
		Ctime: b.Ctime, Time: c.now, Epoch: 1, Copies: b.Copies, CopyPolicy: b.CopyPolicy, Flags: b.Flags,
		Store: store, Nodes: c.members(),
	}}
	return reply{}, nil, 0
}

// Join adds an epoch with the given nodes, by their numbers.
func (c *Cluster) Join(nodes ...int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Minute)
	c.info.Epoch++
	e := c.epochs[0]
	e.Epoch, e.Time, e.Nodes = c.info.Epoch, c.now, nil
	for _, i := range nodes {
		e.Nodes = append(e.Nodes, c.nodes[i].Node)
	}
	c.epochs = append([]proto.EpochRecord{e}, c.epochs...)
}

func bitmap(set map[sheep.VDIID]bool) []byte {
	b := make([]byte, sheep.MaxVDIs/8)
	for v := range set {
		b[v/8] |= 1 << (v % 8)
	}
	return b
}

// place returns the nodes that hold the copies of an object.
func (c *Cluster) place(id sheep.ObjectID, copies int) []int {
	return placement.NewRing(c.members()).Place(id, copies)
}

// find returns a copy of an object, whoever has it.
func (c *Cluster) find(id sheep.ObjectID) []byte {
	for _, n := range c.nodes {
		if o := n.objects[id]; o != nil {
			return o
		}
	}
	return nil
}

// copiesOf returns how many copies an object has.
func (c *Cluster) copiesOf(id sheep.ObjectID) int {
	if inode := c.find(sheep.InodeObject(id.VDI())); inode != nil {
		return int(inode[554])
	}
	return int(c.info.Copies)
}

// put stores an object on the nodes that should hold it.
func (c *Cluster) put(id sheep.ObjectID, b []byte, copies int) {
	for _, i := range c.place(id, copies) {
		c.nodes[i].objects[id] = bytes.Clone(b)
	}
}

// object serves reads and writes of objects.
func (c *Cluster) object(h proto.Header, data []byte) (reply, []byte, proto.Result) {
	b := proto.DecodeObjectBody(h.Body)
	old := c.find(b.ID)
	if h.Op == proto.OpCreateAndWriteObj {
		shift := c.info.BlockShift
		if inode := c.find(sheep.InodeObject(b.ID.VDI())); inode != nil {
			shift = inode[555]
		}
		old = make([]byte, b.ID.Size(shift))
		if h.Flags.Has(proto.FlagCOW) {
			copy(old, c.find(b.COW))
		}
		c.put(b.ID, old, c.copiesOf(b.ID))
	}
	if old == nil {
		return reply{}, nil, proto.ResultNoObject
	}
	if h.Op == proto.OpReadObj {
		out := make([]byte, h.DataLen)
		copy(out, old[min(int(b.Off), len(old)):])
		return reply{}, out, 0
	}
	if c.frozen(b.ID) {
		return reply{}, nil, proto.ResultReadOnly
	}
	for _, n := range c.nodes {
		if o := n.objects[b.ID]; o != nil {
			copy(o[b.Off:], data)
		}
	}
	return reply{}, nil, 0
}

// remove serves REMOVE_OBJ: it knows the copies where they should be.
func (c *Cluster) remove(id sheep.ObjectID) (reply, []byte, proto.Result) {
	result := proto.ResultNoObject
	for _, i := range c.place(id, c.copiesOf(id)) {
		if c.nodes[i].objects[id] != nil {
			delete(c.nodes[i].objects, id)
			result = proto.ResultSuccess
		}
	}
	return reply{}, nil, result
}

// list serves GET_OBJ_LIST.
func (c *Cluster) list(n *node, h proto.Header) (reply, []byte, proto.Result) {
	b := proto.AppendObjectIDs(nil, slices.Sorted(maps.Keys(n.objects)))
	if len(b) > int(h.Room()) {
		return reply{}, nil, proto.ResultBufferSmall
	}
	return reply{}, b, 0
}

// frozen reports whether id is a data object of a snapshot.
func (c *Cluster) frozen(id sheep.ObjectID) bool {
	inode := c.find(sheep.InodeObject(id.VDI()))
	return id.Kind() == sheep.KindData && inode != nil && binary.LittleEndian.Uint64(inode[520:]) != 0
}

// copy serves what is asked of one node's copies.
func (c *Cluster) copy(n *node, h proto.Header, data []byte) (reply, []byte, proto.Result) {
	id := proto.DecodeObjectBody(h.Body).ID
	switch h.Op {
	case proto.OpExist:
		if n.objects[id] == nil {
			return reply{}, nil, proto.ResultNoObject
		}
	case proto.OpGetHash:
		if n.objects[id] == nil {
			return reply{}, nil, proto.ResultNoObject
		}
		return proto.HashReply{Digest: sha1.Sum(n.objects[id])}.Body(), nil, 0
	case proto.OpGetCopy:
		return c.report(n, id)
	case proto.OpOIDsExist:
		ids, err := proto.DecodeObjectIDs(data)
		var absent []sheep.ObjectID
		for _, id := range ids {
			if n.objects[id] == nil {
				absent = append(absent, id)
			}
		}
		if absent != nil {
			return reply{}, proto.AppendObjectIDs(nil, absent), proto.ResultNoObject
		}
		return reply{}, nil, proto.ResultOf(err)
	case proto.OpRepairReplica:
		f := proto.DecodeForwBody(h.Body)
		for _, from := range c.nodes {
			if from.Addr == f.From && from.objects[f.ID] != nil {
				n.objects[f.ID] = bytes.Clone(from.objects[f.ID])
				return reply{}, nil, 0
			}
		}
		return reply{}, nil, proto.ResultNoObject
	}
	return reply{}, nil, 0
}

// report serves GET_COPY, unless the cluster is one of C's daemons.
func (c *Cluster) report(n *node, id sheep.ObjectID) (reply, []byte, proto.Result) {
	if c.Plain {
		return reply{}, nil, proto.ResultInvalid
	}
	r := proto.CopyReport{CopyState: proto.CopyState{ID: id, Bits: proto.CopyTrusted, WriteEpoch: n.written[id]}, Joined: uint64(n.Addr.Port())}
	if o := n.objects[id]; o != nil {
		r.Bits |= proto.CopyExists
		r.Digest = sha1.Sum(o)
	}
	return reply{}, r.Append(nil), 0
}
