package nbd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"sheepdog/nbd"
)

// ramp returns n bytes that differ from their neighbours.
func ramp(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

func TestGoldenReplies(t *testing.T) {
	m := newMemory(64 << 10)
	m.Write(t.Context(), []byte("sheep"), 4096, true)
	m.states[1] = allocated | shared
	s := serve(t, exports{"a": m}, nbd.Config{})

	simple := s.open(t, "a", false)
	simple.send(unhex(t, "25609513 0000 0000 0102030405060708 0000000000001000 00000005"))
	simple.expect("67446698 00000000 0102030405060708 7368656570")
	simple.send(unhex(t, "25609513 0000 0000 0102030405060708 0000000000010000 00000001"))
	simple.expect("67446698 00000016 0102030405060708")
	simple.send(unhex(t, "25609513 0001 0001 0102030405060708 0000000000000000 00000002 aabb"))
	simple.expect("67446698 00000000 0102030405060708")

	c := s.open(t, "a", true, "base:allocation", "sheepdog:shared")
	c.send(unhex(t, "25609513 0000 0000 0102030405060708 0000000000001000 00000005"))
	c.expect("668e33ef 0001 0001 0102030405060708 0000000d 0000000000001000 7368656570")
	c.send(unhex(t, "25609513 0000 0000 0102030405060708 0000000000010000 00000001"))
	c.expect("668e33ef 0001 8001 0102030405060708 00000006 00000016 0000")
	c.send(unhex(t, "25609513 0000 0007 0102030405060708 0000000000000000 00004000"))
	c.expect("668e33ef 0000 0005 0102030405060708 00000014 00000001 00002000 00000000 00002000 00000003" +
		" 668e33ef 0001 0005 0102030405060708 0000001c 00000002 00001000 00000000 00001000 00000001 00002000 00000000")
	c.send(unhex(t, "25609513 0008 0007 0102030405060708 0000000000000000 00001800"))
	c.expect("668e33ef 0000 0005 0102030405060708 0000000c 00000001 00001800 00000000" +
		" 668e33ef 0001 0005 0102030405060708 0000000c 00000002 00001000 00000000")
	c.send(unhex(t, "25609513 0000 0002 0102030405060708 0000000000000000 00000000"))
	if rest := c.closed(); len(rest) > 0 {
		t.Errorf("DISC is answered with %x", rest)
	}
}

func TestSparseReads(t *testing.T) {
	m := newMemory(256 << 10)
	want := make([]byte, 256<<10)
	copy(want[64<<10:], ramp(4096))
	copy(want[100<<10:], ramp(8192))
	m.Write(t.Context(), want[64<<10:64<<10+4096], 64<<10, true)
	m.Write(t.Context(), want[100<<10:108<<10], 100<<10, true)
	c := serve(t, exports{"a": m}, nbd.Config{}).open(t, "a", true)
	for _, tc := range []struct {
		name        string
		off, length int
		flags       uint16
		holes, data int // chunks
	}{
		{"all", 0, 256 << 10, 0, 3, 2},
		{"from within data over a hole", 64<<10 + 100, 40000 - 100, 0, 1, 2},
		{"only a hole", 128 << 10, 64 << 10, 0, 1, 0},
		{"in one piece", 0, 256 << 10, df, 0, 1},
		{"too short to look for holes", 0, 4096, 0, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.t = t
			c.request(cmdRead, tc.flags, uint64(tc.off), uint32(tc.length))
			got := bytes.Repeat([]byte{0xee}, tc.length)
			holes, data := 0, 0
			for done := false; !done; {
				k := c.chunk()
				done = k.flags&1 != 0
				at := binary.BigEndian.Uint64(k.data) - uint64(tc.off)
				switch k.typ {
				case 1:
					data++
					copy(got[at:], k.data[8:])
				case 2:
					holes++
					clear(got[at : at+uint64(binary.BigEndian.Uint32(k.data[8:]))])
				default:
					t.Fatalf("chunk of type %d", k.typ)
				}
			}
			if !bytes.Equal(got, want[tc.off:tc.off+tc.length]) {
				t.Error("wrong data")
			}
			if holes != tc.holes || data != tc.data {
				t.Errorf("%d holes, %d pieces of data, want %d and %d", holes, data, tc.holes, tc.data)
			}
		})
	}
}

func TestErrorsAreAnswered(t *testing.T) {
	const size, most = 1 << 20, 256 << 10
	for _, tc := range []struct {
		name     string
		disk     string
		cmd      uint16
		flags    uint16
		off      uint64
		length   uint32
		want     uint32 // with structured replies
		wantOld  uint32 // without, if it differs
		hasWords bool
	}{
		{name: "read", disk: "a", cmd: cmdRead, off: 5, length: 99},
		{name: "read at the end", disk: "a", cmd: cmdRead, off: size, length: 1, want: eINVAL},
		{name: "read across the end", disk: "a", cmd: cmdRead, off: size - 1, length: 2, want: eINVAL},
		{name: "read where the sum overflows", disk: "a", cmd: cmdRead, off: 1<<64 - 1, length: 2, want: eINVAL},
		{name: "read nothing", disk: "a", cmd: cmdRead, want: eINVAL},
		{name: "read too much", disk: "a", cmd: cmdRead, length: most + 1, want: eOVERFLOW},
		{name: "read in one piece", disk: "a", cmd: cmdRead, flags: df, length: 512, wantOld: eINVAL},
		{name: "read with FUA", disk: "a", cmd: cmdRead, flags: fua, length: 512},
		{name: "read with a flag of zeroes", disk: "a", cmd: cmdRead, flags: noHole, length: 512, want: eINVAL},
		{name: "read with a flag from the future", disk: "a", cmd: cmdRead, flags: 1 << 9, length: 512, want: eINVAL},
		{name: "write", disk: "a", cmd: cmdWrite, off: 5, length: 99},
		{name: "write with FUA", disk: "a", cmd: cmdWrite, flags: fua, off: 5, length: 99},
		{name: "write across the end", disk: "a", cmd: cmdWrite, off: size - 1, length: 2, want: eNOSPC},
		{name: "write nothing", disk: "a", cmd: cmdWrite, want: eINVAL},
		{name: "write too much", disk: "a", cmd: cmdWrite, length: most + 1, want: eINVAL},
		{name: "write to a snapshot", disk: "b", cmd: cmdWrite, length: 512, want: ePERM},
		{name: "write with a bad flag", disk: "a", cmd: cmdWrite, flags: reqOne, length: 512, want: eINVAL},
		{name: "trim", disk: "a", cmd: cmdTrim, length: size},
		{name: "trim across the end", disk: "a", cmd: cmdTrim, off: 1, length: size, want: eINVAL},
		{name: "trim a snapshot", disk: "b", cmd: cmdTrim, length: 512, want: ePERM},
		{name: "trim nothing", disk: "a", cmd: cmdTrim, want: eINVAL},
		{name: "zero with all flags", disk: "a", cmd: cmdZeroes, flags: fua | noHole | fastZero, length: size},
		{name: "zero across the end", disk: "a", cmd: cmdZeroes, off: 1, length: size, want: eNOSPC},
		{name: "zero a snapshot", disk: "b", cmd: cmdZeroes, length: 512, want: ePERM},
		{name: "zero with DF", disk: "a", cmd: cmdZeroes, flags: df, length: 512, want: eINVAL},
		{name: "cache", disk: "a", cmd: cmdCache, length: size},
		{name: "cache across the end", disk: "a", cmd: cmdCache, off: 1, length: size, want: eINVAL},
		{name: "flush", disk: "a", cmd: cmdFlush},
		{name: "flush a snapshot", disk: "b", cmd: cmdFlush},
		{name: "flush with an offset", disk: "a", cmd: cmdFlush, off: 1, want: eINVAL},
		{name: "flush with a length", disk: "a", cmd: cmdFlush, length: 1, want: eINVAL},
		{name: "status not negotiated", disk: "a", cmd: cmdStatus, length: 512, want: eINVAL},
		{name: "resize", disk: "a", cmd: 8, length: 512, want: eINVAL},
		{name: "an unknown command", disk: "a", cmd: 4711, length: 1 << 31, want: eINVAL},
	} {
		for _, structured := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, structured %v", tc.name, structured), func(t *testing.T) {
				e := twoDisks()
				c := serve(t, e, nbd.Config{MaxRequest: most}).open(t, tc.disk, structured)
				var payload []byte
				if tc.cmd == cmdWrite {
					payload = ramp(int(tc.length))
				}
				c.request(tc.cmd, tc.flags, tc.off, tc.length, payload)
				want := tc.want
				if !structured && tc.wantOld != 0 {
					want = tc.wantOld
				}
				got := c.answer(tc.off, structured)
				if got != want {
					t.Errorf("answer %d, want %d", got, want)
				}
				if tc.cmd == cmdRead && got == 0 && !structured {
					c.read(int(tc.length))
				}
				c.request(cmdRead, 0, 8, 8)
				if got := c.answer(8, structured); got != 0 {
					t.Errorf("a read afterwards answers %d", got)
				}
			})
		}
	}
}

func TestDeviceErrors(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want uint32
	}{
		{syscall.EPERM, ePERM}, {syscall.EACCES, ePERM}, {syscall.EROFS, ePERM},
		{syscall.EIO, eIO}, {syscall.ENOMEM, 12}, {syscall.EINVAL, eINVAL},
		{syscall.ENOSPC, eNOSPC}, {syscall.EDQUOT, eNOSPC}, {syscall.EFBIG, eNOSPC},
		{syscall.EOPNOTSUPP, eNOTSUP}, {syscall.ESHUTDOWN, eSHUTDOWN},
		{syscall.EOVERFLOW, eIO}, {syscall.ENOENT, eIO}, {io.EOF, eIO},
		{fmt.Errorf("write object 7: %w", syscall.ENOSPC), eNOSPC},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			m := newMemory(1 << 20)
			for _, op := range []string{"read", "write", "zero", "flush", "prefetch", "extents"} {
				m.set(op, tc.err)
			}
			c := serve(t, exports{"a": m}, nbd.Config{}).open(t, "a", true, "base:allocation")
			for cmd := range uint16(8) {
				length, payload := uint32(512), []byte(nil)
				switch cmd {
				case cmdDisc:
					continue
				case cmdFlush:
					length = 0
				case cmdWrite:
					payload = make([]byte, 512)
				}
				c.request(cmd, 0, 0, length, payload)
				if got := c.answer(0, true); got != tc.want {
					t.Errorf("command %d answers %d, want %d", cmd, got, tc.want)
				}
			}
			m.set("flush", nil)
		})
	}
}

func TestZeroModes(t *testing.T) {
	for _, tc := range []struct {
		cmd, flags uint16
		want       nbd.ZeroMode
	}{
		{cmdTrim, 0, nbd.ZeroTrim},
		{cmdTrim, fua, nbd.ZeroTrim | nbd.ZeroFUA},
		{cmdZeroes, 0, 0},
		{cmdZeroes, fua | noHole, nbd.ZeroFUA | nbd.ZeroNoHole},
		{cmdZeroes, fastZero, nbd.ZeroFast},
	} {
		m := newMemory(1 << 20)
		c := serve(t, exports{"a": m}, nbd.Config{}).open(t, "a", false)
		c.request(tc.cmd, tc.flags, 0, 4096)
		if no := c.simple(0); no != 0 {
			t.Errorf("command %d answers %d", tc.cmd, no)
		}
		if got := nbd.ZeroMode(m.lastMode.Load()); got != tc.want {
			t.Errorf("command %d with flags %#x: mode %#x, want %#x", tc.cmd, tc.flags, got, tc.want)
		}
	}
}

func TestReadOnlyServer(t *testing.T) {
	c := serve(t, twoDisks(), nbd.Config{ReadOnly: true}).hello(t)
	c.option(optExportName, []byte("a"))
	c.expect("0000000000100000 050f")
	c.request(cmdWrite, 0, 0, 4, []byte("wolf"))
	if no := c.simple(0); no != ePERM {
		t.Errorf("a write answers %d", no)
	}
}

func TestGarbageEndsOnlyItsConnection(t *testing.T) {
	s := serve(t, twoDisks(), nbd.Config{MaxRequest: 64 << 10})
	good := s.open(t, "a", false)
	for _, garbage := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: sheep\r\n\r\n"),
		request(cmdWrite, 0, 1, 0, 1<<31), // no client means that
	} {
		c := s.open(t, "a", false)
		c.send(garbage)
		if rest := c.closed(); len(rest) > 0 {
			t.Errorf("garbage is answered with %x", rest)
		}
	}
	good.request(cmdRead, 0, 0, 4)
	if no := good.simple(0); no != 0 {
		t.Errorf("another client's read answers %d", no)
	}
}

func TestRepliesComeAsRequestsComplete(t *testing.T) {
	m := newMemory(1 << 20)
	c := serve(t, exports{"a": m}, nbd.Config{}).open(t, "a", false)
	release := m.block()
	for i := range 100 {
		c.request(cmdRead, 0, uint64(i), 1)
	}
	await(t, "all reads are under way", func() bool { return m.entered.Load() == 100 })
	c.request(cmdFlush, 0, 9, 0) // refused: it has an offset
	if no := c.simple(9); no != eINVAL {
		t.Errorf("the refused request answers %d", no)
	}
	release()
	seen := map[uint64]bool{}
	for range 100 {
		h := c.read(17)
		seen[binary.BigEndian.Uint64(h[8:])] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different replies", len(seen))
	}
}

// await polls for a state that nothing announces.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not reached: ", what)
		}
	}
}

// A device that has been quick is trusted to be so again. If it is not, the
// requests behind the slow one must not wait for it.
func TestSlowRequestAmongQuickOnesHoldsUpNoOther(t *testing.T) {
	m := newMemory(1 << 20)
	c := serve(t, exports{"a": m}, nbd.Config{}).open(t, "a", false)
	for round := range 5 {
		for i := range uint64(200) {
			c.request(cmdRead, 0, i, 1)
			c.simple(i)
			c.read(1)
		}
		release := m.block()
		before := m.entered.Load()
		c.request(cmdRead, 0, 1000, 1)
		c.request(cmdRead, 0, 1001, 1)
		await(t, "both reads are under way", func() bool { return m.entered.Load() == before+2 })
		c.request(cmdRead, 0, 1<<40, 1)
		if no := c.simple(1 << 40); no != eINVAL {
			t.Fatalf("round %d: a bad read answers %d", round, no)
		}
		release()
		for range 2 {
			c.read(17)
		}
	}
}
