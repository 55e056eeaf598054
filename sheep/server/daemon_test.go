package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/server"
)

// Opcodes as the protocol lists them, independently of package proto.
var (
	clientOps = []uint8{0x01, 0x02, 0x03, 0x04, 0x05, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18}
	forceOps  = []uint8{
		0x15, 0x18, 0x82, 0x84, 0x85, 0x87, 0x8A, 0x90, 0x94, 0x95, 0x96, 0x99, 0x9A, 0x9B, 0x9C, 0xAB,
		0xAC, 0xAF, 0xB9, 0xBA, 0xBD, 0xBE, 0xC6, 0xC9, 0xCA, 0xCB, 0xCF, 0xD0, 0xF5,
	}
	otherOps = []uint8{
		0x86, 0x89, 0x97, 0x98, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA8, 0xA9, 0xB0, 0xB1, 0xB2, 0xB3, 0xB4,
		0xB5, 0xB8, 0xBB, 0xBC, 0xBF, 0xC0, 0xC1, 0xC2, 0xC5, 0xC7, 0xC8, 0xCC, 0xCD,
		0xCE, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF6, 0xF7,
	}
	ownOps = []uint8{0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5}
)

// order returns the data of an order about a node.
func order(value uint64) []byte {
	return proto.NodeOrder{Node: sheep.Node{Addr: netip.MustParseAddrPort("10.0.0.9:7000")}, Value: value}.Append(nil)
}

func version(op uint8) uint8 {
	switch {
	case op < 0x80:
		return 2
	case op >= 0xD0 && (op < 0xD9 || op > 0xDF && op < 0xF0):
		return 1
	}
	return 10
}

func TestTheStateOfTheClusterDecidesWhatIsServed(t *testing.T) {
	known := slices.Concat(clientOps, forceOps, otherOps, ownOps)
	states := []struct {
		name   string
		status cluster.Status
		epoch  sheep.Epoch
		forced proto.Result // of operations with force
		others proto.Result
		own    proto.Result // of those of our own sheep
	}{
		{"never formatted", cluster.Wait, 0, proto.ResultSuccess, proto.ResultWaitForFormat, proto.ResultSuccess},
		{"waiting for members", cluster.Wait, 3, proto.ResultSuccess, proto.ResultWaitForJoin, proto.ResultSuccess},
		{"running", cluster.OK, 3, proto.ResultSuccess, proto.ResultSuccess, proto.ResultSuccess},
		{"shutting down", cluster.Shutdown, 3, proto.ResultShutdown, proto.ResultShutdown, proto.ResultSuccess},
		{"killed", cluster.Killed, 3, proto.ResultKilled, proto.ResultKilled, proto.ResultKilled},
	}
	for _, tt := range states {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.view.Status, w.view.Epoch = tt.status, tt.epoch
			d := w.daemon()
			for op := range 256 {
				op := uint8(op)
				want := tt.others
				switch {
				case !slices.Contains(known, op):
					want = proto.ResultInvalid
				case slices.Contains(ownOps, op) && tt.own == proto.ResultSuccess:
					want = proto.ResultSuccess
				case slices.Contains(forceOps, op):
					want = tt.forced
				}
				h := acceptable(proto.Opcode(op))
				if got := d.Plan(&h).Result; got != want {
					t.Errorf("%v: %v, want %v", h.Op, got, want)
				}
			}
		})
	}
}

// acceptable returns a header of op whose lengths are right.
func acceptable(op proto.Opcode) proto.Header {
	h := proto.Header{Version: version(uint8(op)), Op: op}
	n := map[proto.Opcode]int{
		proto.OpNewVDI: 256, proto.OpLockVDI: 512, proto.OpGetVDIInfo: 256, proto.OpDelVDI: 512,
		proto.OpGetVDIAttr: 66_320, proto.OpSetVNodes: 8, proto.OpSetLogLevel: 4, proto.OpSetRecovery: 24,
		proto.OpHello: 104, proto.OpSetHealDelay: 8, proto.OpSetHealRate: 8, proto.OpMaintainNode: 88, proto.OpDrainNode: 88,
		proto.OpSetDeadline: 16,
	}[op]
	if op.NeedsData() || n > 0 {
		h.Flags, h.DataLen = proto.FlagWrite, uint32(n)
	}
	return h
}

func TestTheVersionIsCheckedFirst(t *testing.T) {
	w := newWorld()
	w.view.Status = cluster.Killed
	d := w.daemon()
	for op := range 256 {
		for v := range 256 {
			op, v := uint8(op), uint8(v)
			known := proto.Opcode(op).Known()
			mismatch := op < 0x80 && v > 2 || op >= 0x80 && v != version(op) && (known || op < 0xCE)
			h := acceptable(proto.Opcode(op))
			h.Version = v
			if got := d.Plan(&h).Result == proto.ResultVersion; got != mismatch {
				t.Errorf("opcode %#x version %d: mismatch %v, want %v", op, v, got, mismatch)
			}
		}
	}
}

func TestLengthsAreCheckedBeforeMemoryIsTaken(t *testing.T) {
	d := newWorld().daemon()
	read := proto.PeerBody{Len: 64<<20 + 1}.Body()
	tests := []struct {
		name string
		h    proto.Header
	}{
		{"a write above 64 MiB", proto.Header{Op: proto.OpWriteObj, Flags: proto.FlagWrite, DataLen: 64<<20 + 1}},
		{"a create above 64 MiB", proto.Header{Op: proto.OpCreateAndWriteObj, Flags: proto.FlagWrite, DataLen: proto.MaxData}},
		{"a read above 64 MiB", proto.Header{Op: proto.OpReadObj, DataLen: 64<<20 + 1}},
		{"a write without data", proto.Header{Op: proto.OpWriteObj, DataLen: 10}},
		{"a name that is too short", proto.Header{Op: proto.OpNewVDI, Flags: proto.FlagWrite, DataLen: 255}},
		{"a name that is too long", proto.Header{Op: proto.OpNewVDI, Flags: proto.FlagWrite, DataLen: 257}},
		{"a new VDI without a name", proto.Header{Op: proto.OpNewVDI, DataLen: 256}},
		{"a lookup that is too long", proto.Header{Op: proto.OpLockVDI, Flags: proto.FlagWrite, DataLen: 513}},
		{"an attribute that is too short", proto.Header{Op: proto.OpGetVDIAttr, Version: 10, Flags: proto.FlagWrite, DataLen: 66_319}},
		{"a log level of a byte", proto.Header{Op: proto.OpSetLogLevel, Version: 10, Flags: proto.FlagWrite, DataLen: 1}},
		{"data with an operation that takes none", proto.Header{Op: proto.OpShutdown, Version: 10, Flags: proto.FlagWrite, DataLen: 64<<10 + 1}},
		{"a peer's read above 64 MiB", proto.Header{Op: proto.OpPeerRead, Version: 1, Body: read}},
		{"a gateway's read above 64 MiB", proto.Header{Op: proto.OpOwnerRead, Version: 1, Body: read}},
		{"a peer's read with data", proto.Header{Op: proto.OpPeerRead, Version: 1, Flags: proto.FlagWrite, DataLen: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := d.Plan(&tt.h)
			if p.Result != proto.ResultInvalid {
				t.Errorf("result %v, want %v", p.Result, proto.ResultInvalid)
			}
		})
	}
}

func TestNothingReservesMoreThanItMayUse(t *testing.T) {
	d := newWorld().daemon()
	for op := range 256 {
		h := acceptable(proto.Opcode(op))
		if h.Flags&proto.FlagWrite == 0 {
			h.DataLen = proto.MaxData
		}
		h.Body = [32]byte(bytes.Repeat([]byte{0xff}, 32))
		if p := d.Plan(&h); p.Result == proto.ResultSuccess && p.Room > 64<<20 {
			t.Errorf("%v reserves %d bytes", h.Op, p.Room)
		}
	}
}

// ask sends one request and returns the answer. It sends h.DataLen as it is if
// there is neither payload nor room.
func ask(t *testing.T, conn *client.Conn, h proto.Header, payload []byte, room int) (proto.Response, []byte) {
	t.Helper()
	h.Version = version(uint8(h.Op))
	resp, data, err := conn.Do(t.Context(), h, payload, make([]byte, room))
	if err != nil {
		t.Fatalf("%v: %v", h.Op, err)
	}
	if resp.Op != h.Op || resp.Version != 0 || resp.Flags != 0 {
		t.Errorf("%v: answered %+v", h.Op, resp)
	}
	return resp, slices.Clone(data)
}

func want(t *testing.T, w *world, calls ...string) {
	t.Helper()
	if got := w.took(); !slices.Equal(got, calls) {
		t.Errorf("asked of the parts:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(calls, "\n\t"))
	}
}

func TestFlagsDecideWhichWritesMayBeDeferred(t *testing.T) {
	const data, inode = sheep.ObjectID(5 << 32), sheep.ObjectID(1<<63 | 5<<32)
	tests := []struct {
		name    string
		id      sheep.ObjectID
		flags   proto.Flags
		durable string
	}{
		{"no flags", data, 0, " durable"},
		{"CACHE", data, proto.FlagCache, ""},
		{"CACHE and DIRECT", data, proto.FlagCache | proto.FlagDirect, " durable"},
		{"CACHE and TGT", data, proto.FlagCache | proto.FlagTGT, " durable"},
		{"DIRECT", data, proto.FlagDirect, " durable"},
		{"CACHE to vmstate", 1<<62 | data, proto.FlagCache, ""},
		{"CACHE to an inode", inode, proto.FlagCache, " durable"},
		{"CACHE to an attribute", 1<<61 | data, proto.FlagCache, " durable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			conn := dialClient(t, w.start(t))
			h := proto.Header{Op: proto.OpWriteObj, Flags: tt.flags | proto.FlagWrite, Body: proto.ObjectBody{ID: tt.id, Off: 1}.Body()}
			ask(t, conn, h, []byte("abc"), 0)
			want(t, w, fmt.Sprintf("write %v 1+3%s", tt.id, tt.durable))
		})
	}
}

func TestObjectsAreCreatedWrittenReadAndRemoved(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	body := proto.ObjectBody{ID: 5 << 32, COW: 4 << 32, Copies: 1, Off: 4096}
	obj := func(op proto.Opcode, f proto.Flags) proto.Header {
		return proto.Header{Op: op, Flags: f, Body: body.Body()}
	}
	resp, _ := ask(t, conn, obj(proto.OpReadObj, 0), nil, 10)
	if resp.Result != proto.ResultNoObject || resp.DataLen != 0 || resp.Epoch != 3 {
		t.Errorf("read of nothing: %+v", resp)
	}
	resp, _ = ask(t, conn, obj(proto.OpWriteObj, 0), []byte("x"), 0)
	if resp.Result != proto.ResultNoObject {
		t.Errorf("write of nothing: %+v", resp)
	}
	ask(t, conn, obj(proto.OpCreateAndWriteObj, proto.FlagCache), []byte("created"), 0)
	resp, data := ask(t, conn, obj(proto.OpReadObj, proto.FlagDirect), nil, 10)
	if resp.Result != proto.ResultSuccess || string(data) != "created\x00\x00\x00" {
		t.Errorf("read %q, %v", data, resp.Result)
	}
	w.took()
	ask(t, conn, obj(proto.OpCreateAndWriteObj, proto.FlagCOW|proto.FlagWrite), nil, 0)
	want(t, w, "write 0000000500000000 4096+0 create from 0000000400000000 durable")
	if resp, _ = ask(t, conn, obj(proto.OpRemoveObj, 0), nil, 0); resp.Result != proto.ResultSuccess {
		t.Errorf("remove: %v", resp.Result)
	}
	if resp, _ = ask(t, conn, obj(proto.OpRemoveObj, 0), nil, 0); resp.Result != proto.ResultNoObject {
		t.Errorf("second remove: %v", resp.Result)
	}
	w.took()
	ask(t, conn, obj(proto.OpDiscardObj, 0), nil, 0)
	want(t, w, "discard 0000000500000000")
	for _, err := range []error{sheep.ErrReadOnly, sheep.ErrNoSpace, sheep.ErrHalt, sheep.ErrStaleOwner} {
		w.fail(err)
		resp, _ = ask(t, conn, obj(proto.OpWriteObj, 0), []byte("x"), 0)
		if want := proto.ResultOf(err).ForClient(); resp.Result != want {
			t.Errorf("write that fails with %v: %v, want %v", err, resp.Result, want)
		}
	}
}

func TestDeferredWritesAreFlushedByRequestByReleaseAndWhenTheClientGoes(t *testing.T) {
	w := newWorld()
	addr := w.start(t)
	conn := dialClient(t, addr)
	deferred := proto.Header{Op: proto.OpCreateAndWriteObj, Flags: proto.FlagCache, Body: proto.ObjectBody{ID: 5 << 32}.Body()}
	written := "write 0000000500000000 0+1 create"
	ask(t, conn, deferred, []byte("x"), 0)
	flush := proto.Header{Op: proto.OpFlushVDI, Body: proto.ObjectBody{ID: sheep.InodeObject(5)}.Body()}
	if resp, _ := ask(t, conn, flush, nil, 0); resp.Result != proto.ResultSuccess {
		t.Errorf("flush: %v", resp.Result)
	}
	want(t, w, written, "flush 5")

	ask(t, conn, deferred, []byte("x"), 0)
	release := proto.Header{Op: proto.OpReleaseVDI, Body: proto.VDIBody{Base: 5}.Body()}
	ask(t, conn, release, []byte("name\x00"), 0)
	want(t, w, written, "flush 5", "unlock 5 false")

	w.fail(sheep.ErrLostWrites)
	if resp, _ := ask(t, conn, flush, nil, 0); resp.Result != proto.ResultIO {
		t.Errorf("flush after a loss: %v, want %v", resp.Result, proto.ResultIO)
	}
	w.took()
	w.fail(sheep.ErrLostWrites)
	conn.Close()
	var took []string
	eventually(t, func() bool { took = append(took, w.took()...); return len(took) == 2 })
	if !slices.Equal(took, []string{"flush 5", "doubt about 5"}) {
		t.Errorf("when the client had gone: %q", took)
	}
}

// A losing world has lost writes, and says so until somebody has been told.
type losing struct {
	*world
	told atomic.Int32
}

func (l *losing) Flush(ctx context.Context, vdi sheep.VDIID) error {
	if err := l.world.Flush(ctx, vdi); err != nil || l.told.Load() > 0 {
		return err
	}
	return &sheep.LostWritesError{VDI: vdi, Forget: func() { l.told.Add(1) }}
}

func TestALossIsToldUntilTheClientHasTheAnswer(t *testing.T) {
	flush := proto.Header{Op: proto.OpFlushVDI, Body: proto.ObjectBody{ID: sheep.InodeObject(5)}.Body()}
	flush.Version = version(uint8(flush.Op))
	for about, test := range map[string]struct {
		client func(t *testing.T, addr string)
		want   []string
	}{
		"it asks again": {func(t *testing.T, addr string) {
			conn := dialClient(t, addr)
			for _, want := range []proto.Result{proto.ResultIO, proto.ResultSuccess} {
				if resp, _ := ask(t, conn, flush, nil, 0); resp.Result != want {
					t.Errorf("got %v, want %v", resp.Result, want)
				}
			}
		}, []string{"flush 5", "flush 5"}},
		"it goes": {func(t *testing.T, addr string) {
			conn := dialClient(t, addr)
			ask(t, conn, flush, nil, 0)
			conn.Close()
		}, []string{"flush 5", "flush 5"}},
		"it breaks off before it has read the answer": {func(t *testing.T, addr string) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.Write(flush.Append(nil))
			raw, err := conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, func() (arrived bool) {
				raw.Control(func(fd uintptr) {
					n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
					arrived = err != nil || n > 0
				})
				return arrived
			})
			conn.Close()
		}, []string{"flush 5", "flush 5", "doubt about 5"}},
	} {
		t.Run(about, func(t *testing.T) {
			w := &losing{world: newWorld()}
			d := w.daemon()
			d.Guard = w
			test.client(t, startServer(t, d, server.Config{}))
			var took []string
			eventually(t, func() bool { took = append(took, w.took()...); return len(took) >= len(test.want) && w.told.Load() > 0 })
			if !slices.Equal(took, test.want) || w.told.Load() != 1 {
				t.Errorf("asked of the parts %q, want %q; told %d times", took, test.want, w.told.Load())
			}
		})
	}
}

func TestWhoOpensADiskAnewNeedNotHearOfOldLosses(t *testing.T) {
	w := newWorld()
	w.doubt = cluster.Doubt{Since: 7, Blind: true}
	conn := dialClient(t, w.start(t))
	name := make([]byte, 512)
	copy(name, "disk")
	for _, tt := range []struct {
		op   proto.Opcode
		kind proto.LockType
		want bool
	}{
		{proto.OpGetVDIInfo, proto.LockNormal, false},
		{proto.OpLockVDI, proto.LockShared, false},
		{proto.OpLockVDI, proto.LockNormal, true},
	} {
		h := proto.Header{Version: tt.op.Version(), Op: tt.op, Flags: proto.FlagWrite, Body: proto.VDIBody{Type: tt.kind}.Body()}
		if resp, _ := ask(t, conn, h, name, 0); resp.Result != proto.ResultSuccess {
			t.Fatalf("%v: %v", tt.op, resp.Result)
		}
		if took := w.took(); slices.Contains(took, "no doubt about 5 since 7") != tt.want {
			t.Errorf("%v of type %v: got %q, want the doubt settled: %t", tt.op, tt.kind, took, tt.want)
		}
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen within ten seconds")
		}
	}
}

func TestNoAnswerIsGivenWithoutALease(t *testing.T) {
	w := newWorld()
	addr := w.start(t)
	conn := dialClient(t, addr)
	create := proto.Header{Op: proto.OpCreateAndWriteObj, Body: proto.ObjectBody{ID: 5 << 32}.Body()}
	ask(t, conn, create, []byte("old"), 0)
	read := create
	read.Op = proto.OpReadObj
	w.setLease(sheep.ErrCluster)
	late := start(conn, read, 3)
	eventually(t, func() bool { return slices.Contains(w.took(), "read 0000000500000000 0+3") })
	ask(t, conn, create, []byte("new"), 0)
	w.setLease(nil)
	if got := <-late; got.err != nil || string(got.data) != "new" {
		t.Errorf("read over a lapse of the lease: %q, %v, want what is there afterwards", got.data, got.err)
	}
	w.took()
	w.setLease(sheep.ErrCluster)
	late = start(conn, read, 3)
	eventually(t, func() bool { return slices.Contains(w.took(), "read 0000000500000000 0+3") })
	w.setView(&cluster.View{Status: cluster.Killed})
	if got := <-late; !errors.Is(got.err, sheep.ErrNetwork) {
		t.Errorf("read of a node that has lost its lease for good: %+v, want the connection to end", got)
	}
}

func TestANodeThatEndsDropsItsClients(t *testing.T) {
	write := proto.Header{Op: proto.OpWriteObj, Flags: proto.FlagWrite, Body: proto.ObjectBody{ID: 5 << 32}.Body()}
	for name, end := range map[string]func(*world){
		"while it serves":  func(w *world) { w.fail(sheep.ErrKilled) },
		"before it serves": func(w *world) { w.setView(&cluster.View{Status: cluster.Shutdown, Epoch: 3}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			conn := dialClient(t, w.start(t))
			end(w)
			if resp, _, err := conn.Do(t.Context(), write, []byte("abc"), nil); !errors.Is(err, sheep.ErrNetwork) {
				t.Errorf("got %v, %v; want the connection to end", resp.Result, err)
			}
		})
	}
}

// An outcome is what a request ended with.
type outcome struct {
	data []byte
	err  error
}

func start(conn *client.Conn, h proto.Header, room int) <-chan outcome {
	ch := make(chan outcome, 1)
	conn.Start(h, nil, make([]byte, room), func(_ proto.Response, data []byte, err error) {
		ch <- outcome{data, err}
	})
	return ch
}

func TestSharedLocksKeepInodesCoherent(t *testing.T) {
	inode := sheep.InodeObject(5)
	refresh := proto.Header{Op: proto.OpReadObj, Flags: proto.FlagTGT, Body: proto.ObjectBody{ID: inode}.Body()}
	probe := func(op proto.Opcode, f proto.Flags, id sheep.ObjectID, off uint32) proto.Header {
		return proto.Header{Op: op, Flags: f, Body: proto.ObjectBody{ID: id, Off: off}.Body()}
	}
	tests := []struct {
		name  string
		state sheep.ShareState // 0: this gateway does not share the VDI
		h     proto.Header
		data  string
		room  int
		want  proto.Result
		call  string // to the cluster
	}{
		{"an invalidated share refuses reads", sheep.ShareInvalidated, probe(proto.OpReadObj, proto.FlagTGT, 5<<32, 0), "", 1, proto.ResultInvalidated, ""},
		{"an invalidated share refuses writes", sheep.ShareInvalidated, probe(proto.OpWriteObj, proto.FlagTGT, 5<<32, 0), "x", 0, proto.ResultInvalidated, ""},
		{"an invalidated share refuses creates", sheep.ShareInvalidated, probe(proto.OpCreateAndWriteObj, proto.FlagTGT, 5<<32, 0), "x", 0, proto.ResultInvalidated, ""},
		{"clients that do not take part are not checked", sheep.ShareInvalidated, probe(proto.OpReadObj, 0, inode, 0), "", 1, proto.ResultSuccess, ""},
		{"the refresh read makes the share valid", sheep.ShareInvalidated, refresh, "", 4_198_968, proto.ResultSuccess, "coherence 5 true"},
		{"another length is no refresh", sheep.ShareInvalidated, refresh, "", 4_198_967, proto.ResultInvalidated, ""},
		{"a valid share needs no refresh", sheep.ShareShared, refresh, "", 4_198_968, proto.ResultSuccess, ""},
		{"a map write makes the others invalid", sheep.ShareShared, probe(proto.OpWriteObj, 0, inode, 4664), "abcd", 0, proto.ResultSuccess, "coherence 5 false"},
		{"the next one need not", sheep.ShareModified, probe(proto.OpWriteObj, proto.FlagTGT, inode, 4664), "abcd", 0, proto.ResultSuccess, ""},
		{"a header write does not", sheep.ShareShared, probe(proto.OpWriteObj, 0, inode, 4660), "abcdefgh", 0, proto.ResultSuccess, ""},
		{"nor does a gateway that does not share", 0, probe(proto.OpWriteObj, 0, inode, 4664), "abcd", 0, proto.ResultSuccess, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			conn := dialClient(t, w.start(t))
			ask(t, conn, probe(proto.OpCreateAndWriteObj, 0, inode, 0), []byte("inode"), 0)
			w.took()
			if tt.state != 0 {
				w.lock = sheep.Lock{State: sheep.Shared, Participants: []sheep.Participant{{Node: self, State: tt.state}}}
			}
			resp, _ := ask(t, conn, tt.h, []byte(tt.data), tt.room)
			if resp.Result != tt.want {
				t.Errorf("result %v, want %v", resp.Result, tt.want)
			}
			calls := slices.DeleteFunc(w.took(), func(s string) bool { return !strings.HasPrefix(s, "coherence") })
			if got := strings.Join(calls, " "); got != tt.call {
				t.Errorf("told the cluster %q, want %q", got, tt.call)
			}
		})
	}
}

func TestLocksFollowTheHeadOfAName(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	lock := proto.Header{Op: proto.OpLockVDI, Body: proto.VDIBody{Type: proto.LockShared}.Body()}
	name := proto.AppendLookup(nil, "a", "")
	resp, _ := ask(t, conn, lock, name, 0)
	if got := proto.DecodeVDIReply(resp.Body); got != (proto.VDIReply{VDI: 5, Copies: 2, BlockShift: 22}) {
		t.Errorf("answer %+v", got)
	}
	want(t, w, `lookup "a" "" 0`, "lock 5 true", `lookup "a" "" 0`)

	w.fail(sheep.ErrNoVDI)
	if resp, _ = ask(t, conn, lock, name, 0); resp.Result != proto.ResultNoVDI || resp.Body != ([28]byte{}) {
		t.Errorf("lock of nothing: %+v", resp)
	}
	want(t, w, `lookup "a" "" 0`)
	lock.Body = proto.VDIBody{Type: 7}.Body()
	if resp, _ = ask(t, conn, lock, name, 0); resp.Result != proto.ResultVDILocked {
		t.Errorf("lock of an unknown type: %v", resp.Result)
	}
	w.took()
	w.view.Settings.Flags = 0
	if resp, _ = ask(t, conn, lock, name[:256], 0); resp.Result != proto.ResultSuccess {
		t.Errorf("lock without locking: %v", resp.Result)
	}
	want(t, w, `lookup "a" "" 0`)
}

// When requests that hang hold all the memory that those of clients may have, an
// operator can still ask what hangs.
func TestPeopleAreAnsweredWhileClientsHang(t *testing.T) {
	w := newWorld()
	hang, hung := make(chan struct{}), make(chan struct{})
	w.Memory.Fail = func(string, sheep.ObjectID) error { close(hung); <-hang; return sheep.ErrNoObject }
	addr := startServer(t, w.daemon(), server.Config{Bytes: 64 << 10})
	stuck := dialClient(t, addr)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ask(t, stuck, proto.Header{Op: proto.OpReadObj, Body: proto.ObjectBody{ID: 5 << 32}.Body()}, nil, 64<<10)
	}()
	<-hung
	conn := dialClient(t, addr)
	for op, room := range map[proto.Opcode]int{
		proto.OpGetNodeList: proto.NodeSize, proto.OpStat: proto.StatSize, proto.OpGetVDIStatus: 4096, proto.OpGetWaiting: proto.WaitingRoom,
	} {
		if resp, _ := ask(t, conn, proto.Header{Op: op}, nil, room); resp.Result != proto.ResultSuccess {
			t.Errorf("%v: %v", op, resp.Result)
		}
	}
	close(hang)
	<-ended
}

func TestALockOfASessionEndsWithItsConnection(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	lock := proto.Header{Op: proto.OpLockVDI, Body: proto.VDIBody{Type: proto.LockSession}.Body()}
	for range 2 {
		if resp, _ := ask(t, conn, lock, proto.AppendLookup(nil, "a", ""), 0); resp.Result != proto.ResultSuccess {
			t.Fatal(resp.Result)
		}
		want(t, w, `lookup "a" "" 0`, "lock 5 false session 1 of sheepfs", `lookup "a" "" 0`)
	}
	conn.Close()
	eventually(t, func() bool { return slices.Contains(w.took(), "end session 1") })
}

func TestTheStatusOfVDIsIsWhatTheLogSays(t *testing.T) {
	w := newWorld()
	since := time.Unix(1700000000, 5)
	w.lock = sheep.Lock{State: sheep.Exclusive, Owner: self, Life: 9, Session: 1,
		Holder: sheep.Holder{Client: sheep.Client{Kind: "nbd", Addr: "unix"}, Since: since}}
	w.view.Deadline = time.Minute
	conn := dialClient(t, w.start(t))
	for _, id := range []sheep.ObjectID{0, sheep.InodeObject(5)} {
		h := proto.Header{Op: proto.OpGetVDIStatus, Body: proto.ObjectBody{ID: id}.Body()}
		resp, data := ask(t, conn, h, nil, 1<<16)
		list, err := proto.DecodeVDIStatusList(data)
		if resp.Result != proto.ResultSuccess || err != nil || len(list.VDIs) != 1 || list.Deadline != time.Minute {
			t.Fatalf("%v: got %v, %+v, %v", id, resp.Result, list, err)
		}
		holder := proto.LockHolder{Node: self.Addr, Since: since.UnixNano(), Client: sheep.Client{Kind: "nbd", Addr: "unix"}}
		v := list.VDIs[0]
		if v.VDI != 5 || v.Owner != other.Addr || v.Generation != 12 || v.Bits != proto.VDIBound|proto.VDIDraining ||
			v.Deadline != proto.AsCluster || len(v.Holders) != 1 || v.Holders[0] != holder {
			t.Errorf("%v: got %+v", id, v)
		}
		if resp, _ := ask(t, conn, h, nil, 16); resp.Result != proto.ResultBufferSmall {
			t.Errorf("without room: %v", resp.Result)
		}
	}
}

func TestOperationsAreHandedOnAsTheyCame(t *testing.T) {
	label := func(s string) []byte { b := proto.Label(s); return b[:] }
	forw := proto.ForwBody{ID: 8, From: netip.MustParseAddrPort("10.0.0.2:7001")}
	vdi := proto.VDIBody{Size: 1 << 30, SnapID: 4}.Body()
	state := proto.VDIStateBody{Old: 4, New: 6, Copies: 3, SetBitmap: true, BlockShift: 23}
	tests := []struct {
		name string
		op   proto.Opcode
		body [32]byte
		data []byte
		want proto.Result
		call string
	}{
		{"new", proto.OpNewVDI, vdi, label("a"), proto.ResultSuccess, `new "a" 1073741824`},
		{"info", proto.OpGetVDIInfo, vdi, proto.AppendLookup(nil, "a", "t"), proto.ResultSuccess, `lookup "a" "t" 4`},
		{"delete", proto.OpDelVDI, vdi, label("a"), proto.ResultSuccess, `delete "a" "" 4`},
		{"attribute", proto.OpGetVDIAttr, vdi, make([]byte, sheep.AttrSize), proto.ResultSuccess, "attr 66320 0x1"},
		{"add", proto.OpNotifyVDIAdd, state.Body(), nil, proto.ResultSuccess, "add vdi 6 over 4: 3 copies, shift 23, true"},
		{"add nothing", proto.OpNotifyVDIAdd, [32]byte{}, nil, proto.ResultInvalid, ""},
		{"alter a VDI", proto.OpAlterVDICopy, state.Body(), nil, proto.ResultNotSupported, ""},
		{"alter the cluster", proto.OpAlterClusterCopy, proto.ClusterBody{Copies: 2}.Body(), nil, proto.ResultNotSupported, ""},
		{"format", proto.OpMakeFS, proto.ClusterBody{Flags: 8}.Body(), []byte("plain\x00"), proto.ResultSuccess, "format copies 3 policy 0x0 shift 22 flags 0x8 plain"},
		{"format as an erasure code", proto.OpMakeFS, proto.ClusterBody{CopyPolicy: 0x22, BlockShift: 20}.Body(), []byte("plain\x00"), proto.ResultNotSupported, ""},
		{"format another store", proto.OpMakeFS, [32]byte{}, []byte("tree\x00"), proto.ResultNoStore, ""},
		{"format with small blocks", proto.OpMakeFS, proto.ClusterBody{BlockShift: 19}.Body(), []byte("plain"), proto.ResultInvalid, ""},
		{"shutdown", proto.OpShutdown, [32]byte{}, nil, proto.ResultSuccess, "shutdown"},
		{"recovery on", proto.OpEnableRecover, [32]byte{}, nil, proto.ResultSuccess, "recovery true"},
		{"recovery off", proto.OpDisableRecover, [32]byte{}, nil, proto.ResultSuccess, "recovery false"},
		{"force recovery while running", proto.OpForceRecover, [32]byte{}, nil, proto.ResultForceRecover, ""},
		{"coherence", proto.OpInodeCoherence, proto.CoherenceBody{VDI: 5, Validate: true}.Body(), nil, proto.ResultSuccess, "coherence 5 true"},
		{"vnodes", proto.OpSetVNodes, [32]byte{}, []byte{200, 0, 0, 0, 1, 2, 3, 4}, proto.ResultSuccess, "vnodes 200"},
		{"no vnodes", proto.OpSetVNodes, [32]byte{}, []byte{0, 0, 0, 0}, proto.ResultInvalid, ""},
		{"too many vnodes", proto.OpSetVNodes, [32]byte{}, []byte{0, 0, 1, 0}, proto.ResultInvalid, ""},
		{"delay of healing", proto.OpSetHealDelay, [32]byte{}, binary.LittleEndian.AppendUint64(nil, 6e10), proto.ResultSuccess, "delay 1m0s"},
		{"a delay that nobody lives to see", proto.OpSetHealDelay, [32]byte{}, binary.LittleEndian.AppendUint64(nil, 1<<63), proto.ResultInvalid, ""},
		{"maintenance", proto.OpMaintainNode, [32]byte{}, order(60e9), proto.ResultSuccess, "maintain 10.0.0.9:7000 for 1m0s"},
		{"maintenance that is too long", proto.OpMaintainNode, [32]byte{}, order(1 << 63), proto.ResultInvalid, ""},
		{"drain", proto.OpDrainNode, [32]byte{}, order(1), proto.ResultSuccess, "drain 10.0.0.9:7000, undo false"},
		{"drain undone", proto.OpDrainNode, [32]byte{}, order(0), proto.ResultSuccess, "drain 10.0.0.9:7000, undo true"},
		{"drain more than once", proto.OpDrainNode, [32]byte{}, order(2), proto.ResultInvalid, ""},
		{"deadline of the cluster", proto.OpSetDeadline, [32]byte{}, proto.DeadlineOrder{Deadline: 6e10}.Append(nil), proto.ResultSuccess, "deadline 1m0s"},
		{"deadline of a VDI", proto.OpSetDeadline, [32]byte{}, proto.DeadlineOrder{VDI: 5, Deadline: proto.AsCluster}.Append(nil), proto.ResultSuccess, "deadline of 5 -1ns"},
		{"a deadline before the request", proto.OpSetDeadline, [32]byte{}, proto.DeadlineOrder{Deadline: -2}.Append(nil), proto.ResultInvalid, ""},
		{"rate of healing", proto.OpSetHealRate, [32]byte{}, binary.LittleEndian.AppendUint64(nil, 77), proto.ResultSuccess, "rate 77"},
		{"throttle", proto.OpSetRecovery, [32]byte{}, proto.Throttle{Max: 1, Interval: 2}.Append(nil), proto.ResultSuccess, "throttle {Max:1 Interval:2 On:true}"},
		{"repair", proto.OpRepairReplica, forw.Body(), nil, proto.ResultSuccess, "repair 0000000000000008 from 10.0.0.2:7001"},
		{"a loss", proto.OpAcceptLoss, proto.ObjectBody{ID: 8, COW: 9}.Body(), nil, proto.ResultSuccess, "accept the loss of 0000000000000008 for 0000000000000009"},
		{"reweight", proto.OpReweight, [32]byte{}, nil, proto.ResultNotSupported, ""},
		{"decref", proto.OpDecrefObj, proto.RefBody{ID: 9, Generation: 1, Count: 2}.Body(), nil, proto.ResultSuccess, "decref 0000000000000009 1 2"},
		{"complete", proto.OpCompleteRecovery, [32]byte{}, make([]byte, 80), proto.ResultSuccess, ""},
		{"delete the cache", proto.OpDeleteCache, [32]byte{}, nil, proto.ResultSuccess, ""},
		{"tracing", proto.OpTraceEnable, [32]byte{}, []byte("graph\x00"), proto.ResultInvalid, ""},
		{"a peer write of C", proto.OpWritePeer, [32]byte{}, []byte("x"), proto.ResultNotSupported, ""},
	}
	w := newWorld()
	conn := dialClient(t, w.start(t))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, _ := ask(t, conn, proto.Header{Op: tt.op, Body: tt.body}, tt.data, 0)
			if resp.Result != tt.want {
				t.Errorf("result %v, want %v", resp.Result, tt.want)
			}
			if got := strings.Join(w.took(), "; "); got != tt.call {
				t.Errorf("asked of the parts %q, want %q", got, tt.call)
			}
		})
	}
}

func TestWhatTheNodeTellsOfItself(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	query := func(op proto.Opcode, room int, body [32]byte, wantResult proto.Result) (proto.Response, []byte) {
		t.Helper()
		resp, data := ask(t, conn, proto.Header{Op: op, Body: body}, nil, room)
		if resp.Result != wantResult {
			t.Errorf("%v with room for %d: %v, want %v", op, room, resp.Result, wantResult)
		}
		return resp, data
	}
	none := [32]byte{}

	resp, data := query(proto.OpGetNodeList, 491_520, none, proto.ResultSuccess)
	nodes, err := proto.DecodeNodes(data)
	if err != nil || !slices.Equal(nodes, []sheep.Node{self}) || proto.DecodeNodeReply(resp.Body).Nodes != 1 {
		t.Errorf("node list %v, %v", nodes, err)
	}
	resp, _ = query(proto.OpStatSheep, 0, none, proto.ResultSuccess)
	if got := proto.DecodeNodeReply(resp.Body); got.Size != 1000 || got.Free != 400 {
		t.Errorf("sizes %+v", got)
	}
	if _, data = query(proto.OpGetStoreList, 512, none, proto.ResultSuccess); string(data) != "plain \x00" {
		t.Errorf("stores %q", data)
	}
	resp, _ = query(proto.OpGetClusterDefault, 0, none, proto.ResultSuccess)
	if got := proto.DecodeClusterDefaultReply(resp.Body); got != (proto.ClusterDefaultReply{Copies: 2, BlockShift: 22}) {
		t.Errorf("defaults %+v", got)
	}
	for _, room := range []int{491_568, 128} {
		_, data = query(proto.OpClusterInfo, room, none, proto.ResultSuccess)
		info, err := proto.DecodeClusterInfo(data)
		if err != nil || len(data) != room || info.Epoch != 3 || info.Status != proto.StatusOK || info.Store != "plain" || info.Ctime != 77 {
			t.Errorf("cluster info of %d bytes: %+v, %v", len(data), info, err)
		}
	}
	for _, op := range []proto.Opcode{proto.OpReadVDIs, proto.OpReadDelVDIs} {
		query(op, 2_097_151, none, proto.ResultInvalid)
		_, data = query(op, 2_097_152, none, proto.ResultSuccess)
		if len(data) != 2_097_152 || data[7] != map[proto.Opcode]byte{proto.OpReadVDIs: 1, proto.OpReadDelVDIs: 2}[op] {
			t.Errorf("%v: %d bytes", op, len(data))
		}
	}
	query(proto.OpGetVDICopies, 1427, none, proto.ResultBufferSmall)
	_, data = query(proto.OpGetVDICopies, 1<<20, none, proto.ResultSuccess)
	if states, err := proto.DecodeVDIStates(data); err != nil || len(states) != 1 || states[0].VDI != 5 {
		t.Errorf("states %+v, %v", states, err)
	}
	query(proto.OpMDInfo, 100, none, proto.ResultInvalid)
	_, data = query(proto.OpMDInfo, proto.DiskTableSize, none, proto.ResultSuccess)
	if disks, err := proto.DecodeDiskTable(data); err != nil || len(disks) != 1 || disks[0] != (proto.Disk{Free: 400, Used: 600, Path: "/var/lib/sheepdog/obj"}) {
		t.Errorf("disks %+v, %v", disks, err)
	}
	if _, data = query(proto.OpGetVNodes, 4, none, proto.ResultSuccess); binary.LittleEndian.Uint32(data) != 128 {
		t.Errorf("vnodes %x", data)
	}
	_, data = query(proto.OpStatRecovery, 24, none, proto.ResultSuccess)
	if got, err := proto.DecodeRecoveryState(data); err != nil || got.Total != 9 || !got.Active {
		t.Errorf("recovery %+v, %v", got, err)
	}
	_, data = query(proto.OpGetMembers, 10*proto.PeerStateSize, none, proto.ResultSuccess)
	if got, err := proto.DecodePeerStates(data); err != nil || len(got) != 2 || got[0].Bits != proto.PeerMember|proto.PeerVoter|proto.PeerLeader ||
		got[1].Bits != proto.PeerSuspect || got[1].Silent != 9 || got[1].Node.Addr.Port() != 7901 {
		t.Errorf("members %+v, %v", got, err)
	}
	query(proto.OpGetScrub, 100, none, proto.ResultInvalid)
	_, data = query(proto.OpGetScrub, proto.ScrubRoom, none, proto.ResultSuccess)
	if got, err := proto.DecodeScrubReport(data); err != nil || got.Bits != 0 {
		t.Errorf("scrub of a node that does not: %+v, %v", got, err)
	}
	_, data = query(proto.OpGetDamage, proto.DamageRoom, none, proto.ResultSuccess)
	if got, err := proto.DecodeDamageReport(data); err != nil || got.Plans != 2 || len(got.Objects) != 1 {
		t.Errorf("damage: %+v, %v", got, err)
	}
	_, data = query(proto.OpGetSpace, proto.SpaceReportSize, none, proto.ResultSuccess)
	if got, err := proto.DecodeSpaceReport(data); err != nil || got.Free != 400 || got.Full() != "near full" {
		t.Errorf("space: %+v, %v", got, err)
	}
	query(proto.OpGetWaiting, 100, none, proto.ResultInvalid)
	_, data = query(proto.OpGetWaiting, proto.WaitingRoom, none, proto.ResultSuccess)
	if got, err := proto.DecodeWaitingList(data); err != nil || got.Total != 2 || len(got.Objects) != 1 || got.Objects[0].Reason == "" {
		t.Errorf("waiting objects %+v, %v", got, err)
	}
	query(proto.OpGetHealing, 100, none, proto.ResultInvalid)
	_, data = query(proto.OpGetHealing, proto.HealingRoom, none, proto.ResultSuccess)
	if got, err := proto.DecodeHealing(data); err != nil || got.Later != 5 || got.Delay != time.Minute {
		t.Errorf("healing %+v, %v", got, err)
	}
	_, data = query(proto.OpGetRecovery, 24, none, proto.ResultSuccess)
	if got, err := proto.DecodeThrottle(data); err != nil || got.Max != 4 {
		t.Errorf("throttle %+v, %v", got, err)
	}
	resp, _ = query(proto.OpGetHash, 0, proto.ObjectBody{ID: 5 << 32}.Body(), proto.ResultSuccess)
	if got := proto.DecodeHashReply(resp.Body).Digest; got != [20]byte{1, 2, 3} {
		t.Errorf("digest %x", got)
	}
}

func TestEpochsAreTold(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	h := proto.Header{Op: proto.OpStatCluster, Body: proto.ClusterBody{Nodes: 2}.Body()}
	resp, data := ask(t, conn, h, nil, 10*proto.EpochRecordSize(2))
	if resp.Result != proto.ResultSuccess || len(data) != 2*proto.EpochRecordSize(2) {
		t.Fatalf("epochs: %v, %d bytes", resp.Result, len(data))
	}
	newest, err1 := proto.DecodeEpochRecord(data, 2)
	older, err2 := proto.DecodeEpochRecord(data[proto.EpochRecordSize(2):], 2)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if newest.Epoch != 3 || newest.Ctime != 77 || newest.Store != "plain" || len(newest.Nodes) != 1 || newest.Time.Unix() != 1000 {
		t.Errorf("newest %+v", newest)
	}
	if older.Epoch != 2 || older.Ctime != 0 || len(older.Nodes) != 2 || older.Time.Unix() != 500 {
		t.Errorf("older %+v", older)
	}
	h.Body = proto.ClusterBody{Nodes: 1}.Body()
	if resp, _ = ask(t, conn, h, nil, 10*proto.EpochRecordSize(2)); resp.Result != proto.ResultBufferSmall {
		t.Errorf("with too few slots: %v", resp.Result)
	}
	h.Body = proto.ClusterBody{}.Body()
	resp, data = ask(t, conn, h, nil, 48)
	if rec, err := proto.DecodeEpochRecord(data, 0); err != nil || rec.Epoch != 3 || !rec.Time.IsZero() || len(data) != 48 {
		t.Errorf("without slots: %+v, %v", rec, err)
	}
	w.view = &cluster.View{Status: cluster.Wait, Epoch: 3, Nodes: w.view.Nodes}
	if resp, data = ask(t, conn, h, nil, 48); resp.Result != proto.ResultWaitForJoin || len(data) != 48 {
		t.Errorf("while waiting: %v and %d bytes, want the state and the record", resp.Result, len(data))
	}
	get := proto.Header{Op: proto.OpGetEpoch, Body: proto.ObjectBody{TargetEpoch: 2}.Body()}
	w.view = newWorld().view
	_, data = ask(t, conn, get, nil, 1<<20)
	if len(data) != 2*proto.NodeSize+8 || binary.LittleEndian.Uint64(data[2*proto.NodeSize:]) != 500 {
		t.Errorf("epoch 2: %d bytes", len(data))
	}
	if resp, _ = ask(t, conn, get, nil, 100); resp.Result != proto.ResultBufferSmall {
		t.Errorf("epoch 2 with little room: %v", resp.Result)
	}
	get.Body = proto.ObjectBody{TargetEpoch: 9}.Body()
	if resp, _ = ask(t, conn, get, nil, 1<<20); resp.Result != proto.ResultNoTag {
		t.Errorf("epoch 9: %v", resp.Result)
	}
}

func TestForceRecoverWhileWaiting(t *testing.T) {
	w := newWorld()
	w.view = &cluster.View{Status: cluster.Wait, Epoch: 3, Nodes: w.view.Nodes}
	conn := dialClient(t, w.start(t))
	h := proto.Header{Op: proto.OpForceRecover}
	if resp, _ := ask(t, conn, h, nil, 79); resp.Result != proto.ResultInvalid {
		t.Errorf("with little room: %v", resp.Result)
	}
	resp, data := ask(t, conn, h, nil, 491_520)
	if nodes, err := proto.DecodeNodes(data); err != nil || resp.Result != proto.ResultSuccess || len(nodes) != 1 {
		t.Errorf("%v, nodes %v, %v", resp.Result, nodes, err)
	}
	want(t, w, "force recover")
}

func TestWhichObjectsExist(t *testing.T) {
	w := newWorld()
	conn := dialClient(t, w.start(t))
	ids := []sheep.ObjectID{5 << 32, 5<<32 | 7}
	for _, id := range ids {
		ask(t, conn, proto.Header{Op: proto.OpCreateAndWriteObj, Flags: proto.FlagWrite, Body: proto.ObjectBody{ID: id}.Body()}, nil, 0)
	}
	for id, want := range map[sheep.ObjectID]proto.Result{ids[0]: proto.ResultSuccess, 1: proto.ResultNoObject} {
		if resp, _ := ask(t, conn, proto.Header{Op: proto.OpExist, Body: proto.ObjectBody{ID: id}.Body()}, nil, 0); resp.Result != want {
			t.Errorf("exist %v: %v, want %v", id, resp.Result, want)
		}
	}
	h := proto.Header{Op: proto.OpOIDsExist, Flags: proto.FlagPiggyback}
	if resp, data := ask(t, conn, h, proto.AppendObjectIDs(nil, ids), 16); resp.Result != proto.ResultSuccess || len(data) != 0 {
		t.Errorf("all present: %v, %x", resp.Result, data)
	}
	resp, data := ask(t, conn, h, proto.AppendObjectIDs(nil, []sheep.ObjectID{1, ids[0], 2}), 24)
	if missing, _ := proto.DecodeObjectIDs(data); resp.Result != proto.ResultNoObject || !slices.Equal(missing, []sheep.ObjectID{1, 2}) {
		t.Errorf("some missing: %v, %v", resp.Result, missing)
	}
	list := proto.Header{Op: proto.OpGetObjList}
	if resp, _ = ask(t, conn, list, nil, 15); resp.Result != proto.ResultBufferSmall {
		t.Errorf("list with little room: %v", resp.Result)
	}
	_, data = ask(t, conn, list, nil, 100)
	if got, _ := proto.DecodeObjectIDs(data); !slices.Equal(got, ids) {
		t.Errorf("list %v", got)
	}
}

func TestLogLevels(t *testing.T) {
	conn := dialClient(t, newWorld().start(t))
	get := func() uint32 {
		_, data := ask(t, conn, proto.Header{Op: proto.OpGetLogLevel}, nil, 4)
		return binary.LittleEndian.Uint32(data)
	}
	if got := get(); got != 6 {
		t.Errorf("level at the start %d, want 6", got)
	}
	for _, level := range []uint32{0, 3, 4, 5, 6, 7, 8, 1 << 31} {
		resp, _ := ask(t, conn, proto.Header{Op: proto.OpSetLogLevel}, binary.LittleEndian.AppendUint32(nil, level), 0)
		if valid := level <= 7; valid && (resp.Result != proto.ResultSuccess || get() != level) || !valid && resp.Result != proto.ResultInvalid {
			t.Errorf("set level %d: %v, then %d", level, resp.Result, get())
		}
	}
}

func TestStatisticsCountClientsAndPeersApart(t *testing.T) {
	w := newWorld()
	d := w.daemon()
	conn := dialClient(t, startServer(t, d, serverConfig))
	greet(t, conn)
	body := proto.ObjectBody{ID: 5 << 32}.Body()
	ask(t, conn, proto.Header{Op: proto.OpCreateAndWriteObj, Body: body}, make([]byte, 100), 0)
	ask(t, conn, proto.Header{Op: proto.OpReadObj, Body: body}, nil, 30)
	ask(t, conn, proto.Header{Op: proto.OpFlushVDI, Body: body}, nil, 0)
	peer := proto.PeerBody{ID: 5 << 32, Len: 7, Size: 4 << 20, Copies: 1}
	ask(t, conn, proto.Header{Op: proto.OpPeerRead, Epoch: 3, Body: peer.Body()}, nil, 7)
	ask(t, conn, proto.Header{Op: proto.OpPeerWrite, Epoch: 3, Body: peer.Body()}, make([]byte, 9), 0)
	ask(t, conn, proto.Header{Op: proto.OpRemoveObj, Body: body}, nil, 0)
	_, data := ask(t, conn, proto.Header{Op: proto.OpStat}, nil, 120)
	got, err := proto.DecodeStat(data)
	want := proto.Stat{
		GatewayTotal: 3, GatewayReads: 1, GatewayWrites: 1, GatewayRemoves: 1, GatewayFlushes: 1, GatewayRx: 100, GatewayTx: 30,
		PeerTotal: 2, PeerReads: 1, PeerWrites: 1, PeerRx: 9, PeerTx: 7,
	}
	got.GatewayActive = 0 // a worker may count down after its answer
	if err != nil || got != want {
		t.Errorf("statistics\n%+v, want\n%+v, %v", got, want, err)
	}
}
