package vdi_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

const pageSize = 4096

// An object is stored as the pages of it that are not all zero. Pages never
// change, so that copies can share them.
type object map[uint32]*[pageSize]byte

func (o object) read(p []byte, off uint32) {
	clear(p)
	if len(o)*pageSize < len(p) {
		for n, page := range o {
			from, to := int64(n)*pageSize-int64(off), (int64(n)+1)*pageSize-int64(off)
			if to > 0 && from < int64(len(p)) {
				copy(p[max(from, 0):], page[max(-from, 0):])
			}
		}
		return
	}
	for len(p) > 0 {
		n := min(pageSize-int(off%pageSize), len(p))
		if page := o[off/pageSize]; page != nil {
			copy(p, page[off%pageSize:])
		}
		p, off = p[n:], off+uint32(n)
	}
}

func (o object) write(p []byte, off uint32) {
	for len(p) > 0 {
		var page [pageSize]byte
		if old := o[off/pageSize]; old != nil {
			page = *old
		}
		n := copy(page[off%pageSize:], p)
		if page == ([pageSize]byte{}) {
			delete(o, off/pageSize)
		} else {
			o[off/pageSize] = &page
		}
		p, off = p[n:], off+uint32(n)
	}
}

func (o object) zero(off, n uint32) {
	for _, page := range slices.Collect(maps.Keys(o)) {
		from, to := max(off, page*pageSize), min(off+n, (page+1)*pageSize)
		if from < to {
			o.write(make([]byte, to-from), from)
		}
	}
}

var errCrash = errors.New("crashed")

// A world is a cluster in memory: objects, the table of VDIs, the log of plans,
// and gateways that share them.
type world struct {
	t testing.TB

	mu          sync.Mutex
	objects     map[sheep.ObjectID]object
	table       map[sheep.VDIID]sheep.VDI
	locks       map[sheep.VDIID]sheep.Lock
	taken       []byte                   // numbers that are taken by VDIs not in the table
	owner       map[sheep.VDIID]*gateway // of VDIs with one
	exclusive   map[sheep.ObjectID]*sync.Mutex
	frozen      map[sheep.VDIID]bool
	inflight    map[sheep.VDIID]int
	thaw        *sync.Cond // frozen or inflight has changed
	planning    sync.Mutex // held while a plan is open
	defaults    vdi.Defaults
	calls       int
	failAt      int  // the number of the call from which on all fail, 0 for none
	applied     bool // the failing write has been applied
	readBytes   int
	written     int
	plans       uint64
	changes     uint64 // of ownerships, by plans
	syncs       int
	now         time.Time
	repeat      bool           // run the next plan twice
	deny        sheep.ObjectID // the next write to it fails, unless it creates it
	ending      func()         // runs before the next plan, as the end of the one before
	lose        bool           // the answer to the next release that is forwarded
	interrupted bool           // a client's request was

	gateways []*gateway
}

// A gateway is one node's link below its Guard.
type gateway struct {
	w     *world
	guard *vdi.Guard
	ops   *vdi.Operations
	node  sheep.Node
}

func newWorld(t testing.TB, gateways int) *world {
	w := &world{
		t:         t,
		objects:   map[sheep.ObjectID]object{},
		table:     map[sheep.VDIID]sheep.VDI{},
		locks:     map[sheep.VDIID]sheep.Lock{},
		owner:     map[sheep.VDIID]*gateway{},
		exclusive: map[sheep.ObjectID]*sync.Mutex{},
		frozen:    map[sheep.VDIID]bool{},
		inflight:  map[sheep.VDIID]int{},
		defaults:  vdi.Defaults{Copies: 2, BlockShift: sheep.DefaultBlockShift},
		now:       time.Unix(1795237863, 1000),
	}
	w.thaw = sync.NewCond(&w.mu)
	for i := range gateways {
		g := &gateway{w: w, node: sheep.Node{Addr: addr(7000 + i)}}
		g.guard = vdi.NewGuard(g, w, vdi.GuardConfig{
			Attributes: func() sheep.Policy { return sheep.Replicated(w.defaults.Copies) },
			Announce: func(_ context.Context, v sheep.VDI) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.table[v.ID] = v
				return nil
			},
		})
		g.ops = vdi.NewOperations(g.guard, g, w, planner{g}, vdi.OperationsConfig{
			Self: g.node,
			Now: func() time.Time {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.now = w.now.Add(time.Second)
				return w.now
			},
		})
		w.gateways = append(w.gateways, g)
	}
	return w
}

// call counts a call and says whether it fails.
func (w *world) call() error {
	w.calls++
	if w.failAt != 0 && w.calls >= w.failAt {
		return errCrash
	}
	return nil
}

type planKey struct{}

// A grantKey is in the context of what runs within Exclusive: the VDI.
type grantKey struct{}

// admit waits until no plan has frozen the VDI, except for the plan itself. The
// caller calls the function returned when it is done.
func (w *world) admit(ctx context.Context, id sheep.VDIID) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Value(grantKey{}) == id || ctx.Value(planKey{}) != nil && w.frozen[id] {
		return func() {}
	}
	for w.frozen[id] {
		w.thaw.Wait()
	}
	w.inflight[id]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inflight[id]--
		w.thaw.Broadcast()
	}
}

// below is the link under the gateways.
type below struct{ w *world }

func (g *gateway) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return below{g.w}.Read(ctx, ref, p, off)
}

func (b below) Read(_ context.Context, ref sheep.Ref, p []byte, off uint32) error {
	w := b.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check(ref)
	if err := w.call(); err != nil {
		return err
	}
	w.readBytes += len(p)
	o, ok := w.objects[ref.ID]
	if !ok {
		return sheep.ErrNoObject
	}
	o.read(p, off)
	return nil
}

func (g *gateway) Write(ctx context.Context, ref sheep.Ref, wr *sheep.Write) error {
	defer g.w.admit(ctx, ref.ID.VDI())()
	// A snapshot may have been taken while the write waited.
	if v, ok := g.w.VDI(ref.ID.VDI()); ok && v.Snapshot && ref.ID.Kind() == sheep.KindData {
		return sheep.ErrReadOnly
	}
	return below{g.w}.Write(ctx, ref, wr)
}

func (b below) Write(ctx context.Context, ref sheep.Ref, wr *sheep.Write) error {
	w := b.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check(ref)
	if uint64(wr.Off)+uint64(wr.Len()) > uint64(ref.Size) {
		w.t.Errorf("write of %d at %d beyond the end of %v", wr.Len(), wr.Off, ref.ID)
	}
	if !wr.Durable && !wr.Create && ref.ID.Metadata() {
		w.t.Errorf("write to %v is not durable", ref.ID)
	}
	err := w.call()
	if err != nil && (!w.applied || w.calls != w.failAt) {
		return err
	}
	if ref.ID == w.deny && !wr.Create {
		w.deny = 0
		return sheep.ErrIO
	}
	if e := w.apply(ref, wr); e != nil {
		return e
	}
	return err
}

func (w *world) apply(ref sheep.Ref, wr *sheep.Write) error {
	o, ok := w.objects[ref.ID]
	if !ok && !wr.Create {
		return sheep.ErrNoObject
	}
	if wr.Create {
		o = object{}
		if wr.From != nil {
			from, ok := w.objects[wr.From.ID]
			if !ok {
				return sheep.ErrNoObject
			}
			o = maps.Clone(from)
		}
		w.objects[ref.ID] = o
	}
	for _, id := range wr.After {
		if _, ok := w.objects[id]; !ok {
			w.t.Errorf("write to %v makes %v reachable, which does not exist", ref.ID, id)
		}
	}
	w.written += len(wr.Data)
	if wr.Zero != 0 {
		o.zero(wr.Off, wr.Zero)
	}
	o.write(wr.Data, wr.Off)
	return nil
}

func (g *gateway) Remove(ctx context.Context, ref sheep.Ref) error {
	defer g.w.admit(ctx, ref.ID.VDI())()
	return below{g.w}.Remove(ctx, ref)
}

func (b below) Remove(_ context.Context, ref sheep.Ref) error {
	w := b.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check(ref)
	err := w.call()
	if err != nil && (!w.applied || w.calls != w.failAt) {
		return err
	}
	if _, ok := w.objects[ref.ID]; !ok {
		return sheep.ErrNoObject
	}
	delete(w.objects, ref.ID)
	return err
}

// check verifies what the Guard promises of every reference.
func (w *world) check(ref sheep.Ref) {
	v, ok := w.table[ref.ID.VDI()]
	if !ok {
		return
	}
	if want := vdi.Ref(v, ref.ID); ref.Policy != want.Policy || ref.Size != want.Size {
		w.t.Errorf("reference %+v, want %+v", ref, want)
	}
}

func (g *gateway) Flush(context.Context, sheep.VDIID) error { return nil }

func (g *gateway) Exclusive(ctx context.Context, id sheep.ObjectID, fn func(context.Context, sheep.Objects) error) error {
	w := g.w
	w.mu.Lock()
	if o := w.owner[id.VDI()]; o != nil && o != g {
		w.mu.Unlock()
		return &sheep.NotOwnerError{VDI: id.VDI(), Owner: o.node}
	}
	m := w.exclusive[id]
	if m == nil {
		m = &sync.Mutex{}
		w.exclusive[id] = m
	}
	w.mu.Unlock()
	defer w.admit(ctx, id.VDI())()
	m.Lock()
	defer m.Unlock()
	return fn(context.WithValue(ctx, grantKey{}, id.VDI()), below{w})
}

func (g *gateway) ForwardWrite(ctx context.Context, ref sheep.Ref, wr *sheep.Write) error {
	return g.ownerOf(ref.ID).guard.WriteOwned(ctx, ref, wr)
}

func (g *gateway) ForwardDecref(ctx context.Context, ref sheep.Ref, generation, count uint32) error {
	err := g.ownerOf(ref.ID).guard.DecrefOwned(ctx, ref, generation, count)
	if err == nil && g.w.lose {
		g.w.lose = false
		return &sheep.NotOwnerError{}
	}
	return err
}

func (g *gateway) ownerOf(id sheep.ObjectID) *gateway {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	if o := g.w.owner[id.VDI()]; o != nil {
		return o
	}
	return g
}

// The world as Directory.

func (w *world) VDI(id sheep.VDIID) (sheep.VDI, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.table[id]
	return v, ok
}

func (w *world) VDIs() []sheep.VDI {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []sheep.VDI
	for _, id := range slices.Sorted(maps.Keys(w.table)) {
		list = append(list, w.table[id])
	}
	return list
}

func (w *world) VDIsNamed(name string) []sheep.VDI {
	return slices.DeleteFunc(w.VDIs(), func(v sheep.VDI) bool { return v.Name != name })
}

func (w *world) UsedBitmap() []byte {
	b := make([]byte, sheep.MaxVDIs/8)
	copy(b, w.taken)
	for _, v := range w.VDIs() {
		b[v.ID/8] |= 1 << (v.ID % 8)
	}
	return b
}

func (w *world) LockOf(id sheep.VDIID) sheep.Lock { return w.locks[id] }
func (w *world) Defaults() vdi.Defaults           { return w.defaults }

func (w *world) Sync(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.syncs++
	return nil
}

// A planner runs plans as the cluster does: in case of a crash again, on
// another node.
type planner struct{ g *gateway }

func (p planner) Plan(ctx context.Context, kind uint8, payload []byte) ([]byte, error) {
	w := p.g.w
	w.planning.Lock()
	defer w.planning.Unlock()
	w.plans++
	if w.ending != nil {
		w.ending()
		w.ending = nil
	}
	task := vdi.Task{Index: w.plans, Kind: kind, Payload: payload}
	task.Freeze = func(_ context.Context, ids ...sheep.VDIID) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changes++
		for _, id := range ids {
			w.frozen[id] = true
		}
		for _, id := range ids {
			for w.inflight[id] > 0 {
				w.thaw.Wait()
			}
		}
		return nil
	}
	executor := p.g
	for {
		ctx, cancel := context.WithCancel(context.WithValue(ctx, planKey{}, task.Index))
		result, changes, err := executor.ops.Execute(ctx, task)
		cancel()
		if errors.Is(err, errCrash) || w.crashed() || w.repeat {
			w.recover()
			w.repeat = false
			task.Retry = true
			executor = w.gateways[len(w.gateways)-1]
			continue
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(w.frozen)
		w.changes++
		w.thaw.Broadcast()
		for _, c := range changes {
			if c.Drop {
				delete(w.table, c.VDI.ID)
			} else {
				w.table[c.VDI.ID] = c.VDI
			}
		}
		return result, err
	}
}

func (w *world) crashed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failAt != 0 && w.calls >= w.failAt
}

// recover ends the failures; what was applied stays.
func (w *world) recover() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failAt = 0
}

// clone returns an independent world with the same contents.
func (w *world) clone(t testing.TB) *world {
	c := newWorld(t, len(w.gateways))
	for id, o := range w.objects {
		c.objects[id] = maps.Clone(o)
	}
	c.table, c.locks = maps.Clone(w.table), maps.Clone(w.locks)
	for id, g := range w.owner {
		c.owner[id] = c.gateways[slices.Index(w.gateways, g)]
	}
	c.defaults, c.now, c.plans = w.defaults, w.now, w.plans
	return c
}

// same reports how two worlds differ, "" if they do not.
func (w *world) same(o *world) string {
	for id, v := range w.table {
		if o.table[id] != v {
			return fmt.Sprintf("VDI %v: %+v and %+v", id, v, o.table[id])
		}
	}
	if len(w.table) != len(o.table) {
		return "numbers of VDIs"
	}
	for id, a := range w.objects {
		b, ok := o.objects[id]
		if !ok {
			return fmt.Sprintf("object %v exists in the first only", id)
		}
		for n, page := range a {
			other := b[n]
			if other == nil {
				other = &[pageSize]byte{}
			}
			for i := range page {
				if page[i] != other[i] {
					return fmt.Sprintf("byte %d of object %v: %d and %d", int(n)*pageSize+i, id, page[i], other[i])
				}
			}
		}
		if len(a) != len(b) {
			return fmt.Sprintf("pages of object %v", id)
		}
	}
	for id := range o.objects {
		if _, ok := w.objects[id]; !ok {
			return fmt.Sprintf("object %v exists in the second only", id)
		}
	}
	return ""
}

// What clients do, as QEMU does it.

func (g *gateway) create(name string, size uint64) sheep.VDI {
	return g.must(g.ops.Create(context.Background(), name, proto.VDIBody{Size: size}))
}

func (g *gateway) snapshot(head sheep.VDI, tag string) sheep.VDI {
	g.w.t.Helper()
	label := proto.Label(tag)
	g.try(g.writeInode(head.ID, 256, label[:]))
	size := g.header(head.ID).Size
	return g.must(g.ops.Create(context.Background(), head.Name, proto.VDIBody{Size: size, Base: head.ID, SnapID: 1}))
}

func (g *gateway) cloneOf(name string, base sheep.VDIID) sheep.VDI {
	g.w.t.Helper()
	return g.must(g.ops.Create(context.Background(), name, proto.VDIBody{Size: g.header(base).Size, Base: base}))
}

func (g *gateway) must(v sheep.VDI, err error) sheep.VDI {
	g.w.t.Helper()
	g.try(err)
	return v
}

func (g *gateway) try(err error) {
	g.w.t.Helper()
	if err != nil {
		g.w.t.Fatal(err)
	}
}

func (g *gateway) writeInode(id sheep.VDIID, off uint32, p []byte) error {
	return g.guard.Write(context.Background(), sheep.Ref{ID: sheep.InodeObject(id)}, &sheep.Write{Off: off, Data: p, Durable: true})
}

func (g *gateway) readInode(id sheep.VDIID, off uint32, n int) []byte {
	g.w.t.Helper()
	p := make([]byte, n)
	g.try(g.guard.Read(context.Background(), sheep.Ref{ID: sheep.InodeObject(id)}, p, off))
	return p
}

func (g *gateway) header(id sheep.VDIID) proto.InodeHeader {
	g.w.t.Helper()
	h, err := proto.DecodeInodeHeader(g.readInode(id, 0, proto.InodeHeaderSize))
	g.try(err)
	return h
}

func (g *gateway) slot(id sheep.VDIID, i uint32) sheep.VDIID {
	g.w.t.Helper()
	return sheep.VDIID(binary.LittleEndian.Uint32(g.readInode(id, proto.MapOffset+4*i, 4)))
}

func (g *gateway) setSlot(id sheep.VDIID, i uint32, owner sheep.VDIID) error {
	return g.writeInode(id, proto.MapOffset+4*i, binary.LittleEndian.AppendUint32(nil, uint32(owner)))
}

// gref returns generation and count of slot i.
func (g *gateway) gref(id sheep.VDIID, i uint32) [2]int32 {
	g.w.t.Helper()
	return pair(g.readInode(id, proto.GRefOffset+8*i, 8))
}

func pair(b []byte) [2]int32 {
	return [2]int32{int32(binary.LittleEndian.Uint32(b)), int32(binary.LittleEndian.Uint32(b[4:]))}
}

// ledger returns the first counters of the ledger of a data object, or nil.
func (w *world) ledger(id sheep.VDIID, i uint32) []int32 {
	o, ok := w.objects[sheep.DataObject(id, i).Ledger()]
	if !ok {
		return nil
	}
	b := make([]byte, 16)
	o.read(b, 0)
	a, c := pair(b), pair(b[8:])
	return []int32{a[0], a[1], c[0], c[1]}
}

// store writes stamp at the start of block i as QEMU writes: in place, as a new
// object, or as a copy of another VDI's object.
func (g *gateway) store(id sheep.VDIID, i uint32, stamp uint64) error {
	ctx := context.Background()
	p := make([]byte, 4)
	if err := g.guard.Read(ctx, sheep.Ref{ID: sheep.InodeObject(id)}, p, proto.MapOffset+4*i); err != nil {
		return err
	}
	owner := sheep.VDIID(binary.LittleEndian.Uint32(p))
	w := sheep.Write{Off: 8 * uint32(stamp%7), Data: binary.LittleEndian.AppendUint64(nil, stamp), Create: owner != id}
	if owner != 0 && owner != id {
		w.From = &sheep.Ref{ID: sheep.DataObject(owner, i)}
	}
	if err := g.guard.Write(ctx, sheep.Ref{ID: sheep.DataObject(id, i)}, &w); err != nil || owner == id {
		return err
	}
	return g.setSlot(id, i, id)
}

// load returns what block i holds, as store writes it.
func (g *gateway) load(id sheep.VDIID, i uint32) (block [64]byte, err error) {
	owner := g.slot(id, i)
	if owner == 0 {
		return block, nil
	}
	err = g.guard.Read(context.Background(), sheep.Ref{ID: sheep.DataObject(owner, i)}, block[:], 0)
	return block, err
}

// objectsOf returns the objects of a kind.
func (w *world) objectsOf(k sheep.Kind) []sheep.ObjectID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []sheep.ObjectID
	for id := range w.objects {
		if id.Kind() == k {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// leaks returns what a sweep finds.
func (w *world) leaks() []sheep.ObjectID {
	w.t.Helper()
	s := vdi.NewSweep()
	for _, v := range w.VDIs() {
		if err := s.Add(context.Background(), w.gateways[0], v); err != nil {
			w.t.Fatal(err)
		}
	}
	return slices.Sorted(s.All(maps.Keys(w.objects)))
}
