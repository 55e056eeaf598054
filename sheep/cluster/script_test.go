package cluster

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sheepdog/sheep"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestScripts plays the scripts of testdata against the state and compares the
// transcript that is part of them: each event is followed by indented lines
// with its effects and the state after it.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".script"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("transcript of %s differs (rewrite it with -update); got:\n%s", file, got)
			}
		})
	}
}

// play runs the events of a script and returns it with a new transcript.
func play(t *testing.T, script string) string {
	t.Helper()
	p := &player{t: t, state: newState(), seqs: map[string]uint64{}}
	var out strings.Builder
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "\t") {
			continue
		}
		out.WriteString(line)
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(line, "#") {
			for _, l := range p.event(f) {
				out.WriteString("\t" + l + "\n")
			}
		}
	}
	return out.String()
}

// A player turns the lines of a script into entries. Members are a single
// letter: a has incarnation 0xa, address 10.0.0.10:7000 and zone 10; a2 is
// another life of it, with incarnation 0xa2.
type player struct {
	t     *testing.T
	state *state
	index uint64
	seqs  map[string]uint64
}

func (p *player) event(f []string) []string {
	p.t.Helper()
	p.index++
	e := Entry{Index: p.index, Time: int64(p.index) * 1e9}
	switch f[0] {
	case "join":
		e.Kind, e.Member, e.Data = EntryJoin, inc(p.t, f[1]), p.hello(f[1], args(f[2:])).append(nil)
		e.More = slices.Contains(f, "more")
	case "leave":
		e.Kind, e.Member = EntryLeave, inc(p.t, f[1])
		e.More, e.Fork = slices.Contains(f, "more"), slices.Contains(f, "fork")
	default:
		seq := p.seqs[f[0]] + 1
		verb, rest := f[1], f[2:]
		if verb == "again" { // the same sequence number as the message before
			seq, verb, rest = seq-1, rest[0], rest[1:]
		}
		p.seqs[f[0]] = seq
		e.Kind, e.Member, e.Data = EntryMessage, inc(p.t, f[0]), appendMessage(nil, seq, p.message(verb, rest))
	}
	fx := p.state.apply(e)
	var out []string
	if s := fx.String(); s != "" {
		out = append(out, "=> "+s)
	}
	return append(out, p.summary())
}

// summary shows the state in a line: [index] status epoch{nodes} members.
func (p *player) summary() string {
	s := p.state
	var nodes, members []string
	for _, n := range s.nodes {
		nodes = append(nodes, fmt.Sprintf("%s:%d", letter(n), n.VNodes))
	}
	for _, m := range s.members {
		text := letter(m.node)
		if m.owed > 0 {
			text += fmt.Sprintf("(owes %d)", m.owed)
		}
		if m.complete > 0 {
			text += fmt.Sprintf("(complete %d)", m.complete)
		}
		members = append(members, text)
	}
	var line strings.Builder
	fmt.Fprintf(&line, "[%d] %v epoch %d{%s} members %s", s.index, s.status, s.epoch,
		strings.Join(nodes, " "), strings.Join(members, " "))
	if s.forced > 0 {
		fmt.Fprintf(&line, " forced %d", s.forced)
	}
	if len(s.healing.maintenance)+len(s.healing.drained) > 0 || s.healing.delay != unsetDelay {
		line.WriteString(healingText(s))
	}
	for _, vid := range s.ownedBy(func(owner) bool { return true }) {
		o := s.owners[vid]
		fmt.Fprintf(&line, " own %v=%v", vid, o.Ownership)
		if o.prev != 0 {
			fmt.Fprintf(&line, "<-%x/%d", uint64(o.prev), o.prevGen)
		}
	}
	for _, id := range s.vdis.sorted() {
		v := s.vdis.all[id]
		fmt.Fprintf(&line, " vdi %v=%q/%v", id, v.vdi.Name, v.vdi.Policy)
		if v.vdi.Snapshot {
			line.WriteString("/snapshot")
		}
		if v.orphaned {
			line.WriteString("/orphaned")
		}
		if v.doubt.Since > 0 {
			fmt.Fprintf(&line, "/doubt %+v", v.doubt)
		}
		switch v.lock.State {
		case sheep.Exclusive:
			line.WriteString(" locked by " + letter(v.lock.Owner) + holderText(v.lock.Holder))
		case sheep.Shared:
			line.WriteString(" shared by")
			for _, q := range v.lock.Participants {
				fmt.Fprintf(&line, " %s(%d)%s", letter(q.Node), q.State, holderText(q.Holder))
			}
		}
	}
	if s.deadlines.cluster != 0 || len(s.deadlines.vdis) > 0 {
		var v View
		s.deadlines.show(&v)
		fmt.Fprintf(&line, " deadline %v %v", v.Deadline, v.VDIDeadlines)
	}
	for _, q := range s.plans {
		fmt.Fprintf(&line, " plan %d by %x", q.index, uint64(q.executor))
	}
	return line.String()
}

// holderText shows the client that has a lock, if that is known.
func holderText(h sheep.Holder) string {
	if h.Client == (sheep.Client{}) {
		return ""
	}
	return fmt.Sprintf("/%s since %d", h.Client.Kind, h.Since.Unix())
}

// healingText shows what a view says of healing that waits.
func healingText(s *state) string {
	var v View
	s.healing.show(&v, time.Hour)
	var out strings.Builder
	fmt.Fprintf(&out, " delay %v", v.HealDelay)
	for _, a := range v.Absences {
		patience := a.Patience.String()
		if a.Patience == NoEnd {
			patience = "for ever"
		}
		fmt.Fprintf(&out, " without %s(%v)", letter(a.Node), patience)
	}
	for _, m := range v.Maintenance {
		fmt.Fprintf(&out, " maintained %s", letter(sheep.Node{Addr: m.Addr}))
	}
	for _, addr := range v.Drained {
		fmt.Fprintf(&out, " drained %s", letter(sheep.Node{Addr: addr}))
	}
	return out.String()
}

func letter(n sheep.Node) string { return fmt.Sprintf("%x", n.Addr.Addr().As4()[3]) }

func inc(t *testing.T, name string) sheep.Incarnation {
	t.Helper()
	n, err := strconv.ParseUint(name, 16, 64)
	if err != nil {
		t.Fatalf("member %q: %v", name, err)
	}
	return sheep.Incarnation(n)
}

func args(f []string) map[string]string {
	m := map[string]string{}
	for _, a := range f {
		k, v, _ := strings.Cut(a, "=")
		m[k] = v
	}
	return m
}

func number(m map[string]string, key string, def uint64) uint64 {
	v, ok := m[key]
	if !ok {
		return def
	}
	n, err := strconv.ParseUint(v, 0, 64)
	if err != nil {
		panic(fmt.Sprintf("%s=%q", key, v))
	}
	return n
}

func testNode(name string) sheep.Node {
	n, _ := strconv.ParseUint(name[:1], 16, 8)
	return sheep.Node{
		Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 7000),
		VNodes: 128, Zone: sheep.ZoneID(n), Space: 100 << 30,
	}
}

func (p *player) hello(name string, a map[string]string) hello {
	h := hello{version: uint8(number(a, "version", protocolVersion)), node: testNode(name)}
	h.node.VNodes = uint16(number(a, "vnodes", 128))
	h.node.Space = number(a, "space", h.node.Space)
	if h.node.VNodes == 0 {
		h.node.Space = 0
	}
	h.fixed = number(a, "fixed", 0) == 1
	if h.epoch = sheep.Epoch(number(a, "epoch", 0)); h.epoch > 0 {
		h.settings = testSettings(a)
		for n := range strings.SplitSeq(a["nodes"], ",") {
			h.nodes = append(h.nodes, testNode(n))
		}
	}
	h.owed = uint32(number(a, "owes", 0))
	return h
}

func testSettings(a map[string]string) Settings {
	return Settings{
		Ctime: number(a, "ctime", 1), Copies: uint8(number(a, "copies", 3)), BlockShift: 22,
		Flags: uint16(number(a, "flags", uint64(FlagAutoVNode))), Store: "plain",
	}
}

func testVDI(id, name string) sheep.VDI {
	n, err := strconv.ParseUint(id, 16, 32)
	if err != nil {
		panic(id)
	}
	return sheep.VDI{ID: sheep.VDIID(n), Name: name, SnapID: 1, Policy: sheep.Replicated(3), BlockShift: 22}
}

func (p *player) message(verb string, rest []string) message {
	p.t.Helper()
	a := args(rest)
	vid := func() sheep.VDIID { return testVDI(rest[0], "").ID }
	gen := func() sheep.Generation { return sheep.Generation(number(a, "gen", 0)) }
	switch verb {
	case "format":
		return formatMsg{testSettings(a)}
	case "shutdown":
		return shutdownMsg{}
	case "start":
		return startMsg{}
	case "force":
		return forceRecoverMsg{uint32(number(a, "skip", 0))}
	case "recovery":
		return setRecoveryMsg{rest[0] == "on"}
	case "update":
		return updateNodeMsg{vnodes: uint16(number(a, "vnodes", 0)), space: number(a, "space", 0)}
	case "copies":
		return alterClusterMsg{uint8(number(a, "n", 0))}
	case "vdicopies":
		return alterVDIMsg{vid(), uint8(number(a, "n", 0))}
	case "complete":
		return completeMsg{sheep.Epoch(number(a, "epoch", 0))}
	case "contribute":
		m := contributeMsg{}
		for c := range slices.Chunk(rest, 3) { // number name epoch
			e, _ := strconv.Atoi(c[2])
			m.vdis = append(m.vdis, KnownVDI{testVDI(c[0], c[1]), sheep.Epoch(e)})
		}
		return m
	case "add":
		return addVDIMsg{old: sheep.VDIID(number(a, "old", 0)), vdi: testVDI(rest[0], rest[1]), used: true}
	case "lock":
		return lockMsg{
			vid: vid(), shared: slices.Contains(rest, "shared"), bound: slices.Contains(rest, "bound"),
			session: number(args(rest), "session", 0), client: sheep.Client{Kind: args(rest)["client"]},
		}
	case "end":
		return endSessionMsg{number(args(rest), "session", 0)}
	case "deadline":
		if rest[0] == "0" {
			return setDeadlineMsg{value: int64(number(args(rest), "seconds", 0)) * 1e9}
		}
		if slices.Contains(rest, "cluster") {
			return setDeadlineMsg{vid(), int64(AsCluster)}
		}
		return setDeadlineMsg{vid(), int64(number(args(rest), "seconds", 0)) * 1e9}
	case "unlock":
		return unlockMsg{vid(), slices.Contains(rest, "shared"), testNode(rest[1])}
	case "modified":
		return coherenceMsg{vid(), false}
	case "validated":
		return coherenceMsg{vid(), true}
	case "own":
		return ownMsg{vid()}
	case "handover":
		return handOverMsg{vid(), gen(), inc(p.t, a["to"])}
	case "drained":
		return drainedMsg{vid(), gen()}
	case "disown":
		return disownMsg{vid(), gen()}
	case "doubt":
		return doubtMsg{vid(), number(a, "since", 0)}
	case "delay":
		return setDelayMsg{int64(number(a, "seconds", 0)) * 1e9}
	case "maintain":
		return maintainMsg{addr: testNode(rest[0]).Addr, on: !slices.Contains(rest, "off"), duration: int64(number(a, "seconds", 0)) * 1e9}
	case "drain":
		return drainMsg{addr: testNode(rest[0]).Addr, on: !slices.Contains(rest, "undo")}
	case "plan":
		return planMsg{1, []byte("payload")}
	case "freeze":
		m := freezeMsg{plan: number(a, "plan", 0)}
		for _, v := range rest[1:] {
			m.vids = append(m.vids, testVDI(v, "").ID)
		}
		return m
	case "done":
		m := doneMsg{plan: number(a, "plan", 0), result: []byte("result"), fail: a["fail"]}
		if v, ok := a["vdi"]; ok {
			m.changes = append(m.changes, VDIChange{VDI: testVDI(v, "made")})
		}
		if v, ok := a["drop"]; ok {
			m.changes = append(m.changes, VDIChange{VDI: sheep.VDI{ID: testVDI(v, "").ID}, Drop: true})
		}
		return m
	}
	p.t.Fatalf("unknown verb %q", verb)
	return nil
}
