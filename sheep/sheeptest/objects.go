package sheeptest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"sheepdog/sheep"
)

// Objects checks that what newObjects returns keeps the contract of
// sheep.Objects.
func Objects(t *testing.T, newObjects func(t *testing.T) sheep.Objects) {
	t.Helper()
	t.Run("what is missing is not read, written or invented", func(t *testing.T) {
		o, ref := newObjects(t), dataRef(1)
		if err := o.Read(t.Context(), ref, make([]byte, 8), 0); !errors.Is(err, sheep.ErrNoObject) {
			t.Errorf("read: got %v, want %v", err, sheep.ErrNoObject)
		}
		if err := o.Write(t.Context(), ref, &sheep.Write{Data: []byte("x")}); !errors.Is(err, sheep.ErrNoObject) {
			t.Errorf("write: got %v, want %v", err, sheep.ErrNoObject)
		}
		if err := o.Remove(t.Context(), ref); err != nil && !errors.Is(err, sheep.ErrNoObject) {
			t.Errorf("remove: got %v, want nil or %v", err, sheep.ErrNoObject)
		}
	})
	t.Run("a created object is zero outside what was written", func(t *testing.T) {
		o, ref := newObjects(t), dataRef(2)
		write(t, o, ref, &sheep.Write{Off: 5000, Data: []byte("hello"), Create: true})
		want := make([]byte, ref.Size)
		copy(want[5000:], "hello")
		check(t, o, ref, want)
	})
	t.Run("creating an object again replaces it as a whole", func(t *testing.T) {
		o, ref := newObjects(t), dataRef(3)
		write(t, o, ref, &sheep.Write{Data: bytes.Repeat([]byte{7}, int(ref.Size)), Create: true})
		write(t, o, ref, &sheep.Write{Off: 100, Data: []byte("new"), Create: true})
		want := make([]byte, ref.Size)
		copy(want[100:], "new")
		check(t, o, ref, want)
	})
	t.Run("bytes past the end read as zero", func(t *testing.T) {
		o, ref := newObjects(t), dataRef(4)
		write(t, o, ref, &sheep.Write{Data: bytes.Repeat([]byte{7}, int(ref.Size)), Create: true})
		got := []byte{1, 1, 1, 1}
		if err := o.Read(t.Context(), ref, got, ref.Size-2); err != nil || !bytes.Equal(got, []byte{7, 7, 0, 0}) {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("a removed object is gone", func(t *testing.T) {
		o, ref := newObjects(t), dataRef(5)
		write(t, o, ref, &sheep.Write{Data: []byte("x"), Create: true})
		if err := o.Remove(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		if err := o.Read(t.Context(), ref, make([]byte, 1), 0); !errors.Is(err, sheep.ErrNoObject) {
			t.Errorf("read: got %v, want %v", err, sheep.ErrNoObject)
		}
	})
	t.Run("random writes and holes read as a byte slice would", func(t *testing.T) {
		randomWrites(t, newObjects(t))
	})
}

func randomWrites(t *testing.T, o sheep.Objects) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	ref := dataRef(6)
	model := make([]byte, ref.Size)
	write(t, o, ref, &sheep.Write{Create: true})
	for range 200 {
		off := rng.Uint32N(ref.Size)
		n := 1 + rng.Uint32N(min(ref.Size-off, 128<<10))
		if rng.IntN(4) == 0 {
			clear(model[off : off+n])
			write(t, o, ref, &sheep.Write{Off: off, Zero: n, Durable: rng.IntN(2) == 0})
			continue
		}
		p := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, int(n))
		copy(model[off:], p)
		write(t, o, ref, &sheep.Write{Off: off, Data: p, Durable: rng.IntN(2) == 0})
	}
	check(t, o, ref, model)
}

func dataRef(i uint32) sheep.Ref {
	return sheep.Ref{ID: sheep.DataObject(0x7c2b25, i), Policy: sheep.Replicated(3), Size: 1 << sheep.MinBlockShift}
}

func write(t *testing.T, o sheep.Objects, ref sheep.Ref, w *sheep.Write) {
	t.Helper()
	if err := o.Write(t.Context(), ref, w); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, o sheep.Objects, ref sheep.Ref, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := o.Read(t.Context(), ref, got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("object %v differs from what was written", ref.ID)
	}
}
