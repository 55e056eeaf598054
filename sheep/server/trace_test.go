package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/server"
	"sheepdog/sheep/sheeptest"
	"sheepdog/sheep/vdi"
)

// A disk is a node whose Guard and operations are real and whose gateway is a
// memory.
type disk struct {
	*sheeptest.Memory
	mu   sync.Mutex
	view *cluster.View
	vdis map[sheep.VDIID]sheep.VDI // guarded by mu
	ops  *vdi.Operations
}

func newDisk() (*disk, *server.Daemon) {
	w := newWorld()
	w.view.Epoch = 1
	w.view.Settings = cluster.Settings{Ctime: 1, Copies: 1, BlockShift: 22, Store: "plain"}
	d := &disk{Memory: sheeptest.NewMemory(), view: w.view, vdis: map[sheep.VDIID]sheep.VDI{}}
	guard := vdi.NewGuard(d, d, vdi.GuardConfig{})
	d.ops = vdi.NewOperations(guard, d, d, d, vdi.OperationsConfig{Self: self})
	parts := w.daemon().Parts
	parts.Guard, parts.Operations, parts.Cluster = guard, d.ops, diskCluster{fakeCluster{w}, d}
	return d, server.NewDaemon(parts)
}

func (d *disk) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	if w.From == nil {
		return d.Memory.Write(ctx, ref, w)
	}
	base := make([]byte, w.From.Size)
	if err := d.Memory.Read(ctx, *w.From, base, 0); err != nil {
		return err
	}
	copy(base[w.Off:], w.Data)
	return d.Memory.Write(ctx, ref, &sheep.Write{Create: true, Data: base})
}

func (d *disk) Exclusive(ctx context.Context, _ sheep.ObjectID, fn func(context.Context, sheep.Objects) error) error {
	return fn(ctx, d)
}

func (d *disk) ForwardWrite(context.Context, sheep.Ref, *sheep.Write) error { return sheep.ErrSystem }

func (d *disk) ForwardDecref(context.Context, sheep.Ref, uint32, uint32) error {
	return sheep.ErrSystem
}

func (d *disk) VDI(id sheep.VDIID) (sheep.VDI, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.vdis[id]
	return v, ok
}

func (d *disk) VDIs() []sheep.VDI { return d.named(func(sheep.VDI) bool { return true }) }

func (d *disk) VDIsNamed(name string) []sheep.VDI {
	return d.named(func(v sheep.VDI) bool { return v.Name == name })
}

func (d *disk) named(want func(sheep.VDI) bool) []sheep.VDI {
	d.mu.Lock()
	defer d.mu.Unlock()
	var vdis []sheep.VDI
	for _, v := range d.vdis {
		if want(v) {
			vdis = append(vdis, v)
		}
	}
	slices.SortFunc(vdis, func(a, b sheep.VDI) int { return int(a.ID) - int(b.ID) })
	return vdis
}

func (d *disk) UsedBitmap() []byte {
	b := make([]byte, sheep.MaxVDIs/8)
	for _, v := range d.VDIs() {
		b[v.ID/8] |= 1 << (v.ID % 8)
	}
	return b
}

func (d *disk) LockOf(sheep.VDIID) sheep.Lock { return sheep.Lock{State: sheep.Unlocked} }
func (d *disk) Defaults() vdi.Defaults        { return vdi.Defaults{Copies: 1, BlockShift: 22} }
func (d *disk) Sync(context.Context) error    { return nil }

func (d *disk) Plan(ctx context.Context, kind uint8, payload []byte) ([]byte, error) {
	freeze := func(context.Context, ...sheep.VDIID) error { return nil }
	result, changes, err := d.ops.Execute(ctx, vdi.Task{Index: 1, Kind: kind, Payload: payload, Freeze: freeze})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range changes {
		d.vdis[c.VDI.ID] = c.VDI
		if c.Drop {
			delete(d.vdis, c.VDI.ID)
		}
	}
	return result, err
}

// diskCluster shows the table of a disk.
type diskCluster struct {
	fakeCluster
	d *disk
}

func (c diskCluster) VDI(id sheep.VDIID) (sheep.VDI, bool)                        { return c.d.VDI(id) }
func (c diskCluster) VDIs() []sheep.VDI                                           { return c.d.VDIs() }
func (c diskCluster) UsedBitmap() []byte                                          { return c.d.UsedBitmap() }
func (c diskCluster) Unlock(context.Context, sheep.VDIID, bool, sheep.Node) error { return nil }

// A traceLine is a message that was recorded between QEMU 5.2 and C's server.
type traceLine struct {
	Seq        int
	Conn       int
	Dir        string
	HdrHex     string `json:"hdr_hex"`
	PayloadLen int    `json:"payload_len"`
	PayloadHex string `json:"payload_hex"`
	Decoded    struct {
		Name   string
		Tag    string
		Size   uint64            `json:"vdi_size"`
		SnapID uint32            `json:"snap_id"`
		VDI    string            `json:"vdi_id"`
		Parent string            `json:"parent_vdi_id"`
		Map    map[string]string `json:"data_vdi_id_nonzero"`
		Bits   []string          `json:"bits_set"`
	} `json:"payload_decoded"`
}

func readTrace(t *testing.T, path string) []traceLine {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []traceLine
	for s := bufio.NewScanner(f); s.Scan(); {
		var l traceLine
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Dir != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// TestQEMUIsAnsweredAsItWasByC sends what QEMU sent when the traces were
// recorded. The answers are the recorded ones but for flushes, which C refuses
// as needless and we carry out, and what comes of deletions, which C fails to do
// with disks that have data.
func TestQEMUIsAnsweredAsItWasByC(t *testing.T) {
	d, daemon := newDisk()
	addr := startServer(t, daemon, server.Config{})
	files, err := filepath.Glob("../proto/testdata/traces/*.jsonl")
	if err != nil || len(files) != 16 {
		t.Fatalf("%d traces, %v", len(files), err)
	}
	// after the eleventh file C's server has a disk that is deleted and is there
	for _, path := range append(slices.Clone(files[:11]), files[15]) {
		ok := t.Run(filepath.Base(path), func(t *testing.T) {
			conn := dialClient(t, addr)
			lines := readTrace(t, path)
			for i, l := range lines {
				if l.Dir == "c2s" {
					replay(t, d, conn, l, answerTo(t, lines[i+1:], l))
				}
			}
		})
		if !ok {
			return // later ones build on it
		}
	}
	t.Run("going back to a snapshot, which C fails to do", func(t *testing.T) {
		conn := dialClient(t, addr)
		for _, l := range readTrace(t, files[11]) {
			if l.Dir == "c2s" {
				h, err := proto.DecodeHeader(fromHex(t, l.HdrHex))
				if err != nil {
					t.Fatal(err)
				}
				resp, _, err := conn.Do(t.Context(), h, payloadOf(t, d, h, l), make([]byte, h.Room()))
				if err != nil || resp.Result != proto.ResultSuccess {
					t.Errorf("line %d, %v: %v, %v", l.Seq, h.Op, resp.Result, err)
				}
			}
		}
	})
}

// answerTo returns the line among those that follow which answers l.
func answerTo(t *testing.T, lines []traceLine, l traceLine) traceLine {
	t.Helper()
	for _, a := range lines {
		if a.Dir == "s2c" && a.Conn == l.Conn && a.HdrHex[16:24] == l.HdrHex[16:24] {
			return a
		}
	}
	t.Fatalf("line %d has no answer", l.Seq)
	return traceLine{}
}

func replay(t *testing.T, d *disk, conn *client.Conn, l, recorded traceLine) {
	t.Helper()
	h, err := proto.DecodeHeader(fromHex(t, l.HdrHex))
	if err != nil {
		t.Fatal(err)
	}
	seq := h.Seq
	resp, data, err := conn.Do(t.Context(), h, payloadOf(t, d, h, l), make([]byte, h.Room()))
	if err != nil {
		t.Fatalf("line %d, %v: %v", l.Seq, h.Op, err)
	}
	resp.Seq = seq // Conn has numbers of its own
	want, err := proto.DecodeResponse(fromHex(t, recorded.HdrHex))
	if err != nil {
		t.Fatal(err)
	}
	if h.Op == proto.OpFlushVDI {
		want.Result = proto.ResultSuccess
	}
	if want.Result != proto.ResultSuccess {
		want.Body = [28]byte{} // C leaves garbage
	}
	if resp != want {
		t.Errorf("line %d, %v:\n got %+v\nwant %+v", l.Seq, h.Op, resp, want)
	}
	compare(t, h, data, recorded)
}

// payloadOf returns what follows h. Large payloads are not in the trace.
func payloadOf(t *testing.T, d *disk, h proto.Header, l traceLine) []byte {
	t.Helper()
	switch {
	case l.PayloadHex != "":
		return fromHex(t, l.PayloadHex)
	case l.PayloadLen == 2*proto.LabelSize && h.Op != proto.OpWriteObj && h.Op != proto.OpCreateAndWriteObj:
		return proto.AppendLookup(nil, l.Decoded.Name, l.Decoded.Tag)
	case l.PayloadLen == proto.LabelSize:
		name := proto.Label(l.Decoded.Name)
		return name[:]
	case l.PayloadLen == proto.InodeHeaderSize: // what QEMU has cached, changed
		b := make([]byte, proto.InodeHeaderSize)
		if err := d.Read(t.Context(), sheep.Ref{ID: proto.DecodeObjectBody(h.Body).ID}, b, 0); err != nil {
			t.Fatal(err)
		}
		copy(b[256:512], make([]byte, 256))
		copy(b[256:], l.Decoded.Tag)
		binary.LittleEndian.PutUint64(b[536:], l.Decoded.Size)
		return b
	}
	return bytes.Repeat([]byte{byte(l.Seq)}, l.PayloadLen)
}

// compare compares an answer's payload with what the trace tells of it.
func compare(t *testing.T, h proto.Header, data []byte, l traceLine) {
	t.Helper()
	if len(data) != l.PayloadLen {
		t.Errorf("line %d, %v: %d bytes, want %d", l.Seq, h.Op, len(data), l.PayloadLen)
		return
	}
	for _, v := range l.Decoded.Bits {
		if n := hexNumber(t, v); data[n/8]&(1<<(n%8)) == 0 {
			t.Errorf("line %d: number %x is not taken", l.Seq, n)
		}
	}
	if l.Decoded.VDI == "" {
		return
	}
	inode, err := proto.DecodeInodeHeader(data)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %s %d %d %06x %06x", inode.Name, inode.Tag, inode.Size, inode.SnapID, uint32(inode.VDI), uint32(inode.Parent))
	want := fmt.Sprintf("%s %s %d %d %s %s", l.Decoded.Name, l.Decoded.Tag, l.Decoded.Size, l.Decoded.SnapID, l.Decoded.VDI, l.Decoded.Parent)
	if got != want {
		t.Errorf("line %d: inode %s, want %s", l.Seq, got, want)
	}
	slots := map[string]string{}
	for i := 0; i < (len(data)-proto.MapOffset)/4; i++ {
		if owner := binary.LittleEndian.Uint32(data[proto.MapOffset+4*i:]); owner != 0 {
			slots[strconv.Itoa(i)] = fmt.Sprintf("%06x", owner)
		}
	}
	if fmt.Sprint(slots) != fmt.Sprint(l.Decoded.Map) {
		t.Errorf("line %d: map %v, want %v", l.Seq, slots, l.Decoded.Map)
	}
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hexNumber(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
