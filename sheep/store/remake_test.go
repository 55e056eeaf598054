package store_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/store/vfs/vfstest"
)

// TestAnObjectThatIsMadeAnewIsOldOrNewAfterACrash cuts the power at every step
// of a creation that replaces an object. Before it is answered the object is
// what it was or what it is to be, never an empty file under its name.
func TestAnObjectThatIsMadeAnewIsOldOrNewAfterACrash(t *testing.T) {
	for _, size := range []int{16 << 10, 100 << 10} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			id := sheep.DataObject(1, 0)
			old, anew := make([]byte, modelSize), make([]byte, modelSize)
			copy(old, bytes.Repeat([]byte{1}, modelSize))
			copy(anew, bytes.Repeat([]byte{2}, size))

			disk := vfstest.NewMemory(1 << 40)
			s, f := memoryStore(t, disk)
			write(t, s, id, 1, sheep.Write{Data: old, Create: true, Durable: true})
			var disks []*vfstest.Memory
			f.set(func(vfstest.Op, string) error {
				disks = append(disks, disk.Crash(nil))
				for seed := range uint64(20) {
					disks = append(disks, disk.Crash(rand.New(rand.NewPCG(seed, uint64(len(disks))))))
				}
				return nil
			})
			write(t, s, id, 1, sheep.Write{Data: anew[:size], Create: true, Durable: true})
			f.set(nil)
			answered := disk.Crash(nil)
			closeStore(t, s, false)

			for _, d := range disks {
				got := contentAfter(t, d, id)
				if i := slices.IndexFunc([][]byte{old, anew}, func(want []byte) bool { return bytes.Equal(got, want) }); i < 0 {
					t.Fatalf("after a crash on the way the object begins as % x", got[:16])
				}
			}
			if !bytes.Equal(contentAfter(t, answered, id), anew) {
				t.Error("what was answered is not there")
			}
		})
	}
}

// contentAfter returns what a store on the disk says that the object is.
func contentAfter(t *testing.T, disk *vfstest.Memory, id sheep.ObjectID) []byte {
	t.Helper()
	s := reopen(t, disk)
	defer closeStore(t, s, false)
	p := make([]byte, modelSize)
	if err := s.Read(id, 0, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAStampIsNeverAheadOfTheContent cuts the power at every step of a stamp:
// the object has the new epoch only if it has what was deferred before.
func TestAStampIsNeverAheadOfTheContent(t *testing.T) {
	for _, size := range []int{4 << 10, 100 << 10} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			id, data := sheep.DataObject(1, 0), bytes.Repeat([]byte{3}, size)
			disk := vfstest.NewMemory(1 << 40)
			s, f := memoryStore(t, disk)
			write(t, s, id, 1, sheep.Write{Data: make([]byte, modelSize), Create: true})
			write(t, s, id, 1, sheep.Write{Data: data})
			var disks []*vfstest.Memory
			f.set(func(vfstest.Op, string) error {
				for seed := range uint64(20) {
					disks = append(disks, disk.Crash(rand.New(rand.NewPCG(seed, uint64(len(disks))))))
				}
				return nil
			})
			if err := s.Stamp(t.Context(), id, 2); err != nil {
				t.Fatal(err)
			}
			f.set(nil)
			after := disk.Crash(nil)
			closeStore(t, s, false)
			stamped := 0
			for i, d := range append(disks, after) {
				s := reopen(t, d)
				info, err := s.Stat(id)
				if err != nil {
					t.Fatal(err)
				}
				if info.WriteEpoch == 2 {
					stamped++
					wantBytes(t, s, id, 0, data)
				}
				closeStore(t, s, false)
				if last := i == len(disks); last && info.WriteEpoch != 2 {
					t.Errorf("got epoch %d after the stamp, want 2", info.WriteEpoch)
				}
				if t.Failed() {
					t.Fatalf("crash %d of %d", i, len(disks))
				}
			}
			if stamped == 0 {
				t.Error("no crash was late enough")
			}
		})
	}
}
