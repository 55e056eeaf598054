package command

import (
	"context"
	"errors"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/vdi"
)

// disk opens a VDI as a block device.
func (s *session) disk(ctx context.Context, name string, v remote.Version) (*vdi.Disk, error) {
	d, err := vdi.OpenDisk(ctx, s.host(), name, v.Tag, v.ID, vdi.DiskConfig{Parallel: transferWidth})
	if err != nil {
		return nil, openFailed(name, v, err)
	}
	return d, nil
}

// host returns the daemon as the host of a Disk.
func (s *session) host() *diskHost { return &diskHost{Objects: client.NewObjects(doer{s.Cluster})} }

// A diskHost is the daemon as the host of a Disk. C's daemons do not write the trees
// of hyper volumes; there the client has to.
type diskHost struct {
	*client.Objects

	mu sync.Mutex // held while a tree is being written
}

// Write writes to an object.
func (h *diskHost) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	err := h.Objects.Write(ctx, ref, w)
	id := ref.ID
	if id.Kind() != sheep.KindBTree || id.Index() != proto.BTreeInbox || !errors.Is(err, sheep.ErrNoObject) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return vdi.EnterTree(ctx, headFirst{h.Objects}, sheep.VDI{ID: id.VDI(), Hyper: true}, w.Data)
}

// headFirst has every write to the map of an inode begin in its header: C's daemons
// count references in others, which a hyper volume has not.
type headFirst struct{ sheep.Objects }

func (o headFirst) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	if ref.ID.Kind() != sheep.KindInode || w.Off < proto.MapOffset || w.Create {
		return o.Objects.Write(ctx, ref, w)
	}
	const from = proto.MapOffset - proto.MapEntrySize
	data := make([]byte, w.Off-from, w.Off-from+w.Len())
	if err := o.Read(ctx, ref, data, from); err != nil {
		return err
	}
	return o.Objects.Write(ctx, ref, &sheep.Write{Off: from, Data: append(data, w.Data...), Durable: true})
}

// A doer sends a Disk's requests to the daemon that the command talks to.
type doer struct{ cluster *remote.Cluster }

func (d doer) Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	return d.cluster.Do(ctx, remote.Request{Op: h.Op, Flags: h.Flags, Body: h.Body, Data: payload, Into: into})
}

// diskFailed returns the failure of a request of a Disk of the VDI with the
// header h. format is for the object and the reason.
func diskFailed(err error, h *proto.InodeHeader, format string) *failure {
	id, reason := sheep.InodeObject(h.VDI), err
	if e, ok := errors.AsType[*vdi.DiskError](err); ok {
		reason = e.Err
		if e.Object != 0 {
			id = e.Object
		}
	}
	return failed(err, format, id, remote.Text(reason))
}
