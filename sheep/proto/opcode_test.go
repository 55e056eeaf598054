package proto_test

import (
	"slices"
	"testing"

	"sheepdog/sheep/proto"
)

// The operations by scope, and those that are served while a cluster waits, as
// C has them.
var (
	gatewayOps = []proto.Opcode{0x01, 0x02, 0x03, 0x04, 0xC1}
	localOps   = []proto.Opcode{
		0x05, 0x15, 0x16, 0x18, 0x82, 0x86, 0x87, 0x90, 0x95, 0x96, 0x97, 0x98, 0x9A, 0x9B, 0x9C,
		0xA1, 0xA2, 0xAB, 0xB1, 0xB2, 0xB3, 0xB4, 0xB8, 0xB9, 0xBA, 0xBB, 0xBC, 0xBD, 0xBE, 0xC5,
		0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD,
	}
	clusterOps = []proto.Opcode{
		0x11, 0x12, 0x13, 0x14, 0x17, 0x84, 0x85, 0x89, 0x8A, 0x94, 0x99, 0xA8, 0xA9, 0xAC, 0xAF,
		0xB0, 0xB5, 0xBF, 0xC0, 0xC8,
		0xF1, 0xF2, 0xF3, 0xF7, // ours
	}
	peerOps   = []proto.Opcode{0xA3, 0xA4, 0xA5, 0xA6, 0xC2}
	forcedOps = []proto.Opcode{
		0x15, 0x18, 0x82, 0x87, 0x90, 0x95, 0x96, 0x9A, 0x9B, 0x9C, 0xAB, 0xB9, 0xBA, 0xBD, 0xBE,
		0xC6, 0xC9, 0xCA, 0xCB, 0x84, 0x85, 0x8A, 0x94, 0x99, 0xAC, 0xAF,
		0xCF, 0xF5,
	}
	ourAdminOps = []proto.Opcode{0xCE, 0xCF, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xF0, 0xF4, 0xF5, 0xF6}
	ourPeerOps  = []proto.Opcode{0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8}
	ourOwnerOps = []proto.Opcode{0xE1, 0xE2, 0xE3, 0xE4, 0xE5}
)

func TestEveryOpcodeIsClassified(t *testing.T) {
	for i := range 0x100 {
		op := proto.Opcode(i)
		class, scope := proto.ClassUnknown, proto.ScopeNone
		force := slices.Contains(forcedOps, op)
		switch {
		case slices.Contains(gatewayOps, op):
			scope = proto.ScopeGateway
		case slices.Contains(localOps, op), slices.Contains(ourAdminOps, op):
			scope = proto.ScopeLocal
		case slices.Contains(clusterOps, op):
			scope = proto.ScopeCluster
		case slices.Contains(peerOps, op):
			scope = proto.ScopePeer
		}
		switch {
		case slices.Contains(ourPeerOps, op):
			class, scope, force = proto.ClassPeer, proto.ScopePeer, op == proto.OpHello
			if op == proto.OpHello {
				scope = proto.ScopeLocal
			}
		case slices.Contains(ourOwnerOps, op):
			class, scope = proto.ClassOwner, proto.ScopeGateway
		case scope != proto.ScopeNone && op < 0x80:
			class = proto.ClassClient
		case scope != proto.ScopeNone:
			class = proto.ClassInternal
		}
		if op.Class() != class || op.Scope() != scope || op.Force() != force || op.Known() != (class != proto.ClassUnknown) {
			t.Errorf("%v: got class %d, scope %d, force %v, known %v; want %d, %d, %v",
				op, op.Class(), op.Scope(), op.Force(), op.Known(), class, scope, force)
		}
	}
}

func TestVersionsThatAreAccepted(t *testing.T) {
	for _, c := range []struct {
		op   proto.Opcode
		want []uint8
	}{
		{proto.OpReadObj, []uint8{0, 1, 2}},
		{0x7F, []uint8{0, 1, 2}}, // unknown, but the version comes first
		{proto.OpReadPeer, []uint8{10}},
		{0x80, []uint8{10}},
		{0xFF, []uint8{10}},
		{proto.OpPeerWrite, []uint8{1}},
		{proto.OpOwnerWrite, []uint8{1}},
	} {
		var got []uint8
		for v := range 256 {
			if c.op.AcceptsVersion(uint8(v)) {
				got = append(got, uint8(v))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v accepts %v, want %v", c.op, got, c.want)
		}
		if !c.op.AcceptsVersion(c.op.Version()) {
			t.Errorf("%v refuses version %d, its own", c.op, c.op.Version())
		}
	}
}

func TestOperationsThatNeedData(t *testing.T) {
	for op, want := range map[proto.Opcode]bool{
		proto.OpNewVDI: true, proto.OpLockVDI: true, proto.OpGetVDIInfo: true, proto.OpDelVDI: true,
		proto.OpReleaseVDI: false, proto.OpReadObj: false, proto.OpWriteObj: true, proto.OpMakeFS: true,
		proto.OpOIDsExist: true, proto.OpSetVNodes: true, proto.OpFlushVDI: false,
		proto.OpPeerWrite: false, // zeroing carries none
	} {
		if got := op.NeedsData(); got != want {
			t.Errorf("%v: got %v", op, got)
		}
	}
}

func TestOpcodesHaveNames(t *testing.T) {
	for op, want := range map[proto.Opcode]string{
		proto.OpReadObj: "READ_OBJ", proto.OpCheckpointCtl: "VDI_STATE_CHECKPOINT_CTL", 0x91: "opcode 0x91",
	} {
		if got := op.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	seen := map[string]proto.Opcode{}
	for i := range 256 {
		op := proto.Opcode(i)
		if before, ok := seen[op.String()]; ok {
			t.Errorf("%#x and %#x are both %v", uint8(before), i, op)
		}
		seen[op.String()] = op
	}
}
