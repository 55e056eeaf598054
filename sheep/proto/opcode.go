package proto

import "fmt"

// An Opcode says what a request asks for.
type Opcode uint8

// The opcodes, as peers have seen them: never renumber.
const (
	OpCreateAndWriteObj Opcode = 0x01
	OpReadObj           Opcode = 0x02
	OpWriteObj          Opcode = 0x03
	OpRemoveObj         Opcode = 0x04
	OpDiscardObj        Opcode = 0x05

	OpNewVDI            Opcode = 0x11
	OpLockVDI           Opcode = 0x12
	OpReleaseVDI        Opcode = 0x13
	OpGetVDIInfo        Opcode = 0x14
	OpReadVDIs          Opcode = 0x15
	OpFlushVDI          Opcode = 0x16
	OpDelVDI            Opcode = 0x17
	OpGetClusterDefault Opcode = 0x18

	OpGetNodeList        Opcode = 0x82
	OpMakeFS             Opcode = 0x84
	OpShutdown           Opcode = 0x85
	OpStatSheep          Opcode = 0x86
	OpStatCluster        Opcode = 0x87
	OpGetVDIAttr         Opcode = 0x89
	OpForceRecover       Opcode = 0x8A
	OpGetStoreList       Opcode = 0x90
	OpCleanup            Opcode = 0x94
	OpTraceStatus        Opcode = 0x95
	OpTraceReadBuf       Opcode = 0x96
	OpStatRecovery       Opcode = 0x97
	OpFlushDelCache      Opcode = 0x98
	OpNotifyVDIDel       Opcode = 0x99
	OpKillNode           Opcode = 0x9A
	OpTraceEnable        Opcode = 0x9B
	OpTraceDisable       Opcode = 0x9C
	OpGetObjList         Opcode = 0xA1
	OpGetEpoch           Opcode = 0xA2
	OpCreateAndWritePeer Opcode = 0xA3
	OpReadPeer           Opcode = 0xA4
	OpWritePeer          Opcode = 0xA5
	OpRemovePeer         Opcode = 0xA6
	OpEnableRecover      Opcode = 0xA8
	OpDisableRecover     Opcode = 0xA9
	OpGetVDICopies       Opcode = 0xAB
	OpCompleteRecovery   Opcode = 0xAC
	OpNotifyVDIAdd       Opcode = 0xAF
	OpDeleteCache        Opcode = 0xB0
	OpMDInfo             Opcode = 0xB1
	OpMDPlug             Opcode = 0xB2
	OpMDUnplug           Opcode = 0xB3
	OpGetHash            Opcode = 0xB4
	OpReweight           Opcode = 0xB5
	OpStat               Opcode = 0xB8
	OpGetLogLevel        Opcode = 0xB9
	OpSetLogLevel        Opcode = 0xBA
	OpNFSCreate          Opcode = 0xBB
	OpNFSDelete          Opcode = 0xBC
	OpExist              Opcode = 0xBD
	OpClusterInfo        Opcode = 0xBE
	OpAlterClusterCopy   Opcode = 0xBF
	OpAlterVDICopy       Opcode = 0xC0
	OpDecrefObj          Opcode = 0xC1
	OpDecrefPeer         Opcode = 0xC2
	OpRepairReplica      Opcode = 0xC5
	OpOIDsExist          Opcode = 0xC6
	OpCheckpointCtl      Opcode = 0xC7
	OpInodeCoherence     Opcode = 0xC8
	OpReadDelVDIs        Opcode = 0xC9
	OpGetRecovery        Opcode = 0xCA
	OpSetRecovery        Opcode = 0xCB
	OpSetVNodes          Opcode = 0xCC
	OpGetVNodes          Opcode = 0xCD
)

// Our own opcodes of administration: never renumber.
const (
	OpGetWaiting Opcode = 0xCE // reply: WaitingList
	OpGetMembers Opcode = 0xCF // reply: PeerStates, from the leader of the cluster
	OpGetCopy    Opcode = 0xD9 // ObjectBody.ID; reply: CopyReport of the answering node's copy
	OpGetScrub   Opcode = 0xDA // reply: ScrubReport
	OpGetSpace   Opcode = 0xDB // reply: SpaceReport
	OpGetDamage  Opcode = 0xDC // reply: DamageReport
	OpAcceptLoss Opcode = 0xDD // ObjectBody.ID is made anew, as a copy of ObjectBody.COW if that is not 0

	OpGetHealing   Opcode = 0xF0 // reply: Healing
	OpSetHealDelay Opcode = 0xF1 // data: nanoseconds, 8 bytes
	OpMaintainNode Opcode = 0xF2 // data: NodeOrder
	OpDrainNode    Opcode = 0xF3 // data: NodeOrder
	OpSetHealRate  Opcode = 0xF4 // data: most bytes a second, 8 bytes

	OpGetSlow      Opcode = 0xF5 // reply: SlowList
	OpGetVDIStatus Opcode = 0xF6 // ObjectBody.ID of a VDI, or 0; reply: VDIStatusList
	OpSetDeadline  Opcode = 0xF7 // data: DeadlineOrder
)

// Our own opcodes between daemons: never renumber.
const (
	OpHello       Opcode = 0xD0 // first on every connection; data: Hello, both ways
	OpPeerRead    Opcode = 0xD1
	OpPeerWrite   Opcode = 0xD2
	OpPeerRemove  Opcode = 0xD3
	OpPeerFlush   Opcode = 0xD4
	OpPeerStat    Opcode = 0xD5 // data: object ids; reply: a CopyState for each
	OpPeerList    Opcode = 0xD6 // reply: object ids ascending from PeerBody.ID, at most PeerBody.Len
	OpPeerIntents Opcode = 0xD7 // reply: object ids
	OpPeerDigest  Opcode = 0xD8 // reply: SHA-1 of the whole stored object, 20 bytes

	OpOwnerRead   Opcode = 0xE1
	OpOwnerWrite  Opcode = 0xE2
	OpOwnerRemove Opcode = 0xE3
	OpOwnerFlush  Opcode = 0xE4
	OpOwnerDecref Opcode = 0xE5 // PeerBody: ID the data object, Off the generation, Len the count
)

// A Class says which of the three opcode tables an opcode belongs to.
type Class uint8

// The classes. Client and internal operations share a table: both may come
// from any client, they differ in the version that their headers carry.
const (
	ClassUnknown  Class = iota // not an operation: answer ResultInvalid
	ClassClient                // C's opcodes below 0x80: disks
	ClassInternal              // from 0x80, C's and ours: administration, and what dog asks of single nodes
	ClassPeer                  // ours: to the replica of the receiving daemon
	ClassOwner                 // ours: to the gateway that owns the VDI, never forwarded again
)

// A Scope says who takes part in an operation of C Sheepdog. Where ours needs
// more nodes, as FLUSH_VDI does, the scope is still C's.
type Scope uint8

// The scopes.
const (
	ScopeNone    Scope = iota // of opcodes that are not operations
	ScopeLocal                // the receiving node alone; the epoch is ignored
	ScopeGateway              // the receiving node and the holders of the object; the epoch is ignored
	ScopeCluster              // every node, in the order of the cluster's log; the epoch is ignored
	ScopePeer                 // the receiving node's own store; the epoch must match
)

// opInfo is what the protocol knows of one opcode.
type opInfo struct {
	name  string
	class Class
	scope Scope
	force bool // served while the cluster waits for its format or its members
	data  bool // senseless without FlagWrite
}

// ops is indexed by opcode; never written.
var ops = [256]opInfo{
	OpCreateAndWriteObj: {"CREATE_AND_WRITE_OBJ", ClassClient, ScopeGateway, false, true},
	OpReadObj:           {"READ_OBJ", ClassClient, ScopeGateway, false, false},
	OpWriteObj:          {"WRITE_OBJ", ClassClient, ScopeGateway, false, true},
	OpRemoveObj:         {"REMOVE_OBJ", ClassClient, ScopeGateway, false, false},
	OpDiscardObj:        {"DISCARD_OBJ", ClassClient, ScopeLocal, false, false},

	OpNewVDI:            {"NEW_VDI", ClassClient, ScopeCluster, false, true},
	OpLockVDI:           {"LOCK_VDI", ClassClient, ScopeCluster, false, true},
	OpReleaseVDI:        {"RELEASE_VDI", ClassClient, ScopeCluster, false, false},
	OpGetVDIInfo:        {"GET_VDI_INFO", ClassClient, ScopeCluster, false, true},
	OpReadVDIs:          {"READ_VDIS", ClassClient, ScopeLocal, true, false},
	OpFlushVDI:          {"FLUSH_VDI", ClassClient, ScopeLocal, false, false},
	OpDelVDI:            {"DEL_VDI", ClassClient, ScopeCluster, false, true},
	OpGetClusterDefault: {"GET_CLUSTER_DEFAULT", ClassClient, ScopeLocal, true, false},

	OpGetNodeList:        {"GET_NODE_LIST", ClassInternal, ScopeLocal, true, false},
	OpMakeFS:             {"MAKE_FS", ClassInternal, ScopeCluster, true, true},
	OpShutdown:           {"SHUTDOWN", ClassInternal, ScopeCluster, true, false},
	OpStatSheep:          {"STAT_SHEEP", ClassInternal, ScopeLocal, false, false},
	OpStatCluster:        {"STAT_CLUSTER", ClassInternal, ScopeLocal, true, false},
	OpGetVDIAttr:         {"GET_VDI_ATTR", ClassInternal, ScopeCluster, false, true},
	OpForceRecover:       {"FORCE_RECOVER", ClassInternal, ScopeCluster, true, false},
	OpGetStoreList:       {"GET_STORE_LIST", ClassInternal, ScopeLocal, true, false},
	OpCleanup:            {"CLEANUP", ClassInternal, ScopeCluster, true, false},
	OpTraceStatus:        {"TRACE_STATUS", ClassInternal, ScopeLocal, true, false},
	OpTraceReadBuf:       {"TRACE_READ_BUF", ClassInternal, ScopeLocal, true, false},
	OpStatRecovery:       {"STAT_RECOVERY", ClassInternal, ScopeLocal, false, false},
	OpFlushDelCache:      {"FLUSH_DEL_CACHE", ClassInternal, ScopeLocal, false, false},
	OpNotifyVDIDel:       {"NOTIFY_VDI_DEL", ClassInternal, ScopeCluster, true, true},
	OpKillNode:           {"KILL_NODE", ClassInternal, ScopeLocal, true, false},
	OpTraceEnable:        {"TRACE_ENABLE", ClassInternal, ScopeLocal, true, true},
	OpTraceDisable:       {"TRACE_DISABLE", ClassInternal, ScopeLocal, true, true},
	OpGetObjList:         {"GET_OBJ_LIST", ClassInternal, ScopeLocal, false, false},
	OpGetEpoch:           {"GET_EPOCH", ClassInternal, ScopeLocal, false, false},
	OpCreateAndWritePeer: {"CREATE_AND_WRITE_PEER", ClassInternal, ScopePeer, false, true},
	OpReadPeer:           {"READ_PEER", ClassInternal, ScopePeer, false, false},
	OpWritePeer:          {"WRITE_PEER", ClassInternal, ScopePeer, false, true},
	OpRemovePeer:         {"REMOVE_PEER", ClassInternal, ScopePeer, false, false},
	OpEnableRecover:      {"ENABLE_RECOVER", ClassInternal, ScopeCluster, false, false},
	OpDisableRecover:     {"DISABLE_RECOVER", ClassInternal, ScopeCluster, false, false},
	OpGetVDICopies:       {"GET_VDI_COPIES", ClassInternal, ScopeLocal, true, false},
	OpCompleteRecovery:   {"COMPLETE_RECOVERY", ClassInternal, ScopeCluster, true, true},
	OpNotifyVDIAdd:       {"NOTIFY_VDI_ADD", ClassInternal, ScopeCluster, true, false},
	OpDeleteCache:        {"DELETE_CACHE", ClassInternal, ScopeCluster, false, false},
	OpMDInfo:             {"MD_INFO", ClassInternal, ScopeLocal, false, false},
	OpMDPlug:             {"MD_PLUG", ClassInternal, ScopeLocal, false, true},
	OpMDUnplug:           {"MD_UNPLUG", ClassInternal, ScopeLocal, false, true},
	OpGetHash:            {"GET_HASH", ClassInternal, ScopeLocal, false, false},
	OpReweight:           {"REWEIGHT", ClassInternal, ScopeCluster, false, false},
	OpStat:               {"STAT", ClassInternal, ScopeLocal, false, false},
	OpGetLogLevel:        {"GET_LOGLEVEL", ClassInternal, ScopeLocal, true, false},
	OpSetLogLevel:        {"SET_LOGLEVEL", ClassInternal, ScopeLocal, true, true},
	OpNFSCreate:          {"NFS_CREATE", ClassInternal, ScopeLocal, false, true},
	OpNFSDelete:          {"NFS_DELETE", ClassInternal, ScopeLocal, false, true},
	OpExist:              {"EXIST", ClassInternal, ScopeLocal, true, false},
	OpClusterInfo:        {"CLUSTER_INFO", ClassInternal, ScopeLocal, true, false},
	OpAlterClusterCopy:   {"ALTER_CLUSTER_COPY", ClassInternal, ScopeCluster, false, false},
	OpAlterVDICopy:       {"ALTER_VDI_COPY", ClassInternal, ScopeCluster, false, false},
	OpDecrefObj:          {"DECREF_OBJ", ClassInternal, ScopeGateway, false, false},
	OpDecrefPeer:         {"DECREF_PEER", ClassInternal, ScopePeer, false, false},
	OpRepairReplica:      {"REPAIR_REPLICA", ClassInternal, ScopeLocal, false, false},
	OpOIDsExist:          {"OIDS_EXIST", ClassInternal, ScopeLocal, true, true},
	OpCheckpointCtl:      {"VDI_STATE_CHECKPOINT_CTL", ClassInternal, ScopeLocal, false, false},
	OpInodeCoherence:     {"INODE_COHERENCE", ClassInternal, ScopeCluster, false, false},
	OpReadDelVDIs:        {"READ_DEL_VDIS", ClassInternal, ScopeLocal, true, false},
	OpGetRecovery:        {"GET_RECOVERY", ClassInternal, ScopeLocal, true, false},
	OpSetRecovery:        {"SET_RECOVERY", ClassInternal, ScopeLocal, true, true},
	OpSetVNodes:          {"SET_VNODES", ClassInternal, ScopeLocal, false, true},
	OpGetVNodes:          {"GET_VNODES", ClassInternal, ScopeLocal, false, false},

	OpGetWaiting: {"GET_WAITING", ClassInternal, ScopeLocal, false, false},
	OpGetMembers: {"GET_MEMBERS", ClassInternal, ScopeLocal, true, false},
	OpGetCopy:    {"GET_COPY", ClassInternal, ScopeLocal, false, false},
	OpGetScrub:   {"GET_SCRUB", ClassInternal, ScopeLocal, false, false},
	OpGetSpace:   {"GET_SPACE", ClassInternal, ScopeLocal, false, false},
	OpGetDamage:  {"GET_DAMAGE", ClassInternal, ScopeLocal, false, false},
	OpAcceptLoss: {"ACCEPT_LOSS", ClassInternal, ScopeLocal, false, false},

	OpGetHealing:   {"GET_HEALING", ClassInternal, ScopeLocal, false, false},
	OpSetHealDelay: {"SET_HEAL_DELAY", ClassInternal, ScopeCluster, false, true},
	OpMaintainNode: {"MAINTAIN_NODE", ClassInternal, ScopeCluster, false, true},
	OpDrainNode:    {"DRAIN_NODE", ClassInternal, ScopeCluster, false, true},
	OpSetHealRate:  {"SET_HEAL_RATE", ClassInternal, ScopeLocal, false, true},

	OpGetSlow:      {"GET_SLOW", ClassInternal, ScopeLocal, true, false},
	OpGetVDIStatus: {"GET_VDI_STATUS", ClassInternal, ScopeLocal, false, false},
	OpSetDeadline:  {"SET_DEADLINE", ClassInternal, ScopeCluster, false, true},

	OpHello:       {"HELLO", ClassPeer, ScopeLocal, true, true},
	OpPeerRead:    {"PEER_READ", ClassPeer, ScopePeer, false, false},
	OpPeerWrite:   {"PEER_WRITE", ClassPeer, ScopePeer, false, false},
	OpPeerRemove:  {"PEER_REMOVE", ClassPeer, ScopePeer, false, false},
	OpPeerFlush:   {"PEER_FLUSH", ClassPeer, ScopePeer, false, false},
	OpPeerStat:    {"PEER_STAT", ClassPeer, ScopePeer, false, true},
	OpPeerList:    {"PEER_LIST", ClassPeer, ScopePeer, false, false},
	OpPeerIntents: {"PEER_INTENTS", ClassPeer, ScopePeer, false, false},
	OpPeerDigest:  {"PEER_DIGEST", ClassPeer, ScopePeer, false, false},

	OpOwnerRead:   {"OWNER_READ", ClassOwner, ScopeGateway, false, false},
	OpOwnerWrite:  {"OWNER_WRITE", ClassOwner, ScopeGateway, false, false},
	OpOwnerRemove: {"OWNER_REMOVE", ClassOwner, ScopeGateway, false, false},
	OpOwnerFlush:  {"OWNER_FLUSH", ClassOwner, ScopeGateway, false, false},
	OpOwnerDecref: {"OWNER_DECREF", ClassOwner, ScopeGateway, false, false},
}

// String returns the name of the operation in C's spelling, without prefix.
func (o Opcode) String() string {
	if name := ops[o].name; name != "" {
		return name
	}
	return fmt.Sprintf("opcode 0x%02x", uint8(o))
}

// Known reports whether o is an operation. Others, the obsolete ones included,
// are answered with ResultInvalid in every state of the cluster.
func (o Opcode) Known() bool { return ops[o].class != ClassUnknown }

// Class returns the table that o belongs to.
func (o Opcode) Class() Class { return ops[o].class }

// Scope returns who takes part in o.
func (o Opcode) Scope() Scope { return ops[o].scope }

// Force reports whether o is served while the cluster waits for its format or
// for its members.
func (o Opcode) Force() bool { return ops[o].force }

// NeedsData reports whether o makes no sense without FlagWrite: without it the
// answer is ResultInvalid.
func (o Opcode) NeedsData() bool { return ops[o].data }

// Version returns the version that a request with opcode o states.
func (o Opcode) Version() uint8 {
	switch {
	case ops[o].class == ClassPeer || ops[o].class == ClassOwner:
		return PeerVersion
	case o < 0x80:
		return ClientVersion
	}
	return InternalVersion
}

// AcceptsVersion reports whether a request with opcode o may state version v.
// Client operations may state any version up to ours, zero for none included,
// all others exactly the version of their wire. The check comes before the one
// for a known opcode.
func (o Opcode) AcceptsVersion(v uint8) bool {
	if o < 0x80 {
		return v <= ClientVersion
	}
	return v == o.Version()
}
