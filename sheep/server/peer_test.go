package server_test

import (
	"bytes"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/server"
)

var serverConfig = server.Config{}

// greet says hello as the sheep with incarnation 42.
func greet(t *testing.T, conn *client.Conn) {
	t.Helper()
	hello := proto.Hello{Version: proto.PeerVersion, Incarnation: 42, Node: other}
	resp, data := ask(t, conn, proto.Header{Op: proto.OpHello, Flags: proto.FlagPiggyback}, hello.Append(nil), proto.HelloSize)
	theirs, err := proto.DecodeHello(data)
	if err != nil || resp.Result != proto.ResultSuccess || theirs.Incarnation != 9 || theirs.Ctime != 77 {
		t.Fatalf("hello: %v, %+v, %v", resp.Result, theirs, err)
	}
}

func TestASheepSaysWhoItIsFirst(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	read := proto.Header{Op: proto.OpPeerRead, Epoch: 3, Body: proto.PeerBody{ID: 1, Len: 3}.Body()}
	if resp, _ := ask(t, conn, read, nil, 3); resp.Result != proto.ResultInvalid {
		t.Errorf("peer read of a stranger: %v, want %v", resp.Result, proto.ResultInvalid)
	}
	hello := proto.Hello{Version: 2, Incarnation: 42}
	resp, _ := ask(t, conn, proto.Header{Op: proto.OpHello}, hello.Append(nil), 0)
	if resp.Result != proto.ResultVersion {
		t.Errorf("hello of another version: %v, want %v", resp.Result, proto.ResultVersion)
	}
	want(t, w)
	greet(t, conn)
	if resp, _ = ask(t, conn, read, nil, 3); resp.Result != proto.ResultNoObject {
		t.Errorf("peer read after hello: %v, want %v", resp.Result, proto.ResultNoObject)
	}
}

func TestRequestsOfPeersReachTheReplica(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	greet(t, conn)
	body := proto.PeerBody{ID: 5 << 32, Generation: 8, Off: 10, Size: 4 << 20, Copies: 2}
	with := func(bits proto.PeerBits, n uint32) [32]byte {
		b := body
		b.Bits, b.Len = bits, n
		return b.Body()
	}
	tests := []struct {
		name string
		op   proto.Opcode
		body [32]byte
		data []byte
		want proto.Result
		call string
	}{
		{"a create", proto.OpPeerWrite, with(proto.PeerCreate|proto.PeerDurable, 0), []byte("abc"), 0, "peer write 0000000500000000 gen 8 epoch 3 10+3 create durable"},
		{"a deferred write", proto.OpPeerWrite, with(0, 0), []byte("abc"), 0, "peer write 0000000500000000 gen 8 epoch 3 10+3"},
		{"a large write", proto.OpPeerWrite, with(0, 0), make([]byte, 1<<20), 0, "peer write 0000000500000000 gen 8 epoch 3 10+1048576"},
		{"zeroes", proto.OpPeerWrite, with(proto.PeerZero, 100), nil, 0, "peer write 0000000500000000 gen 8 epoch 3 10+100 zeroes"},
		{"zeroes with data", proto.OpPeerWrite, with(proto.PeerZero, 100), []byte("x"), proto.ResultInvalid, ""},
		{"a write beyond the end", proto.OpPeerWrite, with(0, 0), make([]byte, 4<<20-9), proto.ResultInvalid, ""},
		{"a read", proto.OpPeerRead, with(0, 3), nil, 0, "read 0000000500000000 10+3"},
		{"recovery's read", proto.OpPeerRead, with(proto.PeerRecovery, 3), nil, 0, "read any 0000000500000000 10+3"},
		{"a flush", proto.OpPeerFlush, with(0, 0), nil, 0, "peer flush 5 epoch 3"},
		{"a removal", proto.OpPeerRemove, with(0, 0), nil, 0, "remove 0000000500000000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			room := int(proto.DecodePeerBody(tt.body).Len)
			if tt.data != nil {
				room = 0
			}
			resp, data := ask(t, conn, proto.Header{Op: tt.op, Epoch: 3, Body: tt.body}, tt.data, room)
			if resp.Result != tt.want {
				t.Errorf("result %v, want %v", resp.Result, tt.want)
			}
			if tt.op == proto.OpPeerRead && len(data) != room {
				t.Errorf("%d bytes, want %d", len(data), room)
			}
			if resp.Result == 0 && proto.DecodePeerReply(resp.Body).Incarnation != 9 {
				t.Errorf("answer of incarnation %v", proto.DecodePeerReply(resp.Body).Incarnation)
			}
			if tt.call == "" {
				want(t, w)
			} else {
				want(t, w, tt.call)
			}
		})
	}
	resp, _ := ask(t, conn, proto.Header{Op: proto.OpPeerWrite, Body: with(0, 0)}, []byte("x"), 0)
	if resp.Result != proto.ResultInvalid {
		t.Errorf("write without an epoch: %v, want %v", resp.Result, proto.ResultInvalid)
	}
	for err, result := range map[error]proto.Result{
		&sheep.StaleEpochError{Sent: 3, Current: 4}: proto.ResultOldEpoch,
		sheep.ErrStaleOwner:                         proto.ResultStaleOwner,
		sheep.ErrNoSpace:                            proto.ResultNoSpace,
	} {
		w.fail(err)
		resp, _ := ask(t, conn, proto.Header{Op: proto.OpPeerWrite, Epoch: 3, Body: with(0, 0)}, []byte("x"), 0)
		if resp.Result != result {
			t.Errorf("write that fails with %v: %v, want %v", err, resp.Result, result)
		}
	}
}

func TestWhatPeersAreToldOfCopies(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	greet(t, conn)
	ids := []sheep.ObjectID{7, 5, 6}
	stat := proto.Header{Op: proto.OpPeerStat, Flags: proto.FlagPiggyback, Epoch: 3}
	_, data := ask(t, conn, stat, proto.AppendObjectIDs(nil, ids), 3*proto.CopyStateSize)
	states, err := proto.DecodeCopyStates(data)
	if err != nil || len(states) != 3 || states[0].ID != 7 || states[2].ID != 6 || states[1].WriteEpoch != 3 {
		t.Errorf("states %+v, %v", states, err)
	}
	_, data = ask(t, conn, proto.Header{Op: proto.OpPeerList, Body: proto.PeerBody{ID: 9, Len: 100}.Body()}, nil, 800)
	if got, _ := proto.DecodeObjectIDs(data); !slices.Equal(got, []sheep.ObjectID{9, 10}) {
		t.Errorf("list %v", got)
	}
	_, data = ask(t, conn, proto.Header{Op: proto.OpPeerIntents}, nil, 800)
	if got, _ := proto.DecodeObjectIDs(data); !slices.Equal(got, []sheep.ObjectID{1, 2, 3}) {
		t.Errorf("intents %v", got)
	}
	if resp, _ := ask(t, conn, proto.Header{Op: proto.OpPeerIntents}, nil, 16); resp.Result != proto.ResultBufferSmall {
		t.Errorf("intents with little room: %v", resp.Result)
	}
	_, data = ask(t, conn, proto.Header{Op: proto.OpPeerDigest, Body: proto.PeerBody{ID: 9}.Body()}, nil, 20)
	if !bytes.Equal(data[:4], []byte{1, 2, 3, 0}) {
		t.Errorf("digest %x", data)
	}
}

func TestWhatAGatewayForwardedBeforeItLeftIsRefused(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	greet(t, conn)
	view := *w.view
	view.Members = []cluster.Member{view.Members[0], {Node: other, Incarnation: 43}} // it has started again
	w.view = &view
	body := proto.PeerBody{ID: 5 << 32, Len: 2, Size: 1 << 22, Copies: 2}.Body()
	for op, data := range map[proto.Opcode][]byte{proto.OpOwnerWrite: []byte("ab"), proto.OpOwnerRead: nil} {
		resp, _ := ask(t, conn, proto.Header{Op: op, Body: body}, data, 2)
		if resp.Result != proto.ResultNotOwner {
			t.Errorf("%v: result %v, want %v", op, resp.Result, proto.ResultNotOwner)
		}
	}
	want(t, w)
}

func TestWhatGatewaysForwardReachesTheOwner(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	greet(t, conn)
	inode := sheep.InodeObject(5)
	body := func(id sheep.ObjectID, bits proto.PeerBits) [32]byte {
		return proto.PeerBody{ID: id, Off: 4664, Len: 2, Size: 1 << 23, Copies: 2, Bits: bits}.Body()
	}
	cow := proto.COWPrefix{ID: 4 << 32, Size: 1 << 22, Copies: 2}.Append(nil)
	tests := []struct {
		name string
		op   proto.Opcode
		body [32]byte
		data []byte
		want proto.Result
		call string
	}{
		{"copy on write", proto.OpOwnerWrite, body(5<<32, proto.PeerCreate|proto.PeerCOW), append(cow, "abc"...), 0, "write 0000000500000000 4664+3 create from 0000000400000000"},
		{"copy on write without a source", proto.OpOwnerWrite, body(5<<32, proto.PeerCreate|proto.PeerCOW), []byte("abc"), proto.ResultInvalid, ""},
		{"a write", proto.OpOwnerWrite, body(5<<32, proto.PeerDurable), []byte("abc"), 0, "write 0000000500000000 4664+3 durable"},
		{"a write to an inode", proto.OpOwnerWrite, body(inode, proto.PeerDurable), []byte("abcd"), 0, "inode write 8000000500000000 4664+4 durable"},
		{"a new inode", proto.OpOwnerWrite, body(inode, proto.PeerCreate), []byte("abcd"), 0, "write 8000000500000000 4664+4 create"},
		{"a read", proto.OpOwnerRead, body(5<<32, 0), nil, 0, "read 0000000500000000 4664+2"},
		{"a release", proto.OpOwnerDecref, body(5<<32, 0), nil, 0, "owned decref 0000000500000000 4664 2"},
		{"a flush", proto.OpOwnerFlush, body(inode, 0), nil, 0, "owner flush 5 for 000000000000002a"},
		{"a removal", proto.OpOwnerRemove, body(5<<32, 0), nil, 0, "remove 0000000500000000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, _ := ask(t, conn, proto.Header{Op: tt.op, Body: tt.body}, tt.data, 2)
			if resp.Result != tt.want {
				t.Errorf("result %v, want %v", resp.Result, tt.want)
			}
			if tt.call == "" {
				want(t, w)
			} else {
				want(t, w, tt.call)
			}
		})
	}
	w.fail(&sheep.NotOwnerError{VDI: 5, Owner: self})
	resp, _ := ask(t, conn, proto.Header{Op: proto.OpOwnerRead, Body: body(5<<32, 0)}, nil, 2)
	if got := proto.DecodeNotOwnerReply(resp.Body); resp.Result != proto.ResultNotOwner || got.Owner != self.Addr || got.VDI != 5 {
		t.Errorf("answer of a gateway that is not the owner: %v, %+v", resp.Result, got)
	}
}
