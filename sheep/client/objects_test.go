package client_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
)

// A recorder answers requests, and keeps them.
type recorder struct {
	requests []recorded
	answer   func(r recorded, into []byte) (proto.Result, int)
}

type recorded struct {
	op    proto.Opcode
	flags proto.Flags
	body  proto.ObjectBody
	data  []byte
	room  int
}

func (c *recorder) Do(_ context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	r := recorded{h.Op, h.Flags, proto.DecodeObjectBody(h.Body), bytes.Clone(payload), len(into)}
	c.requests = append(c.requests, r)
	result, n := proto.ResultSuccess, len(into)
	if c.answer != nil {
		result, n = c.answer(r, into)
	}
	resp := proto.Response{Result: result, Body: proto.VDIReply{VDI: 7}.Body()}
	return resp, into[:n], nil
}

func TestObjectsRequests(t *testing.T) {
	id, parent := sheep.DataObject(7, 3), sheep.DataObject(6, 3)
	long := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	const piece = 4 << 20
	for _, test := range []struct {
		name string
		do   func(ctx context.Context, o *client.Objects) error
		want []recorded
	}{
		{"a durable write has no flag", func(ctx context.Context, o *client.Objects) error {
			return o.Write(ctx, sheep.Ref{ID: id}, &sheep.Write{Off: 5, Data: []byte("x"), Durable: true})
		}, []recorded{{op: proto.OpWriteObj, flags: proto.FlagWrite, body: proto.ObjectBody{ID: id, Off: 5}, data: []byte("x")}}},
		{"a deferred write says CACHE", func(ctx context.Context, o *client.Objects) error {
			return o.Write(ctx, sheep.Ref{ID: id}, &sheep.Write{Data: []byte("x")})
		}, []recorded{{op: proto.OpWriteObj, flags: proto.FlagWrite | proto.FlagCache, body: proto.ObjectBody{ID: id}, data: []byte("x")}}},
		{"a copy on write names the parent's object", func(ctx context.Context, o *client.Objects) error {
			return o.Write(ctx, sheep.Ref{ID: id}, &sheep.Write{Data: []byte("x"), Durable: true, Create: true, From: &sheep.Ref{ID: parent}})
		}, []recorded{{op: proto.OpCreateAndWriteObj, flags: proto.FlagWrite | proto.FlagCOW, body: proto.ObjectBody{ID: id, COW: parent}, data: []byte("x")}}},
		{"an object is made without data", func(ctx context.Context, o *client.Objects) error {
			return o.Write(ctx, sheep.Ref{ID: id}, &sheep.Write{Durable: true, Create: true})
		}, []recorded{{op: proto.OpCreateAndWriteObj, flags: proto.FlagWrite, body: proto.ObjectBody{ID: id}}}},
		{"only the first part of a long write makes the object", func(ctx context.Context, o *client.Objects) error {
			return o.Write(ctx, sheep.Ref{ID: id}, &sheep.Write{Off: 9, Data: long, Durable: true, Create: true, From: &sheep.Ref{ID: parent}})
		}, []recorded{
			{op: proto.OpCreateAndWriteObj, flags: proto.FlagWrite | proto.FlagCOW, body: proto.ObjectBody{ID: id, COW: parent, Off: 9}, data: long[:piece]},
			{op: proto.OpWriteObj, flags: proto.FlagWrite, body: proto.ObjectBody{ID: id, Off: 9 + piece}, data: long[piece:]},
		}},
		{"zeroes are data", func(ctx context.Context, o *client.Objects) error {
			return o.Write(ctx, sheep.Ref{ID: id}, &sheep.Write{Off: 1, Zero: piece + 3})
		}, []recorded{
			{op: proto.OpWriteObj, flags: proto.FlagWrite | proto.FlagCache, body: proto.ObjectBody{ID: id, Off: 1}, data: make([]byte, piece)},
			{op: proto.OpWriteObj, flags: proto.FlagWrite | proto.FlagCache, body: proto.ObjectBody{ID: id, Off: 1 + piece}, data: make([]byte, 3)},
		}},
		{"a long read", func(ctx context.Context, o *client.Objects) error {
			return o.Read(ctx, sheep.Ref{ID: id}, make([]byte, piece+1), 2)
		}, []recorded{
			{op: proto.OpReadObj, body: proto.ObjectBody{ID: id, Off: 2}, room: piece},
			{op: proto.OpReadObj, body: proto.ObjectBody{ID: id, Off: 2 + piece}, room: 1},
		}},
		{"a flush", func(ctx context.Context, o *client.Objects) error { return o.Flush(ctx, 7) },
			[]recorded{{op: proto.OpFlushVDI, flags: proto.FlagCache, body: proto.ObjectBody{ID: sheep.InodeObject(7)}}}},
		{"a removal", func(ctx context.Context, o *client.Objects) error { return o.Remove(ctx, sheep.Ref{ID: id}) },
			[]recorded{{op: proto.OpRemoveObj, body: proto.ObjectBody{ID: id}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &recorder{}
			if err := test.do(t.Context(), client.NewObjects(c)); err != nil {
				t.Fatal(err)
			}
			if len(c.requests) != len(test.want) {
				t.Fatalf("%d requests, want %d", len(c.requests), len(test.want))
			}
			for i, got := range c.requests {
				want := test.want[i]
				if got.op != want.op || got.flags != want.flags || got.body != want.body || got.room != want.room || !bytes.Equal(got.data, want.data) {
					t.Errorf("request %d: %v flags %v %+v, %d bytes, room %d; want %v flags %v %+v, %d bytes, room %d", i,
						got.op, got.flags, got.body, len(got.data), got.room, want.op, want.flags, want.body, len(want.data), want.room)
				}
			}
		})
	}
}

func TestObjectsErrors(t *testing.T) {
	id := sheep.DataObject(7, 3)
	for _, test := range []struct {
		name   string
		result proto.Result
		short  bool
		do     func(ctx context.Context, o *client.Objects) error
		want   error
	}{
		{"a refusal", proto.ResultReadOnly, false, func(ctx context.Context, o *client.Objects) error {
			return o.Write(ctx, sheep.Ref{ID: id}, &sheep.Write{Data: []byte("x")})
		}, sheep.ErrReadOnly},
		{"a missing object", proto.ResultNoObject, false, func(ctx context.Context, o *client.Objects) error {
			return o.Read(ctx, sheep.Ref{ID: id}, make([]byte, 1), 0)
		}, sheep.ErrNoObject},
		{"a short answer", proto.ResultSuccess, true, func(ctx context.Context, o *client.Objects) error {
			return o.Read(ctx, sheep.Ref{ID: id}, make([]byte, 2), 0)
		}, sheep.ErrIO},
		{"no VDI", proto.ResultNoVDI, false, func(ctx context.Context, o *client.Objects) error {
			_, err := o.Lookup(ctx, "test", "", 0)
			return err
		}, sheep.ErrNoVDI},
		{"an inode that is no inode", proto.ResultSuccess, false, func(ctx context.Context, o *client.Objects) error {
			_, err := o.Lookup(ctx, "test", "", 0)
			return err
		}, sheep.ErrInvalid},
		{"a cluster that has nothing to flush", proto.ResultInvalid, false, func(ctx context.Context, o *client.Objects) error {
			return o.Flush(ctx, 7)
		}, nil},
		{"a flush that fails", proto.ResultIO, false, func(ctx context.Context, o *client.Objects) error {
			return o.Flush(ctx, 7)
		}, sheep.ErrIO},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &recorder{answer: func(_ recorded, into []byte) (proto.Result, int) {
				if test.short {
					return test.result, len(into) - 1
				}
				return test.result, len(into)
			}}
			err := test.do(t.Context(), client.NewObjects(c))
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

func TestObjectsLookup(t *testing.T) {
	h := proto.InodeHeader{
		Name: "test", Size: 1 << 30, BlockShift: 23, Copies: 6, CopyPolicy: 2<<4 | 2, SnapID: 4, Parent: 5, VDI: 7, SnapTime: 1,
	}
	c := &recorder{answer: func(_ recorded, into []byte) (proto.Result, int) {
		return proto.ResultSuccess, copy(into, h.Append(nil))
	}}
	v, err := client.NewObjects(c).Lookup(t.Context(), "test", "tag", 0)
	want := sheep.VDI{ID: 7, Name: "test", SnapID: 4, Parent: 5, Policy: sheep.Policy{Data: 4, Parity: 2}, BlockShift: 23, Snapshot: true}
	if err != nil || v != want {
		t.Errorf("%+v, %v, want %+v", v, err, want)
	}
}

// TestObjectsWatchers checks what those are told who watch a map.
func TestObjectsWatchers(t *testing.T) {
	inode := sheep.Ref{ID: sheep.InodeObject(7)}
	slots := func(owners ...uint32) (b []byte) {
		for _, o := range owners {
			b = binary.LittleEndian.AppendUint32(b, o)
		}
		return b
	}
	for _, test := range []struct {
		name   string
		ref    sheep.Ref
		w      sheep.Write
		result proto.Result
		told   bool
		first  uint32
		owners []sheep.VDIID
	}{
		{"a write to the map", inode, sheep.Write{Off: proto.MapOffset + 8, Data: slots(7, 6)}, 0, true, 2, []sheep.VDIID{7, 6}},
		{"zeroes in the map", inode, sheep.Write{Off: proto.MapOffset, Zero: 8}, 0, true, 0, []sheep.VDIID{0, 0}},
		{"a write that fails", inode, sheep.Write{Off: proto.MapOffset, Data: slots(7)}, proto.ResultIO, true, 0, nil},
		{"a write across the end of the header", inode, sheep.Write{Off: proto.MapOffset - 4, Data: slots(7, 7)}, 0, true, 0, nil},
		{"a write to the header", inode, sheep.Write{Off: 256, Data: slots(7)}, 0, false, 0, nil},
		{"a write behind the map", inode, sheep.Write{Off: proto.MapEnd, Data: slots(7)}, 0, false, 0, nil},
		{"a write to another inode", sheep.Ref{ID: sheep.InodeObject(8)}, sheep.Write{Off: proto.MapOffset, Data: slots(7)}, 0, false, 0, nil},
		{"a write of data", sheep.Ref{ID: sheep.DataObject(7, 0)}, sheep.Write{Off: proto.MapOffset, Data: slots(7)}, 0, false, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := client.NewObjects(&recorder{answer: func(recorded, []byte) (proto.Result, int) { return test.result, 0 }})
			told := 0
			stop := o.WatchMap(7, func(first uint32, owners []sheep.VDIID) {
				told++
				if first != test.first || !slices.Equal(owners, test.owners) || (owners == nil) != (test.owners == nil) {
					t.Errorf("told %d %v, want %d %v", first, owners, test.first, test.owners)
				}
			})
			_ = o.Write(t.Context(), test.ref, &test.w)
			stop()
			_ = o.Write(t.Context(), test.ref, &test.w)
			if test.told != (told == 1) {
				t.Errorf("told %d times", told)
			}
		})
	}
}
