package remote

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// tagOffset is where the tag lies in an inode.
const tagOffset = proto.LabelSize

// A SnapshotError says that no snapshot was taken.
type SnapshotError struct {
	Tagging bool  // the tag could not be written; else the snapshot was refused
	Remains error // why the tag could not be taken back, so that it stays at the working VDI
	Err     error
}

func (e *SnapshotError) Error() string {
	what := "take the snapshot"
	if e.Tagging {
		what = "write the tag"
	}
	if e.Remains != nil {
		return fmt.Sprintf("%s: %s; the tag remains at the working VDI: %s", what, Text(e.Err), Text(e.Remains))
	}
	return fmt.Sprintf("%s: %s", what, Text(e.Err))
}

// Unwrap returns the cause.
func (e *SnapshotError) Unwrap() error { return e.Err }

// TakeSnapshot makes the working VDI with the header h a snapshot with the tag,
// which may be empty, and returns the number of the new working VDI. If the
// cluster refuses, the tag is taken back. An error is a *SnapshotError.
func (c *Cluster) TakeSnapshot(ctx context.Context, h *proto.InodeHeader, tag string) (sheep.VDIID, error) {
	ctx = context.WithoutCancel(ctx) // the tag belongs to the snapshot
	inode, label := sheep.InodeObject(h.VDI), proto.Label(tag)
	if err := c.Write(ctx, inode, label[:], tagOffset, 0); err != nil {
		return 0, &SnapshotError{Tagging: true, Err: err}
	}
	id, err := c.NewVDI(ctx, h.Name, proto.VDIBody{
		Size: h.Size, Base: h.VDI, Copies: h.Copies, CopyPolicy: h.CopyPolicy,
		StorePolicy: h.StorePolicy, BlockShift: h.BlockShift, SnapID: 1,
	})
	if err == nil {
		return id, nil
	}
	failure := &SnapshotError{Err: err}
	if Result(err) != proto.ResultSuccess && tag != "" { // an answer: the VDI is still the working one
		var none [proto.LabelSize]byte
		failure.Remains = c.Write(ctx, inode, none[:], tagOffset, 0)
	}
	return 0, failure
}
