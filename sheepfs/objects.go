package sheepfs

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// objectsHeader precedes the lines of an object table.
const objectsHeader = "Index    Object           Owner  Nodes\n"

// vdiObjects says where each object of a VDI should be: the inode, then the data
// objects in order. Nodes are in the order of the copies.
func (t *FS) vdiObjects(ctx context.Context, c *remote.Cluster, h *proto.InodeHeader) (content, error) {
	objects, err := c.Allocated(ctx, h)
	if err != nil {
		return nil, err
	}
	members, err := c.Membership(ctx)
	if err != nil {
		return nil, err
	}
	width := int(h.Copies)
	if p, err := h.Policy(); err == nil {
		width = p.Width()
	}
	o := &objectTable{objects: objects, nodes: members.Nodes, ring: placement.NewRing(members.Nodes), width: width}
	o.first = objectsHeader + o.line("inode", sheep.InodeObject(h.VDI), h.VDI)
	return o, nil
}

// An objectTable is made line by line as it is read, since that of a large disk
// has some hundred megabytes.
type objectTable struct {
	first   string // the header and the line of the inode
	objects []proto.BTreeEntry
	nodes   []sheep.Node
	ring    *placement.Ring
	width   int

	mu   sync.Mutex
	at   int64  // guarded by mu; where buf begins
	buf  []byte // guarded by mu; lines made and not yet read
	next int    // guarded by mu; the first object that is not in buf
}

func (o *objectTable) line(index string, id sheep.ObjectID, owner sheep.VDIID) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %v %6v ", index, id, owner)
	for _, i := range o.ring.Place(id, o.width) {
		b.WriteString(" " + o.nodes[i].String())
	}
	b.WriteByte('\n')
	return b.String()
}

// readAt goes on where the last read has ended, or starts again.
func (o *objectTable) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if off < o.at || o.at == 0 && o.next == 0 {
		o.at, o.next, o.buf = 0, 0, []byte(o.first)
	}
	for o.at+int64(len(o.buf)) < off+int64(len(p)) && o.next < len(o.objects) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if skip := min(off-o.at, int64(len(o.buf))); skip > 0 {
			o.at, o.buf = o.at+skip, o.buf[skip:]
		}
		e := o.objects[o.next]
		o.next++
		o.buf = append(o.buf, o.line(fmt.Sprintf("%08d", e.Index), sheep.DataObject(e.VDI, e.Index), e.VDI)...)
	}
	if skip := off - o.at; skip >= int64(len(o.buf)) {
		return 0, nil
	} else {
		return copy(p, o.buf[skip:]), nil
	}
}
