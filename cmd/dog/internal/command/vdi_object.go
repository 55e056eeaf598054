package command

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// objectIndexes is how many data objects a VDI may have, plain or hyper.
func objectIndexes(h *proto.InodeHeader) uint64 {
	if h.Hyper() {
		return 1 << 32
	}
	return proto.MaxMapEntries
}

// ownerOf returns the VDI that owns the data object at index, or zero.
func (s *session) ownerOf(ctx context.Context, h *proto.InodeHeader, index uint32) (sheep.VDIID, error) {
	owner, err := s.Owner(ctx, h, index)
	if err != nil {
		return 0, failed(err, "Failed to read object %v %s", sheep.InodeObject(h.VDI), remote.Text(err))
	}
	return owner, nil
}

// A locationReport is the JSON form of vdi object location.
type locationReport struct {
	Object string        `json:"object"` // id of the object, hexadecimal
	Copies int           `json:"copies"`
	Nodes  []locationRow `json:"nodes"`
	*ownership
	Expected []string `json:"expected"` // host:port, in order of the copies
}

type locationRow struct {
	Node string `json:"node"` // host:port
	Has  bool   `json:"has"`
}

// vdiObjectLocation shows which nodes store an object, and which ones should.
func vdiObjectLocation(ctx context.Context, s *session) error {
	h, err := s.open(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return also(err, "FATAL: no inode objects")
	}
	id := sheep.InodeObject(h.VDI)
	if s.opts.hasIndex {
		if uint64(s.opts.index) >= objectIndexes(h) {
			s.print("The offset is too large!\n")
			return quiet(ExitFailure)
		}
		owner, err := s.ownerOf(ctx, h, s.opts.index)
		if err != nil {
			return err
		}
		if owner == 0 && !s.opts.json {
			s.print("The inode object 0x%x idx %d is not allocated\n", uint32(h.VDI), s.opts.index)
			return nil
		}
		if id = sheep.DataObject(owner, s.opts.index); owner == 0 {
			return s.writeJSON(nil)
		}
	}
	return s.showLocation(ctx, h, id)
}

// also adds a line to a failure.
func also(err error, format string, args ...any) error {
	if f, ok := err.(*failure); ok {
		return f.and(format, args...)
	}
	return err
}

// An ownership is the JSON form of who may write a VDI.
type ownership struct {
	Owner      string `json:"owner"`      // host:port of the gateway; empty if it has none
	Generation uint64 `json:"generation"` // of the ownership; it grows with each change
}

func newOwnership(v proto.VDIStatus) *ownership {
	o := &ownership{Generation: uint64(v.Generation)}
	if v.Owner.IsValid() {
		o.Owner = sheep.FormatAddr(v.Owner)
	}
	return o
}

func (o *ownership) String() string {
	if o.Owner == "" {
		return "no gateway owns the VDI: the first that writes will"
	}
	return fmt.Sprintf("the VDI is owned by the gateway %s, generation %d", o.Owner, o.Generation)
}

func (s *session) showLocation(ctx context.Context, h *proto.InodeHeader, id sheep.ObjectID) error {
	nodes, copies := s.nodes.Nodes, int(h.Copies)
	if !s.opts.json {
		if id.Kind() == sheep.KindInode {
			s.print("Looking for the inode object 0x%x with %d nodes\n\n", uint32(h.VDI), len(nodes))
		} else {
			s.print("Looking for the object %v (vid 0x%x idx %d, %d copies) with %d nodes\n\n", id, uint32(h.VDI), id.Index(), copies, len(nodes))
		}
	}
	var own *ownership
	if s.opts.json || s.opts.verbose {
		v, err := s.Status(ctx, h.VDI)
		if err == nil {
			own = newOwnership(v)
		} else if s.opts.verbose {
			return requestFailed(err)
		}
	}
	report := locationReport{ownership: own, Object: id.String(), Copies: copies, Nodes: []locationRow{}, Expected: []string{}}
	i := 0
	for line := range remote.Ordered(slices.Values(nodes), queryWidth, func(n sheep.Node) string {
		switch has, err := s.Exists(ctx, n, id); {
		case unreachable(err):
			return fmt.Sprintf("Failed to connect to %v", n)
		case err != nil:
			return fmt.Sprintf("Failed to ask %v: %s", n, remote.Text(err))
		case has:
			return fmt.Sprintf("%v has the object", n)
		default:
			return fmt.Sprintf("%v doesn't have the object", n)
		}
	}) {
		if s.opts.json {
			report.Nodes = append(report.Nodes, locationRow{nodes[i].String(), strings.HasSuffix(line, " has the object")})
		} else {
			s.print("%s\n", line)
		}
		i++
	}
	for _, at := range placement.NewRing(nodes).Place(id, copies) {
		report.Expected = append(report.Expected, nodes[at].String())
	}
	if s.opts.json {
		return s.writeJSON(report)
	}
	if own != nil {
		defer func() { s.print("\n%v\n", own) }()
	}
	if copies > len(nodes) {
		s.print("\nBecause number of nodes (%d) is less than number of copies (%d), the object should be located at every nodes.\n", len(nodes), copies)
		return nil
	}
	s.print("\nAccording to sheepdog algorithm, the object should be located at:\n%s\n", strings.Join(report.Expected, " "))
	return nil
}

// A mapRow is one entry of the JSON form of vdi object map.
type mapRow struct {
	Index uint32 `json:"index"`
	VDI   string `json:"vdi_id"` // the owner of the object, hexadecimal
}

// vdiObjectMap shows which data objects are allocated, and who owns them.
func vdiObjectMap(ctx context.Context, s *session) error {
	h, err := s.open(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return also(err, "FATAL: %s not found", s.name())
	}
	if s.opts.hasIndex && uint64(s.opts.index) >= objectIndexes(h) {
		s.print("The offset is too large!\n")
		return quiet(ExitFailure)
	}
	objects := s.Objects(ctx, h)
	if s.opts.hasIndex {
		owner, err := s.ownerOf(ctx, h, s.opts.index)
		if err != nil {
			return err
		}
		objects = func(yield func(proto.BTreeEntry, error) bool) {
			yield(proto.BTreeEntry{Index: s.opts.index, VDI: owner}, nil)
		}
	}
	rows := []mapRow{}
	if !s.opts.json {
		s.print("Index       VID\n")
	}
	for o, err := range objects {
		switch {
		case err != nil:
			return failed(err, "Failed to read object %v %s", sheep.InodeObject(h.VDI), remote.Text(err))
		case s.opts.json:
			rows = append(rows, mapRow{o.Index, o.VDI.String()})
		default:
			s.print("%08d %8x\n", o.Index, uint32(o.VDI))
		}
	}
	if s.opts.json {
		return s.writeJSON(rows)
	}
	return nil
}

// vdiObjectDump prints the inode in a local file.
func vdiObjectDump(_ context.Context, s *session) error {
	b, err := os.ReadFile(s.args[0])
	if err != nil {
		return fail(ExitSystem, "%v", err)
	}
	if len(b) != sheep.InodeSize {
		return fail(ExitFailure, "%s is no inode: it has %d bytes, not %d", s.args[0], len(b), sheep.InodeSize)
	}
	h, err := proto.DecodeInodeHeader(b)
	if err != nil {
		return fail(ExitFailure, "%s: %v", s.args[0], err)
	}
	s.print("name: %s\ntag: %s\ncreate_time: %x\nsnap_ctime: %x\nvm_clock_nsec: %x\n", h.Name, h.Tag, h.CreateTime, h.SnapTime, h.VMClock)
	s.print("vdi_size: %d\nvm_state_size: %d\ncopy_policy: %d\nstore_policy: %d\n", h.Size, h.VMStateSize, h.CopyPolicy, h.StorePolicy)
	s.print("nr_copies: %d\nblock_size_shift: %d\nsnap_id: %d\nvdi_id: %x\n", h.Copies, h.BlockShift, h.SnapID, uint32(h.VDI))
	s.print("parent_vdi_id: %x\nbtree_counter: %d\ndata_vdi_id:\n", uint32(h.Parent), h.BTreeCounter)
	owners := words(b[proto.MapOffset:proto.MapEnd])
	for i, owner := range owners {
		if owner != 0 && !h.Hyper() {
			s.print("%d: %x\n", i, owner)
		}
	}
	s.print("gref:\n")
	refs := words(b[proto.GRefOffset:])
	for i, owner := range owners {
		if generation, count := refs[2*i], refs[2*i+1]; generation != 0 || count != 0 {
			s.print("%d: %x, %d, %d\n", i, owner, int32(generation), int32(count))
		}
	}
	return nil
}
