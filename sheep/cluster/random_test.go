package cluster

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sheepdog/sheep"
)

// TestRandomEntries applies random entries to two replicas, of which one is
// restored from its snapshot now and then, and checks what must always hold.
func TestRandomEntries(t *testing.T) {
	seeds := []uint64{1, 2, 3, rand.Uint64()}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			g := &generator{rng: rand.New(rand.NewPCG(seed, 0)), seqs: map[sheep.Incarnation]uint64{}}
			a, b := newState(), newState()
			check := invariants{gens: map[sheep.VDIID]sheep.Generation{}}
			served := 0
			for range 4000 {
				e := g.entry(a)
				fa, fb := a.apply(e), b.apply(e)
				if fa.String() != fb.String() {
					t.Fatalf("entry %d has the effects %q and %q", e.Index, fa, fb)
				}
				check.test(t, a, fa)
				if a.status == OK {
					served++
				}
				if g.rng.IntN(50) == 0 {
					b = reload(t, b)
				}
			}
			if !bytes.Equal(a.marshal(), b.marshal()) {
				t.Error("replicas that applied the same entries differ")
			}
			if served < 1000 {
				t.Errorf("the cluster served after %d entries only: the test tests little", served)
			}
		})
	}
}

func reload(t *testing.T, s *state) *state {
	t.Helper()
	before := s.marshal()
	r, err := restoreState(before)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	if after := r.marshal(); !bytes.Equal(before, after) {
		t.Fatalf("a restored state marshals to other bytes:\n%x\n%x", before, after)
	}
	return r
}

// invariants are checked after each entry.
type invariants struct {
	epoch sheep.Epoch
	ctime uint64
	gens  map[sheep.VDIID]sheep.Generation
}

func (v *invariants) test(t *testing.T, s *state, fx effects) {
	t.Helper()
	if len(s.members) > 0 && s.started && s.settings.Ctime == v.ctime && s.epoch < v.epoch {
		t.Fatalf("[%d] epoch went from %d to %d", s.index, v.epoch, s.epoch)
	}
	v.epoch, v.ctime = s.epoch, s.settings.Ctime
	for _, o := range fx.owners {
		if o.new.Owner == 0 {
			continue
		}
		if o.new.Generation < v.gens[o.vid] {
			t.Fatalf("[%d] generation of %v went from %d to %d", s.index, o.vid, v.gens[o.vid], o.new.Generation)
		}
		if o.new.Owner != o.old.Owner && o.new.Generation == v.gens[o.vid] {
			t.Fatalf("[%d] generation %d of %v has two owners", s.index, o.new.Generation, o.vid)
		}
		v.gens[o.vid] = o.new.Generation
	}
	for vid, o := range s.owners {
		if s.member(o.Owner) == nil {
			t.Fatalf("[%d] owner of %v is no member: %v", s.index, vid, o.Ownership)
		}
		if o.prev != 0 && s.member(o.prev) == nil {
			t.Fatalf("[%d] %v waits for one who left", s.index, vid)
		}
		if o.Plan && (len(s.plans) == 0 || s.plans[0].executor != o.Owner) {
			t.Fatalf("[%d] %v is frozen for a plan that is not open: %v", s.index, vid, o.Ownership)
		}
	}
	for _, p := range s.plans {
		if s.member(p.executor) == nil && s.started {
			t.Fatalf("[%d] executor of plan %d is no member", s.index, p.index)
		}
	}
	if s.status == OK && len(s.nodes) != len(s.members) {
		t.Fatalf("[%d] epoch %d has %d nodes, there are %d members", s.index, s.epoch, len(s.nodes), len(s.members))
	}
	named := 0
	for name, ids := range s.vdis.named {
		named += len(ids)
		for _, id := range ids {
			if s.vdis.all[id].vdi.Name != name {
				t.Fatalf("[%d] VDI %v is listed as %q", s.index, id, name)
			}
		}
	}
	if named != len(s.vdis.all) {
		t.Fatalf("[%d] %d VDIs have names, there are %d", s.index, named, len(s.vdis.all))
	}
}

// A generator makes entries that mostly make sense.
type generator struct {
	rng   *rand.Rand
	index uint64
	next  sheep.Incarnation
	seqs  map[sheep.Incarnation]uint64
}

func (g *generator) entry(s *state) Entry {
	g.index += 1 + uint64(g.rng.IntN(3))
	e := Entry{Index: g.index, Time: int64(g.index)}
	n := g.rng.IntN(100)
	switch {
	case n < 5 || len(s.members) == 0:
		g.next++
		e.Kind, e.Member = EntryJoin, g.next
		h := hello{version: protocolVersion, node: testNode(fmt.Sprintf("%x", 1+g.rng.IntN(8))), owed: uint32(g.rng.IntN(2))}
		if g.rng.IntN(4) == 0 {
			h.node.VNodes, h.node.Space = 0, 0
		}
		e.Data = h.append(nil)
	case n < 9:
		e.Kind, e.Member = EntryLeave, s.members[g.rng.IntN(len(s.members))].inc
	case n == 9:
		e.Kind, e.Member, e.Data = EntryMessage, s.members[0].inc, g.garbage()
	default:
		m := s.members[g.rng.IntN(len(s.members))]
		if g.rng.IntN(20) > 0 {
			g.seqs[m.inc]++ // else a repetition
		}
		e.Kind, e.Member = EntryMessage, m.inc
		e.Data = appendMessage(nil, g.seqs[m.inc], g.message(s, m))
	}
	return e
}

func (g *generator) garbage() []byte {
	b := make([]byte, g.rng.IntN(64))
	for i := range b {
		b[i] = byte(g.rng.Uint32())
	}
	return b
}

func (g *generator) message(s *state, m *member) message {
	vid := sheep.VDIID(1 + g.rng.IntN(6))
	v := testVDI(fmt.Sprintf("%x", uint32(vid)), string(rune('a'+g.rng.IntN(3))))
	o := s.owners[vid]
	var plan uint64
	if len(s.plans) > 0 {
		plan = s.plans[0].index
	}
	switch g.rng.IntN(25) {
	case 0:
		if s.epoch == 0 || g.rng.IntN(20) == 0 {
			return formatMsg{Settings{Ctime: g.index, Copies: 2, BlockShift: 22, Flags: FlagAutoVNode | FlagLocks, Store: "tree"}}
		}
		return setRecoveryMsg{g.rng.IntN(2) == 0}
	case 1:
		if g.rng.IntN(20) == 0 {
			return shutdownMsg{}
		}
		return alterVDIMsg{vid, uint8(g.rng.IntN(4))}
	case 2:
		return updateNodeMsg{space: uint64(1+g.rng.IntN(3)) << 30}
	case 3:
		return completeMsg{s.epoch}
	case 4:
		return addVDIMsg{old: sheep.VDIID(g.rng.IntN(6)), vdi: v, used: true}
	case 5:
		return lockMsg{vid: vid, shared: g.rng.IntN(2) == 0, bound: g.rng.IntN(2) == 0, session: g.rng.Uint64N(3), client: sheep.Client{Kind: "nbd", Addr: "unix"}}
	case 6:
		return unlockMsg{vid, g.rng.IntN(2) == 0, m.node}
	case 7:
		return coherenceMsg{vid, g.rng.IntN(2) == 0}
	case 8, 9, 10:
		return ownMsg{vid}
	case 11:
		return handOverMsg{vid, o.Generation, s.members[g.rng.IntN(len(s.members))].inc}
	case 12, 13:
		return drainedMsg{vid, o.prevGen}
	case 14:
		return disownMsg{vid, o.Generation}
	case 15:
		return planMsg{1, g.garbage()}
	case 16, 17:
		return freezeMsg{plan, []sheep.VDIID{vid, 1 + vid%6}}
	case 18:
		return doneMsg{plan: plan, changes: []VDIChange{{VDI: v, Drop: g.rng.IntN(3) == 0}}}
	case 19:
		return setDelayMsg{int64(g.rng.IntN(1000)) - 1}
	case 20:
		return maintainMsg{addr: testNode(fmt.Sprintf("%x", 1+g.rng.IntN(8))).Addr, on: g.rng.IntN(2) == 0, duration: int64(g.rng.IntN(3) * 100)}
	case 21:
		return drainMsg{addr: testNode(fmt.Sprintf("%x", 1+g.rng.IntN(8))).Addr, on: g.rng.IntN(3) == 0}
	case 22:
		return endSessionMsg{g.rng.Uint64N(3)}
	case 23:
		return setDeadlineMsg{sheep.VDIID(g.rng.IntN(6)), int64(g.rng.IntN(4)) - 1}
	}
	return contributeMsg{[]KnownVDI{{v, sheep.Epoch(g.rng.IntN(5))}}}
}

func TestSequenceCountsEachNumberOnce(t *testing.T) {
	var q sequence
	for _, n := range []uint64{2, 1, 5, 4, 3, 7} {
		if !q.add(n) {
			t.Errorf("%d counts as known", n)
		}
		if q.add(n) {
			t.Errorf("%d counts twice", n)
		}
	}
	if q.low != 5 || !slices.Equal(q.ahead, []uint64{7}) || q.add(0) {
		t.Errorf("got %+v", q)
	}
}

func TestSequenceIsBounded(t *testing.T) {
	var q sequence
	for n := uint64(2); n < 3*maxAhead; n++ {
		q.add(n)
	}
	if len(q.ahead) > maxAhead || q.low != 3*maxAhead-1 || q.add(1) {
		t.Errorf("got low %d and %d ahead", q.low, len(q.ahead))
	}
}

func FuzzMessage(f *testing.F) {
	g := &generator{rng: rand.New(rand.NewPCG(1, 1)), seqs: map[sheep.Incarnation]uint64{}}
	s := newState()
	for range 300 {
		e := g.entry(s)
		s.apply(e)
		if e.Kind == EntryMessage {
			f.Add(e.Data)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if got := appendMessage(nil, seq, m); !bytes.Equal(got, b) {
			t.Errorf("%x decodes to %#v, which appends to %x", b, m, got)
		}
		live := newState()
		live.apply(Entry{Index: 1, Kind: EntryJoin, Member: 1, Data: hello{version: protocolVersion, node: testNode("1")}.append(nil)})
		live.apply(Entry{Index: 2, Kind: EntryMessage, Member: 1, Data: b})
	})
}

func FuzzHello(f *testing.F) {
	p := &player{}
	f.Add(p.hello("a", map[string]string{}).append(nil))
	f.Add(p.hello("b", map[string]string{"epoch": "3", "nodes": "a,b"}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil || h.version != protocolVersion {
			return
		}
		if got := h.append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x decodes to %+v, which appends to %x", b, h, got)
		}
	})
}

func FuzzState(f *testing.F) {
	g := &generator{rng: rand.New(rand.NewPCG(1, 1)), seqs: map[sheep.Incarnation]uint64{}}
	s := newState()
	for i := range 300 {
		s.apply(g.entry(s))
		if i%20 == 0 {
			f.Add(s.marshal())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := restoreState(b)
		if err != nil {
			return
		}
		r, err := restoreState(s.marshal())
		if err != nil || !bytes.Equal(r.marshal(), s.marshal()) {
			t.Errorf("a state restored from %x does not restore from its own snapshot: %v", b, err)
		}
	})
}
