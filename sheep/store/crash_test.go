package store_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/store"
	"sheepdog/sheep/store/vfs/vfstest"
)

const (
	modelSize  = 160 << 10
	sectorSize = 512
)

// A version is what an object was at one moment.
type version struct {
	exists bool
	epoch  sheep.Epoch
	data   []byte // shared by copies; replaced, not changed
}

// A history is what an object may be after a crash.
type history struct {
	versions []version // the last one is what the object is now
	durable  []int     // for each sector the index of a durable version; it is of that or of a later one
	answered int       // likewise for existence and epoch, which deferred writes make durable, too
	hot      bool      // a change was answered, so the intent log names the object
}

// A model knows what a store must hold.
type model struct {
	mu      sync.Mutex
	objects map[sheep.ObjectID]history
}

func (m *model) snapshot() map[sheep.ObjectID]history {
	out := make(map[sheep.ObjectID]history)
	for id, h := range m.objects {
		h.versions = slices.Clip(h.versions)
		h.durable = slices.Clone(h.durable)
		out[id] = h
	}
	return out
}

// start notes that the object is about to become v.
func (m *model) start(id sheep.ObjectID, v version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.objects[id]
	if h.versions == nil {
		h.versions = []version{{}}
		h.durable = make([]int, modelSize/sectorSize)
	}
	h.versions = append(h.versions, v)
	m.objects[id] = h
}

// end notes that the last change of the object was answered, durable in n
// bytes at off, or in all if the object was made, removed or installed.
func (m *model) end(id sheep.ObjectID, off, n int, all, hot bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.objects[id]
	h.answered = len(h.versions) - 1
	h.hot = h.hot || hot
	for i := off / sectorSize; i < (off+n)/sectorSize; i++ {
		h.durable[i] = h.answered
	}
	if all {
		h.settle()
	}
	m.objects[id] = h
}

// settle notes that all is durable.
func (h *history) settle() {
	h.versions = slices.Clone(h.versions[len(h.versions)-1:])
	h.answered = 0
	clear(h.durable)
}

func (m *model) now(id sheep.ObjectID) version {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.objects[id]; len(h.versions) > 0 {
		return h.versions[len(h.versions)-1]
	}
	return version{}
}

// check compares a store with what it may be.
func check(t *testing.T, s *store.Store, want map[sheep.ObjectID]history) {
	t.Helper()
	intents := s.Intents()
	for id, h := range want {
		if h.hot && !slices.Contains(intents, id) {
			t.Errorf("%v was written, but the intent log does not name it", id)
		}
		info, err := s.Stat(id)
		// Of a creation that was not answered the file may be there and nothing else.
		begun := h.begun()
		matches := func(v version) bool {
			return v.exists == (err == nil) && (v.epoch == info.WriteEpoch || begun && info.WriteEpoch == 0)
		}
		if !slices.ContainsFunc(h.versions[h.answered:], matches) {
			t.Errorf("%v: got %v, %v, want one of %s", id, info, err, describe(h.versions[h.answered:]))
			continue
		}
		if err != nil {
			continue
		}
		got := make([]byte, modelSize)
		if err := s.Read(id, 0, got, 0); err != nil {
			t.Error(err)
			continue
		}
		checkSectors(t, id, got, h)
	}
}

func checkSectors(t *testing.T, id sheep.ObjectID, got []byte, h history) {
	t.Helper()
	for off := 0; off < modelSize; off += sectorSize {
		sector := got[off : off+sectorSize]
		if h.begun() && isZero(sector) {
			continue
		}
		if !slices.ContainsFunc(h.versions[h.durable[off/sectorSize]:], func(v version) bool {
			return v.exists && bytes.Equal(v.data[off:off+sectorSize], sector)
		}) {
			t.Errorf("%v: the sector at %d is %x…, want one of %s", id, off, sector[:8], describe(h.versions[h.durable[off/sectorSize]:]))
			return
		}
	}
}

// begun reports whether the creation of the object was not answered.
func (h history) begun() bool {
	n := len(h.versions)
	return n > 1 && h.answered == n-2 && !h.versions[n-2].exists && h.versions[n-1].exists
}

func isZero(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }

func describe(versions []version) string {
	var b bytes.Buffer
	for _, v := range versions {
		fmt.Fprintf(&b, "{%t %d} ", v.exists, v.epoch)
	}
	return b.String()
}

// A worker changes some objects at random.
type worker struct {
	t     *testing.T
	s     *store.Store
	m     *model
	rng   *rand.Rand
	vdi   sheep.VDIID
	epoch *atomic.Uint32
}

func (w *worker) run(steps int) {
	for range steps {
		if w.rng.IntN(40) == 0 {
			w.epoch.Add(1)
		}
		if w.t.Failed() {
			return
		}
		w.step(sheep.DataObject(w.vdi, w.rng.Uint32N(4)), sheep.Epoch(w.epoch.Load()))
	}
}

func (w *worker) step(id sheep.ObjectID, epoch sheep.Epoch) {
	now := w.m.now(id)
	switch n := w.rng.IntN(20); {
	case n == 0:
		w.flush()
	case !now.exists && n < 4:
		w.install(id, epoch)
	case !now.exists || n == 1:
		w.write(id, epoch, version{true, epoch, make([]byte, modelSize)}, w.change(true))
	case n == 2:
		w.remove(id, epoch)
	case n == 3:
		w.install(id, epoch)
	default:
		now.epoch = max(now.epoch, epoch)
		w.write(id, epoch, now, w.change(false))
	}
}

// change returns a random change.
func (w *worker) change(create bool) *sheep.Write {
	c := &sheep.Write{Create: create, Durable: w.rng.IntN(3) == 0}
	if create && w.rng.IntN(4) == 0 {
		return c
	}
	sectors := 1 + w.rng.Uint32N(20)
	if w.rng.IntN(4) == 0 {
		sectors = 100 + w.rng.Uint32N(modelSize/sectorSize-100)
	}
	n := sectors * sectorSize
	c.Off = w.rng.Uint32N(modelSize/sectorSize-sectors+1) * sectorSize
	if !create && w.rng.IntN(5) == 0 {
		c.Zero = n
	} else {
		c.Data = w.bytes(int(n))
	}
	return c
}

func (w *worker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], w.rng.Uint64())
	}
	if w.rng.IntN(3) == 0 {
		clear(b[n/3 : n/2])
	}
	return b
}

func (w *worker) write(id sheep.ObjectID, epoch sheep.Epoch, to version, c *sheep.Write) {
	to.data = bytes.Clone(to.data)
	clear(to.data[c.Off : c.Off+c.Zero])
	copy(to.data[c.Off:], c.Data)
	w.m.start(id, to)
	commit, err := w.s.Write(id, modelSize, epoch, c)
	if err == nil {
		err = w.wait(commit)
	}
	if err != nil {
		w.t.Error(err)
		return
	}
	n := 0
	if c.Durable {
		n = int(c.Len())
	}
	w.m.end(id, int(c.Off), n, c.Create, true)
}

func (w *worker) wait(c store.Commit) error {
	if w.rng.IntN(2) == 0 {
		return c.Wait(w.t.Context())
	}
	done := make(chan error, 1)
	c.Notify(func(err error) { done <- err })
	return <-done
}

func (w *worker) remove(id sheep.ObjectID, epoch sheep.Epoch) {
	w.m.start(id, version{})
	commit, err := w.s.Remove(id, epoch)
	if err == nil {
		err = w.wait(commit)
	}
	if err != nil {
		w.t.Error(err)
		return
	}
	w.m.end(id, 0, 0, true, true)
}

func (w *worker) install(id sheep.ObjectID, epoch sheep.Epoch) {
	to := version{true, epoch - sheep.Epoch(w.rng.IntN(2)), w.bytes(modelSize)}
	w.m.start(id, to)
	err := w.s.Install(w.t.Context(), id, modelSize, to.epoch, func(f io.WriterAt) error {
		for off := 0; off < modelSize; off += 32 << 10 {
			if _, err := f.WriteAt(to.data[off:off+32<<10], int64(off)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
		return
	}
	w.m.end(id, 0, 0, true, false)
}

func (w *worker) flush() {
	if err := w.s.Flush(w.t.Context(), w.vdi); err != nil {
		w.t.Error(err)
		return
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for id, h := range w.m.objects {
		if id.VDI() == w.vdi {
			h.settle() // this worker is the only one to change them
			w.m.objects[id] = h
		}
	}
}

// A moment is a disk after a crash and what a store on it may be.
type moment struct {
	disk *vfstest.Memory
	want map[sheep.ObjectID]history
}

func TestWhatWasAnsweredLivesThroughACrash(t *testing.T) {
	for round := range 2 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %#x", seed), func(t *testing.T) {
			crashes(t, rand.New(rand.NewPCG(seed, uint64(round))))
		})
	}
}

// crashes runs workers, keeps the disk as it would be after crashes at random
// moments, and looks at all of them.
func crashes(t *testing.T, rng *rand.Rand) {
	disk := vfstest.NewMemory(1 << 40)
	m := &model{objects: map[sheep.ObjectID]history{}}
	var moments []moment
	var over bool
	hook := func(op vfstest.Op, name string) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !over && rng.IntN(100) == 0 && len(moments) < 25 {
			moments = append(moments, moment{disk.Crash(pick(rng)), m.snapshot()})
		}
		return nil
	}
	cfg := small
	cfg.Handles = 8
	cfg.FS = vfstest.Hooked(disk, hook)
	s := openStore(t, "", cfg)
	var epoch atomic.Uint32
	epoch.Store(2)
	var wg sync.WaitGroup
	for i := range 3 {
		m.mu.Lock() // the hook draws from rng, too
		w := &worker{t, s, m, rand.New(rand.NewPCG(rng.Uint64(), 1)), sheep.VDIID(i + 1), &epoch}
		m.mu.Unlock()
		wg.Go(func() { w.run(250) })
	}
	wg.Wait()
	m.mu.Lock()
	moments = append(moments, moment{disk.Crash(pick(rng)), m.snapshot()})
	over = true
	m.mu.Unlock()
	check(t, s, last(m.snapshot()))
	if err := s.Close(true); err != nil {
		t.Fatal(err)
	}
	for i := range moments {
		if t.Failed() {
			t.Logf("moment %d of %d", i, len(moments))
			return
		}
		revive(t, rng, moments[i])
	}
}

// pick returns rng, or nil for a crash that loses all that was not synced.
func pick(rng *rand.Rand) *rand.Rand {
	if rng.IntN(3) == 0 {
		return nil
	}
	return rng
}

// last reduces histories to what the objects are now.
func last(in map[sheep.ObjectID]history) map[sheep.ObjectID]history {
	for id, h := range in {
		h.settle()
		in[id] = h
	}
	return in
}

// cold is histories without intents.
func cold(in map[sheep.ObjectID]history) map[sheep.ObjectID]history {
	out := make(map[sheep.ObjectID]history)
	for id, h := range in {
		h.hot = false
		out[id] = h
	}
	return out
}

// revive opens the store on a disk after a crash, crashes while it is being
// opened, and opens it again.
func revive(t *testing.T, rng *rand.Rand, mo moment) {
	t.Helper()
	disks := []*vfstest.Memory{mo.disk}
	var opened bool
	var mu sync.Mutex
	cfg := small
	cfg.FS = vfstest.Hooked(mo.disk, func(vfstest.Op, string) error {
		mu.Lock()
		defer mu.Unlock()
		if !opened && len(disks) < 3 && rng.IntN(60) == 0 {
			disks = append(disks, mo.disk.Crash(pick(rng)))
		}
		return nil
	})
	s := openStore(t, "", cfg)
	mu.Lock()
	opened = true
	mu.Unlock()
	check(t, s, mo.want)
	if err := s.Close(true); err != nil {
		t.Fatal(err)
	}
	for i, disk := range disks {
		cfg.FS = disk
		s := openStore(t, "", cfg)
		want := mo.want
		if i == 0 { // it was closed clean, so it has no intents
			want = cold(want)
		}
		check(t, s, want)
		if err := s.Close(false); err != nil {
			t.Fatal(err)
		}
	}
}
