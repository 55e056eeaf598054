package tests_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

// remadeSize is how much of an object a remaker fills; the rest is zero.
const remadeSize = 4 * load.BlockSize

// A remaker creates the objects of a disk again and again, each time with
// another content, as a client does that discards and writes. After a loss of
// power an object is what it was made into last, or what it was being made
// into, and never anything between.
type remaker struct {
	seed   uint64
	vid    uint32
	made   atomic.Int64
	states []remade // of each object; one goroutine's at a time
}

// A remade is what is known of one object. Versions begin at 1.
type remade struct{ top, acked uint64 }

func newRemaker(t *testing.T, c *harness.Cluster, seed uint64) *remaker {
	t.Helper()
	const name, objects = "anew", 24
	c.Dog("vdi", "create", name, fmt.Sprintf("%dM", 4*objects))
	d := open(t, c, name)
	defer d.Close()
	r := &remaker{seed: seed, states: make([]remade, objects)}
	vid, err := native.Ask(t.Context(), c.Nodes[0].Addr(), func(ctx context.Context, conn *native.Conn) (uint32, error) {
		return native.LookUp(ctx, conn, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.vid = vid
	for i := range r.states { // so that the map has them
		r.states[i] = remade{top: 1, acked: 1}
		if err := d.WriteAt(t.Context(), r.content(i, 1), int64(i)*d.ObjectSize()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// start makes objects anew until ctx is done or the connection is lost. What
// it returns waits for the end.
func (r *remaker) start(ctx context.Context, t *testing.T, c *harness.Cluster) (wait func()) {
	t.Helper()
	conn, err := native.Dial(ctx, c.Nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range r.states {
		wg.Go(func() {
			for {
				err := r.remake(ctx, conn, i)
				if errors.Is(err, native.ErrLost) || ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("make object %d anew: %v", i, err)
					return
				}
			}
		})
	}
	return func() { wg.Wait(); conn.Close() }
}

func (r *remaker) remake(ctx context.Context, conn *native.Conn, i int) error {
	s := &r.states[i]
	s.top++
	resp, err := conn.Do(ctx, &native.Request{
		Op: native.OpCreateAndWrite, Flags: native.FlagWrite | native.FlagDirect, Data: r.content(i, s.top),
		Body: native.ObjectBody(native.DataID(r.vid, uint32(i)), 0, 3, 0),
	})
	if err == nil {
		err = resp.Err()
	}
	if err == nil {
		s.acked = s.top
		r.made.Add(1)
	}
	return err
}

// content returns version v of an object.
func (r *remaker) content(i int, v uint64) []byte {
	p := make([]byte, remadeSize)
	for b := 0; b < len(p); b += load.BlockSize {
		load.Fill(p[b:b+load.BlockSize], r.seed, int64(i*remadeSize+b), v)
	}
	return p
}

// verify reads the objects through every node, each of which has a copy.
func (r *remaker) verify(t *testing.T, c *harness.Cluster) {
	t.Helper()
	for n, node := range c.Nodes {
		d, err := native.Open(t.Context(), native.Config{Servers: []string{node.Addr()}}, "anew")
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.states {
			p := make([]byte, remadeSize)
			if err := d.ReadAt(t.Context(), p, int64(i)*d.ObjectSize()); err != nil {
				t.Fatal(err)
			}
			r.judge(t, n, i, p)
		}
		d.Close()
	}
}

// judge fails the test unless p is a version that may be seen, and from then
// on the only one.
func (r *remaker) judge(t *testing.T, node, i int, p []byte) {
	t.Helper()
	s := &r.states[i]
	for v := s.top; v >= s.acked; v-- {
		if slices.Equal(p, r.content(i, v)) {
			*s = remade{top: v, acked: v}
			return
		}
	}
	t.Errorf("object %d, read through node %d, is none of the versions %d to %d; it begins with % x", i, node, s.acked, s.top, p[:32])
}
