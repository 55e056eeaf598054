package server

import (
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// operations returns the opcode table. What an operation is called, which
// version it carries and whether it is served before the format is in proto.
func operations() [256]operation {
	const bitmap = sheep.MaxVDIs / 8
	read := func(run func(*Daemon, *Request)) operation {
		return operation{run: run, max: MaxIO, io: true, plan: planRead}
	}
	write := func(run func(*Daemon, *Request)) operation {
		return operation{run: run, max: MaxIO, io: true, lasting: true}
	}
	lookup := func(run func(*Daemon, *Request)) operation {
		return operation{run: run, min: proto.LabelSize, max: 2 * proto.LabelSize}
	}
	change := func(run func(*Daemon, *Request)) operation {
		return operation{run: run, lasting: true}
	}
	quick := func(run func(*Daemon, *Request), room int) operation {
		return operation{run: run, room: room, inline: true, class: ClassAdmin}
	}
	slow := func(run func(*Daemon, *Request), room int) operation {
		return operation{run: run, room: room, class: ClassAdmin}
	}
	t := [256]operation{
		proto.OpCreateAndWriteObj: write((*Daemon).writeObj),
		proto.OpReadObj:           read((*Daemon).readObj),
		proto.OpWriteObj:          write((*Daemon).writeObj),
		proto.OpRemoveObj:         {run: (*Daemon).removeObj, io: true, lasting: true},
		proto.OpDiscardObj:        {run: (*Daemon).discardObj, io: true, lasting: true},
		proto.OpDecrefObj:         change((*Daemon).decrefObj),
		proto.OpFlushVDI:          {run: (*Daemon).flushVDI, io: true, lasting: true},

		proto.OpNewVDI:       {run: (*Daemon).newVDI, min: proto.LabelSize, max: proto.LabelSize, lasting: true},
		proto.OpLockVDI:      {run: (*Daemon).lockVDI, min: proto.LabelSize, max: 2 * proto.LabelSize, lasting: true},
		proto.OpReleaseVDI:   {run: (*Daemon).releaseVDI, max: 1 << 20, lasting: true},
		proto.OpGetVDIInfo:   lookup((*Daemon).getVDIInfo),
		proto.OpDelVDI:       {run: (*Daemon).delVDI, min: proto.LabelSize, max: 2 * proto.LabelSize, lasting: true},
		proto.OpReadVDIs:     slow((*Daemon).readVDIs, bitmap),
		proto.OpReadDelVDIs:  slow((*Daemon).readDelVDIs, bitmap),
		proto.OpGetVDICopies: slow((*Daemon).getVDICopies, 16<<20),
		proto.OpGetVDIAttr:   {run: (*Daemon).getVDIAttr, min: sheep.AttrSize, max: sheep.AttrSize, lasting: true},
		proto.OpNotifyVDIAdd: change((*Daemon).notifyVDIAdd),
		proto.OpNotifyVDIDel: quick(succeed, 0),
		proto.OpAlterVDICopy: quick(unsupported, 0),

		proto.OpInodeCoherence: change((*Daemon).inodeCoherence),
		proto.OpCheckpointCtl:  quick((*Daemon).checkpointCtl, 0),
		proto.OpDeleteCache:    quick(succeed, 0),
		proto.OpFlushDelCache:  quick(succeed, 0),

		proto.OpMakeFS:            change((*Daemon).makeFS),
		proto.OpShutdown:          change((*Daemon).shutdown),
		proto.OpForceRecover:      {run: (*Daemon).forceRecover, room: proto.MaxNodes * proto.NodeSize, lasting: true},
		proto.OpEnableRecover:     change((*Daemon).enableRecover),
		proto.OpDisableRecover:    change((*Daemon).disableRecover),
		proto.OpCompleteRecovery:  quick(succeed, 0),
		proto.OpCleanup:           quick(unsupported, 0),
		proto.OpReweight:          quick(unsupported, 0),
		proto.OpAlterClusterCopy:  quick(unsupported, 0),
		proto.OpGetClusterDefault: quick((*Daemon).getClusterDefault, 0),
		proto.OpClusterInfo:       quick((*Daemon).clusterInfo, proto.ClusterInfoSize),
		proto.OpStatCluster:       slow((*Daemon).statCluster, 16<<20),

		proto.OpGetNodeList:  quick((*Daemon).getNodeList, proto.MaxNodes*proto.NodeSize),
		proto.OpKillNode:     quick((*Daemon).killNode, 0),
		proto.OpStatSheep:    slow((*Daemon).statSheep, 0),
		proto.OpGetStoreList: quick((*Daemon).getStoreList, 64),
		proto.OpGetObjList:   slow((*Daemon).getObjList, 64<<20),
		proto.OpGetEpoch:     slow((*Daemon).getEpoch, proto.MaxNodes*proto.NodeSize+8),
		proto.OpMDInfo:       slow((*Daemon).mdInfo, proto.DiskTableSize),
		proto.OpMDPlug:       quick(unsupported, 0),
		proto.OpMDUnplug:     quick(unsupported, 0),
		proto.OpSetVNodes:    {run: (*Daemon).setVNodes, min: 4, lasting: true},
		proto.OpGetVNodes:    quick((*Daemon).getVNodes, 4),
		proto.OpGetLogLevel:  quick((*Daemon).getLogLevel, 4),
		proto.OpSetLogLevel:  {run: (*Daemon).setLogLevel, min: 4, inline: true},

		proto.OpStat:         quick((*Daemon).stat, proto.StatSize),
		proto.OpStatRecovery: quick((*Daemon).statRecovery, proto.RecoveryStateSize),
		proto.OpGetMembers:   slow((*Daemon).getMembers, 0),
		proto.OpGetDamage:    slow((*Daemon).getDamage, proto.DamageRoom),
		proto.OpAcceptLoss:   change((*Daemon).acceptLoss),
		proto.OpGetSpace:     slow((*Daemon).getSpace, proto.SpaceReportSize),
		proto.OpGetScrub:     quick((*Daemon).getScrub, proto.ScrubRoom),
		proto.OpGetWaiting:   quick((*Daemon).getWaiting, proto.WaitingRoom),
		proto.OpGetSlow:      slow((*Daemon).getSlow, proto.SlowRoom),
		proto.OpGetVDIStatus: slow((*Daemon).getVDIStatus, maxStatus),
		proto.OpSetDeadline:  {run: (*Daemon).setDeadline, min: proto.DeadlineOrderSize, lasting: true},
		proto.OpGetRecovery:  quick((*Daemon).getRecovery, proto.ThrottleSize),
		proto.OpSetRecovery:  {run: (*Daemon).setRecovery, min: proto.ThrottleSize, inline: true},

		proto.OpGetHealing:   quick((*Daemon).getHealing, proto.HealingRoom),
		proto.OpSetHealDelay: {run: (*Daemon).setHealDelay, min: 8, lasting: true},
		proto.OpMaintainNode: {run: (*Daemon).maintainNode, min: proto.NodeOrderSize, lasting: true},
		proto.OpDrainNode:    {run: (*Daemon).drainNode, min: proto.NodeOrderSize, lasting: true},
		proto.OpSetHealRate:  {run: (*Daemon).setHealRate, min: 8, inline: true},

		proto.OpTraceStatus:  quick(invalid, 0),
		proto.OpTraceReadBuf: quick(invalid, 0),
		proto.OpTraceEnable:  quick(invalid, 0),
		proto.OpTraceDisable: quick(invalid, 0),
		proto.OpNFSCreate:    quick(invalid, 0),
		proto.OpNFSDelete:    quick(invalid, 0),

		proto.OpExist:              slow((*Daemon).exist, 0),
		proto.OpOIDsExist:          {run: (*Daemon).oidsExist, max: 8 << 20, room: 8 << 20},
		proto.OpGetHash:            slow((*Daemon).getHash, 0),
		proto.OpGetCopy:            slow((*Daemon).getCopy, proto.CopyReportSize),
		proto.OpRepairReplica:      change((*Daemon).repairReplica),
		proto.OpReadPeer:           {run: (*Daemon).readPeer, max: MaxIO, plan: planRead},
		proto.OpCreateAndWritePeer: {run: unsupported, max: MaxIO, inline: true},
		proto.OpWritePeer:          {run: unsupported, max: MaxIO, inline: true},
		proto.OpRemovePeer:         quick(unsupported, 0),
		proto.OpDecrefPeer:         quick(unsupported, 0),
	}
	ownOperations(&t)
	return t
}

// maxIDs bounds the object ids of one answer to a peer.
const maxIDs = 1 << 16

// ownOperations adds our own operations between sheep.
func ownOperations(t *[256]operation) {
	peer := func(o operation) operation { o.class = ClassPeer; return o }
	urgent := func(o operation) operation { o.class = ClassUrgent; return o }
	owner := func(o operation) operation { o.class = ClassOwner; return o }

	t[proto.OpHello] = urgent(operation{run: (*Daemon).hello, min: proto.HelloSize, max: proto.HelloSize, room: proto.HelloSize, inline: true})
	t[proto.OpPeerRead] = peer(operation{run: (*Daemon).peerRead, plan: planPeerRead})
	t[proto.OpPeerWrite] = peer(operation{run: (*Daemon).peerWrite, max: MaxIO, lasting: true, plan: planPeerWrite})
	t[proto.OpPeerRemove] = peer(operation{run: (*Daemon).peerRemove, lasting: true})
	t[proto.OpPeerFlush] = peer(operation{run: (*Daemon).peerFlush, lasting: true})
	t[proto.OpPeerStat] = urgent(operation{run: (*Daemon).peerStat, max: 8 * proto.MaxPeerStat, room: proto.MaxPeerStat * proto.CopyStateSize})
	t[proto.OpPeerList] = urgent(operation{run: (*Daemon).peerList, room: 8 * maxIDs})
	t[proto.OpPeerIntents] = urgent(operation{run: (*Daemon).peerIntents, room: 8 * maxIDs})
	t[proto.OpPeerDigest] = urgent(operation{run: (*Daemon).peerDigest, room: 20})

	t[proto.OpOwnerRead] = owner(operation{run: (*Daemon).ownerRead, plan: planPeerRead})
	t[proto.OpOwnerWrite] = owner(operation{run: (*Daemon).ownerWrite, max: MaxIO + proto.COWPrefixSize, lasting: true})
	t[proto.OpOwnerRemove] = owner(operation{run: (*Daemon).ownerRemove, lasting: true})
	t[proto.OpOwnerFlush] = owner(operation{run: (*Daemon).ownerFlush, lasting: true})
	t[proto.OpOwnerDecref] = owner(operation{run: (*Daemon).ownerDecref, lasting: true})
}

// planRead reserves what a read of an object returns.
func planRead(h *proto.Header, p *Plan) {
	p.Room = int(h.Room())
	if p.Room > MaxIO {
		p.Result = proto.ResultInvalid
	}
}
