package fakesheep

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
)

// vdi serves what concerns VDIs as a whole.
func (c *Cluster) vdi(i int, h proto.Header, data []byte) (reply, []byte, proto.Result) {
	b := proto.DecodeVDIBody(h.Body)
	switch h.Op {
	case proto.OpReleaseVDI:
		c.release(c.nodes[i].Node, b)
		return reply{}, nil, 0
	case proto.OpGetVDIAttr:
		return c.attr(h, data)
	}
	name, tag, err := proto.DecodeLookup(data)
	if err != nil {
		return reply{}, nil, proto.ResultInvalid
	}
	if h.Op == proto.OpNewVDI {
		return c.newVDI(name, b)
	}
	id, result := c.lookup(name, tag, b.SnapID)
	if result != proto.ResultSuccess {
		return reply{}, nil, result
	}
	switch h.Op {
	case proto.OpDelVDI:
		inode := make([]byte, sheep.InodeSize)
		copy(inode[512:4664], c.find(sheep.InodeObject(id))[512:])
		c.put(sheep.InodeObject(id), inode, c.copiesOf(sheep.InodeObject(id)))
		c.deleted[id] = true
		c.releaseUnreferenced()
	case proto.OpLockVDI:
		if !c.lock(c.nodes[i].Node, id, b.Type) {
			return reply{}, nil, proto.ResultVDILocked
		}
	}
	return proto.VDIReply{VDI: id}.Body(), nil, 0
}

// releaseUnreferenced removes the data objects that are in no map.
func (c *Cluster) releaseUnreferenced() {
	referenced := make(map[sheep.ObjectID]bool)
	for id := range c.used {
		inode := c.find(sheep.InodeObject(id))
		used := len(bytes.TrimRight(inode[proto.MapOffset:proto.MapEnd], "\x00"))
		for i := range uint32(used+proto.MapEntrySize-1) / proto.MapEntrySize {
			owner := binary.LittleEndian.Uint32(inode[proto.MapOffset+proto.MapEntrySize*i:])
			if owner != 0 {
				referenced[sheep.DataObject(sheep.VDIID(owner), i)] = true
			}
		}
	}
	for _, n := range c.nodes {
		maps.DeleteFunc(n.objects, func(id sheep.ObjectID, _ []byte) bool {
			return id.Kind() == sheep.KindData && !referenced[id]
		})
	}
}

// lookup finds a VDI.
func (c *Cluster) lookup(name, tag string, snapID uint32) (sheep.VDIID, proto.Result) {
	head := false
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(c.used))) {
		inode, err := proto.DecodeInodeHeader(c.find(sheep.InodeObject(id)))
		if err != nil || inode.Name != name {
			continue
		}
		switch wanted := tag != "" || snapID != 0; {
		case !wanted && inode.Snapshot():
			return 0, proto.ResultNoVDI
		case !wanted:
			return id, 0
		case !inode.Snapshot():
			head = true
		case tag != "" && inode.Tag == tag || inode.SnapID == snapID:
			return id, 0
		}
	}
	if head {
		return 0, proto.ResultNoTag
	}
	return 0, proto.ResultNoVDI
}

// newVDI makes a VDI, a clone or a snapshot.
func (c *Cluster) newVDI(name string, b proto.VDIBody) (reply, []byte, proto.Result) {
	c.now = c.now.Add(time.Second)
	head, result := c.lookup(name, "", 0)
	snapID := uint32(1)
	for id := range c.used {
		if inode, err := proto.DecodeInodeHeader(c.find(sheep.InodeObject(id))); err == nil && inode.Name == name {
			snapID = max(snapID, inode.SnapID+1)
		}
	}
	if b.SnapID == 0 && result == proto.ResultSuccess {
		return reply{}, nil, proto.ResultVDIExists
	}
	if b.SnapID != 0 && result != proto.ResultSuccess {
		return reply{}, nil, proto.ResultNoVDI
	}
	inode := make([]byte, sheep.InodeSize)
	if b.Base != 0 {
		base := c.find(sheep.InodeObject(b.Base))
		copy(inode[proto.MapOffset:], base[proto.MapOffset:proto.MapEnd])
	}
	if b.SnapID != 0 {
		for _, n := range c.nodes {
			if o := n.objects[sheep.InodeObject(head)]; o != nil {
				binary.LittleEndian.PutUint64(o[520:], proto.WireTime(c.now))
			}
		}
	}
	id := max(placement.HashName(name), 1)
	for c.used[id] {
		id++
	}
	if b.Copies == 0 {
		b.Copies, b.CopyPolicy = c.info.Copies, c.info.CopyPolicy
	}
	if b.BlockShift == 0 {
		b.BlockShift = c.info.BlockShift
	}
	header := proto.InodeHeader{
		Name: name, CreateTime: proto.WireTime(c.now), Size: b.Size, CopyPolicy: b.CopyPolicy, StorePolicy: b.StorePolicy,
		Copies: b.Copies, BlockShift: b.BlockShift, SnapID: snapID, VDI: id, Parent: b.Base,
	}
	copy(inode, header.Append(nil))
	c.used[id] = true
	c.put(sheep.InodeObject(id), inode, int(b.Copies))
	return proto.VDIReply{VDI: id, Copies: b.Copies, BlockShift: b.BlockShift}.Body(), nil, 0
}

// states serves GET_VDI_COPIES.
func (c *Cluster) states(h proto.Header) (reply, []byte, proto.Result) {
	var b []byte
	for _, id := range slices.Sorted(maps.Keys(c.used)) {
		b = proto.VDIStateOf(sheep.VDI{ID: id, Policy: sheep.Replicated(c.info.Copies)}, c.locks[id]).Append(b)
	}
	if len(b) > int(h.DataLen) {
		return reply{}, nil, proto.ResultBufferSmall
	}
	return reply{}, b, 0
}

func (c *Cluster) lock(by sheep.Node, id sheep.VDIID, t proto.LockType) bool {
	if c.info.Flags&proto.ClusterLock == 0 {
		return true
	}
	l := c.locks[id]
	switch {
	case l.State == sheep.Exclusive, l.State == sheep.Shared && t == proto.LockNormal:
		return false
	case t == proto.LockNormal:
		c.locks[id] = sheep.Lock{State: sheep.Exclusive, Owner: by}
		return true
	}
	state := sheep.ShareModified
	if len(l.Participants) > 0 {
		state = sheep.ShareInvalidated
	}
	l.State, l.Participants = sheep.Shared, append(l.Participants, sheep.Participant{Node: by, State: state})
	c.locks[id] = l
	return true
}

func (c *Cluster) release(by sheep.Node, b proto.VDIBody) {
	l := c.locks[b.Base]
	switch {
	case l.State == sheep.Exclusive && b.Type == proto.LockNormal:
		delete(c.locks, b.Base)
	case l.State == sheep.Shared && b.Type == proto.LockShared:
		l.Participants = slices.DeleteFunc(l.Participants, func(p sheep.Participant) bool { return p.Node.Addr == by.Addr })
		if c.locks[b.Base] = l; len(l.Participants) == 0 {
			delete(c.locks, b.Base)
		}
	}
}

// attr serves GET_VDI_ATTR.
func (c *Cluster) attr(h proto.Header, data []byte) (reply, []byte, proto.Result) {
	a, err := proto.DecodeAttr(data)
	if err != nil {
		return reply{}, nil, proto.ResultInvalid
	}
	name := proto.Text(a.Name[:])
	if _, result := c.lookup(name, "", 0); result != proto.ResultSuccess {
		return reply{}, nil, result
	}
	hash, number := placement.HashName(name), placement.AttrID(a.Name, a.Tag, a.SnapID, a.Key)
	id := sheep.AttrObject(hash, number)
	old := c.find(id)
	exists := old != nil && old[0] != 0
	answer := proto.VDIReply{VDI: hash, Attr: number}.Body()
	switch {
	case h.Flags.Has(proto.FlagAttrCreate | proto.FlagAttrExcl):
		if exists {
			return reply{}, nil, proto.ResultVDIExists
		}
	case h.Flags.Has(proto.FlagAttrCreate):
	case !exists:
		return reply{}, nil, proto.ResultNoObject
	case h.Flags.Has(proto.FlagAttrDelete):
		gone := bytes.Clone(old)
		gone[0] = 0
		c.put(id, gone, int(c.info.Copies))
		return answer, nil, 0
	default:
		return answer, nil, 0
	}
	c.put(id, a.Append(nil), int(c.info.Copies))
	return answer, nil, 0
}
