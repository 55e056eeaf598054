package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sheepdog/nbd"
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/size"
	"sheepdog/sheep/vdi"
)

// exports offers the disks of the cluster to NBD clients: each by its name, its
// snapshots as NAME@TAG and NAME:ID, read-only.
type exports struct {
	disks   *disks
	host    *diskHost
	cluster *cluster.Cluster
	cfg     nbdConfig
}

// A selection is the disk or the snapshot that the name of an export stands for.
type selection struct {
	name   string // of the disk
	tag    string // of the snapshot, or empty
	snapID uint32 // of the snapshot, or 0
	vdi    sheep.VDI
}

// List returns the disks, each followed by its snapshots.
func (e *exports) List(ctx context.Context) ([]nbd.Export, error) {
	var list []nbd.Export
	for _, v := range e.visible() {
		h, err := vdi.ReadHeader(ctx, e.host, v)
		if errors.Is(err, sheep.ErrNoObject) || err == nil && h.Name == "" {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list disk %s: %w", v.Name, err)
		}
		list = append(list, nbd.Export{Name: exportName(v, h.Tag), Description: describe(v, h)})
	}
	return list, nil
}

// visible returns the VDIs that may be exported, in the order of the list.
func (e *exports) visible() []sheep.VDI {
	vdis := e.cluster.VDIs()
	vdis = slices.DeleteFunc(vdis, func(v sheep.VDI) bool { return v.Deleted || v.Name == "" || !e.exported(v.Name) })
	slices.SortFunc(vdis, func(a, b sheep.VDI) int {
		head := func(v sheep.VDI) uint32 { // before all snapshots
			if !v.Snapshot {
				return 0
			}
			return v.SnapID
		}
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(head(a), head(b)))
	})
	return vdis
}

// exported reports whether the disk may be exported at all.
func (e *exports) exported(name string) bool {
	if len(e.cfg.globs) == 0 {
		return true
	}
	return slices.ContainsFunc(e.cfg.globs, func(glob string) bool {
		ok, err := path.Match(glob, name)
		return ok && err == nil
	})
}

func exportName(v sheep.VDI, tag string) string {
	switch {
	case !v.Snapshot:
		return v.Name
	case tag != "":
		return v.Name + "@" + tag
	}
	return fmt.Sprintf("%s:%d", v.Name, v.SnapID)
}

func describe(v sheep.VDI, h proto.InodeHeader) string {
	what := "disk"
	if v.Snapshot {
		what = fmt.Sprintf("snapshot %d of %s", v.SnapID, proto.TimeFromWire(h.SnapTime).UTC().Format(time.DateTime))
	}
	return fmt.Sprintf("%s, %s, redundancy %v", what, size.Human(h.Size), v.Policy)
}

// Stat says what a client would get, without opening anything.
func (e *exports) Stat(ctx context.Context, name string) (nbd.Info, error) {
	sel, err := e.find(ctx, name)
	if err != nil {
		return nbd.Info{}, err
	}
	h, err := vdi.ReadHeader(ctx, e.host, sel.vdi)
	if err != nil {
		return nbd.Info{}, withErrno(err)
	}
	return e.info(sel, h.Size), nil
}

// info is what clients are told of a disk of so many bytes.
func (e *exports) info(sel selection, bytes uint64) nbd.Info {
	return nbd.Info{
		Size: bytes, ReadOnly: e.cfg.readOnly || sel.vdi.Snapshot, MultiConn: true, Preferred: preferredBlock, CheapExtents: true,
		Description: fmt.Sprintf("redundancy %v, objects of %d MiB", sel.vdi.Policy, 1<<sel.vdi.BlockShift>>20),
	}
}

// preferredBlock is the size from which on a write does not cost a read.
const preferredBlock = 4096

// Open opens the disk that name stands for.
func (e *exports) Open(ctx context.Context, name string) (nbd.Device, error) {
	sel, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	d, err := e.disks.open(ctx, sel, !e.cfg.readOnly)
	if err != nil {
		return nil, withErrno(err)
	}
	return &device{disk: d, info: e.info(sel, d.Size())}, nil
}

// find returns what name stands for. A disk's name may have any bytes, so what
// looks like a snapshot is first looked for as a disk.
func (e *exports) find(ctx context.Context, name string) (selection, error) {
	candidates := []selection{{name: name}}
	if i := strings.LastIndexByte(name, '@'); i >= 0 {
		candidates = append(candidates, selection{name: name[:i], tag: name[i+1:]})
	}
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		if id, err := strconv.ParseUint(name[i+1:], 10, 32); err == nil && id != 0 {
			candidates = append(candidates, selection{name: name[:i], snapID: uint32(id)})
		}
	}
	for _, sel := range candidates {
		if sel.name == "" || !e.exported(sel.name) {
			continue
		}
		v, err := e.host.Lookup(ctx, sel.name, sel.tag, sel.snapID)
		if err == nil {
			sel.vdi = v
			return sel, nil
		}
		if !errors.Is(err, sheep.ErrNoVDI) && !errors.Is(err, sheep.ErrNoTag) {
			return selection{}, withErrno(fmt.Errorf("look up %s: %w", name, err))
		}
	}
	return selection{}, fmt.Errorf("%w: no disk %q; nbdinfo --list shows all", syscall.ENOENT, name)
}

// A device is a disk as one NBD client sees it.
type device struct {
	disk *openDisk
	info nbd.Info // as the client was told
}

func (d *device) Info() nbd.Info { return d.info }

func (d *device) Read(ctx context.Context, p []byte, off uint64) error {
	return withErrno(d.disk.ReadAt(ctx, p, off))
}

func (d *device) Write(ctx context.Context, p []byte, off uint64, fua bool) error {
	return withErrno(d.disk.WriteAt(ctx, p, off, fua))
}

func (d *device) Zero(ctx context.Context, off, n uint64, mode nbd.ZeroMode) error {
	return withErrno(d.disk.Zero(ctx, off, n, vdi.ZeroOptions{
		Durable:       mode&nbd.ZeroFUA != 0,
		KeepAllocated: mode&nbd.ZeroNoHole != 0,
		Fast:          mode&nbd.ZeroFast != 0,
	}))
}

func (d *device) Extents(ctx context.Context, off, n uint64, yield func(length uint64, state nbd.ExtentState) bool) error {
	return withErrno(d.disk.Extents(ctx, off, n, func(length uint64, x vdi.Extent) bool { return yield(length, extentState(x)) }))
}

// extentState returns what a client is told of an extent.
func extentState(x vdi.Extent) nbd.ExtentState {
	switch x {
	case vdi.ExtentHole:
		return nbd.ExtentHole | nbd.ExtentZero
	case vdi.ExtentShared:
		return nbd.ExtentShared
	}
	return 0
}

func (d *device) Flush(ctx context.Context) error { return withErrno(d.disk.Flush(ctx)) }

func (d *device) Told(err error) { sheep.Told(err) }

func (d *device) Close() error { return d.disk.release() }

// withErrno returns err with the error number that an NBD client is to get.
func withErrno(err error) error {
	if err == nil {
		return nil
	}
	for _, e := range []struct {
		err   error
		errno syscall.Errno
	}{
		{sheep.ErrNoSpace, syscall.ENOSPC},
		{sheep.ErrReadOnly, syscall.EPERM},
		{sheep.ErrVDILocked, syscall.EBUSY},
		{sheep.ErrNoVDI, syscall.ENOENT},
		{sheep.ErrNoTag, syscall.ENOENT},
		{sheep.ErrInvalid, syscall.EINVAL},
		{sheep.ErrNoMemory, syscall.ENOMEM},
		{sheep.ErrNotSupported, syscall.ENOTSUP},
		{sheep.ErrShutdown, syscall.ESHUTDOWN},
		{sheep.ErrKilled, syscall.ESHUTDOWN},
	} {
		if errors.Is(err, e.err) {
			return fmt.Errorf("%w: %w", e.errno, err)
		}
	}
	return fmt.Errorf("%w: %w", syscall.EIO, err)
}
