package proto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A rule turns input into what Append makes of it: it blanks what a layout
// ignores.
type rule func(b []byte)

// pad blanks n bytes at off.
func pad(off, n int) rule { return func(b []byte) { clear(b[off : off+n]) } }

// text blanks what follows the first NUL of the n bytes at off.
func text(off, n int) rule {
	return func(b []byte) {
		field := b[off : off+n]
		if i := bytes.IndexByte(field, 0); i >= 0 {
			clear(field[i:])
		}
	}
}

// truth makes a number of n bytes at off 0 or 1.
func truth(off, n int) rule {
	return func(b []byte) {
		set := !bytes.Equal(b[off:off+n], make([]byte, n))
		clear(b[off : off+n])
		if set {
			b[off] = 1
		}
	}
}

// every applies rules to each of count records of size bytes from off on.
func every(off, size, count int, rules ...rule) rule {
	return func(b []byte) {
		for i := range count {
			for _, r := range rules {
				r(b[off+i*size:][:size])
			}
		}
	}
}

// nodePads are the ignored bytes of a node entry.
func nodePads() []rule { return []rule{pad(0, 24), pad(60, 4), pad(66, 2)} }

// checkRoundTrip checks that decode never fails but with ErrMalformed or an
// error it may, and that what decodes appends to the same bytes, except for
// what rules blank. Append may write more than was read; that is zero then.
func checkRoundTrip[T any](t *testing.T, in []byte, decode func([]byte) (T, error), app func(T, []byte) []byte, rules ...rule) {
	t.Helper()
	v, err := decode(bytes.Clone(in))
	if err != nil {
		if !errors.Is(err, proto.ErrMalformed) && !errors.Is(err, sheep.ErrVersion) {
			t.Errorf("decoder fails with %v", err)
		}
		return
	}
	prefix := []byte("prefix")
	out := app(v, prefix)
	if !bytes.HasPrefix(out, prefix) {
		t.Fatal("Append overwrites what was there")
	}
	out = out[len(prefix):]
	want := bytes.Clone(in[:min(len(in), len(out))])
	for _, r := range rules {
		r(want)
	}
	if !bytes.Equal(out[:len(want)], want) {
		t.Errorf("decoded %+v\nappended %x\nwant     %x", v, out[:len(want)], want)
	}
	if rest := out[len(want):]; !bytes.Equal(rest, make([]byte, len(rest))) {
		t.Errorf("appended %d bytes that are not in the input", len(rest))
	}
	again, err := decode(out)
	if err != nil || !reflect.DeepEqual(again, v) {
		t.Errorf("decoded %+v, appended, and then %+v, %v", v, again, err)
	}
}

// seed adds b and cut, grown and inverted variants of it to the corpus.
func seed(f *testing.F, b []byte) {
	f.Helper()
	inverted := bytes.Clone(b)
	for i := range inverted {
		inverted[i] ^= 0xff
	}
	f.Add(b)
	f.Add(inverted)
	f.Add(b[:max(0, len(b)-1)])
	f.Add(append(bytes.Clone(b), 1))
	f.Add([]byte{})
}

func FuzzHeader(f *testing.F) {
	seed(f, proto.Header{Op: proto.OpReadObj, DataLen: 512, Body: [32]byte{1, 2, 3}}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeHeader, proto.Header.Append)
	})
}

func FuzzResponse(f *testing.F) {
	seed(f, proto.Response{Op: proto.OpReadObj, DataLen: 512, Result: 2, Body: [28]byte{1, 2, 3}}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeResponse, proto.Response.Append)
	})
}

// checkBody checks one body type against 32 bytes.
func checkBody[T interface{ Body() [32]byte }](t *testing.T, in [32]byte, decode func([32]byte) T, rules ...rule) {
	t.Helper()
	checkRoundTrip(t, in[:],
		func(b []byte) (T, error) { return decode([32]byte(b)), nil },
		func(v T, b []byte) []byte { body := v.Body(); return append(b, body[:]...) }, rules...)
}

// checkReply checks one reply type against 28 bytes.
func checkReply[T interface{ Body() [28]byte }](t *testing.T, in [28]byte, decode func([28]byte) T, rules ...rule) {
	t.Helper()
	checkRoundTrip(t, in[:],
		func(b []byte) (T, error) { return decode([28]byte(b)), nil },
		func(v T, b []byte) []byte { body := v.Body(); return append(b, body[:]...) }, rules...)
}

func FuzzBodies(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xff}, 32))
	f.Add([]byte("0123456789abcdefghijklmnopqrstuv"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var b [32]byte
		copy(b[:], in)
		checkBody(t, b, proto.DecodeObjectBody, pad(19, 1), pad(28, 4))
		checkBody(t, b, proto.DecodeVDIBody, pad(24, 8))
		checkBody(t, b, proto.DecodeClusterBody, pad(0, 8), pad(29, 3))
		checkBody(t, b, proto.DecodeVDIStateBody, truth(9, 1), pad(12, 20))
		checkBody(t, b, proto.DecodeRefBody, pad(16, 16))
		checkBody(t, b, proto.DecodeForwBody, pad(26, 6))
		checkBody(t, b, proto.DecodeCheckpointBody, truth(0, 4), pad(12, 20))
		checkBody(t, b, proto.DecodeCoherenceBody, truth(4, 4), pad(8, 24))
		checkBody(t, b, proto.DecodePeerBody)
		r := [28]byte(b[:])
		checkReply(t, r, proto.DecodeObjectReply, pad(1, 3), pad(12, 16))
		checkReply(t, r, proto.DecodeVDIReply, pad(0, 4), pad(14, 14))
		checkReply(t, r, proto.DecodeNodeReply, pad(4, 8))
		checkReply(t, r, proto.DecodeHashReply, pad(0, 4), pad(24, 4))
		checkReply(t, r, proto.DecodeClusterDefaultReply, pad(3, 25))
		checkReply(t, r, proto.DecodePeerReply, pad(0, 4), pad(21, 7))
		checkReply(t, r, proto.DecodeNotOwnerReply, pad(22, 6))
	})
}

func FuzzNode(f *testing.F) {
	seed(f, proto.AppendNode(nil, node()))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeNode,
			func(n sheep.Node, b []byte) []byte { return proto.AppendNode(b, n) }, nodePads()...)
		checkRoundTrip(t, in, proto.DecodeNodeID,
			func(n sheep.Node, b []byte) []byte { return proto.AppendNodeID(b, n) }, pad(36, 4))
		checkRoundTrip(t, in, proto.DecodeNodes,
			func(n []sheep.Node, b []byte) []byte { return proto.AppendNodes(b, n) },
			every(0, proto.NodeSize, len(in)/proto.NodeSize, nodePads()...))
	})
}

func FuzzPeerStates(f *testing.F) {
	seed(f, proto.AppendPeerStates(nil, []proto.PeerState{{Node: node(), Silent: 5, Bits: proto.PeerVoter}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodePeerStates,
			func(p []proto.PeerState, b []byte) []byte { return proto.AppendPeerStates(b, p) },
			every(0, proto.PeerStateSize, len(in)/proto.PeerStateSize, nodePads()...))
	})
}

func FuzzWaitingList(f *testing.F) {
	w := proto.WaitingList{Total: 7, Objects: []proto.WaitingObject{{ID: 5 << 32, Since: 9, Reason: "a node is absent"}, {ID: 6 << 32}}}
	seed(f, w.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeWaitingList, func(w proto.WaitingList, b []byte) []byte { return w.Append(b) })
	})
}

func FuzzSlowList(f *testing.F) {
	l := proto.SlowList{Total: 7, Requests: []proto.SlowRequest{{
		ID: 5 << 32, Age: 1500 * time.Millisecond, Epoch: 4, GivenUp: true, Name: "disk", Op: "write", State: "peer",
		Nodes:  []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:7000"), netip.MustParseAddrPort("[fe80::1]:7001")},
		Client: "nbd unix", Reason: "a node is absent",
	}, {ID: 6 << 32}}}
	seed(f, l.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeSlowList, func(l proto.SlowList, b []byte) []byte { return l.Append(b) })
	})
}

func FuzzVDIStatusList(f *testing.F) {
	addr := netip.MustParseAddrPort("10.0.0.1:7000")
	l := proto.VDIStatusList{Deadline: 30 * time.Second, VDIs: []proto.VDIStatus{
		{VDI: 5, Bits: proto.VDIBound, Generation: 12, Owner: addr, Deadline: proto.AsCluster, Holders: []proto.LockHolder{
			{Node: addr, Since: 1700000000e9, Client: sheep.Client{Kind: "nbd", Addr: "10.0.0.9:1234"}}, {Node: addr}}},
		{VDI: 6, Deadline: time.Second},
	}}
	seed(f, l.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := proto.DecodeVDIStatusList(in)
		if err != nil {
			return
		}
		again, err := proto.DecodeVDIStatusList(l.Append(nil))
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%+v, again %+v, %v", l, again, err)
		}
	})
}

func TestDeadlineOrdersAreDecodedAsTheyWere(t *testing.T) {
	for _, o := range []proto.DeadlineOrder{{}, {VDI: 5, Deadline: time.Minute}, {VDI: 5, Deadline: proto.AsCluster}} {
		if got, err := proto.DecodeDeadlineOrder(o.Append(nil)); err != nil || got != o {
			t.Errorf("got %+v, %v; want %+v", got, err, o)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 15), proto.DeadlineOrder{Deadline: -2}.Append(nil), bytes.Repeat([]byte{0x7F}, 16)} {
		if o, err := proto.DecodeDeadlineOrder(b); !errors.Is(err, proto.ErrMalformed) {
			t.Errorf("%x decodes to %+v, %v", b, o, err)
		}
	}
}

func FuzzHealing(f *testing.F) {
	n := sheep.Node{Addr: netip.MustParseAddrPort("10.0.0.1:7000"), VNodes: 128, Zone: 3}
	whole := proto.Healing{
		Bits: proto.HealingActive, Epoch: 4, Finished: 1, Total: 2, Left: 3, Objects: 4, Bytes: 5, Rate: 6, ETA: 7, Later: 8,
		Delay: proto.Forever, Throttle: proto.Throttle{Max: 1, Interval: 2, On: true}, Limit: 9,
		Absent:     []proto.AbsentNode{{Node: n, Since: 10, Left: 11, Maintained: true}, {Node: n}},
		Maintained: []proto.MaintainedNode{{Node: n, Until: 12}}, Drained: []sheep.Node{n},
	}
	seed(f, whole.Append(nil))
	seed(f, proto.NodeOrder{Node: n, Value: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := proto.DecodeHealing(in)
		if err != nil {
			if !errors.Is(err, proto.ErrMalformed) {
				t.Errorf("decoder fails with %v", err)
			}
			return
		}
		if again, err := proto.DecodeHealing(h.Append(nil)); err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("decoded %+v, appended and decoded again %+v, %v", h, again, err)
		}
	})
	if again, err := proto.DecodeHealing(whole.Append(nil)); err != nil || !reflect.DeepEqual(again, whole) {
		f.Errorf("got %+v, %v", again, err)
	}
}

func FuzzNodeOrder(f *testing.F) {
	seed(f, proto.NodeOrder{Node: sheep.Node{Addr: netip.MustParseAddrPort("10.0.0.1:7000")}, Value: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeNodeOrder, proto.NodeOrder.Append, nodePads()...)
	})
}

func FuzzScrub(f *testing.F) {
	pass := proto.ScrubPass{Began: 1, Ended: 2, Objects: 3, Compared: 4, Differing: 5, Repaired: 6, Bytes: 7}
	seed(f, proto.ScrubReport{Bits: proto.ScrubOn, Next: 9, Last: pass, Left: []sheep.ObjectID{1, 2}}.Append(nil))
	seed(f, proto.DamageReport{Total: 1, Objects: []proto.Damaged{{ID: 2, Class: proto.Unreadable}}}.Append(nil))
	seed(f, proto.CopyReport{CopyState: proto.CopyState{ID: 1, Bits: proto.CopyExists}, Joined: 2, Read: proto.ResultIO}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeScrubReport, func(r proto.ScrubReport, b []byte) []byte { return r.Append(b) })
		checkRoundTrip(t, in, proto.DecodeDamageReport, proto.DamageReport.Append)
		checkRoundTrip(t, in, proto.DecodeSpaceReport, proto.SpaceReport.Append)
		checkRoundTrip(t, in, proto.DecodeScrubPass, proto.ScrubPass.Append)
		checkRoundTrip(t, in, proto.DecodeCopyReport, proto.CopyReport.Append)
	})
}

func FuzzEpochLog(f *testing.F) {
	type epochLog struct {
		nodes []sheep.Node
		secs  int64
	}
	seed(f, append(proto.AppendNode(nil, node()), 1, 2, 3, 4, 5, 6, 7, 8))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in,
			func(b []byte) (epochLog, error) {
				nodes, at, err := proto.DecodeEpochLog(b)
				return epochLog{nodes, at.Unix()}, err
			},
			func(l epochLog, b []byte) []byte {
				_, at, _ := proto.DecodeEpochLog(binary.LittleEndian.AppendUint64(nil, uint64(l.secs)))
				return proto.AppendEpochLog(b, l.nodes, at)
			},
			every(0, proto.NodeSize, len(in)/proto.NodeSize, nodePads()...))
	})
}

func FuzzStoreConfig(f *testing.F) {
	seed(f, proto.StoreConfig{Store: "plain", Version: proto.StoreVersion}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeStoreConfig, proto.StoreConfig.Append, text(11, 16), truth(27, 1))
	})
}

func FuzzInodeHeader(f *testing.F) {
	h := proto.InodeHeader{Name: "name", Tag: "tag"}
	b := h.Append(nil)
	b[100], b[255], b[511] = 1, 2, 3
	seed(f, b)
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeInodeHeader,
			func(h proto.InodeHeader, b []byte) []byte { return h.Append(b) })
	})
}

func FuzzAttr(f *testing.F) {
	a := proto.Attr{AttrHeader: proto.AttrHeader{Name: proto.Label("v")}, Value: []byte("value")}
	seed(f, a.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeAttrHeader,
			func(h proto.AttrHeader, b []byte) []byte { return h.Append(b) })
		checkRoundTrip(t, in, proto.DecodeAttr,
			func(a proto.Attr, b []byte) []byte { return a.Append(b) },
			func(b []byte) { clear(b[min(len(b), proto.AttrHeaderSize+int(binary.LittleEndian.Uint32(b[524:]))):]) })
	})
}

func FuzzClusterInfo(f *testing.F) {
	b := proto.ClusterInfo{Version: 10, Store: "plain", Nodes: []sheep.Node{node()}}.Append(nil)
	seed(f, b[:128])
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeClusterInfo, proto.ClusterInfo.Append,
			truth(1, 1), pad(22, 3), text(25, 16), pad(41, 7), func(b []byte) {
				n := int(binary.LittleEndian.Uint16(b[2:]))
				every(48, proto.NodeSize, n, nodePads()...)(b)
				clear(b[48+n*proto.NodeSize:])
			})
	})
}

func FuzzEpochRecord(f *testing.F) {
	const slots = 2
	seed(f, proto.EpochRecord{Epoch: 3, Store: "plain", Nodes: []sheep.Node{node()}}.Append(nil, slots))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in,
			func(b []byte) (proto.EpochRecord, error) { return proto.DecodeEpochRecord(b, slots) },
			func(e proto.EpochRecord, b []byte) []byte { return e.Append(b, slots) },
			truth(24, 1), pad(27, 3), text(32, 16), func(b []byte) {
				n := int(binary.LittleEndian.Uint32(b[20:]))
				every(48, proto.NodeSize, n, nodePads()...)(b)
				clear(b[48+n*proto.NodeSize:])
			})
	})
}

func FuzzVDIState(f *testing.F) {
	s := proto.VDIStateOf(sheep.VDI{ID: 1, Policy: sheep.Replicated(3)},
		sheep.Lock{State: sheep.Shared, Participants: []sheep.Participant{{Node: node(), State: sheep.ShareShared}}})
	seed(f, s.Append(nil))
	unused := func(b []byte) {
		n := int(binary.LittleEndian.Uint32(b[60:]))
		clear(b[64+4*n : 188])
		every(188, proto.NodeIDSize, n, pad(36, 4))(b)
		clear(b[188+proto.NodeIDSize*n : proto.VDIStateSize])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		rules := []rule{truth(5, 1), truth(6, 1), pad(9, 3), pad(56, 4), unused}
		checkRoundTrip(t, in, proto.DecodeVDIState, proto.VDIState.Append, rules...)
		checkRoundTrip(t, in, proto.DecodeVDIStates,
			func(states []proto.VDIState, b []byte) []byte {
				for _, s := range states {
					b = s.Append(b)
				}
				return b
			},
			every(0, proto.VDIStateSize, len(in)/proto.VDIStateSize, rules...))
	})
}

func FuzzStatistics(f *testing.F) {
	seed(f, proto.Stat{GatewayActive: 1, PeerWrites: 2}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeStat, proto.Stat.Append)
		checkRoundTrip(t, in, proto.DecodeRecoveryState, proto.RecoveryState.Append, truth(0, 1), pad(1, 3))
		checkRoundTrip(t, in, proto.DecodeThrottle, proto.Throttle.Append, pad(4, 4), truth(16, 1), pad(17, 7))
	})
}

func FuzzDiskTable(f *testing.F) {
	seed(f, proto.AppendDiskTable(nil, []proto.Disk{{Index: 1, Path: "/a"}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeDiskTable,
			func(d []proto.Disk, b []byte) []byte { return proto.AppendDiskTable(b, d) },
			pad(len(in[:min(len(in), proto.DiskTableSize)])-4, 4), func(b []byte) {
				n := int(binary.LittleEndian.Uint32(b[proto.DiskTableSize-8:]))
				every(0, 4120, n, pad(4, 4), text(24, 4096))(b)
				clear(b[n*4120 : proto.DiskTableSize-8])
			})
	})
}

func FuzzPeerRecords(f *testing.F) {
	seed(f, proto.Hello{Version: 1, Incarnation: 2, Node: node()}.Append(nil))
	seed(f, proto.CopyState{ID: 1, Bits: 7}.Append(nil))
	seed(f, proto.COWPrefix{ID: 1, Size: 2, Copies: 3}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeHello, proto.Hello.Append, pad(24, 24), pad(84, 4), pad(90, 2))
		checkRoundTrip(t, in, proto.DecodeCopyState, proto.CopyState.Append)
		checkRoundTrip(t, in, proto.DecodeCOWPrefix, proto.COWPrefix.Append)
		checkRoundTrip(t, in, proto.DecodeCopyStates, func(states []proto.CopyState, b []byte) []byte {
			for _, s := range states {
				b = s.Append(b)
			}
			return b
		})
		checkRoundTrip(t, in, proto.DecodeObjectIDs,
			func(ids []sheep.ObjectID, b []byte) []byte { return proto.AppendObjectIDs(b, ids) })
	})
}

func FuzzBTreeNode(f *testing.F) {
	seed(f, proto.BTreeNode{Depth: 1, Entries: []proto.BTreeEntry{{1, 2}, {3, 4}}}.Append(nil))
	seed(f, proto.BTreeNode{Depth: 2, Children: []proto.BTreeChild{{1, 2}, {3, 4}}}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeBTreeHeader, proto.BTreeHeader.Append)
		checkRoundTrip(t, in, proto.DecodeBTreeNode, proto.BTreeNode.Append, func(b []byte) {
			if b[2] == proto.BTreeRootDepth {
				every(8, 16, len(b)/16, pad(4, 4))(b)
			}
		})
	})
}

func FuzzBackup(f *testing.F) {
	seed(f, proto.AppendBackupHeader(nil))
	seed(f, proto.BackupRecord{Index: 1, Off: 512, Len: 1024}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeBackupRecord, proto.BackupRecord.Append, pad(12, 4))
		checkRoundTrip(t, in,
			func(b []byte) (struct{}, error) { return struct{}{}, proto.CheckBackupHeader(b) },
			func(_ struct{}, b []byte) []byte { return proto.AppendBackupHeader(b) })
	})
}

func FuzzClusterSnapshot(f *testing.F) {
	seed(f, proto.FarmHeader{Copies: 3}.Append(nil))
	seed(f, proto.FarmSnapshot{Index: 1, Tag: "tag"}.Append(nil))
	seed(f, proto.TrunkEntry{ID: 1, Copies: 3}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in, proto.DecodeFarmHeader, proto.FarmHeader.Append, pad(11, 21))
		checkRoundTrip(t, in, proto.DecodeFarmSnapshot, proto.FarmSnapshot.Append, text(4, 256), pad(260, 4), pad(292, 4))
		checkRoundTrip(t, in, proto.DecodeTrunkEntry, proto.TrunkEntry.Append, pad(11, 1))
	})
}

func FuzzLookup(f *testing.F) {
	type lookup struct{ name, tag string }
	seed(f, proto.AppendLookup(nil, "name", "tag"))
	seed(f, proto.AppendName(nil, "name"))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkRoundTrip(t, in,
			func(b []byte) (l lookup, err error) { l.name, l.tag, err = proto.DecodeLookup(b); return l, err },
			func(l lookup, b []byte) []byte {
				if len(in) == proto.LabelSize {
					return proto.AppendName(b, l.name)
				}
				return proto.AppendLookup(b, l.name, l.tag)
			},
			every(0, proto.LabelSize, len(in)/proto.LabelSize, text(0, proto.LabelSize)))
	})
}
