package nbd_test

import (
	"encoding/binary"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"sheepdog/nbd"
	"sheepdog/sheep/wire"
)

// choose gets a client of a pipe as far as the requests.
func (c *client) choose(name string) {
	c.t.Helper()
	c.read(18)
	c.send(u32(3))
	c.option(optGo, ask(name))
	c.reply(optGo, repInfo)
	c.reply(optGo, repACK)
}

func TestDrainAnswersFlushesAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newPipes(), newMemory(1<<20)
		s := serveAt(t, exports{"a": m}, nbd.Config{}, l)
		c := l.dial(t)
		c.choose("a")
		release := m.block()
		c.request(cmdWrite, 0, 0, 4, []byte("ewes"))
		synctest.Wait()
		s.stop()
		synctest.Wait()
		c.request(cmdWrite, 0, 64, 4, []byte("rams"))
		if no := c.simple(64); no != eSHUTDOWN {
			t.Errorf("a write after the end began answers %d", no)
		}
		select {
		case err := <-s.done:
			t.Fatalf("Serve returns %v with a write in flight", err)
		default:
		}
		release()
		if no := c.simple(0); no != 0 {
			t.Errorf("the write in flight answers %d", no)
		}
		synctest.Wait()
		c.request(cmdRead, 0, 9, 4)
		if no := c.simple(9); no != eSHUTDOWN {
			t.Errorf("a read after the flush answers %d", no)
		}
		if rest := c.closed(); len(rest) > 0 {
			t.Errorf("%x comes at the end", rest)
		}
		if err := <-s.done; err != nil {
			t.Errorf("Serve returns %v", err)
		}
		s.done <- nil
		if m.flushes.Load() == 0 || m.dirtyAtClose.Load() || m.closes.Load() != 1 {
			t.Errorf("%d flushes, dirty %v, %d closes", m.flushes.Load(), m.dirtyAtClose.Load(), m.closes.Load())
		}
		if string(m.data[64:68]) == "rams" {
			t.Error("the refused write was carried out")
		}
	})
}

func TestDrainTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newPipes(), newMemory(1<<20)
		s := serveAt(t, exports{"a": m}, nbd.Config{DrainTimeout: 5 * time.Second}, l)
		c := l.dial(t)
		c.choose("a")
		release := m.block()
		defer release()
		c.request(cmdWrite, 0, 0, 4, []byte("ewes"))
		synctest.Wait()
		start := time.Now()
		s.stop()
		if err := <-s.done; err == nil {
			t.Error("Serve hides that it did not finish")
		}
		s.done <- nil
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("the end takes %v", d)
		}
	})
}

func TestDrainDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := serveAt(t, twoDisks(), nbd.Config{}, l)
		c := l.dial(t)
		c.read(18)
		synctest.Wait()
		start := time.Now()
		s.stop()
		c.closed()
		if err := <-s.done; err != nil || time.Since(start) != 0 {
			t.Errorf("Serve returns %v after %v", err, time.Since(start))
		}
		s.done <- nil
	})
}

func TestVanishedClientLosesNothing(t *testing.T) {
	m := newMemory(1 << 20)
	s := serve(t, exports{"a": m}, nbd.Config{})
	c := s.open(t, "a", false)
	release := m.block()
	for i := range uint64(20) {
		c.request(cmdWrite, 0, i*4096, 4096, ramp(4096))
	}
	await(t, "all writes are under way", func() bool { return m.entered.Load() == 20 })
	c.send(request(cmdWrite, 0, 0, 1<<19, 4096), make([]byte, 100)) // cut off in the middle
	c.Close()
	release()
	await(t, "the device is closed", func() bool { return m.closes.Load() == 1 })
	if m.dirtyAtClose.Load() || m.flushes.Load() == 0 {
		t.Error("the device was closed without a flush")
	}
	for i := range 20 {
		if got := m.data[i*4096+4095]; got != ramp(4096)[4095] {
			t.Errorf("write %d is missing", i)
		}
	}
	if m.data[1<<19] != 0 || m.states[1<<19/blockSize] != 0 {
		t.Error("half a write was carried out")
	}
	await(t, "all memory is given back", func() bool { return s.Stats().InFlight == 0 })
}

func TestADeviceLearnsWhenTheClientHasHeardOfItsFailure(t *testing.T) {
	for about, test := range map[string]struct {
		client func(c *client)
		told   int64
	}{
		"it asks again":      {func(c *client) { c.simple(0); c.request(cmdFlush, 0, 0, 0); c.simple(0) }, 1},
		"it leaves in order": {func(c *client) { c.simple(0); c.request(cmdDisc, 0, 0, 0) }, 1},
		"it closes":          {func(c *client) { c.simple(0); c.Close() }, 1},
		"it breaks off before it has read the reply": {func(c *client) {
			raw, err := c.Conn.(*net.UnixConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			await(t, "the reply is there", func() (there bool) {
				raw.Control(func(fd uintptr) {
					n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
					there = err != nil || n > 0
				})
				return there
			})
			c.Close()
		}, 0},
	} {
		t.Run(about, func(t *testing.T) {
			m := newMemory(1 << 20)
			m.set("flush", syscall.EIO)
			c := serve(t, exports{"a": m}, nbd.Config{
				Receipts: func(conn net.Conn) nbd.Receipts { return wire.NewReceipts(conn) },
			}).open(t, "a", false)
			c.request(cmdFlush, 0, 0, 0)
			test.client(c)
			m.set("flush", nil)
			c.Close()
			await(t, "the device is closed", func() bool { return m.closes.Load() == 1 })
			if got := m.told.Load(); got < test.told || test.told == 0 && got > 0 {
				t.Errorf("the device was told %d times, want %d", got, test.told)
			}
		})
	}
}

func TestStuckClientIsCutOff(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(c *client)
	}{
		{"neither reads its reply", func(c *client) { c.request(cmdRead, 0, 0, 4096) }},
		{"nor sends its payload", func(c *client) { c.request(cmdWrite, 0, 0, 4096, make([]byte, 99)) }},
		{"nor that of a refused write", func(c *client) { c.request(cmdWrite, 0, 1<<40, 4096, make([]byte, 99)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m := newPipes(), newMemory(1<<20)
				s := serveAt(t, exports{"a": m}, nbd.Config{Patience: 9 * time.Second}, l)
				c := l.dial(t)
				c.choose("a")
				start := time.Now()
				tc.do(c)
				for s.Stats().Connections > 0 {
					time.Sleep(time.Second)
				}
				if d := time.Since(start); d < 9*time.Second || d > 10*time.Second {
					t.Errorf("cut off after %v", d)
				}
				if n := m.closes.Load(); n != 1 {
					t.Errorf("the device was closed %d times", n)
				}
				if n := s.Stats().InFlight; n != 0 {
					t.Errorf("%d bytes are still taken", n)
				}
			})
		})
	}
}

func TestIdleClientIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		serveAt(t, twoDisks(), nbd.Config{}, l)
		c := l.dial(t)
		c.choose("a")
		for _, pause := range []time.Duration{time.Hour, 1000 * time.Hour} {
			c.request(cmdWrite, 0, 0, 4, []byte("ewes"))
			if no := c.simple(0); no != 0 {
				t.Fatalf("a write answers %d", no)
			}
			time.Sleep(pause)
		}
	})
}

func TestFailedListenerEndsServing(t *testing.T) {
	a, b := newPipes(), newPipes()
	s := serveAt(t, twoDisks(), nbd.Config{}, a, b)
	a.Close()
	if err := <-s.done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returns %v", err)
	}
	s.done <- nil
}

func TestServeNeedsAListener(t *testing.T) {
	if err := nbd.NewServer(twoDisks(), nbd.Config{}).Serve(t.Context()); err == nil {
		t.Error("serving nowhere succeeds")
	}
}

// A half-closed connection still gets its answers.
func TestAnswersAfterHalfClose(t *testing.T) {
	c := serve(t, twoDisks(), nbd.Config{}).open(t, "a", false)
	c.request(cmdRead, 0, 7, 4)
	if err := c.Conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.closed(); len(got) != 20 || binary.BigEndian.Uint32(got[4:]) != 0 {
		t.Errorf("got %x", got)
	}
}

func TestFlushFailureReachesTheClient(t *testing.T) {
	m := newMemory(1 << 20)
	c := serve(t, exports{"a": m}, nbd.Config{}).open(t, "a", true)
	m.set("flush", syscall.EIO)
	c.request(cmdFlush, 0, 0, 0)
	if no := c.answer(0, true); no != eIO {
		t.Errorf("flush answers %d", no)
	}
}
