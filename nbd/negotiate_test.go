package nbd_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/nbd"
)

func twoDisks() exports {
	a, b := newMemory(1<<20), newMemory(64<<10)
	b.info = nbd.Info{Size: 64 << 10, ReadOnly: true, Preferred: 65536}
	return exports{"a": a, "b": b}
}

func TestGoldenNegotiation(t *testing.T) {
	const magic = "0003e889045565a9 "
	for _, tc := range []struct {
		name  string
		flags string // of the client
		sends string
		wants string
		ends  bool // with the connection closed
	}{
		{
			name:  "EXPORT_NAME with zeroes",
			flags: "00000001", sends: "49484156454f5054 00000001 00000001 61",
			wants: "0000000000100000 0d6d" + strings.Repeat(" 00000000", 31),
		},
		{
			name:  "EXPORT_NAME without zeroes",
			flags: "00000003", sends: "49484156454f5054 00000001 00000001 62",
			wants: "0000000000010000 040f",
		},
		{
			name:  "EXPORT_NAME from a client that knows nothing else",
			flags: "00000000", sends: "49484156454f5054 00000001 00000001 62",
			wants: "0000000000010000 040f" + strings.Repeat(" 00000000", 31),
		},
		{
			name:  "EXPORT_NAME of a disk that is not there",
			flags: "00000003", sends: "49484156454f5054 00000001 00000001 63", ends: true,
		},
		{
			name:  "another option from a client that knows only EXPORT_NAME",
			flags: "00000000", sends: "49484156454f5054 00000003 00000000", ends: true,
		},
		{
			name:  "client flags from the future",
			flags: "00000007", ends: true,
		},
		{
			name:  "an option with the wrong magic",
			flags: "00000003", sends: "49484156454f5055 00000003 00000000", ends: true,
		},
		{
			name:  "LIST",
			flags: "00000003", sends: "49484156454f5054 00000003 00000000",
			wants: magic + "00000003 00000002 00000014 00000001 61 627974657320696e206d656d6f7279 " +
				magic + "00000003 00000002 00000005 00000001 62 " +
				magic + "00000003 00000001 00000000",
		},
		{
			name:  "GO with every kind of information",
			flags: "00000003", sends: "49484156454f5054 00000007 0000000f 00000001 62 0004 0000 0001 0002 0003",
			wants: magic + "00000007 00000003 0000000c 0000 0000000000010000 040f" +
				" " + magic + "00000007 00000003 00000003 0001 62 " +
				magic + "00000007 00000003 0000000e 0003 00000001 00010000 02000000 " +
				magic + "00000007 00000001 00000000",
		},
		{
			name:  "GO for a description",
			flags: "00000003", sends: "49484156454f5054 00000007 00000009 00000001 61 0001 0002",
			wants: magic + "00000007 00000003 0000000c 0000 0000000000100000 0d6d " +
				magic + "00000007 00000003 00000011 0002 627974657320696e206d656d6f7279 " +
				magic + "00000007 00000001 00000000",
		},
		{
			name:  "STRUCTURED_REPLY adds DF to the flags",
			flags: "00000003", sends: "49484156454f5054 00000008 00000000 49484156454f5054 00000001 00000001 61",
			wants: magic + "00000008 00000001 00000000 0000000000100000 0ded",
		},
		{
			name:  "ABORT",
			flags: "00000003", sends: "49484156454f5054 00000002 00000000",
			wants: magic + "00000002 00000001 00000000", ends: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, twoDisks(), nbd.Config{}).dial(t)
			c.expect("4e42444d41474943 49484156454f5054 0003")
			c.send(unhex(t, tc.flags), unhex(t, tc.sends))
			c.expect(tc.wants)
			if tc.ends {
				if rest := c.closed(); len(rest) > 0 {
					t.Errorf("got %x before the end", rest)
				}
			}
		})
	}
}

func TestRefusedOptionsLeaveTheNegotiationGoing(t *testing.T) {
	for _, tc := range []struct {
		name string
		opt  uint32
		data []byte
		want uint32
	}{
		{"an unknown option", 77, []byte("x"), errUnsup},
		{"extended headers", optExtended, nil, errUnsup},
		{"oldest unused option", 4, nil, errUnsup},
		{"STARTTLS without TLS", optStartTLS, nil, errPolicy},
		{"STARTTLS with data", optStartTLS, []byte{1}, errInvalid},
		{"LIST with data", optList, []byte{1}, errInvalid},
		{"STRUCTURED_REPLY with data", optStructured, []byte{1}, errInvalid},
		{"GO for a disk that is not there", optGo, ask("c"), errUnknown},
		{"INFO for a disk that is not there", optInfo, ask("c"), errUnknown},
		{"GO for the default disk where there is none", optGo, ask(""), errUnknown},
		{"GO for a locked disk", optGo, ask("locked"), errPolicy},
		{"GO without data", optGo, nil, errInvalid},
		{"GO with a name that is longer than the data", optGo, []byte{0xff, 0xff, 0xff, 0xff, 'a', 0, 0}, errInvalid},
		{"GO with fewer requests than it says", optGo, append(lenString("a"), 0, 2, 0, 0), errInvalid},
		{"GO with more requests than it says", optGo, append(lenString("a"), 0, 1, 0, 0, 0, 1), errInvalid},
		{"GO with a name that is not UTF-8", optGo, ask("a\xff"), errInvalid},
		{"GO with a NUL in the name", optGo, ask("a\x00"), errInvalid},
		{"GO with a very long name", optGo, ask(strings.Repeat("a", 5000)), errTooBig},
		{"an option with too much data", optGo, make([]byte, 100<<10), errTooBig},
		{"meta contexts before structured replies", optSetMeta, metaAsk("a", "base:allocation"), errInvalid},
		{"listing meta contexts before structured replies", optListMeta, metaAsk("a"), errInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := twoDisks()
			c := serve(t, e, nbd.Config{}).hello(t)
			c.option(tc.opt, tc.data)
			c.reply(tc.opt, tc.want)
			c.option(optGo, ask("b"))
			if data := c.reply(optGo, repInfo); binary.BigEndian.Uint64(data[2:]) != 64<<10 {
				t.Errorf("info %x is not of disk b", data)
			}
			c.reply(optGo, repACK)
			if n := e["a"].opens.Load(); n != 0 {
				t.Errorf("disk a was opened %d times", n)
			}
		})
	}
}

func TestLockedDiskSaysByWhom(t *testing.T) {
	c := serve(t, twoDisks(), nbd.Config{}).hello(t)
	c.option(optGo, ask("locked"))
	if why := string(c.reply(optGo, errPolicy)); !strings.Contains(why, "locked by 10.0.0.7") {
		t.Errorf("the client is told %q", why)
	}
}

func TestFailedGoDoesNotFallBackToInfo(t *testing.T) {
	e := twoDisks()
	c := serve(t, e, nbd.Config{}).hello(t)
	c.option(optInfo, ask("a"))
	c.reply(optInfo, repInfo)
	c.reply(optInfo, repACK)
	c.option(optGo, ask("nope"))
	c.reply(optGo, errUnknown)
	c.option(optExportName, nil)
	if rest := c.closed(); len(rest) > 0 {
		t.Errorf("EXPORT_NAME without a name is answered with %x", rest)
	}
	if n := e["a"].opens.Load(); n != 0 {
		t.Errorf("disk a was opened %d times", n)
	}
}

func TestDefaultExport(t *testing.T) {
	c := serve(t, twoDisks(), nbd.Config{DefaultExport: "b"}).hello(t)
	c.option(optGo, ask("", 1))
	c.reply(optGo, repInfo)
	if got := string(c.reply(optGo, repInfo)[2:]); got != "b" {
		t.Errorf("the default disk is called %q", got)
	}
	c.reply(optGo, repACK)
}

func TestMetaContexts(t *testing.T) {
	const alloc, ours = "base:allocation", "sheepdog:shared"
	for _, tc := range []struct {
		name    string
		opt     uint32
		queries []string
		want    []string
		refused uint32
	}{
		{"list all", optListMeta, nil, []string{alloc, ours}, 0},
		{"list a namespace", optListMeta, []string{"base:"}, []string{alloc}, 0},
		{"list by names and namespaces", optListMeta, []string{alloc, "base:", "sheepdog:"}, []string{alloc, ours}, 0},
		{"list unknown ones", optListMeta, []string{"qemu:dirty-bitmap:x", "base:nothing"}, nil, 0},
		{"set nothing", optSetMeta, nil, nil, 0},
		{"set one", optSetMeta, []string{ours}, []string{ours}, 0},
		{"set both, one twice", optSetMeta, []string{ours, alloc, ours}, []string{alloc, ours}, 0},
		{"set by namespace selects nothing", optSetMeta, []string{"base:", "sheepdog:"}, nil, 0},
		{"a query without a namespace", optSetMeta, []string{"allocation"}, nil, errInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, twoDisks(), nbd.Config{}).hello(t)
			c.option(optStructured, nil)
			c.reply(optStructured, repACK)
			c.option(tc.opt, metaAsk("a", tc.queries...))
			if tc.refused != 0 {
				c.reply(tc.opt, tc.refused)
				return
			}
			seen := map[uint32]bool{}
			for _, want := range tc.want {
				data := c.reply(tc.opt, repMeta)
				if got := string(data[4:]); got != want {
					t.Errorf("got context %q, want %q", got, want)
				}
				seen[binary.BigEndian.Uint32(data)] = true
			}
			c.reply(tc.opt, repACK)
			if tc.opt == optSetMeta && len(seen) != len(tc.want) {
				t.Errorf("contexts share numbers: %v", seen)
			}
		})
	}
}

// Block status is for the disk that the contexts were chosen for, and only if
// the last choice succeeded.
func TestBlockStatusNeedsContextsOfTheSameDisk(t *testing.T) {
	for _, tc := range []struct {
		name  string
		asks  [][]byte
		wants uint32
	}{
		{"chosen", [][]byte{metaAsk("a", "base:allocation")}, 0},
		{"not chosen", nil, eINVAL},
		{"chosen for another disk", [][]byte{metaAsk("b", "base:allocation")}, eINVAL},
		{"chosen, then a choice that failed", [][]byte{metaAsk("a", "base:allocation"), metaAsk("c", "base:allocation")}, eINVAL},
		{"chosen, then nothing", [][]byte{metaAsk("a", "base:allocation"), metaAsk("a")}, eINVAL},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, twoDisks(), nbd.Config{}).hello(t)
			c.option(optStructured, nil)
			c.reply(optStructured, repACK)
			for _, a := range tc.asks {
				c.option(optSetMeta, a)
				for done := false; !done; {
					h := c.read(20)
					c.read(int(binary.BigEndian.Uint32(h[16:])))
					done = binary.BigEndian.Uint32(h[12:]) != repMeta
				}
			}
			c.option(optGo, ask("a"))
			c.reply(optGo, repInfo)
			c.reply(optGo, repACK)
			c.request(cmdStatus, 0, 0, 4096)
			if got := c.answer(0, true); got != tc.wants {
				t.Errorf("block status answers %d, want %d", got, tc.wants)
			}
		})
	}
}

func TestHugeOptionsCostNothing(t *testing.T) {
	s := serve(t, twoDisks(), nbd.Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, opt := range []uint32{optExportName, optGo, optList, optSetMeta, 99} {
		for range 20 {
			c := s.hello(t)
			c.send([]byte("IHAVEOPT"), u32(opt), u32(1<<30))
			if rest := c.closed(); len(rest) > 0 {
				t.Errorf("option %d of 1 GiB is answered with %x", opt, rest)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("100 options of 1 GiB allocated %d bytes", n)
	}
}

func TestHandshakeTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		serveAt(t, twoDisks(), nbd.Config{HandshakeTimeout: 7 * time.Second}, l)
		c := l.dial(t)
		c.read(18)
		start := time.Now()
		c.send(u32(3), []byte("IHAVE"))
		c.closed()
		if d := time.Since(start); d != 7*time.Second {
			t.Errorf("a silent client is cut off after %v", d)
		}
	})
}

func TestHalfOpenHandshakesDoNotKeepClientsOut(t *testing.T) {
	s := serve(t, twoDisks(), nbd.Config{MaxConns: 8})
	old := s.open(t, "a", false)
	var half []net.Conn
	for range 200 {
		c := s.dial(t)
		c.expect("4e42444d41474943 49484156454f5054 0003")
		half = append(half, c)
	}
	if n := s.Stats().Connections; n > 8 {
		t.Errorf("%d connections are open, 8 are allowed", n)
	}
	fresh := s.open(t, "b", false)
	for _, c := range []*client{old, fresh} {
		c.request(cmdRead, 0, 512, 16)
		if no := c.simple(512); no != 0 {
			t.Errorf("read answers %d", no)
		}
		if !bytes.Equal(c.read(16), make([]byte, 16)) {
			t.Error("read returns something")
		}
	}
	for range 6 {
		s.open(t, "a", false)
	}
	if rest := s.dial(t).closed(); len(rest) > 0 {
		t.Errorf("a ninth client is greeted with %x", rest)
	}
	for _, c := range half {
		c.Close()
	}
}
