package proto_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A line of a trace; testdata/traces/README.md describes them.
type traceLine struct {
	Seq           int
	Dir           string
	Hdr           map[string]any
	HdrHex        string         `json:"hdr_hex"`
	PayloadLen    uint32         `json:"payload_len"`
	PayloadHex    string         `json:"payload_hex"`
	PayloadSHA256 string         `json:"payload_sha256"`
	Decoded       map[string]any `json:"payload_decoded"`
}

// eachTraceLine calls fn for every message of every trace.
func eachTraceLine(t *testing.T, fn func(t *testing.T, l traceLine)) {
	t.Helper()
	files, err := filepath.Glob("testdata/traces/*.jsonl")
	if err != nil || len(files) != 16 {
		t.Fatalf("found %d traces, %v; want 16", len(files), err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var l traceLine
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if l.HdrHex != "" {
				t.Run(fmt.Sprintf("%s:%d", filepath.Base(name), l.Seq), func(t *testing.T) { fn(t, l) })
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func TestTracedHeadersDecodeAndEncodeIdentically(t *testing.T) {
	eachTraceLine(t, func(t *testing.T, l traceLine) {
		raw := fromHex(t, l.HdrHex)
		if l.Dir == "c2s" {
			h, err := proto.DecodeHeader(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.Append(nil); !bytes.Equal(got, raw) {
				t.Errorf("encoded\ngot  %x\nwant %x", got, raw)
			}
			if h.Payload() != l.PayloadLen {
				t.Errorf("payload of %d bytes, want %d", h.Payload(), l.PayloadLen)
			}
			if !h.Op.AcceptsVersion(h.Version) {
				t.Errorf("version %d of %v is refused", h.Version, h.Op)
			}
			checkFields(t, l.Hdr, requestFields(h))
			return
		}
		r, err := proto.DecodeResponse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Append(nil); !bytes.Equal(got, raw) {
			t.Errorf("encoded\ngot  %x\nwant %x", got, raw)
		}
		if r.DataLen != l.PayloadLen {
			t.Errorf("payload of %d bytes, want %d", r.DataLen, l.PayloadLen)
		}
		checkFields(t, l.Hdr, responseFields(r))
	})
}

// TestTracedBodiesEncodeIdentically builds the bodies anew from what they
// decode to: QEMU leaves all padding zero.
func TestTracedBodiesEncodeIdentically(t *testing.T) {
	eachTraceLine(t, func(t *testing.T, l traceLine) {
		if l.Dir != "c2s" {
			return
		}
		h, err := proto.DecodeHeader(fromHex(t, l.HdrHex))
		if err != nil {
			t.Fatal(err)
		}
		got := proto.DecodeVDIBody(h.Body).Body()
		if l.Hdr["oid"] != nil {
			got = proto.DecodeObjectBody(h.Body).Body()
		}
		if got != h.Body {
			t.Errorf("body\ngot  %x\nwant %x", got, h.Body)
		}
	})
}

// checkFields compares the fields that a trace names with the decoded ones.
func checkFields(t *testing.T, want, got map[string]any) {
	t.Helper()
	for key, w := range want {
		if key == "flag_names" || key == "pad" {
			continue
		}
		if f, ok := w.(float64); ok {
			w = strconv.FormatFloat(f, 'f', -1, 64)
		}
		if g, ok := got[key]; !ok || fmt.Sprint(g) != w {
			t.Errorf("%s: got %v, want %v", key, g, w)
		}
	}
}

func requestFields(h proto.Header) map[string]any {
	m := map[string]any{
		"proto_ver": h.Version, "opcode": fmt.Sprintf("0x%02x", uint8(h.Op)), "op": h.Op.String(),
		"flags": fmt.Sprintf("0x%04x", uint16(h.Flags)), "epoch": h.Epoch, "id": h.Seq, "data_length": h.DataLen,
	}
	switch h.Op {
	case proto.OpReadObj, proto.OpWriteObj, proto.OpCreateAndWriteObj, proto.OpFlushVDI:
		o := proto.DecodeObjectBody(h.Body)
		m["oid"], m["cow_oid"] = o.ID, o.COW
		m["copies"], m["copy_policy"], m["ec_index"] = o.Copies, o.CopyPolicy, o.ECIndex
		m["tgt_epoch"], m["offset"] = o.TargetEpoch, o.Off
	default:
		v := proto.DecodeVDIBody(h.Body)
		m["vdi_size"], m["base_vdi_id"] = v.Size, fmt.Sprintf("%06x", uint32(v.Base))
		m["copies"], m["copy_policy"], m["store_policy"] = v.Copies, v.CopyPolicy, v.StorePolicy
		m["block_size_shift"], m["snapid"], m["type"] = v.BlockShift, v.SnapID, v.Type
	}
	return m
}

func responseFields(r proto.Response) map[string]any {
	m := map[string]any{
		"proto_ver": r.Version, "opcode": fmt.Sprintf("0x%02x", uint8(r.Op)), "op": r.Op.String(),
		"flags": fmt.Sprintf("0x%04x", uint16(r.Flags)), "epoch": r.Epoch, "id": r.Seq, "data_length": r.DataLen,
		"result": fmt.Sprintf("0x%02x", uint32(r.Result)),
	}
	if r.Op == proto.OpGetClusterDefault {
		c := proto.DecodeClusterDefaultReply(r.Body)
		m["nr_copies"], m["copy_policy"], m["block_size_shift"] = c.Copies, c.CopyPolicy, c.BlockShift
		return m
	}
	v := proto.DecodeVDIReply(r.Body)
	m["vdi_id"], m["attr_id"] = fmt.Sprintf("%06x", uint32(v.VDI)), fmt.Sprintf("%08x", v.Attr)
	m["copies"], m["block_size_shift"] = v.Copies, v.BlockShift
	return m
}

// TestTracedPayloadsEncodeIdentically builds lookups and inodes from the
// fields that the traces name, and compares hashes.
func TestTracedPayloadsEncodeIdentically(t *testing.T) {
	inodes, lookups := 0, 0
	eachTraceLine(t, func(t *testing.T, l traceLine) {
		d := l.Decoded
		var got []byte
		switch {
		case d["vdi_id"] != nil:
			inodes++
			got = tracedInode(t, l)
			checkInode(t, got, d)
		case d["tag"] != nil:
			lookups++
			got = proto.AppendLookup(nil, d["name"].(string), d["tag"].(string))
			if name, tag, err := proto.DecodeLookup(got); err != nil || name != d["name"] || tag != d["tag"] {
				t.Errorf("lookup decodes to %q, %q, %v", name, tag, err)
			}
		case d["name"] != nil && l.PayloadLen == proto.LabelSize:
			lookups++
			got = proto.AppendName(nil, d["name"].(string))
			if name, tag, err := proto.DecodeLookup(got); err != nil || name != d["name"] || tag != "" {
				t.Errorf("name decodes to %q, %q, %v", name, tag, err)
			}
		default:
			return
		}
		sum := sha256.Sum256(got)
		if l.PayloadHex != hex.EncodeToString(got) && l.PayloadSHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%d bytes with other content than the %d traced ones", len(got), l.PayloadLen)
		}
	})
	if inodes < 10 || lookups < 10 {
		t.Errorf("traces have %d inodes and %d lookups", inodes, lookups)
	}
}

// tracedInode builds the payload of l from its decoded fields.
func tracedInode(t *testing.T, l traceLine) []byte {
	t.Helper()
	num := func(key string) uint64 { return uint64(l.Decoded[key].(float64)) }
	hexnum := func(key string) uint64 {
		n, err := strconv.ParseUint(l.Decoded[key].(string), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	h := proto.InodeHeader{
		Name: l.Decoded["name"].(string), Tag: l.Decoded["tag"].(string),
		CreateTime: hexnum("create_time"), SnapTime: hexnum("snap_ctime"), VMClock: num("vm_clock_nsec"),
		Size: num("vdi_size"), VMStateSize: num("vm_state_size"),
		CopyPolicy: uint8(num("copy_policy")), StorePolicy: uint8(num("store_policy")),
		Copies: uint8(num("nr_copies")), BlockShift: uint8(num("block_size_shift")),
		SnapID: uint32(num("snap_id")), VDI: sheep.VDIID(hexnum("vdi_id")),
		Parent: sheep.VDIID(hexnum("parent_vdi_id")), BTreeCounter: uint32(num("btree_counter")),
	}
	b := h.Append(nil)
	b = append(b, make([]byte, l.PayloadLen-proto.InodeHeaderSize)...)
	entries, _ := l.Decoded["data_vdi_id_nonzero"].(map[string]any)
	for key, owner := range entries {
		i, err := strconv.Atoi(key)
		if err != nil {
			t.Fatal(err)
		}
		v, err := strconv.ParseUint(owner.(string), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(b[proto.MapOffset+proto.MapEntrySize*i:], uint32(v))
	}
	return b
}

// checkInode decodes b and compares a few fields with the traced ones.
func checkInode(t *testing.T, b []byte, want map[string]any) {
	t.Helper()
	h, err := proto.DecodeInodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != want["name"] || h.Tag != want["tag"] || h.Snapshot() != (want["snap_ctime"] != strings.Repeat("0", 16)) {
		t.Errorf("decoded name %q, tag %q, snapshot %v", h.Name, h.Tag, h.Snapshot())
	}
	if got := h.Append(nil); !bytes.Equal(got, b[:proto.InodeHeaderSize]) {
		t.Error("decoded inode encodes to other bytes")
	}
}
