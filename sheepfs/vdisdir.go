package sheepfs

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// vdisDir is the disks: all in a table, and each in a directory.
func (t *FS) vdisDir() *dir {
	return t.dir("vdi", []fixed{
		t.reader("vdi", "list", t.vdiList),
		t.file("vdi", "create", control{obey: t.createVDI}),
		t.file("vdi", "mount", control{obey: t.mountVolume}),
		t.file("vdi", "unmount", control{obey: t.unmountVolume}),
	}, ways{find: t.findDisk, list: t.catalog.disks, mkdir: t.mkdirDisk, rmdir: t.rmdirDisk})
}

// vdiList is what dog vdi list prints. VDIs whose inodes cannot be read are left
// out.
func (t *FS) vdiList(ctx context.Context) (content, error) {
	c := t.remote()
	defer c.Close()
	var b strings.Builder
	b.WriteString(listing.VDIs)
	vdis, err := c.VDIs(ctx, remote.Query{Map: true})
	if errors.Is(err, sheep.ErrWaitForFormat) {
		return text(b.String()), nil
	}
	if err != nil {
		return nil, err
	}
	for v := range vdis {
		if v.Err == nil {
			b.WriteString(listing.NewVDI(v).Line(t.cfg.Zone))
		} else if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return text(b.String()), nil
}

// createVDI makes a disk: NAME SIZE [copies].
func (t *FS) createVDI(ctx context.Context, line string) error {
	args, err := words(line)
	if err != nil {
		return err
	}
	if len(args) < 2 || len(args) > 3 {
		return refuse(syscall.EINVAL, `a line is NAME SIZE [copies], with a backslash before each blank of a name`)
	}
	if err := checkName(args[0]); err != nil {
		return err
	}
	bytes, err := size.Parse(args[1])
	if err != nil {
		return err
	}
	body := proto.VDIBody{Size: bytes}
	if len(args) == 3 {
		p, err := sheep.ParsePolicy(args[2])
		if err != nil {
			return err
		}
		body.Copies, body.CopyPolicy = p.Wire()
	}
	c := t.remote()
	defer c.Close()
	info, err := c.Info(ctx, "")
	if err != nil {
		return err
	}
	shift := info.BlockShift
	if shift < sheep.MinBlockShift || shift > sheep.MaxBlockShift {
		shift = sheep.DefaultBlockShift // not formatted: the cluster will say so
	}
	if limit := uint64(proto.MaxMapEntries) << shift; bytes > limit {
		return refuse(syscall.EINVAL, "the size is more than %s, the most with objects of %s", size.Human(limit), size.Human(1<<shift))
	}
	defer t.catalog.changed()
	_, err = c.NewVDI(ctx, args[0], body)
	return err
}

// mkdirDisk refuses: a disk needs a size.
func (t *FS) mkdirDisk(_ context.Context, name string) error {
	err := refuse(syscall.EPERM, "mkdir makes no disks: echo NAME SIZE > vdi/create does")
	t.reasons.set("vdi/create", err)
	return err
}

// rmdirDisk refuses: a slip of the hand should not cost a disk.
func (t *FS) rmdirDisk(context.Context, string) error {
	return refuse(syscall.EPERM, "rmdir deletes snapshots only: dog vdi delete NAME deletes a disk")
}

// findDisk returns the directory of a disk. That costs at most one request, if
// the disk is there.
func (t *FS) findDisk(ctx context.Context, name string) (*dir, error) {
	if !fileName(name) {
		return nil, sheep.ErrNoVDI
	}
	if t.catalog.seen(name) {
		return t.diskDir(name), nil
	}
	c := t.remote()
	defer c.Close()
	_, err := c.Lookup(ctx, name, remote.Version{})
	if errors.Is(err, sheep.ErrNoVDI) { // perhaps there are snapshots
		ok, e := t.catalog.exists(ctx, name)
		if ok || e != nil {
			err = e
		}
	}
	if err != nil {
		return nil, err
	}
	return t.diskDir(name), nil
}
