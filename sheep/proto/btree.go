package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// The shape of the B-tree that is the map of a hyper volume. Its root lies at
// MapOffset in the inode, its leaves in objects of their own; a small tree is
// one leaf, and that is the root.
const (
	BTreeMagic      = 0x6274
	BTreeHeaderSize = 8
	BTreeLeafDepth  = 1
	BTreeRootDepth  = 2 // of a root whose leaves are objects

	MaxBTreeEntries  = 524_287 // of a leaf
	MaxBTreeChildren = 262_143 // of a root

	BTreeEntrySize = 8
	BTreeChildSize = 16

	// BTreeInbox is the number of no node. A leaf that is written to the object
	// of this number is none either: its entries are to be entered into the tree,
	// by the sheep, which C's do not know how to do: they have no such object.
	BTreeInbox = 1<<32 - 1
)

// A BTreeEntry says who owns a data object. An owner of zero is as good as no
// entry.
type BTreeEntry struct {
	Index uint32
	VDI   sheep.VDIID
}

// A BTreeChild is a leaf as its root knows it.
type BTreeChild struct {
	Last uint32 // the highest index in the leaf
	ID   sheep.ObjectID
}

// A BTreeHeader is the head of a node of the tree.
//
//	offset  size  field
//	     0     2  magic
//	     2     2  depth
//	     4     4  number of entries
//
// The entries follow, in the order of their indexes, of which the same may come
// twice, as the crash of a writer leaves them; the first then counts:
//
//	leaf    0  4  index             root    0  4  highest index of the child
//	        4  4  VDI                       4  4  padding
//	                                        8  8  object id of the child
type BTreeHeader struct {
	Depth   uint16
	Entries uint32
}

// DecodeBTreeHeader decodes the header at the start of b. It refuses depths
// that do not exist, and more entries than a node has room for.
func DecodeBTreeHeader(b []byte) (BTreeHeader, error) {
	if len(b) < BTreeHeaderSize {
		return BTreeHeader{}, short("B-tree header", len(b), BTreeHeaderSize)
	}
	le := binary.LittleEndian
	if magic := le.Uint16(b); magic != BTreeMagic {
		return BTreeHeader{}, fmt.Errorf("%w: B-tree node with magic %#x", ErrMalformed, magic)
	}
	h := BTreeHeader{Depth: le.Uint16(b[2:]), Entries: le.Uint32(b[4:])}
	switch {
	case h.Depth == BTreeLeafDepth && h.Entries <= MaxBTreeEntries:
	case h.Depth == BTreeRootDepth && h.Entries <= MaxBTreeChildren:
	default:
		return BTreeHeader{}, fmt.Errorf("%w: B-tree node of depth %d with %d entries",
			ErrMalformed, h.Depth, h.Entries)
	}
	return h, nil
}

// Append appends the header's 8 bytes to b.
func (h BTreeHeader) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, BTreeMagic)
	b = le.AppendUint16(b, h.Depth)
	return le.AppendUint32(b, h.Entries)
}

// Size returns the bytes of the node that are in use, the header included.
func (h BTreeHeader) Size() int {
	if h.Depth == BTreeRootDepth {
		return BTreeHeaderSize + int(h.Entries)*BTreeChildSize
	}
	return BTreeHeaderSize + int(h.Entries)*BTreeEntrySize
}

// A BTreeNode is a node of the tree: a leaf with Entries or, of depth
// BTreeRootDepth, a root with Children.
type BTreeNode struct {
	Depth    uint16
	Entries  []BTreeEntry
	Children []BTreeChild
}

// DecodeBTreeNode decodes the node at the start of b. It refuses entries that
// are not in order.
func DecodeBTreeNode(b []byte) (BTreeNode, error) {
	h, err := DecodeBTreeHeader(b)
	if err != nil {
		return BTreeNode{}, err
	}
	if len(b) < h.Size() {
		return BTreeNode{}, short("B-tree node", len(b), h.Size())
	}
	b = b[BTreeHeaderSize:h.Size()]
	le := binary.LittleEndian
	n := BTreeNode{Depth: h.Depth}
	if h.Depth == BTreeRootDepth {
		n.Children = make([]BTreeChild, h.Entries)
		for i := range n.Children {
			e := b[i*BTreeChildSize:]
			n.Children[i] = BTreeChild{Last: le.Uint32(e), ID: sheep.ObjectID(le.Uint64(e[8:]))}
			if i > 0 && n.Children[i].Last < n.Children[i-1].Last {
				return BTreeNode{}, fmt.Errorf("%w: B-tree root out of order at %d", ErrMalformed, i)
			}
		}
		return n, nil
	}
	n.Entries = make([]BTreeEntry, h.Entries)
	for i := range n.Entries {
		e := b[i*BTreeEntrySize:]
		n.Entries[i] = BTreeEntry{Index: le.Uint32(e), VDI: sheep.VDIID(le.Uint32(e[4:]))}
		if i > 0 && n.Entries[i].Index < n.Entries[i-1].Index {
			return BTreeNode{}, fmt.Errorf("%w: B-tree leaf out of order at %d", ErrMalformed, i)
		}
	}
	return n, nil
}

// Append appends the node's bytes in use to b.
func (n BTreeNode) Append(b []byte) []byte {
	le := binary.LittleEndian
	if n.Depth == BTreeRootDepth {
		b = BTreeHeader{Depth: n.Depth, Entries: uint32(len(n.Children))}.Append(b)
		for _, c := range n.Children {
			b = le.AppendUint32(b, c.Last)
			b = append(b, 0, 0, 0, 0)
			b = le.AppendUint64(b, uint64(c.ID))
		}
		return b
	}
	b = BTreeHeader{Depth: n.Depth, Entries: uint32(len(n.Entries))}.Append(b)
	for _, e := range n.Entries {
		b = le.AppendUint32(b, e.Index)
		b = le.AppendUint32(b, uint32(e.VDI))
	}
	return b
}
