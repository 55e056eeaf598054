package sheepfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A ewe is a sheep with one disk of five objects of 1 MiB, and its snapshot "old".
type ewe struct {
	t    *testing.T
	addr netip.AddrPort

	mu      sync.Mutex
	objects map[sheep.ObjectID][]byte         // guarded by mu
	locked  bool                              // guarded by mu
	fail    proto.Opcode                      // guarded by mu; what fails, once
	asked   map[proto.Opcode]int              // guarded by mu
	gate    func(h proto.Header, data []byte) // guarded by mu; what requests wait for
}

const (
	eweDisk = sheep.VDIID(9)
	eweOld  = sheep.VDIID(8)
	eweSize = 5 << 20
)

func newEwe(t *testing.T) *ewe {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	e := &ewe{
		t: t, addr: l.Addr().(*net.TCPAddr).AddrPort(),
		objects: make(map[sheep.ObjectID][]byte), asked: make(map[proto.Opcode]int),
	}
	for id, h := range map[sheep.VDIID]*proto.InodeHeader{
		eweDisk: {Name: "disk", VDI: eweDisk, SnapID: 2, Parent: eweOld},
		eweOld:  {Name: "disk", Tag: "old", VDI: eweOld, SnapID: 1, SnapTime: 1},
	} {
		h.Size, h.BlockShift, h.Copies, h.CreateTime = eweSize, 20, 1, 1
		e.objects[sheep.InodeObject(id)] = append(h.Append(nil), make([]byte, 16<<10)...)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go e.serve(conn)
		}
	}()
	return e
}

func (e *ewe) serve(conn net.Conn) {
	defer conn.Close()
	var answers sync.Mutex
	for {
		head := make([]byte, proto.HeaderSize)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		h, err := proto.DecodeHeader(head)
		if err != nil {
			return
		}
		data := make([]byte, h.Payload())
		if _, err := io.ReadFull(conn, data); err != nil {
			return
		}
		go func() {
			resp, out := e.handle(h, data)
			resp.DataLen = uint32(len(out))
			answers.Lock()
			defer answers.Unlock()
			conn.Write(append(resp.Append(nil), out...)) // if it fails there is nobody to tell
		}()
	}
}

func (e *ewe) handle(h proto.Header, data []byte) (resp proto.Response, out []byte) {
	e.mu.Lock()
	gate := e.gate
	e.mu.Unlock()
	if gate != nil {
		gate(h, data)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked[h.Op]++
	b := proto.DecodeObjectBody(h.Body)
	result := proto.ResultSuccess
	defer func() { resp = h.Response(1, result); resp.Body = e.body(h, data) }()
	if h.Op == e.fail {
		e.fail, result = 0, proto.ResultIO
		return resp, nil
	}
	object := e.objects[b.ID]
	switch h.Op {
	case proto.OpGetNodeList:
		return resp, proto.AppendNode(nil, sheep.Node{Addr: e.addr})
	case proto.OpGetVDIInfo:
		if name, tag, _ := proto.DecodeLookup(data); name != "disk" || tag != "" && tag != "old" {
			result = proto.ResultNoVDI
		}
	case proto.OpReadObj:
		if out = make([]byte, h.DataLen); object == nil {
			result, out = proto.ResultNoObject, nil
		} else if int(b.Off) < len(object) {
			copy(out, object[b.Off:])
		}
		return resp, out
	case proto.OpCreateAndWriteObj:
		e.objects[b.ID] = make([]byte, 1<<20)
		copy(e.objects[b.ID][b.Off:], data)
	case proto.OpWriteObj:
		if object == nil {
			result = proto.ResultNoObject
			break
		}
		copy(object[b.Off:], data)
	case proto.OpLockVDI:
		if e.locked {
			result = proto.ResultVDILocked
		}
		e.locked = true
	case proto.OpReleaseVDI:
		e.locked = false
	case proto.OpGetVDICopies:
		var lock sheep.Lock
		if e.locked {
			lock = sheep.Lock{State: sheep.Exclusive, Owner: sheep.Node{Addr: e.addr}}
		}
		return resp, proto.VDIStateOf(sheep.VDI{ID: eweDisk, BlockShift: 20}, lock).Append(nil)
	}
	return resp, nil
}

func (e *ewe) body(h proto.Header, data []byte) [28]byte {
	switch h.Op {
	case proto.OpGetNodeList:
		return proto.NodeReply{Nodes: 1}.Body()
	case proto.OpGetVDIInfo, proto.OpLockVDI:
		_, tag, _ := proto.DecodeLookup(data)
		if tag == "old" || proto.DecodeVDIBody(h.Body).SnapID == 1 {
			return proto.VDIReply{VDI: eweOld}.Body()
		}
		return proto.VDIReply{VDI: eweDisk}.Body()
	}
	return [28]byte{}
}

// count returns how often op was asked for.
func (e *ewe) count(op proto.Opcode) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked[op]
}

func (e *ewe) isLocked() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.locked
}

func (e *ewe) failOnce(op proto.Opcode) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = op
}

func (e *ewe) setGate(gate func(h proto.Header, data []byte)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gate = gate
}

// resize makes the disk as large as another client might.
func (e *ewe) resize(size uint64) {
	const sizeField = 536
	e.mu.Lock()
	defer e.mu.Unlock()
	inode := e.objects[sheep.InodeObject(eweDisk)]
	binary.LittleEndian.PutUint64(inode[sizeField:], size)
	if h, err := proto.DecodeInodeHeader(inode); err != nil || h.Size != size {
		e.t.Errorf("the size is somewhere else, %v", err)
	}
}

// volumeTree returns a tree with the volumes of a ewe.
func volumeTree(t *testing.T) (*ewe, *volumesDir) {
	t.Helper()
	e := newEwe(t)
	tree := testTree(t)
	var err error
	if tree.door, err = openDoor(t.Context(), Config{Server: e.addr.String()}); err != nil {
		t.Fatal(err)
	}
	tree.catalog = newCatalog(tree)
	tree.volumes = tree.newVolumes()
	t.Cleanup(func() { tree.Close() })
	return e, tree.volumes
}

func openVolume(t *testing.T, v *volumesDir, name string, flags uint32) *volumeHandle {
	t.Helper()
	f := &volumeFile{tree: v.tree, disks: v.disks, name: name}
	h, _, errno := f.Open(t.Context(), flags)
	if errno != 0 {
		t.Fatalf("open %s: %v", name, errno)
	}
	return h.(*volumeHandle)
}

func (h *volumeHandle) mustWrite(t *testing.T, text string, off int64) {
	t.Helper()
	if n, errno := h.Write(t.Context(), []byte(text), off); errno != 0 || int(n) != len(text) {
		t.Fatalf("write at %d: %d bytes, %v", off, n, errno)
	}
}

func (h *volumeHandle) text(t *testing.T, n int, off int64) string {
	t.Helper()
	p := make([]byte, n)
	r, errno := h.Read(t.Context(), p, off)
	if errno != 0 {
		t.Fatalf("read at %d: %v", off, errno)
	}
	b, _ := r.Bytes(p)
	return string(b)
}

func TestAVolumeEndsWhereTheDiskDoes(t *testing.T) {
	e, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDWR)
	defer h.Release(t.Context())
	h.mustWrite(t, "end", eweSize-3)
	if got := h.text(t, 10, eweSize-3); got != "end" {
		t.Errorf("the end reads as %q", got)
	}
	if n, errno := h.Write(t.Context(), []byte("more"), eweSize-2); n != 2 || errno != 0 {
		t.Errorf("a write across the end: %d, %v", n, errno)
	}
	if n, errno := h.Write(t.Context(), []byte("more"), eweSize); n != 0 || errno != syscall.ENOSPC {
		t.Errorf("a write at the end: %d, %v", n, errno)
	}
	if got := h.text(t, 10, eweSize+10); got != "" {
		t.Errorf("beyond the end it reads as %q", got)
	}
	e.resize(eweSize + 4096)
	h.mustWrite(t, "more", eweSize)
	if got := h.text(t, 6, eweSize-2); got != "momore" {
		t.Errorf("after it has grown the end reads as %q", got)
	}
}

func TestOneLockForAllWriters(t *testing.T) {
	e, v := volumeTree(t)
	reader := openVolume(t, v, "disk", syscall.O_RDONLY)
	if e.count(proto.OpLockVDI) != 0 {
		t.Error("a reader takes the lock")
	}
	a := openVolume(t, v, "disk", syscall.O_RDWR)
	b := openVolume(t, v, "disk", syscall.O_WRONLY)
	if n := e.count(proto.OpLockVDI); n != 1 || !e.isLocked() {
		t.Errorf("locked %d times", n)
	}
	a.mustWrite(t, "hello", 0)
	if got := reader.text(t, 5, 0); got != "hello" {
		t.Errorf("a reader that was there before sees %q", got)
	}
	a.Release(t.Context())
	if !e.isLocked() {
		t.Error("the lock ends with the first of two writers")
	}
	b.Release(t.Context())
	if e.isLocked() {
		t.Error("the lock does not end with the last writer")
	}
	if got := reader.text(t, 5, 0); got != "hello" {
		t.Errorf("a reader that stays sees %q", got)
	}
	reader.Release(t.Context())
	e.mu.Lock()
	e.locked = true // by somebody else
	e.mu.Unlock()
	f := &volumeFile{tree: v.tree, disks: v.disks, name: "disk"}
	if _, _, errno := f.Open(t.Context(), syscall.O_WRONLY); errno != syscall.EBUSY {
		t.Errorf("open of what is locked elsewhere: %v", errno)
	}
	if _, _, errno := f.Open(t.Context(), syscall.O_RDONLY); errno != 0 {
		t.Errorf("open of that for reading: %v", errno)
	}
}

func TestEachHandleHearsOnceOfAFailedFlush(t *testing.T) {
	e, v := volumeTree(t)
	a, b := openVolume(t, v, "disk", syscall.O_RDWR), openVolume(t, v, "disk", syscall.O_RDWR)
	a.mustWrite(t, "a", 0)
	a.Fsync(t.Context(), 0)
	a.mustWrite(t, "a", 0)
	b.mustWrite(t, "b", 1)
	e.failOnce(proto.OpFlushVDI)
	want := []syscall.Errno{syscall.EIO, 0}
	for i, errno := range want {
		if got := a.Fsync(t.Context(), 0); got != errno {
			t.Errorf("fsync number %d of one: %v, want %v", i, got, errno)
		}
	}
	late := openVolume(t, v, "disk", syscall.O_RDWR)
	if got := late.Fsync(t.Context(), 0); got != 0 {
		t.Errorf("fsync of who was not there: %v", got)
	}
	for i, errno := range want {
		if got := b.Flush(t.Context()); got != errno {
			t.Errorf("close number %d of the other: %v, want %v", i, got, errno)
		}
	}
	n := e.count(proto.OpFlushVDI)
	if got := b.Flush(t.Context()); got != 0 || e.count(proto.OpFlushVDI) != n {
		t.Errorf("closing what has nothing to flush: %v, %d flushes", got, e.count(proto.OpFlushVDI)-n)
	}
}

func TestHandlesThatFlushAtOnceAllHearOfAFailure(t *testing.T) {
	e, v := volumeTree(t)
	var handles []*volumeHandle
	for i := range 8 {
		h := openVolume(t, v, "disk", syscall.O_RDWR)
		h.mustWrite(t, "x", int64(i))
		handles = append(handles, h)
	}
	before := e.count(proto.OpFlushVDI)
	e.failOnce(proto.OpFlushVDI)
	for round, want := range []syscall.Errno{syscall.EIO, 0} {
		var wg sync.WaitGroup
		for i, h := range handles {
			wg.Go(func() {
				if got := h.Fsync(t.Context(), 0); got != want {
					t.Errorf("round %d, handle %d: %v, want %v", round, i, got, want)
				}
			})
		}
		wg.Wait()
	}
	if n := e.count(proto.OpFlushVDI) - before; n > 12 {
		t.Errorf("%d flushes for 16 calls that came together", n)
	}
}

// TestACloseFlushesWhatAFlushHasMissed has a write end after the flush that was
// called while it was under way.
func TestACloseFlushesWhatAFlushHasMissed(t *testing.T) {
	e, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDWR)
	h.mustWrite(t, "first", 0)
	arrived, slow := make(chan struct{}), make(chan struct{})
	e.setGate(func(_ proto.Header, data []byte) {
		if string(data) == "second" {
			close(arrived)
			<-slow
		}
	})
	done := make(chan syscall.Errno, 1)
	go func() {
		_, errno := h.Write(t.Context(), []byte("second"), 0)
		done <- errno
	}()
	<-arrived
	if errno := h.Fsync(t.Context(), 0); errno != 0 {
		t.Fatal(errno)
	}
	close(slow)
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
	n := e.count(proto.OpFlushVDI)
	if errno := h.Flush(t.Context()); errno != 0 || e.count(proto.OpFlushVDI) == n {
		t.Errorf("the close: %v, and %d flushes", errno, e.count(proto.OpFlushVDI)-n)
	}
}

func TestNobodyWritesAfterTheEnd(t *testing.T) {
	e, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDWR)
	h.mustWrite(t, "hello", 0)
	if err := v.disks.close(); err != nil || e.isLocked() {
		t.Fatalf("close: %v, locked %v", err, e.isLocked())
	}
	if _, errno := h.Write(t.Context(), []byte("late"), 0); errno != syscall.EIO {
		t.Errorf("write when the lock has been given back: %v", errno)
	}
}

func TestSizesOfVolumes(t *testing.T) {
	e, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDWR|syscall.O_TRUNC)
	defer h.Release(t.Context())
	f := h.file
	for _, test := range []struct {
		about string
		fh    fs.FileHandle
		size  uint64
		want  syscall.Errno
		now   uint64
	}{
		{"O_TRUNC destroys nothing", nil, 0, 0, eweSize},
		{"ftruncate to nothing", h, 0, syscall.EINVAL, eweSize},
		{"smaller", nil, 4096, syscall.EINVAL, eweSize},
		{"as it is", h, eweSize, 0, eweSize},
		{"larger", h, eweSize + 512, 0, eweSize + 512},
		{"larger by name", nil, eweSize + 1024, 0, eweSize + 1024},
		{"far too large", h, 1 << 62, syscall.EFBIG, eweSize + 1024},
	} {
		in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: test.size}}
		var out fuse.AttrOut
		if got := f.Setattr(t.Context(), test.fh, &in, &out); got != test.want || got == 0 && out.Size != test.now {
			t.Errorf("%s: %v and %d bytes, want %v", test.about, got, out.Size, test.want)
		}
		if errno := f.Getattr(t.Context(), nil, &out); errno != 0 || out.Size != test.now {
			t.Errorf("%s: stat says %d bytes, %v, want %d", test.about, out.Size, errno, test.now)
		}
	}
	e.resize(eweSize) // never smaller for who has it open
	var out fuse.AttrOut
	if errno := f.Getattr(t.Context(), h, &out); errno != 0 || out.Size != eweSize+1024 {
		t.Errorf("fstat says %d bytes, %v", out.Size, errno)
	}
	old := &volumeFile{tree: v.tree, disks: v.disks, name: "disk@old"}
	if _, _, errno := old.Open(t.Context(), syscall.O_RDWR); errno != syscall.EROFS {
		t.Errorf("open of a snapshot for writing: %v", errno)
	}
	if errno := old.Getattr(t.Context(), nil, &out); errno != 0 || out.Size != eweSize || out.Mode&0o222 != 0 {
		t.Errorf("a snapshot has %d bytes and mode %o, %v", out.Size, out.Mode, errno)
	}
	none := &volumeFile{tree: v.tree, disks: v.disks, name: "disk@new"}
	if errno := none.Getattr(t.Context(), nil, &out); errno != syscall.ENOENT {
		t.Errorf("stat of no snapshot: %v", errno)
	}
}

// TestAttributesCostNoScan looks at names and attributes as stat does: whatever is
// asked must not grow with the number of disks.
func TestAttributesCostNoScan(t *testing.T) {
	e, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDONLY)
	defer h.Release(t.Context())
	vdis := v.tree.vdisDir()
	for range 50 {
		var attr fuse.AttrOut
		for _, errno := range []syscall.Errno{
			h.file.Getattr(t.Context(), nil, &attr), h.file.Getattr(t.Context(), h, &attr),
			vdis.Getattr(t.Context(), nil, &attr), v.tree.diskDir("disk").Getattr(t.Context(), nil, &attr),
		} {
			if errno != 0 {
				t.Fatal(errno)
			}
		}
		if _, err := v.tree.findDisk(t.Context(), "disk"); err != nil {
			t.Fatal(err)
		}
	}
	for _, scan := range []proto.Opcode{proto.OpReadVDIs, proto.OpGetVDICopies, proto.OpReadDelVDIs} {
		if n := e.count(scan); n != 0 {
			t.Errorf("%d times %v", n, scan)
		}
	}
	if n := e.count(proto.OpGetVDIInfo); n > 110 {
		t.Errorf("%d lookups for 50 times two that need one", n)
	}
}

func TestHolesOfVolumes(t *testing.T) {
	_, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDWR)
	defer h.Release(t.Context())
	const mib = 1 << 20
	h.mustWrite(t, "one", mib+100)
	h.mustWrite(t, "three", 3*mib)
	seeks := func(about string, want map[[2]uint64]uint64) {
		t.Helper()
		for q, at := range want {
			got, errno := h.Lseek(t.Context(), q[1], uint32(q[0]))
			if at == 0 && errno == syscall.ENXIO {
				continue
			}
			if got != at || errno != 0 {
				t.Errorf("%s: seek %d from %d: %d, %v, want %d", about, q[0], q[1], got, errno, at)
			}
		}
	}
	const d, o = unix.SEEK_DATA, unix.SEEK_HOLE
	seeks("two objects", map[[2]uint64]uint64{
		{d, 0}: mib, {d, mib + 5}: mib + 5, {d, 2 * mib}: 3 * mib, {d, 4 * mib}: 0, {d, eweSize}: 0,
		{o, mib}: 2 * mib, {o, 3*mib + 1}: 4 * mib, {o, 4*mib + 7}: 4*mib + 7, {o, eweSize}: 0,
	})
	for mode, want := range map[uint32]syscall.Errno{
		0:                         syscall.EOPNOTSUPP,
		unix.FALLOC_FL_KEEP_SIZE:  syscall.EOPNOTSUPP,
		unix.FALLOC_FL_ZERO_RANGE: syscall.EINVAL,
		unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE: 0,
		unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE: 0,
		unix.FALLOC_FL_COLLAPSE_RANGE:                        syscall.EOPNOTSUPP,
	} {
		if got := h.Allocate(t.Context(), eweSize-10, 20, mode); got != want {
			t.Errorf("fallocate mode %#x across the end: %v, want %v", mode, got, want)
		}
	}
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if errno := h.Allocate(t.Context(), mib, mib, punch); errno != 0 {
		t.Fatal(errno)
	}
	if errno := h.Allocate(t.Context(), 3*mib+1, 2, punch); errno != 0 {
		t.Fatal(errno)
	}
	seeks("one object", map[[2]uint64]uint64{{d, 0}: 3 * mib, {o, 0}: 0})
	if got := h.text(t, 5, 3*mib); got != "t\x00\x00ee" {
		t.Errorf("after punching it reads as %q", got)
	}
	if errno := openVolume(t, v, "disk", syscall.O_RDONLY).Allocate(t.Context(), 0, 1, punch); errno != syscall.EBADF {
		t.Errorf("punching as a reader: %v", errno)
	}
}

func TestTheEndMakesDurableWhatIsOpen(t *testing.T) {
	e, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDWR)
	h.mustWrite(t, "hello", 0)
	n := e.count(proto.OpFlushVDI)
	if err := v.tree.Close(); err != nil {
		t.Fatal(err)
	}
	if e.count(proto.OpFlushVDI) == n || e.isLocked() {
		t.Errorf("%d flushes, locked %v", e.count(proto.OpFlushVDI)-n, e.isLocked())
	}
	f := &volumeFile{tree: v.tree, disks: v.disks, name: "disk"}
	if _, _, errno := f.Open(t.Context(), syscall.O_RDWR); errno != syscall.EIO {
		t.Errorf("open after the end: %v", errno)
	}
}

func TestAnInterruptLetsWritesBe(t *testing.T) {
	_, v := volumeTree(t)
	h := openVolume(t, v, "disk", syscall.O_RDWR)
	defer h.Release(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, errno := h.Write(ctx, bytes.Repeat([]byte("x"), 3<<20), 100); n != 3<<20 || errno != 0 {
		t.Errorf("write: %d, %v", n, errno)
	}
	if errno := h.Fsync(ctx, 0); errno != 0 {
		t.Errorf("fsync: %v", errno)
	}
	p := make([]byte, 10)
	if _, errno := h.Read(ctx, p, 100); errno != 0 || string(p) != "xxxxxxxxxx" {
		t.Errorf("read: %q, %v", p, errno)
	}
}

func TestOthersChangesAreSeen(t *testing.T) {
	e, v := volumeTree(t)
	e.mu.Lock()
	e.locked = true // by whoever makes the changes
	e.mu.Unlock()
	h := openVolume(t, v, "disk", syscall.O_RDONLY)
	defer h.Release(t.Context())
	if got := h.text(t, 5, 0); got != "\x00\x00\x00\x00\x00" {
		t.Errorf("an empty disk has %q", got)
	}
	e.mu.Lock()
	e.objects[sheep.DataObject(eweDisk, 0)] = []byte("hello")
	binary.LittleEndian.PutUint32(e.objects[sheep.InodeObject(eweDisk)][proto.MapOffset:], uint32(eweDisk))
	e.mu.Unlock()
	h.disk.refreshed.Add(int64(-fresh - time.Millisecond))
	if got := h.text(t, 5, 0); got != "hello" {
		t.Errorf("after a second it reads as %q", got)
	}
}
