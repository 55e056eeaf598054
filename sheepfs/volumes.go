package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
)

// A volumesDir is the directory of volumes: of each disk, and of whatever was
// asked to be listed. Snapshots are found by name, listed or not.
type volumesDir struct {
	dir
	disks *disks
	ended error // what went wrong at the end; set before the FS is closed
}

var (
	_ fs.NodeLookuper  = (*volumesDir)(nil)
	_ fs.NodeReaddirer = (*volumesDir)(nil)
	_ fs.NodeCreater   = (*volumesDir)(nil)
)

// newVolumes returns the directory of volumes. At the end of the FS it makes
// durable what was written.
func (t *FS) newVolumes() *volumesDir {
	r := client.NewRoaming(t.door.server(), client.RoamingConfig{Patience: t.cfg.Patience, Log: t.log})
	v := &volumesDir{dir: *t.dir("volume", nil, ways{}), disks: newDisks(r, t.cfg.Patience, t.log)}
	t.wg.Go(func() {
		<-t.ctx.Done()
		if err := v.disks.close(); err != nil {
			v.ended = fmt.Errorf("what was written last may be lost: %w", err)
		}
		r.Close()
	})
	return v
}

// glance is how long what was found with a name is good enough: the kernel looks a
// name up, and then asks for the attributes.
const glance = 20 * time.Millisecond

// Lookup finds the volume of a disk or a snapshot.
func (v *volumesDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	ctx, cancel := v.tree.reading(ctx)
	defer cancel()
	f, known := v.child(name)
	if err := f.attributes(ctx, &out.Attr); err != nil {
		return nil, errnoOf(err)
	}
	out.SetEntryTimeout(fresh)
	out.SetAttrTimeout(max(f.attrTimeout(), glance))
	if known {
		return f.EmbeddedInode(), 0
	}
	return v.NewInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG}), 0
}

// child returns the file with the name: the one that the kernel knows, or a new one.
func (v *volumesDir) child(name string) (f *volumeFile, known bool) {
	if child := v.GetChild(name); child != nil {
		if f, ok := child.Operations().(*volumeFile); ok {
			return f, true
		}
	}
	return &volumeFile{tree: v.tree, disks: v.disks, name: name}, false
}

// Readdir lists the disks and what vdi/mount was told to.
func (v *volumesDir) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	ctx, cancel := v.tree.reading(ctx)
	defer cancel()
	names, err := v.tree.catalog.heads(ctx)
	if err != nil {
		return nil, errnoOf(err)
	}
	names = append(names, v.tree.shown.list()...)
	slices.Sort(names)
	var entries []fuse.DirEntry
	for _, name := range slices.Compact(names) {
		entries = append(entries, fuse.DirEntry{Name: name, Mode: syscall.S_IFREG})
	}
	return fs.NewListDirStream(entries), 0
}

// heads returns the names of the disks that can be written.
func (c *catalog) heads(ctx context.Context) ([]string, error) {
	if err := c.refresh(ctx, 0); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, family := range c.names {
		if !family[0].snapshot && fileName(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Create refuses: a disk needs a size.
func (v *volumesDir) Create(_ context.Context, name string, _, _ uint32, _ *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	err := refuse(syscall.EPERM, "there is no disk %q: echo NAME SIZE > vdi/create makes one", name)
	v.tree.reasons.set("vdi/create", err)
	return nil, nil, 0, syscall.EPERM
}

// found returns what a volume's name stands for at the moment.
func (t *FS) found(ctx context.Context, volume string) (selection, *proto.InodeHeader, error) {
	c := t.remote()
	defer c.Close()
	for _, sel := range selections(volume) {
		if checkName(sel.name) != nil || len(sel.version.Tag) > maxName {
			continue
		}
		id, err := c.Lookup(ctx, sel.name, sel.version)
		if err == nil {
			h, err := c.Header(ctx, id)
			if errors.Is(err, sheep.ErrNoObject) {
				err = sheep.ErrNoVDI
			}
			return sel, h, err
		}
		if !errors.Is(err, sheep.ErrNoVDI) && !errors.Is(err, sheep.ErrNoTag) {
			return selection{}, nil, err
		}
	}
	return selection{}, nil, refuse(syscall.ENOENT, "there is no disk and no snapshot %q", volume)
}
