package tests_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/history"
	"sheepdog/tests/native"
)

const (
	sharedDisk  = "shared"
	sharedSize  = 8 << 20
	sharedBlock = 4096
	hotBlocks   = 8                // that are in use at a time
	hotFor      = 20 * time.Second // after which others are: histories of single blocks must not become too long
)

// witnesses are clients at different gateways that write and read the same few
// blocks of one disk, and keep a record of it.
type witnesses struct {
	t        *testing.T
	h        *harness.Hosts
	recorder *history.Recorder
	seed     uint64
	vid      uint32
	running  sync.WaitGroup

	mu      sync.Mutex
	errs    []error
	refused map[string]int // answers that are neither success nor silence
}

// newWitnesses makes a disk, every block of which begins as value 0.
func newWitnesses(t *testing.T, h *harness.Hosts, seed uint64) *witnesses {
	t.Helper()
	h.Dog(0, make([]byte, sharedSize), "vdi", "create", sharedDisk, fmt.Sprint(sharedSize))
	dev, err := native.Open(t.Context(), native.Config{Servers: socks(h, 2)}, sharedDisk)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := dev.WriteAt(t.Context(), make([]byte, sharedSize), 0); err != nil {
		t.Fatal(err)
	}
	vid, err := native.Ask(t.Context(), h.Nodes[0].Sock(), func(ctx context.Context, c *native.Conn) (uint32, error) {
		return native.LookUp(ctx, c, sharedDisk)
	})
	if err != nil {
		t.Fatal(err)
	}
	return &witnesses{t: t, h: h, recorder: history.NewRecorder(), seed: seed, vid: vid, refused: map[string]int{}}
}

// start starts two clients, each of which does two things at a time, until stop
// is closed.
func (w *witnesses) start(ctx context.Context, stop <-chan struct{}) {
	for c := range 4 {
		w.running.Go(func() {
			x := &witness{w: w, id: c, servers: socks(w.h, 2+c/2)}
			defer x.drop()
			if err := x.run(ctx, stop); err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.errs = append(w.errs, err)
			}
		})
	}
}

func (w *witnesses) finish(t *testing.T) {
	t.Helper()
	w.running.Wait()
	c := w.recorder.Counts()
	t.Logf("%d writes and %d reads at two gateways, %d writes without an answer; refusals: %v", c.Writes, c.Reads, c.Unknown, w.refused)
	if c.Writes == 0 || c.Reads == 0 {
		t.Error("that is no history")
	}
	if err := errors.Join(w.errs...); err != nil {
		t.Fatal(err)
	}
}

// check reads all blocks through all gateways, and then looks for an order in
// which all that was done and found makes sense.
func (w *witnesses) check(t *testing.T, h *harness.Hosts) {
	t.Helper()
	for i, n := range h.Nodes {
		x := &witness{w: w, id: 4 + i, servers: []string{n.Sock()}}
		defer x.drop()
		for b := range history.Block(sharedSize / sharedBlock) {
			if err := x.read(t.Context(), b); err != nil {
				t.Fatalf("read block %d through node %d: %v", b, i, err)
			}
		}
	}
	begin := time.Now()
	if err := w.recorder.Check(2*time.Minute, filepath.Join(t.ArtifactDir(), "history.html")); err != nil {
		t.Error(err)
	}
	t.Logf("looked for an order of the history for %v", time.Since(begin).Round(time.Millisecond))
}

// A witness makes one operation at a time. It tries none again: an operation
// without an answer has an unknown outcome, and the next is another one.
type witness struct {
	w       *witnesses
	id      int
	servers []string
	server  int
	conn    *native.Conn
}

func (x *witness) run(ctx context.Context, stop <-chan struct{}) error {
	rng := rand.New(rand.NewPCG(x.w.seed, uint64(100+x.id)))
	begin := time.Now()
	pause := time.NewTicker(4 * time.Millisecond) // a modest load
	defer pause.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-pause.C:
		}
		b := history.Block(rng.IntN(hotBlocks)) + hotBlocks*history.Block(time.Since(begin)/hotFor)
		b %= sharedSize / sharedBlock
		patience := time.Duration(20+rng.IntN(4000)) * time.Millisecond
		op, cancel := context.WithTimeout(ctx, patience)
		var err error
		if rng.IntN(2) == 0 {
			err = x.read(op, b)
		} else {
			err = x.write(op, b)
		}
		cancel()
		if errors.Is(err, errTorn) {
			return err
		}
		if err != nil {
			x.refusal(err)
			x.drop()
		}
	}
}

// refusal counts answers that say no. They are as good as none.
func (x *witness) refusal(err error) {
	if r, ok := errors.AsType[native.Result](err); ok {
		x.w.mu.Lock()
		defer x.w.mu.Unlock()
		x.w.refused[r.Error()]++
		if r != native.WaitForJoin { // which a sheep says that has just started
			x.w.t.Logf("client %d was refused by %s: %v", x.id, x.servers[x.server], err)
		}
	}
}

// object returns the object of a block, and where the block is in it. Neighbours
// are in different objects.
func (x *witness) place(b history.Block) (oid uint64, offset uint32) {
	const objects = sharedSize / (4 << 20)
	return native.DataID(x.w.vid, uint32(b%objects)), uint32(b/objects) * sharedBlock
}

func (x *witness) write(ctx context.Context, b history.Block) error {
	if err := x.connect(ctx); err != nil {
		return err
	}
	oid, offset := x.place(b)
	op, v := x.w.recorder.Write(x.id, b)
	data := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(v)), sharedBlock/8)
	resp, err := x.conn.Do(ctx, &native.Request{
		Op: native.OpWrite, Flags: native.FlagWrite | native.FlagDirect, Body: native.ObjectBody(oid, 0, 3, offset), Data: data,
	})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return fmt.Errorf("write block %d: %w", b, err)
	}
	op.Written()
	return nil
}

var errTorn = errors.New("a block holds pieces of several writes")

func (x *witness) read(ctx context.Context, b history.Block) error {
	if err := x.connect(ctx); err != nil {
		return err
	}
	oid, offset := x.place(b)
	op := x.w.recorder.Read(x.id, b)
	resp, err := x.conn.Do(ctx, &native.Request{
		Op: native.OpRead, Flags: native.FlagDirect, Body: native.ObjectBody(oid, 0, 3, offset), Into: make([]byte, sharedBlock),
	})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return fmt.Errorf("read block %d: %w", b, err)
	}
	v := binary.LittleEndian.Uint64(resp.Data)
	if len(resp.Data) != sharedBlock || !bytes.Equal(resp.Data, bytes.Repeat(resp.Data[:8], sharedBlock/8)) {
		return fmt.Errorf("block %d: %w: %d bytes, first %d", b, errTorn, len(resp.Data), v)
	}
	op.Found(history.Value(v))
	return nil
}

func (x *witness) drop() {
	if x.conn != nil {
		x.conn.Close()
		x.conn = nil
	}
	x.server = (x.server + 1) % len(x.servers)
}

func (x *witness) connect(ctx context.Context) (err error) {
	if x.conn == nil {
		x.conn, err = native.Dial(ctx, x.servers[x.server])
	}
	return err
}
