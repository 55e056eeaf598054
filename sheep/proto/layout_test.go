package proto_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A span is what a layout has at an offset, in hexadecimal. All bytes that no
// span covers are zero.
type span struct {
	off int
	hex string
}

// checkBytes compares got with size bytes made of spans.
func checkBytes(t *testing.T, got []byte, size int, spans ...span) {
	t.Helper()
	want := make([]byte, size)
	for _, s := range spans {
		copy(want[s.off:], fromHex(t, s.hex))
	}
	if len(got) != size {
		t.Fatalf("got %d bytes, want %d", len(got), size)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("at offset %d: got %x, want %x", i, got[i:min(i+16, size)], want[i:min(i+16, size)])
		}
	}
}

func request(body [32]byte) []byte  { return proto.Header{Body: body}.Append(nil) }
func response(body [28]byte) []byte { return proto.Response{Body: body}.Append(nil) }

// TestBodies has the offsets of the specification, from the start of the header.
func TestBodies(t *testing.T) {
	addr := netip.MustParseAddrPort("10.1.2.3:7000")
	for _, c := range []struct {
		name  string
		got   []byte
		spans []span
	}{
		{"object request", request(proto.ObjectBody{ID: 0x0102030405060708, COW: 0x1112131415161718, Copies: 0x21,
			CopyPolicy: 0x22, ECIndex: 0x23, TargetEpoch: 0x31323334, Off: 0x41424344}.Body()),
			[]span{{16, "0807060504030201"}, {24, "1817161514131211"}, {32, "212223"}, {36, "34333231"}, {40, "44434241"}}},
		{"VDI request", request(proto.VDIBody{Size: 0x0102030405060708, Base: 0x111213, Copies: 0x21, CopyPolicy: 0x22,
			StorePolicy: 0x23, BlockShift: 0x24, SnapID: 0x31323334, Type: proto.LockShared}.Body()),
			[]span{{16, "0807060504030201"}, {24, "131211"}, {28, "21222324"}, {32, "34333231"}, {36, "01"}}},
		{"cluster request", request(proto.ClusterBody{Ctime: 0x0102030405060708, Copies: 0x21, CopyPolicy: 0x22,
			Flags: 0x1112, Tag: 0x31323334, Nodes: 0x41424344, BlockShift: 0x51}.Body()),
			[]span{{24, "0807060504030201"}, {32, "2122"}, {34, "1211"}, {36, "34333231"}, {40, "44434241"}, {44, "51"}}},
		{"VDI state request", request(proto.VDIStateBody{Old: 0x111213, New: 0x212223, Copies: 0x31, SetBitmap: true,
			CopyPolicy: 0x32, BlockShift: 0x33}.Body()),
			[]span{{16, "131211"}, {20, "232221"}, {24, "31013233"}}},
		{"reference request", request(proto.RefBody{ID: 0x0102030405060708, Generation: 0x11121314, Count: 0x21222324}.Body()),
			[]span{{16, "0807060504030201"}, {24, "14131211"}, {28, "24232221"}}},
		{"repair request", request(proto.ForwBody{ID: 0x0102030405060708, From: addr}.Body()),
			[]span{{16, "0807060504030201"}, {36, "0a010203"}, {40, "581b"}}},
		{"checkpoint request", request(proto.CheckpointBody{Get: true, Epoch: 0x11121314, VDI: 0x212223}.Body()),
			[]span{{16, "01"}, {20, "14131211"}, {24, "232221"}}},
		{"coherence request", request(proto.CoherenceBody{VDI: 0x212223, Validate: true}.Body()),
			[]span{{16, "232221"}, {20, "01"}}},
		{"peer request", request(proto.PeerBody{ID: 0x0102030405060708, Generation: 0x1112131415161718, Off: 0x21222324,
			Len: 0x31323334, Size: 0x41424344, Copies: 0x51, CopyPolicy: 0x52, Bits: proto.PeerZero | proto.PeerCreate}.Body()),
			[]span{{16, "0807060504030201"}, {24, "1817161514131211"}, {32, "24232221"}, {36, "34333231"},
				{40, "44434241"}, {44, "5152"}, {46, "1100"}}},
		{"object response", response(proto.ObjectReply{Copies: 0x21, Off: 0x0102030405060708}.Body()),
			[]span{{20, "21"}, {24, "0807060504030201"}}},
		{"VDI response", response(proto.VDIReply{VDI: 0x111213, Attr: 0x21222324, Copies: 0x31, BlockShift: 0x32}.Body()),
			[]span{{24, "131211"}, {28, "24232221"}, {32, "3132"}}},
		{"node response", response(proto.NodeReply{Nodes: 0x11121314, Size: 0x0102030405060708, Free: 0x2122232425262728}.Body()),
			[]span{{20, "14131211"}, {32, "0807060504030201"}, {40, "2827262524232221"}}},
		{"hash response", response(proto.HashReply{Digest: [20]byte{0: 1, 19: 20}}.Body()),
			[]span{{24, "01"}, {43, "14"}}},
		{"cluster default response", response(proto.ClusterDefaultReply{Copies: 1, CopyPolicy: 2, BlockShift: 3}.Body()),
			[]span{{20, "010203"}}},
		{"peer response", response(proto.PeerReply{Incarnation: 0x0102030405060708, WriteEpoch: 0x11121314,
			TrustedEpoch: 0x21222324, Bits: proto.CopyExists | proto.CopyIntent}.Body()),
			[]span{{24, "0807060504030201"}, {32, "14131211"}, {36, "24232221"}, {40, "05"}}},
		{"not-owner response", response(proto.NotOwnerReply{VDI: 0x111213, Owner: addr}.Body()),
			[]span{{20, "131211"}, {36, "0a010203"}, {40, "581b"}}},
	} {
		t.Run(c.name, func(t *testing.T) { checkBytes(t, c.got, proto.HeaderSize, c.spans...) })
	}
}

// node is the node of the specification's example: 127.0.0.1:7700, 128 vnodes.
func node() sheep.Node {
	return sheep.Node{
		Addr:   netip.MustParseAddrPort("127.0.0.1:7700"),
		VNodes: 128,
		Zone:   0x11121314,
		Space:  0x0102030405060708,
	}
}

// nodeSpans are the bytes of node, the entry beginning at off.
func nodeSpans(off int) []span {
	return []span{{off + 36, "7f000001"}, {off + 40, "141e"}, {off + 64, "8000"}, {off + 68, "14131211"},
		{off + 72, "0807060504030201"}}
}

func TestEpochLogOfTheOriginal(t *testing.T) {
	at := time.Unix(0x6b00e1bf, 0)
	b := proto.AppendEpochLog(nil, []sheep.Node{node()}, at)
	checkBytes(t, b, 88, append(nodeSpans(0), span{80, "bfe1006b00000000"})...)
	nodes, when, err := proto.DecodeEpochLog(b)
	if err != nil || len(nodes) != 1 || nodes[0] != node() || !when.Equal(at) {
		t.Errorf("decoded %v, %v, %v", nodes, when, err)
	}
	if three := proto.AppendEpochLog(nil, make([]sheep.Node, 3), at); len(three) != 248 {
		t.Errorf("three nodes take %d bytes, want 248", len(three))
	}
}

func TestNodeAddresses(t *testing.T) {
	for _, c := range []struct {
		name     string
		addr, io string // "" is none
		spans    []span
	}{
		{"IPv4 alone", "10.0.0.1:7000", "", []span{{36, "0a000001"}, {40, "581b"}}},
		{"IPv4 twice", "10.0.0.1:7000", "10.0.1.1:7001", []span{{36, "0a000001"}, {40, "581b"}, {54, "0a000101"}, {58, "591b"}}},
		{"IPv6", "[fd00::1]:7000", "", []span{{24, "fd00"}, {39, "01"}, {40, "581b"}}},
		{"IPv6 loopback", "[::1]:7000", "", []span{{39, "01"}, {40, "581b"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := sheep.Node{Addr: netip.MustParseAddrPort(c.addr)}
			if c.io != "" {
				n.IOAddr = netip.MustParseAddrPort(c.io)
			}
			b := proto.AppendNode(nil, n)
			checkBytes(t, b, proto.NodeSize, c.spans...)
			if got, err := proto.DecodeNode(b); err != nil || got != n {
				t.Errorf("decoded %+v, %v", got, err)
			}
			id, err := proto.DecodeNodeID(proto.AppendNodeID(nil, n))
			if err != nil || id != n {
				t.Errorf("id decoded to %+v, %v", id, err)
			}
		})
	}
}

func TestReservedBytesOfNodesAreIgnored(t *testing.T) {
	b := proto.AppendNode(nil, node())
	copy(b, "memory of a tree node...")
	if got, err := proto.DecodeNode(b); err != nil || got != node() {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestStoreConfig(t *testing.T) {
	c := proto.StoreConfig{Ctime: 0x0102030405060708, Flags: proto.ClusterAutoVNodes, Copies: 3, Store: "plain",
		Clean: true, CopyPolicy: 0x22, BlockShift: 22, Version: proto.StoreVersion, Space: 0x1112131415161718}
	b := c.Append(nil)
	checkBytes(t, b, 40, span{0, "0807060504030201 0400 03"}, span{11, "706c61696e"}, span{27, "01 22 16 0600"},
		span{32, "1817161514131211"})
	if got, err := proto.DecodeStoreConfig(b); err != nil || got != c {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestClusterInfo(t *testing.T) {
	c := proto.ClusterInfo{Version: 10, RecoveryDisabled: true, Epoch: 0x11121314, Ctime: 0x0102030405060708,
		Flags: 0x0c, Copies: 3, CopyPolicy: 0x22, Status: proto.StatusOK, BlockShift: 22, Store: "tree",
		Nodes: []sheep.Node{node(), node()}}
	b := c.Append(nil)
	spans := []span{{0, "0a01 0200 14131211 0807060504030201 0c00 03 22 01 16"}, {25, "74726565"}}
	spans = append(append(spans, nodeSpans(48)...), nodeSpans(128)...)
	checkBytes(t, b, 491_568, spans...)
	whole, err := proto.DecodeClusterInfo(b)
	if err != nil || !bytes.Equal(whole.Append(nil), b) {
		t.Errorf("decoded %+v, %v", whole, err)
	}
	if _, err := proto.DecodeClusterInfo(b[:208]); err != nil {
		t.Errorf("without the empty slots: %v", err)
	}
	if _, err := proto.DecodeClusterInfo(b[:207]); err == nil {
		t.Error("a cut node was accepted")
	}
	c.Nodes = make([]sheep.Node, proto.MaxNodes+1)
	if n := len(c.Append(nil)); n != proto.ClusterInfoSize {
		t.Errorf("too many nodes take %d bytes", n)
	}
}

func TestEpochRecord(t *testing.T) {
	e := proto.EpochRecord{Ctime: 0x0102030405060708, Time: time.Unix(0x6b00e1bf, 0), Epoch: 7, RecoveryDisabled: true,
		Copies: 3, CopyPolicy: 0x22, Flags: 0x1112, Store: "plain", Nodes: []sheep.Node{node()}}
	b := e.Append(nil, 2)
	spans := []span{{0, "0807060504030201 bfe1006b00000000 07000000 01000000 01 03 22"}, {30, "1211"}, {32, "706c61696e"}}
	checkBytes(t, b, 208, append(spans, nodeSpans(48)...)...)
	got, err := proto.DecodeEpochRecord(b, 2)
	if err != nil || len(got.Nodes) != 1 || got.Nodes[0] != node() || !got.Time.Equal(e.Time) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if _, err := proto.DecodeEpochRecord(e.Append(nil, 1), 2); err == nil {
		t.Error("a record with too few slots was accepted")
	}
	if n := len(proto.EpochRecord{}.Append(nil, 0)); n != 48 {
		t.Errorf("a record without slots has %d bytes", n)
	}
}

func TestVDIState(t *testing.T) {
	owner := sheep.Node{Addr: netip.MustParseAddrPort("10.0.0.1:7000")}
	v := proto.VDIStateOf(sheep.VDI{ID: 0x111213, Policy: sheep.Policy{Data: 4, Parity: 2}, Snapshot: true, Deleted: true,
		BlockShift: 22, Parent: 0x212223},
		sheep.Lock{State: sheep.Shared, Owner: owner, Participants: []sheep.Participant{
			{Node: owner, State: sheep.ShareModified}, {Node: owner, State: sheep.ShareInvalidated}}})
	b := v.Append(nil)
	checkBytes(t, b, 1428, span{0, "13121100 06 01 01 22 16"}, span{12, "232221"}, span{16, "03"},
		span{32, "0a000001 581b"}, span{60, "02"}, span{64, "01000000 03000000"},
		span{200, "0a000001 581b"}, span{240, "0a000001 581b"})
	got, err := proto.DecodeVDIStates(append(b, b...))
	if err != nil || len(got) != 2 || !bytes.Equal(got[1].Append(nil), b) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	free := proto.VDIStateOf(sheep.VDI{ID: 1, Policy: sheep.Replicated(3)}, sheep.Lock{})
	if free.Lock.State != sheep.Unlocked || free.Copies != 3 {
		t.Errorf("without a lock: %+v", free)
	}
}

func TestStatistics(t *testing.T) {
	s := proto.Stat{GatewayActive: 1, PeerActive: 2, GatewayTotal: 3, PeerTotal: 4, GatewayRx: 5, GatewayTx: 6, PeerRx: 7,
		PeerTx: 8, GatewayRemoves: 9, GatewayReads: 10, GatewayWrites: 11, GatewayFlushes: 12, PeerRemoves: 13,
		PeerReads: 14, PeerWrites: 15}
	var spans []span
	for i := range 15 {
		spans = append(spans, span{8 * i, string("0123456789abcdef"[(i+1)>>4]) + string("0123456789abcdef"[(i+1)&15])})
	}
	b := s.Append(nil)
	checkBytes(t, b, 120, spans...)
	if got, err := proto.DecodeStat(b); err != nil || got != s {
		t.Errorf("decoded %+v, %v", got, err)
	}

	r := proto.RecoveryState{Active: true, Phase: proto.RecoveryNotifying, Finished: 0x0102, Total: 0x0304}
	b = r.Append(nil)
	checkBytes(t, b, 24, span{0, "01"}, span{4, "02"}, span{8, "0201"}, span{16, "0403"})
	if got, err := proto.DecodeRecoveryState(b); err != nil || got != r {
		t.Errorf("decoded %+v, %v", got, err)
	}

	th := proto.Throttle{Max: 0x0102, Interval: 0x0304, On: true}
	b = th.Append(nil)
	checkBytes(t, b, 24, span{0, "0201"}, span{8, "0403"}, span{16, "01"})
	if got, err := proto.DecodeThrottle(b); err != nil || got != th || got.Duration() != 0x0304*time.Millisecond {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if d := (proto.Throttle{Interval: 1 << 63}).Duration(); d <= 0 {
		t.Errorf("a very long interval is %v", d)
	}
}

func TestDiskTable(t *testing.T) {
	disks := []proto.Disk{{Index: 0, Free: 0x0102, Used: 0x0304, Path: "/a"}, {Index: 1, Free: 5, Used: 6, Path: "/b"}}
	b := proto.AppendDiskTable(nil, disks)
	checkBytes(t, b, 263_688, span{8, "0201"}, span{16, "0403"}, span{24, "2f61"},
		span{4120, "01"}, span{4128, "05"}, span{4136, "06"}, span{4144, "2f62"}, span{263_680, "02"})
	got, err := proto.DecodeDiskTable(b)
	if err != nil || len(got) != 2 || got[0] != disks[0] || got[1] != disks[1] {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestAttr(t *testing.T) {
	a := proto.Attr{AttrHeader: proto.AttrHeader{Name: proto.Label("v"), Tag: proto.Label("t"), Ctime: 0x0102, SnapID: 3,
		Key: proto.Label("k")}, Value: []byte("value")}
	b := a.Append(nil)
	checkBytes(t, b, 66_320, span{0, "76"}, span{256, "74"}, span{512, "0201"}, span{520, "03"}, span{524, "05"},
		span{528, "6b"}, span{784, "76616c7565"})
	got, err := proto.DecodeAttr(b)
	if err != nil || string(got.Value) != "value" || !got.Same(&a.AttrHeader) {
		t.Errorf("decoded %q, %v", got.Value, err)
	}
	for _, change := range []func(*proto.AttrHeader){
		func(h *proto.AttrHeader) { h.Name[0] = 0 },
		func(h *proto.AttrHeader) { h.Tag[1] = 'x' },
		func(h *proto.AttrHeader) { h.SnapID = 0 },
		func(h *proto.AttrHeader) { h.Key[0] = 'l' },
	} {
		other := got.AttrHeader
		change(&other)
		if other.Same(&got.AttrHeader) {
			t.Errorf("%q %q %d %q is the same", other.Name[:2], other.Tag[:2], other.SnapID, other.Key[:2])
		}
	}
}

func TestPeerRecords(t *testing.T) {
	h := proto.Hello{Version: proto.PeerVersion, Incarnation: 0x0102030405060708, Ctime: 0x1112131415161718, Node: node()}
	b := h.Append(nil)
	checkBytes(t, b, 104, append(nodeSpans(24), span{0, "53484550 01000000 0807060504030201 1817161514131211"})...)
	if got, err := proto.DecodeHello(b); err != nil || got != h {
		t.Errorf("decoded %+v, %v", got, err)
	}

	c := proto.CopyState{ID: 0x0102030405060708, WriteEpoch: 0x11121314, TrustedEpoch: 0x21222324, MemberEpoch: 0x31323334, Bits: proto.CopyTrusted}
	b = c.Append(nil)
	checkBytes(t, b, 24, span{0, "0807060504030201 14131211 24232221 34333231 02"})
	if got, err := proto.DecodeCopyStates(append(b, b...)); err != nil || len(got) != 2 || got[1] != c {
		t.Errorf("decoded %+v, %v", got, err)
	}

	ref := sheep.Ref{ID: 0x0102030405060708, Size: 4 << 20, Policy: sheep.Policy{Data: 4, Parity: 2}}
	b = proto.COWPrefixOf(ref).Append(nil)
	checkBytes(t, b, 16, span{0, "0807060504030201 00004000 06 22"})
	prefix, err := proto.DecodeCOWPrefix(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := prefix.Ref(); err != nil || got != ref {
		t.Errorf("prefix names %+v, %v", got, err)
	}
	ref.Epoch, ref.Generation = 7, 9
	if got, err := proto.PeerBodyOf(ref).Ref(7); err != nil || got != ref {
		t.Errorf("peer request names %+v, %v", got, err)
	}
	if _, err := (proto.PeerBody{}).Ref(7); err == nil {
		t.Error("a request without copies was accepted")
	}

	ids := []sheep.ObjectID{1, 0x0102030405060708}
	b = proto.AppendObjectIDs(nil, ids)
	checkBytes(t, b, 16, span{0, "01"}, span{8, "0807060504030201"})
	if got, err := proto.DecodeObjectIDs(b); err != nil || len(got) != 2 || got[0] != ids[0] || got[1] != ids[1] {
		t.Errorf("decoded %v, %v", got, err)
	}
}

func TestBTreeOfTheOriginal(t *testing.T) {
	empty := proto.BTreeNode{Depth: proto.BTreeLeafDepth}.Append(nil)
	checkBytes(t, empty, 8, span{0, "7462010000000000"})
	two := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: []proto.BTreeEntry{{0, 0x7c2b25}, {10, 0x7c2b25}}}.Append(nil)
	checkBytes(t, two, 24, span{0, "74620100 02000000 00000000 252b7c00 0a000000 252b7c00"})
	root := proto.BTreeNode{Depth: proto.BTreeRootDepth, Children: []proto.BTreeChild{{9, sheep.BTreeObject(0x7c2b25, 1)}}}.Append(nil)
	checkBytes(t, root, 24, span{0, "74620200 01000000 09000000 00000000 01000000 252b7c10"})

	torn := fromHex(t, "74620100 02000000 01000000 01000000 01000000 01000000")
	if n, err := proto.DecodeBTreeNode(torn); err != nil || len(n.Entries) != 2 {
		t.Errorf("an entry twice, as a crash leaves it: %+v, %v", n, err)
	}
	for name, bad := range map[string]string{
		"another magic":              "74630100 00000000",
		"depth 0":                    "74620000 00000000",
		"depth 3":                    "74620300 00000000",
		"too many entries":           "74620100 00000800",
		"too many children":          "74620200 00000400",
		"entries that are not there": "74620100 01000000 00000000",
		"entries out of order":       "74620100 02000000 02000000 01000000 01000000 01000000",
		"children out of order": "74620200 02000000 02000000 00000000 01000000 252b7c10" +
			"01000000 00000000 01000000 252b7c10",
	} {
		if n, err := proto.DecodeBTreeNode(fromHex(t, bad)); err == nil {
			t.Errorf("%s: decoded %+v", name, n)
		}
	}
}

func TestBackupStream(t *testing.T) {
	b := proto.AppendBackupHeader(nil)
	b = proto.BackupRecord{Index: 3, Off: 512, Len: 1024}.Append(b)
	b = proto.BackupRecord{Index: proto.BackupEnd}.Append(b)
	checkBytes(t, b, 40, span{0, "01000000 92119211"}, span{8, "03000000 00020000 00040000"}, span{24, "ffffffff"})
	if err := proto.CheckBackupHeader(b); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]string{
		"another magic": "01000000 92119212", "another version": "02000000 92119211", "too short": "01000000 921192",
	} {
		if proto.CheckBackupHeader(fromHex(t, bad)) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for name, bad := range map[string]proto.BackupRecord{
		"half a sector":         {Off: 256, Len: 512},
		"a part of a sector":    {Len: 100},
		"more than any object":  {Len: 1<<31 + 512},
		"beyond any object":     {Off: 1 << 31, Len: 512},
		"beyond 32 bits in all": {Off: 1<<32 - 512, Len: 1<<32 - 512},
	} {
		if _, err := proto.DecodeBackupRecord(bad.Append(nil)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestClusterSnapshot(t *testing.T) {
	b := proto.FarmHeader{Copies: 3, CopyPolicy: 0x22, BlockShift: 22}.Append(nil)
	s := proto.FarmSnapshot{Index: 1, Tag: "s1", Time: time.Unix(0x6b00e1bf, 0), Trunk: proto.Digest{0: 0xaa, 19: 0xbb}}
	b = s.Append(b)
	checkBytes(t, b, 328, span{0, "01c0e1fe 01000000 03 22 16"}, span{32, "01"}, span{36, "7331"},
		span{296, "bfe1006b"}, span{304, "aa"}, span{323, "bb"})
	if got, err := proto.DecodeFarmHeader(b); err != nil || got.BlockShift != 22 {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if got, err := proto.DecodeFarmSnapshot(b[32:]); err != nil || got.Tag != s.Tag || got.Trunk != s.Trunk || !got.Time.Equal(s.Time) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	e := proto.TrunkEntry{ID: 0x0102030405060708, Copies: 3, CopyPolicy: 0x22, BlockShift: 22, Slices: proto.Digest{0: 0xaa}}
	b = e.Append(nil)
	checkBytes(t, b, 32, span{0, "0807060504030201 03 22 16"}, span{12, "aa"})
	if got, err := proto.DecodeTrunkEntry(b); err != nil || got != e {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if got := (proto.Digest{0: 0xab, 19: 1}).String(); got != "ab00000000000000000000000000000000000001" {
		t.Errorf("digest prints as %s", got)
	}
}

func TestWireTimes(t *testing.T) {
	at := time.Unix(0x6b00e3e7, 0x283a0110)
	if got := proto.WireTime(at); got != 0x6b00e3e7283a0110 {
		t.Errorf("got %016x", got)
	}
	if got := proto.TimeFromWire(0x6b00e3e7283a0110); !got.Equal(at) {
		t.Errorf("got %v, want %v", got, at)
	}
	if proto.WireTime(time.Time{}) != 0 || !proto.TimeFromWire(0).IsZero() {
		t.Error("the zero time is not 0")
	}
}
