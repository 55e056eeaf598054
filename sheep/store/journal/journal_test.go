package journal_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
	"sheepdog/sheep/store/vfs/vfstest"
)

const (
	dir        = "journal"
	segment    = journal.MinSegmentSize
	blocksFrom = 8192 // where the first block of a segment begins
)

var config = journal.Config{SegmentSize: segment, Segments: 3}

func newDisk(t *testing.T) *vfstest.Memory {
	t.Helper()
	disk := vfstest.NewMemory(1 << 40)
	if err := disk.Mkdir(dir); err != nil {
		t.Fatal(err)
	}
	return disk
}

// open opens the journal and returns what it replays.
func open(t *testing.T, disk vfs.FS, cfg journal.Config) (*journal.Journal, []journal.Record) {
	t.Helper()
	j, records, err := tryOpen(disk, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return j, records
}

func tryOpen(disk vfs.FS, cfg journal.Config) (*journal.Journal, []journal.Record, error) {
	j, err := journal.Open(disk, dir, cfg, false)
	if err != nil {
		return nil, nil, err
	}
	var records []journal.Record
	err = j.Replay(func(r journal.Record) error {
		r.Data = slices.Clone(r.Data)
		records = append(records, r)
		return nil
	})
	return j, records, err
}

func start(t *testing.T, disk vfs.FS, cfg journal.Config) *journal.Journal {
	t.Helper()
	j, _ := open(t, disk, cfg)
	if err := j.Start(); err != nil {
		t.Fatal(err)
	}
	return j
}

// add appends a record with n bytes of data and returns its number.
func add(t *testing.T, j *journal.Journal, n int) uint64 {
	t.Helper()
	seq, err := j.Append(&journal.Record{Kind: journal.Write, ID: 1, Data: make([]byte, n)})
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func wait(t *testing.T, j *journal.Journal, seq uint64) {
	t.Helper()
	if err := j.Wait(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
}

func closeJournal(t *testing.T, j *journal.Journal, clean bool) {
	t.Helper()
	if err := j.Close(clean); err != nil {
		t.Error(err)
	}
}

// wantRecords checks that the numbers run from first to last without a gap.
func wantRecords(t *testing.T, got []journal.Record, first, last uint64) {
	t.Helper()
	for _, r := range got {
		if r.Seq != first {
			t.Fatalf("got record %d, want %d", r.Seq, first)
		}
		first++
	}
	if first != last+1 {
		t.Errorf("the records end with %d, want %d", first-1, last)
	}
}

func TestRecordsThatSomebodyWaitedForComeBack(t *testing.T) {
	disk := newDisk(t)
	j := start(t, disk, config)
	for i := range 10 {
		add(t, j, i)
	}
	wait(t, j, 10)
	add(t, j, 1)
	after := disk.Crash(nil)
	closeJournal(t, j, false)
	_, records := open(t, after, config)
	wantRecords(t, records, 1, 10)
	for i, r := range records {
		if r.Kind != journal.Write || len(r.Data) != i {
			t.Errorf("record %d: got %v with %d bytes, want %d", r.Seq, r.Kind, len(r.Data), i)
		}
	}
}

func TestCleanCloseLeavesNothingToReplay(t *testing.T) {
	disk := newDisk(t)
	j := start(t, disk, config)
	wait(t, j, add(t, j, 100))
	closeJournal(t, j, true)
	j, records := open(t, disk, config)
	wantRecords(t, records, 1, 0)
	if err := j.Start(); err != nil {
		t.Fatal(err)
	}
	if seq := add(t, j, 1); seq != 2 {
		t.Errorf("got number %d after reopening, want 2", seq)
	}
	closeJournal(t, j, false)
}

func TestDiscardVoidsWhatIsThere(t *testing.T) {
	disk := newDisk(t)
	j := start(t, disk, config)
	wait(t, j, add(t, j, 100))
	after := disk.Crash(nil)
	closeJournal(t, j, false)
	j, err := journal.Open(after, dir, config, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j, false)
	_, records := open(t, after, config)
	wantRecords(t, records, 1, 0)
}

// TestAJournalIsThereAfterACrashWhileItWasMade cuts the power at every step of
// the first start. A segment's header says how long the file is, so the file
// must be that long before the header is written.
func TestAJournalIsThereAfterACrashWhileItWasMade(t *testing.T) {
	disk := newDisk(t)
	var disks []*vfstest.Memory
	j := start(t, vfstest.Hooked(disk, func(vfstest.Op, string) error {
		for seed := range uint64(20) {
			disks = append(disks, disk.Crash(rand.New(rand.NewPCG(seed, uint64(len(disks))))))
		}
		return nil
	}), config)
	made := slices.Clip(disks)
	closeJournal(t, j, false)
	for i, d := range made {
		j, records, err := tryOpen(d, config)
		if err == nil {
			err = j.Start()
		}
		if err != nil {
			t.Fatalf("crash %d: %v", i, err)
		}
		wantRecords(t, records, 1, 0)
		closeJournal(t, j, false)
	}
}

// image returns the content of the first segment.
func image(t *testing.T, disk vfs.FS) []byte {
	t.Helper()
	f, err := disk.Open(dir+"/0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, segment)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, disk vfs.FS, b []byte, off int64) {
	t.Helper()
	f, err := disk.Open(dir+"/0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// fourBlocks returns a disk with a journal of four blocks of one record each,
// and where they end.
func fourBlocks(t *testing.T) (*vfstest.Memory, []int) {
	t.Helper()
	disk := newDisk(t)
	j := start(t, disk, config)
	var ends []int
	end := blocksFrom
	for n := range 4 {
		wait(t, j, add(t, j, 8*n))
		end += 48 + journal.RecordHeaderSize + 8*n
		ends = append(ends, end)
	}
	after := disk.Crash(nil)
	closeJournal(t, j, false)
	return after, ends
}

func TestReplayEndsAtATornTail(t *testing.T) {
	disk, ends := fourBlocks(t)
	for cut := blocksFrom; cut <= ends[3]; cut++ {
		torn := disk.Crash(nil)
		put(t, torn, make([]byte, ends[3]-cut), int64(cut))
		want := uint64(0)
		for _, end := range ends {
			if cut >= end {
				want++
			}
		}
		_, records, err := tryOpen(torn, config)
		if err != nil {
			// Zeroes at the end of the last block may be what was there.
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if uint64(len(records)) < want {
			t.Fatalf("cut at %d: got %d records, want %d", cut, len(records), want)
		}
		wantRecords(t, records, 1, uint64(len(records)))
	}
}

func TestDamageBelowWhatIsKnownDurableIsAnError(t *testing.T) {
	disk, ends := fourBlocks(t)
	for off := blocksFrom; off < ends[3]; off++ {
		damaged := disk.Crash(nil)
		damaged.Corrupt(dir+"/0", int64(off), 0x10)
		_, records, err := tryOpen(damaged, config)
		if off >= ends[2] {
			// Nothing tells the last block from one that was never finished.
			if err != nil {
				t.Fatalf("damage at %d in the last block: %v", off, err)
			}
			wantRecords(t, records, 1, 3)
			continue
		}
		if !errors.Is(err, journal.ErrMalformed) {
			t.Fatalf("damage at %d: got error %v, want %v", off, err, journal.ErrMalformed)
		}
		start := blocksFrom
		for _, end := range ends {
			if off < end {
				break
			}
			start = end
		}
		if want := fmt.Sprintf("segment 0, offset %d", start); !strings.Contains(err.Error(), want) {
			t.Fatalf("damage at %d: the error %q does not say %q", off, err, want)
		}
	}
}

func TestDamagedHeaderOfALiveSegmentIsAnError(t *testing.T) {
	disk, _ := fourBlocks(t)
	for off := range 48 {
		damaged := disk.Crash(nil)
		damaged.Corrupt(dir+"/0", int64(off), 0x10)
		if _, _, err := tryOpen(damaged, config); !errors.Is(err, journal.ErrMalformed) {
			t.Errorf("damage at %d: got error %v, want %v", off, err, journal.ErrMalformed)
		}
	}
}

func TestMissingSegmentIsAnError(t *testing.T) {
	disk := newDisk(t)
	cfg := config
	cfg.Segments = 6 // too many for a checkpoint
	j := start(t, disk, cfg)
	for range 10 { // two segments and a bit
		wait(t, j, add(t, j, 60000))
	}
	after := disk.Crash(nil)
	closeJournal(t, j, false)
	if err := after.Remove(dir + "/1"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tryOpen(after, cfg); !errors.Is(err, journal.ErrMalformed) {
		t.Errorf("got error %v, want %v", err, journal.ErrMalformed)
	}
}

func TestClientDataThatLooksLikeABlockIsNotReplayed(t *testing.T) {
	disk, ends := fourBlocks(t)
	// The stale block of another life of the segment, right where the next
	// one would be.
	stale := image(t, disk)[blocksFrom:ends[0]]
	put(t, disk, stale, int64(ends[3]))
	_, records := open(t, disk, config)
	wantRecords(t, records, 1, 4)
}

func TestJournalStaysWithinItsSegments(t *testing.T) {
	disk := newDisk(t)
	cfg := config
	var mu sync.Mutex
	var checkpoints []uint64
	cfg.Checkpoint = func(upTo uint64) error {
		mu.Lock()
		defer mu.Unlock()
		checkpoints = append(checkpoints, upTo)
		return nil
	}
	j := start(t, disk, cfg)
	var last uint64
	for range 100 {
		last = add(t, j, 30000)
	}
	wait(t, j, last)
	after := disk.Crash(nil)
	mu.Lock()
	if len(checkpoints) < 3 || !slices.IsSorted(checkpoints) {
		t.Errorf("got checkpoints %d, want several, ascending", checkpoints)
	}
	mu.Unlock()
	tail := j.Tail()
	closeJournal(t, j, false)
	names, err := after.List(dir)
	if err != nil || len(names) != cfg.Segments {
		t.Errorf("got files %v, %v, want %d", names, err, cfg.Segments)
	}
	_, records := open(t, after, cfg)
	if len(records) == 0 || records[0].Seq > tail {
		t.Fatalf("got %d records, the tail is %d", len(records), tail)
	}
	wantRecords(t, records, records[0].Seq, last)
}

func TestAppendersWaitForTheCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		cfg := config
		release := make(chan struct{})
		cfg.Checkpoint = func(uint64) error { <-release; return nil }
		j := start(t, disk, cfg)
		const n, size = 60, 30000
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range n {
				add(t, j, size)
			}
		}()
		synctest.Wait()
		if got, limit := int(j.Last())*size, 4*segment; got > limit {
			t.Errorf("%d bytes were accepted while nothing could be checkpointed, want at most %d", got, limit)
		}
		select {
		case <-done:
			t.Error("the appender did not wait")
		default:
		}
		close(release)
		<-done
		wait(t, j, n)
		closeJournal(t, j, false)
	})
}

func TestHeadComesBackWithEverySegment(t *testing.T) {
	disk := newDisk(t)
	ids := []sheep.ObjectID{3, 1, 2}
	cfg := config
	cfg.Head = journal.HotRecords(ids)
	j := start(t, disk, cfg)
	for range 20 {
		wait(t, j, add(t, j, 60000))
	}
	after := disk.Crash(nil)
	closeJournal(t, j, false)
	_, records := open(t, after, cfg)
	if r := records[0]; r.Kind != journal.Hot || r.Seq != 0 || !slices.Equal(slices.Collect(r.HotIDs), ids) {
		t.Errorf("got first %v record %d with %d bytes, want the head with %v", r.Kind, r.Seq, len(r.Data), ids)
	}
}

func TestSizesMayChangeAfterACrash(t *testing.T) {
	disk := newDisk(t)
	cfg := config
	cfg.Segments = 4 // too many for a checkpoint
	j := start(t, disk, cfg)
	for range 6 {
		wait(t, j, add(t, j, 60000))
	}
	after := disk.Crash(nil)
	closeJournal(t, j, false)
	cfg = journal.Config{SegmentSize: 2 * segment, Segments: 5}
	j, records := open(t, after, cfg)
	wantRecords(t, records, 1, 6)
	if err := j.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, j, add(t, j, 10))
	closeJournal(t, j, false)
	names, err := after.List(dir)
	if err != nil || len(names) != 5 {
		t.Errorf("got files %v, %v, want 5", names, err)
	}
	for _, name := range names {
		f, err := after.Open(dir+"/"+name, 0)
		if err != nil {
			t.Fatal(err)
		}
		if size, err := f.Size(); err != nil || size != 2*segment {
			t.Errorf("segment %s: got %d bytes, %v, want %d", name, size, err, 2*segment)
		}
	}
	_, records = open(t, after, cfg)
	wantRecords(t, records, 7, 7)
}

func TestFailureIsForGood(t *testing.T) {
	for _, op := range []vfstest.Op{vfstest.OpWrite, vfstest.OpDataSync} {
		t.Run(string(op), func(t *testing.T) {
			var mu sync.Mutex
			armed, calls := false, 0
			disk := vfstest.Hooked(newDisk(t), func(o vfstest.Op, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if !armed || o != op {
					return nil
				}
				calls++
				return syscall.EIO
			})
			j := start(t, disk, config)
			wait(t, j, add(t, j, 10))
			mu.Lock()
			armed = true
			mu.Unlock()
			seq := add(t, j, 10)
			told := make(chan error, 1)
			j.Notify(seq, func(err error) { told <- err })
			for name, err := range map[string]error{
				"Wait":   j.Wait(t.Context(), seq),
				"Notify": <-told,
				"Err":    j.Err(),
			} {
				if !errors.Is(err, sheep.ErrIO) || !errors.Is(err, syscall.EIO) {
					t.Errorf("%s: got error %v, want %v", name, err, sheep.ErrIO)
				}
			}
			if _, err := j.Append(&journal.Record{Kind: journal.Remove}); !errors.Is(err, sheep.ErrIO) {
				t.Errorf("Append: got error %v, want %v", err, sheep.ErrIO)
			}
			if err := j.Wait(t.Context(), 1); err != nil {
				t.Errorf("Wait for what was durable before: %v", err)
			}
			if calls != 1 {
				t.Errorf("the failing call was made %d times, want 1", calls)
			}
			if err := j.Close(true); !errors.Is(err, sheep.ErrIO) {
				t.Errorf("Close: got error %v, want %v", err, sheep.ErrIO)
			}
		})
	}
}

func TestFailedCheckpointFailsTheJournal(t *testing.T) {
	cfg := config
	cfg.Checkpoint = func(uint64) error { return io.ErrUnexpectedEOF }
	j := start(t, newDisk(t), cfg)
	var err error
	for err == nil {
		_, err = j.Append(&journal.Record{Kind: journal.Write, Data: make([]byte, 60000)})
	}
	if !errors.Is(err, sheep.ErrIO) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got error %v, want %v with its cause", err, sheep.ErrIO)
	}
	_ = j.Close(false)
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		disk := newDisk(t)
		var armed bool
		var mu sync.Mutex
		hooked := vfstest.Hooked(disk, func(op vfstest.Op, _ string) error {
			mu.Lock()
			wait := armed && op == vfstest.OpDataSync
			mu.Unlock()
			if wait {
				<-block
			}
			return nil
		})
		j := start(t, hooked, config)
		mu.Lock()
		armed = true
		mu.Unlock()
		ctx, cancel := context.WithCancelCause(t.Context())
		seq := add(t, j, 10)
		done := make(chan error)
		go func() { done <- j.Wait(ctx, seq) }()
		synctest.Wait()
		cancel(io.ErrClosedPipe)
		if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got error %v, want the cause %v", err, io.ErrClosedPipe)
		}
		close(block)
		wait(t, j, seq)
		closeJournal(t, j, false)
	})
}

func TestManyAppendersShareCommits(t *testing.T) {
	var mu sync.Mutex
	syncs := 0
	disk := vfstest.Hooked(newDisk(t), func(op vfstest.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == vfstest.OpDataSync {
			syncs++
		}
		return nil
	})
	j := start(t, disk, config)
	before := syncs
	// Everything is appended before the first one waits.
	for range 1000 {
		add(t, j, 10)
	}
	var wg sync.WaitGroup
	for seq := range uint64(1000) {
		wg.Go(func() { wait(t, j, seq+1) })
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if got := syncs - before; got > 100 {
		t.Errorf("1000 records took %d syncs", got)
	}
	closeJournal(t, j, false)
}
