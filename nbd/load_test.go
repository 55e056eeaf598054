package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/nbd"
)

func TestRandomRequestsAgainstAModel(t *testing.T) {
	const size = 4 << 20
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	m := newMemory(size)
	s := serve(t, exports{"a": m}, nbd.Config{MaxRequest: 512 << 10, MaxInFlight: 2 << 20})
	var wg sync.WaitGroup
	for worker := range 4 {
		// Each has a quarter of the disk for itself.
		c := s.open(t, "a", worker%2 == 0)
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
			if err := c.scribble(rnd, uint64(worker)*size/4, size/4, worker%2 == 0); err != nil {
				t.Errorf("worker %d: %v", worker, err)
			}
		})
	}
	wg.Wait()
	await(t, "all memory is given back", func() bool { return s.Stats().InFlight == 0 })
}

// scribble writes, zeroes and reads at random within a range and compares with
// what it expects.
func (c *client) scribble(rnd *rand.Rand, base uint64, size int, structured bool) error {
	model := make([]byte, size)
	for range 400 {
		off := rnd.IntN(size)
		n := 1 + rnd.IntN(min(size-off, 1<<rnd.IntN(19)))
		at := base + uint64(off)
		switch rnd.IntN(4) {
		case 0, 1:
			for i := range n {
				model[off+i] = byte(rnd.Uint32())
			}
			c.request(cmdWrite, uint16(rnd.IntN(2)), at, uint32(n), model[off:off+n])
		case 2:
			clear(model[off : off+n])
			c.request([]uint16{cmdTrim, cmdZeroes}[rnd.IntN(2)], 0, at, uint32(n))
		case 3:
			c.request(cmdRead, 0, at, uint32(n))
			got, err := c.data(at, n, structured)
			if err != nil || !bytes.Equal(got, model[off:off+n]) {
				return errors.Join(err, fmt.Errorf("read %d bytes at %d: wrong data", n, at))
			}
			continue
		}
		if no := c.answer(at, structured); no != 0 {
			return fmt.Errorf("%d bytes at %d: error %d", n, at, no)
		}
	}
	return nil
}

// data reads the reply to a successful read.
func (c *client) data(off uint64, n int, structured bool) ([]byte, error) {
	if !structured {
		if no := c.simple(off); no != 0 {
			return nil, fmt.Errorf("error %d", no)
		}
		return c.read(n), nil
	}
	p := bytes.Repeat([]byte{0xee}, n)
	for {
		k := c.chunk()
		if k.typ > 2 {
			return nil, fmt.Errorf("chunk of type %d", k.typ)
		}
		at := binary.BigEndian.Uint64(k.data) - off
		if k.typ == 1 {
			copy(p[at:], k.data[8:])
		} else {
			clear(p[at : at+uint64(binary.BigEndian.Uint32(k.data[8:]))])
		}
		if k.flags&1 != 0 {
			return p, nil
		}
	}
}

func TestNoAllocationPerRequest(t *testing.T) {
	if raceDetector {
		t.Skip("under the race detector, pools lose memory on purpose")
	}
	for _, delay := range []time.Duration{0, 100 * time.Microsecond} { // by the reader, and by workers
		for _, structured := range []bool{false, true} {
			m := newMemory(1 << 20)
			m.delay = delay
			c := serve(t, exports{"a": m}, nbd.Config{}).open(t, "a", structured)
			const depth = 16
			write := append(request(cmdWrite, 0, 1, 4096, 4096), ramp(4096)...)
			read := request(cmdRead, 0, 2, 4096, 4096)
			batch := append(bytes.Repeat(write, depth), bytes.Repeat(read, depth)...)
			replies := make([]byte, depth*(16+16+4096))
			if structured {
				replies = make([]byte, depth*(16+28+4096))
			}
			round := func() {
				c.Write(batch)
				io.ReadFull(c, replies)
			}
			for range 50 {
				round()
			}
			if n := testing.AllocsPerRun(100, round); n > 4 { // the pools lose something at collections
				t.Errorf("delay %v, structured %v: %v allocations per %d requests", delay, structured, n, 2*depth)
			}
		}
	}
}

func TestSlowReaderHoldsOnlyItsShare(t *testing.T) {
	const total = 8 << 20
	m := newMemory(4 << 20)
	s := serve(t, exports{"a": m}, nbd.Config{MaxRequest: 1 << 20, MaxInFlight: total})
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var hogs []net.Conn
	for range 3 {
		hog := s.open(t, "a", false)
		hogs = append(hogs, hog)
		go func() { // asks and never reads
			for range 1000 {
				if _, err := hog.Write(request(cmdRead, 0, 0, 0, 1<<20)); err != nil {
					return
				}
			}
		}()
	}
	await(t, "the hogs are full", func() bool { return s.Stats().InFlight >= total/2 })
	c := s.open(t, "a", false)
	for i := range uint64(200) {
		c.request(cmdRead, 0, i, 4096)
		if no := c.simple(i); no != 0 {
			t.Fatalf("read answers %d", no)
		}
		c.read(4096)
		if n := s.Stats().InFlight; n > total {
			t.Fatalf("%d bytes in flight, %d are allowed", n, total)
		}
	}
	for _, h := range hogs {
		h.Close()
	}
	await(t, "all memory is given back", func() bool { return s.Stats().InFlight == 0 })
}

// TestSilentWritersGiveWay has many clients announce large payloads and send
// nothing. The requests of another client are answered long before the patience
// with those is over, large ones too.
func TestSilentWritersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := serveAt(t, exports{"a": newMemory(4 << 20)}, nbd.Config{MaxRequest: 1 << 20, MaxInFlight: 8 << 20, Patience: time.Hour}, l)
		for range 30 {
			hog := l.dial(t)
			hog.choose("a")
			hog.Write(request(cmdWrite, 0, 0, 0, 1<<20))
		}
		synctest.Wait()
		if n := s.Stats().InFlight; n < 4<<20 {
			t.Fatalf("the silent writers hold %d bytes only", n)
		}
		c := l.dial(t)
		c.choose("a")
		start := time.Now()
		c.request(cmdRead, 0, 1, 4096)
		if no := c.simple(1); no != 0 {
			t.Fatalf("a small read answers %d", no)
		}
		c.read(4096)
		if d := time.Since(start); d > 0 {
			t.Errorf("a small request waited %v", d)
		}
		c.request(cmdWrite, 0, 2, 1<<20, make([]byte, 1<<20))
		if no := c.simple(2); no != 0 {
			t.Fatalf("a large write answers %d", no)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("a large request waited %v", d)
		}
	})
}
