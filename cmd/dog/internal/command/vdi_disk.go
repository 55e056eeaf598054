package command

import (
	"context"
	"errors"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/vdi"
)

// disk opens a VDI as a block device.
func (s *session) disk(ctx context.Context, name string, v remote.Version) (*vdi.Disk, error) {
	host := client.NewObjects(doer{s.Cluster})
	d, err := vdi.OpenDisk(ctx, host, name, v.Tag, v.ID, vdi.DiskConfig{Parallel: transferWidth})
	if err != nil {
		return nil, openFailed(name, v, err)
	}
	return d, nil
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
