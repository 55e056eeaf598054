package client_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
)

// A herd is a cluster of sheep that forget what was written through them and not
// flushed when they die.
type herd struct {
	t *testing.T

	mu       sync.Mutex
	addrs    []string
	alive    map[string]bool            // guarded by mu
	lives    map[string]int             // guarded by mu
	conns    map[string][]net.Conn      // guarded by mu
	durable  map[sheep.ObjectID][]byte  // guarded by mu
	deferred map[string][]deferredWrite // guarded by mu; by the sheep that took them
	lock     string                     // guarded by mu; the sheep that has the lock; "" if nobody
	locking  bool                       // guarded by mu
	seen     []string                   // guarded by mu; what was asked, but for lists of nodes
	gate     func(addr string, h proto.Header) (result proto.Result, answer bool)
}

type deferredWrite struct {
	id   sheep.ObjectID
	off  uint32
	data []byte
}

const (
	herdVDI     = sheep.VDIID(7)
	herdObject  = 1 << 12
	oneAddr     = "10.0.0.1:7000"
	anotherAddr = "10.0.0.2:7000"
)

func newHerd(t *testing.T) *herd {
	return &herd{
		t: t, addrs: []string{oneAddr, anotherAddr}, alive: map[string]bool{oneAddr: true, anotherAddr: true},
		lives: make(map[string]int), conns: make(map[string][]net.Conn), durable: make(map[sheep.ObjectID][]byte),
		deferred: make(map[string][]deferredWrite),
	}
}

// roam returns a Roaming over the herd that ends with the test.
func (f *herd) roam(cfg client.RoamingConfig) *client.Roaming {
	cfg.Dial = f.dial
	r := client.NewRoaming(oneAddr, cfg)
	f.t.Cleanup(func() { r.Close() })
	return r
}

func (f *herd) dial(_ context.Context, addr string) (*client.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.alive[addr] {
		return nil, fmt.Errorf("%w: refused", sheep.ErrNetwork)
	}
	a, b := net.Pipe()
	f.conns[addr] = append(f.conns[addr], b)
	go f.serve(addr, f.lives[addr], b)
	return client.NewConn(a), nil
}

func (f *herd) serve(addr string, life int, conn net.Conn) {
	var answers sync.Mutex
	for {
		head := make([]byte, proto.HeaderSize)
		if _, err := readFull(conn, head); err != nil {
			return
		}
		h, _ := proto.DecodeHeader(head)
		data := make([]byte, h.Payload())
		if _, err := readFull(conn, data); err != nil {
			return
		}
		go func() {
			resp, out, answer := f.handle(addr, life, h, data)
			if !answer {
				return
			}
			resp.DataLen = uint32(len(out))
			answers.Lock()
			defer answers.Unlock()
			conn.Write(append(resp.Append(nil), out...))
		}()
	}
}

func (f *herd) handle(addr string, life int, h proto.Header, data []byte) (resp proto.Response, out []byte, answer bool) {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	resp = h.Response(1, proto.ResultSuccess)
	if gate != nil {
		var ok bool
		if resp.Result, ok = gate(addr, h); !ok || resp.Result != proto.ResultSuccess {
			return resp, nil, ok
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.alive[addr] || f.lives[addr] != life {
		return resp, nil, false
	}
	b := proto.DecodeObjectBody(h.Body)
	if h.Op != proto.OpGetNodeList {
		f.seen = append(f.seen, fmt.Sprintf("%s %v %x+%d %q", addr[:8], h.Op, uint64(b.ID), b.Off, data[:min(len(data), 4)]))
	}
	switch h.Op {
	case proto.OpGetNodeList:
		var nodes []sheep.Node
		for _, a := range f.addrs {
			nodes = append(nodes, sheep.Node{Addr: netip.MustParseAddrPort(a)})
		}
		resp.Body = proto.NodeReply{Nodes: uint32(len(nodes))}.Body()
		return resp, proto.AppendNodes(nil, nodes), true
	case proto.OpReadObj:
		return resp, f.content(b.ID)[b.Off:][:h.DataLen], true
	case proto.OpWriteObj, proto.OpCreateAndWriteObj:
		w := deferredWrite{b.ID, b.Off, data}
		if h.Op == proto.OpCreateAndWriteObj || !h.Flags.Has(proto.FlagCache) {
			f.flush()
			f.apply(w)
		} else {
			f.deferred[addr] = append(f.deferred[addr], w)
		}
	case proto.OpFlushVDI:
		f.flush()
	case proto.OpGetVDIInfo, proto.OpLockVDI:
		if h.Op == proto.OpLockVDI && f.locking {
			if f.lock != "" {
				resp.Result = proto.ResultVDILocked
				return resp, nil, true
			}
			f.lock = addr
		}
		resp.Body = proto.VDIReply{VDI: herdVDI}.Body()
	case proto.OpReleaseVDI:
		f.lock = ""
	case proto.OpGetVDICopies:
		v := sheep.VDI{ID: herdVDI, Policy: sheep.Replicated(1), BlockShift: 22}
		var lock sheep.Lock
		if f.lock != "" {
			lock = sheep.Lock{State: sheep.Exclusive, Owner: sheep.Node{Addr: netip.MustParseAddrPort(f.lock)}}
		}
		return resp, proto.VDIStateOf(v, lock).Append(nil), true
	}
	return resp, nil, true
}

// flush makes everything durable. The caller holds mu.
func (f *herd) flush() {
	for _, addr := range f.addrs {
		for _, w := range f.deferred[addr] {
			f.apply(w)
		}
		f.deferred[addr] = nil
	}
}

func (f *herd) apply(w deferredWrite) {
	if f.durable[w.id] == nil {
		f.durable[w.id] = make([]byte, max(herdObject, int(w.off)+len(w.data)))
	}
	copy(f.durable[w.id][w.off:], w.data)
}

// content returns what an object reads as. The caller holds mu.
func (f *herd) content(id sheep.ObjectID) []byte {
	p := make([]byte, herdObject)
	copy(p, f.durable[id])
	for _, addr := range f.addrs {
		for _, w := range f.deferred[addr] {
			if w.id == id {
				copy(p[w.off:], w.data)
			}
		}
	}
	return p
}

// kill ends a sheep.
func (f *herd) kill(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive[addr] = false
	f.lives[addr]++
	f.deferred[addr] = nil
	f.cut(addr)
}

// cut breaks the connections to a sheep. The caller holds mu.
func (f *herd) cut(addr string) {
	for _, c := range f.conns[addr] {
		c.Close()
	}
	f.conns[addr] = nil
}

func (f *herd) revive(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive[addr] = true
}

func (f *herd) setGate(gate func(addr string, h proto.Header) (proto.Result, bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate = gate
}

// asked returns what was asked since the last time.
func (f *herd) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.seen, "\n")
	f.seen = nil
	return s
}

func data(i uint32) sheep.Ref { return sheep.Ref{ID: sheep.DataObject(herdVDI, i)} }

func put(t *testing.T, o *client.Objects, i, off uint32, text string) {
	t.Helper()
	if err := o.Write(t.Context(), data(i), &sheep.Write{Off: off, Data: []byte(text)}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasNotFlushedIsRepeatedBeforeAnythingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		r := f.roam(client.RoamingConfig{})
		o := client.NewObjects(r)
		put(t, o, 1, 0, "old")
		if err := o.Flush(t.Context(), herdVDI); err != nil {
			t.Fatal(err)
		}
		put(t, o, 2, 0, "one")
		put(t, o, 2, 1, "two")
		if err := o.Write(t.Context(), data(2), &sheep.Write{Off: 2, Data: []byte("durable"), Durable: true}); err != nil {
			t.Fatal(err)
		}
		put(t, o, 3, 0, "discarded")
		slot := sheep.Write{Off: proto.MapOffset + 3*proto.MapEntrySize, Data: make([]byte, proto.MapEntrySize), Durable: true}
		if err := o.Write(t.Context(), sheep.Ref{ID: sheep.InodeObject(herdVDI)}, &slot); err != nil {
			t.Fatal(err)
		}
		put(t, o, 5, 0, "given up by a tree")
		leaf := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: []proto.BTreeEntry{{Index: 2, VDI: herdVDI}, {Index: 5}}}
		inbox := sheep.Ref{ID: sheep.BTreeObject(herdVDI, proto.BTreeInbox)}
		if err := o.Write(t.Context(), inbox, &sheep.Write{Data: leaf.Append(nil), Durable: true}); err != nil {
			t.Fatal(err)
		}
		put(t, o, 4, 0, "gone")
		if err := o.Write(t.Context(), data(4), &sheep.Write{Data: []byte("made anew"), Create: true}); err != nil {
			t.Fatal(err)
		}
		f.asked()
		f.kill(oneAddr)
		got := make([]byte, 9)
		if err := o.Read(t.Context(), data(2), got, 0); err != nil || string(got) != "otdurable" {
			t.Errorf("read %q, %v", got, err)
		}
		want := `10.0.0.2 WRITE_OBJ 700000002+0 "one"
10.0.0.2 WRITE_OBJ 700000002+1 "two"
10.0.0.2 WRITE_OBJ 700000002+2 "dura"
10.0.0.2 READ_OBJ 700000002+0 ""`
		if got := f.asked(); got != want {
			t.Errorf("asked\n%s\nwant\n%s", got, want)
		}
		if err := o.Flush(t.Context(), herdVDI); err != nil {
			t.Errorf("flush: %v", err)
		}
		if r.Server() != anotherAddr || len(r.Nodes()) != 2 {
			t.Errorf("it asks %s of %v", r.Server(), r.Nodes())
		}
	})
}

func TestRequestsUnderWayAreRepeatedIfTheyMayBe(t *testing.T) {
	for _, test := range []struct {
		op   proto.Opcode
		want bool
	}{
		{proto.OpReadObj, true}, {proto.OpWriteObj, true}, {proto.OpCreateAndWriteObj, true},
		{proto.OpFlushVDI, true}, {proto.OpGetVDIInfo, true}, {proto.OpRemoveObj, true},
		{proto.OpNewVDI, false}, {proto.OpDelVDI, false}, {proto.OpLockVDI, false},
	} {
		t.Run(test.op.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newHerd(t)
				r := f.roam(client.RoamingConfig{})
				f.setGate(func(addr string, h proto.Header) (proto.Result, bool) {
					return 0, addr != oneAddr || h.Op != test.op
				})
				done := make(chan error, 1)
				go func() {
					h := proto.Header{Version: test.op.Version(), Op: test.op, Body: proto.ObjectBody{ID: data(1).ID}.Body()}
					_, _, err := r.Do(t.Context(), h, nil, nil)
					done <- err
				}()
				synctest.Wait()
				f.kill(oneAddr)
				if err := <-done; (err == nil) != test.want || err != nil && !errors.Is(err, sheep.ErrNetwork) {
					t.Errorf("%v, want success %v", err, test.want)
				}
			})
		})
	}
}

// lostOnce checks that one flush fails, and the next does not.
func lostOnce(t *testing.T, o *client.Objects) {
	t.Helper()
	if err := o.Flush(t.Context(), herdVDI); !errors.Is(err, sheep.ErrIO) {
		t.Errorf("the flush after the loss: %v, want %v", err, sheep.ErrIO)
	}
	if err := o.Flush(t.Context(), herdVDI); err != nil {
		t.Errorf("the next flush: %v", err)
	}
}

func TestAWriteThatIsRefusedWhenRepeatedIsToldByOneFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		o := client.NewObjects(f.roam(client.RoamingConfig{}))
		put(t, o, 1, 0, "one")
		put(t, o, 2, 0, "two")
		f.setGate(func(_ string, h proto.Header) (proto.Result, bool) {
			if h.Op == proto.OpWriteObj && proto.DecodeObjectBody(h.Body).ID == data(1).ID {
				return proto.ResultReadOnly, true
			}
			return proto.ResultSuccess, true
		})
		f.kill(oneAddr)
		lostOnce(t, o)
		got := make([]byte, 3)
		if err := o.Read(t.Context(), data(2), got, 0); err != nil || string(got) != "two" {
			t.Errorf("the other write is %q, %v", got, err)
		}
	})
}

func TestMoreThanIsKeptIsToldByOneFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		o := client.NewObjects(f.roam(client.RoamingConfig{Unflushed: 10_000}))
		f.setGate(func(addr string, h proto.Header) (proto.Result, bool) {
			if h.Op == proto.OpFlushVDI && addr == oneAddr {
				return proto.ResultIO, true
			}
			return 0, true
		})
		for i := range uint32(30) {
			put(t, o, i, 0, strings.Repeat("x", 1000))
		}
		f.kill(oneAddr)
		lostOnce(t, o)
	})
}

func TestMuchThatIsKeptIsFlushedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		o := client.NewObjects(f.roam(client.RoamingConfig{Unflushed: 10_000}))
		for i := range uint32(100) {
			put(t, o, i, 0, strings.Repeat("x", 1000))
			synctest.Wait()
		}
		if n := strings.Count(f.asked(), "FLUSH_VDI"); n < 10 || n > 30 {
			t.Errorf("%d flushes of 100 KB with room for 10", n)
		}
		f.kill(oneAddr)
		if err := o.Flush(t.Context(), herdVDI); err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.durable) != 100 {
			t.Errorf("%d objects are durable, want 100", len(f.durable))
		}
	})
}

func TestAWriterWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		o := client.NewObjects(f.roam(client.RoamingConfig{Unflushed: 10_000}))
		f.setGate(func(addr string, h proto.Header) (proto.Result, bool) {
			return 0, h.Op != proto.OpFlushVDI || addr == anotherAddr // a flush takes for ever
		})
		var written atomic.Int32
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range uint32(30) {
				put(t, o, i, 0, strings.Repeat("x", 1000))
				written.Add(1)
			}
		}()
		synctest.Wait()
		if n := written.Load(); n < 8 || n > 10 {
			t.Errorf("%d KB were written with room for 10 and no flush", n)
		}
		f.kill(oneAddr)
		<-done
		if err := o.Flush(t.Context(), herdVDI); err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.durable) != 30 {
			t.Errorf("%d objects are durable, want 30", len(f.durable))
		}
	})
}

func TestAFailureOfABackgroundFlushIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		o := client.NewObjects(f.roam(client.RoamingConfig{Unflushed: 1000}))
		first := true
		f.setGate(func(_ string, h proto.Header) (proto.Result, bool) {
			if h.Op == proto.OpFlushVDI && first {
				first = false
				return proto.ResultIO, true
			}
			return 0, true
		})
		put(t, o, 1, 0, strings.Repeat("x", 700))
		synctest.Wait()
		lostOnce(t, o)
	})
}

func TestASheepThatDoesNotServeOrDoesNotAnswerIsLeft(t *testing.T) {
	for name, gate := range map[string]func(string, proto.Header) (proto.Result, bool){
		"does not serve": func(addr string, h proto.Header) (proto.Result, bool) {
			if addr == oneAddr && h.Op != proto.OpGetNodeList {
				return proto.ResultShutdown, true
			}
			return 0, true
		},
		"does not answer": func(addr string, _ proto.Header) (proto.Result, bool) { return 0, addr != oneAddr },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newHerd(t)
				r := f.roam(client.RoamingConfig{})
				o := client.NewObjects(r)
				if err := r.Ready(t.Context()); err != nil {
					t.Fatal(err)
				}
				f.setGate(gate)
				begin := time.Now()
				put(t, o, 2, 0, "two")
				if took := time.Since(begin); r.Server() != anotherAddr || took > 20*time.Second {
					t.Errorf("it asks %s after %v", r.Server(), took)
				}
			})
		})
	}
}

func TestASheepIsNotAskedAllTheTimeWhetherItServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		r := f.roam(client.RoamingConfig{Patience: time.Hour})
		asked, serves := 0, time.Now().Add(20*time.Second)
		f.setGate(func(_ string, h proto.Header) (proto.Result, bool) {
			if h.Op == proto.OpGetNodeList || time.Now().After(serves) {
				return 0, true
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			asked++
			return proto.ResultWaitForJoin, true
		})
		put(t, client.NewObjects(r), 1, 0, "one")
		if asked > 40 {
			t.Errorf("asked %d times within 20 s", asked)
		}
	})
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		f.alive[oneAddr] = false // it is not known yet that there is another
		r := f.roam(client.RoamingConfig{Patience: 30 * time.Second})
		begin := time.Now()
		if err := r.Ready(t.Context()); !errors.Is(err, sheep.ErrNetwork) || time.Since(begin) != 30*time.Second {
			t.Errorf("without sheep: %v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that ends: %v", err)
		}
		time.AfterFunc(10*time.Second, func() { f.revive(oneAddr) })
		begin = time.Now()
		if err := r.Ready(t.Context()); err != nil || time.Since(begin) > 12*time.Second {
			t.Errorf("with a sheep after 10 s: %v after %v", err, time.Since(begin))
		}
		r.Close()
		if _, _, err := r.Do(t.Context(), proto.Header{Op: proto.OpReadObj}, nil, nil); !errors.Is(err, client.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		r := f.roam(client.RoamingConfig{})
		o := client.NewObjects(r)
		put(t, o, 1, 0, "one")
		r.Move(anotherAddr)
		synctest.Wait()
		put(t, o, 1, 1, "two")
		f.asked()
		put(t, o, 1, 2, "three")
		if got, want := f.asked(), `10.0.0.2 WRITE_OBJ 700000001+2 "thre"`; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
	})
}

func TestMoveLetsRequestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		r := f.roam(client.RoamingConfig{})
		o := client.NewObjects(r)
		put(t, o, 1, 0, "one")
		slow := make(chan struct{})
		f.setGate(func(addr string, h proto.Header) (proto.Result, bool) {
			if addr == oneAddr && h.Op == proto.OpWriteObj {
				<-slow
			}
			return 0, true
		})
		done := make(chan error, 1)
		go func() { done <- o.Write(t.Context(), data(1), &sheep.Write{Data: []byte("two")}) }()
		synctest.Wait()
		f.asked()
		r.Move(anotherAddr)
		synctest.Wait()
		if got := f.asked(); got != "" {
			t.Errorf("before the old sheep is through it asks %s", got)
		}
		close(slow)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		put(t, o, 1, 0, "three")
		want := `10.0.0.1 WRITE_OBJ 700000001+0 "two"
10.0.0.2 WRITE_OBJ 700000001+0 "one"
10.0.0.2 WRITE_OBJ 700000001+0 "two"
10.0.0.2 WRITE_OBJ 700000001+0 "thre"`
		if got := f.asked(); got != want {
			t.Errorf("asked\n%s\nwant\n%s", got, want)
		}
	})
}

func TestALockIsAskedForAtAnotherSheep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		f.locking = true
		r := f.roam(client.RoamingConfig{})
		f.setGate(func(addr string, h proto.Header) (proto.Result, bool) {
			return 0, addr != oneAddr || h.Op != proto.OpLockVDI
		})
		time.AfterFunc(time.Second, func() { f.kill(oneAddr) })
		l, err := r.Lock(t.Context(), "disk")
		if err != nil || !l.Held() || f.lock != anotherAddr {
			t.Errorf("Lock: %v, the lock is at %q", err, f.lock)
		}
	})
}

func TestALockMovesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		f.locking = true
		r := f.roam(client.RoamingConfig{})
		l, err := r.Lock(t.Context(), "disk")
		if err != nil || !l.Held() || l.Err() != nil {
			t.Fatalf("Lock: %v", err)
		}
		if _, err := r.Lock(t.Context(), "disk"); !errors.Is(err, sheep.ErrVDILocked) {
			t.Errorf("a second Lock: %v", err)
		}
		f.kill(oneAddr)
		put(t, client.NewObjects(r), 1, 0, "one")
		if f.lock != anotherAddr || !l.Held() {
			t.Errorf("the lock is at %q", f.lock)
		}
		if err := l.Release(t.Context(), herdVDI); err != nil || f.lock != "" {
			t.Errorf("Release: %v, the lock is at %q", err, f.lock)
		}
	})
}

func TestALockThatWasTakenMeanwhileEndsTheWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		f.locking = true
		r := f.roam(client.RoamingConfig{})
		l, err := r.Lock(t.Context(), "disk")
		if err != nil {
			t.Fatal(err)
		}
		o := client.NewObjects(l)
		put(t, o, 1, 0, "one")
		later := sheep.Ref{ID: sheep.DataObject(herdVDI+1, 1)} // of the head after a snapshot
		if err := o.Write(t.Context(), later, &sheep.Write{Data: []byte("later")}); err != nil {
			t.Fatal(err)
		}
		f.setGate(func(addr string, h proto.Header) (proto.Result, bool) { return 0, addr != oneAddr })
		done := make(chan error, 1)
		go func() { done <- o.Write(t.Context(), data(1), &sheep.Write{Data: []byte("two")}) }()
		synctest.Wait() // on its way
		f.mu.Lock()
		f.lock = "10.0.0.3:7000"
		f.mu.Unlock()
		f.asked()
		f.kill(oneAddr)
		if err := <-done; !errors.Is(err, sheep.ErrIO) {
			t.Errorf("a write under way: %v, want %v", err, sheep.ErrIO)
		}
		if err := o.Write(t.Context(), data(1), &sheep.Write{Data: []byte("three")}); !errors.Is(err, sheep.ErrIO) {
			t.Errorf("a write: %v, want %v", err, sheep.ErrIO)
		}
		if got := f.asked(); strings.Contains(got, "WRITE_OBJ") {
			t.Errorf("without the lock it asks\n%s", got)
		}
		if l.Held() || l.Err() == nil {
			t.Error("the lock is said to be held")
		}
		lostOnce(t, o)
		if err := o.Flush(t.Context(), herdVDI+1); !errors.Is(err, sheep.ErrIO) {
			t.Errorf("the flush of the later head: %v, want %v", err, sheep.ErrIO)
		}
		if err := l.Release(t.Context(), herdVDI); err != nil || f.lock != "10.0.0.3:7000" {
			t.Errorf("Release: %v, the lock is at %q", err, f.lock)
		}
		f.mu.Lock()
		f.lock = ""
		f.mu.Unlock()
		if l, err = r.Lock(t.Context(), "disk"); err != nil {
			t.Fatal(err)
		}
		put(t, client.NewObjects(l), 1, 0, "four")
	})
}

func TestNothingIsRepeatedWhenTheLockHasBeenGivenBack(t *testing.T) {
	for _, locking := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newHerd(t)
			f.locking = locking
			r := f.roam(client.RoamingConfig{Patience: 10 * time.Second})
			l, err := r.Lock(t.Context(), "disk")
			if err != nil {
				t.Fatal(err)
			}
			o := client.NewObjects(l)
			put(t, o, 1, 0, "one")
			f.kill(oneAddr)
			f.kill(anotherAddr)
			if err := o.Flush(t.Context(), herdVDI); !errors.Is(err, sheep.ErrNetwork) {
				t.Errorf("Flush without a cluster: %v", err)
			}
			if err := l.Release(t.Context(), herdVDI); (err != nil) != locking {
				t.Errorf("Release without a cluster: %v", err)
			}
			f.asked()
			f.revive(anotherAddr)
			if err := r.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := f.asked(); got != "" {
				t.Errorf("afterwards it asks %s", got)
			}
			if err := o.Write(t.Context(), data(1), &sheep.Write{Data: []byte("two")}); !errors.Is(err, sheep.ErrIO) {
				t.Errorf("a write: %v, want %v", err, sheep.ErrIO)
			}
		})
	}
}

func TestAClusterWithoutLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHerd(t)
		r := f.roam(client.RoamingConfig{})
		l, err := r.Lock(t.Context(), "disk")
		if err != nil || l.Held() {
			t.Fatalf("Lock: %v, held %v", err, l.Held())
		}
		f.asked()
		if err := l.Release(t.Context(), herdVDI); err != nil || f.asked() != "" {
			t.Errorf("Release: %v", err)
		}
	})
}

// TestNothingFlushedIsLost has sheep die at random, with all that they have not
// flushed, under writers each of whom has objects of its own.
func TestNothingFlushedIsLost(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := newHerd(t)
	r := f.roam(client.RoamingConfig{})
	o := client.NewObjects(r)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	models := make([][]byte, 8)
	for i := range models {
		models[i] = make([]byte, herdObject)
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for n := uint32(1); ctx.Err() == nil; n++ {
				off := rnd.IntN(herdObject - 64)
				p := bytes.Repeat(binary.LittleEndian.AppendUint32(nil, n), 1+rnd.IntN(16))
				w := sheep.Write{Off: uint32(off), Data: p, Durable: rnd.IntN(10) == 0}
				if err := o.Write(t.Context(), data(uint32(i)), &w); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				copy(models[i][off:], p)
				got := make([]byte, herdObject)
				if rnd.IntN(8) == 0 {
					if err := o.Read(t.Context(), data(uint32(i)), got, 0); err != nil || !bytes.Equal(got, models[i]) {
						t.Errorf("seed %d: object %d reads wrong after %d writes, %v", seed, i, n, err)
						return
					}
				}
				if rnd.IntN(100) == 0 {
					if err := o.Flush(t.Context(), herdVDI); err != nil {
						t.Errorf("seed %d: %v", seed, err)
					}
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 1000))
	kills := 0
	for ctx.Err() == nil {
		if addr := r.Server(); f.busy(addr) {
			f.kill(addr)
			f.revive(addr)
			kills++
		}
		time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond)
	}
	wg.Wait()
	if err := o.Flush(t.Context(), herdVDI); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.durable)) {
		if !bytes.Equal(f.durable[id], models[id.Index()]) {
			t.Errorf("seed %d: object %v is not what was written", seed, id)
		}
	}
	if len(f.durable) != len(models) || kills < 5 {
		t.Errorf("%d objects, %d kills", len(f.durable), kills)
	}
}

// busy reports whether a sheep has a connection.
func (f *herd) busy(addr string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns[addr]) > 0
}
