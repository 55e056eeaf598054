package sheepfs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
	"sheepdog/sheep/vdi"
)

// diskDir is the directory of a disk.
func (t *FS) diskDir(name string) *dir {
	path := "vdi/" + name
	about := func(file string, show func(context.Context, *remote.Cluster, *proto.InodeHeader) (content, error)) fixed {
		return t.reader(path, file, t.aboutVDI(name, remote.Version{}, show))
	}
	return t.dir(path, []fixed{
		about("info", t.vdiInfo),
		about("info.json", t.vdiJSON),
		about("lock", t.vdiLock),
		about("objects", t.vdiObjects),
		t.file(path, "size", control{
			show: t.aboutVDI(name, remote.Version{}, func(_ context.Context, _ *remote.Cluster, h *proto.InodeHeader) (content, error) {
				return text(fmt.Sprintf("%d\n", h.Size)), nil
			}),
			obey: func(ctx context.Context, line string) error { return t.resize(ctx, name, line) },
		}),
		{"snapshots", func() node { return t.snapshotsDir(name) }},
	}, ways{})
}

// aboutVDI returns what makes a content from the header of a VDI.
func (t *FS) aboutVDI(name string, v remote.Version, show func(context.Context, *remote.Cluster, *proto.InodeHeader) (content, error)) func(context.Context) (content, error) {
	return func(ctx context.Context) (content, error) {
		c := t.remote()
		defer c.Close()
		id, err := c.Lookup(ctx, name, v)
		if err != nil {
			return nil, err
		}
		h, err := c.Header(ctx, id)
		if err != nil {
			return nil, err
		}
		return show(ctx, c, h)
	}
}

// resize makes a disk larger.
func (t *FS) resize(ctx context.Context, name, line string) error {
	bytes, err := size.Parse(strings.Trim(line, " \t"))
	if err != nil {
		return err
	}
	d, err := vdi.OpenDisk(ctx, client.NewObjects(t.door), name, "", 0, vdi.DiskConfig{})
	if err != nil {
		return err
	}
	defer d.Close(ctx)
	return d.Resize(ctx, bytes)
}

// vdiRow returns the line of a VDI, with what it uses.
func vdiRow(ctx context.Context, c *remote.Cluster, h *proto.InodeHeader) (listing.VDI, error) {
	objects, err := c.Allocated(ctx, h)
	return listing.NewVDI(remote.Listed{VDI: h.VDI, Header: h, Objects: objects}), err
}

// vdiInfo is for people.
func (t *FS) vdiInfo(ctx context.Context, c *remote.Cluster, h *proto.InodeHeader) (content, error) {
	v, err := vdiRow(ctx, c, h)
	if err != nil {
		return nil, err
	}
	const layout = "2006-01-02 15:04:05"
	var b strings.Builder
	fmt.Fprintf(&b, "Name: %s\n", printable(v.Name))
	if h.Snapshot() {
		fmt.Fprintf(&b, "Tag: %s\nSnapshot id: %d\nTaken: %s\n", printable(v.Tag), v.SnapshotID, proto.TimeFromWire(h.SnapTime).In(t.cfg.Zone).Format(layout))
	}
	fmt.Fprintf(&b, "Kind: %s\nSize: %s (%d bytes)\nUsed: %s\nShared: %s\n", v.Kind, size.Human(v.Size), v.Size, size.Human(v.Used), size.Human(v.Shared))
	fmt.Fprintf(&b, "Created: %s\nVDI id: %s\nParent VDI id: %s\n", proto.TimeFromWire(h.CreateTime).In(t.cfg.Zone).Format(layout), v.ID, v.Parent)
	fmt.Fprintf(&b, "Copies: %s\nObject size: %s\nHyper volume: %t\n", v.Redundancy, size.Human(1<<v.Shift), v.Hyper)
	return text(b.String()), nil
}

// vdiJSON is for programs: the same as dog vdi list --json has for the VDI.
func (t *FS) vdiJSON(ctx context.Context, c *remote.Cluster, h *proto.InodeHeader) (content, error) {
	v, err := vdiRow(ctx, c, h)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return text(b.String()), nil
}

// vdiLock says who has the disk locked.
func (t *FS) vdiLock(ctx context.Context, c *remote.Cluster, h *proto.InodeHeader) (content, error) {
	states, err := c.States(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range states {
		if s.VDI == h.VDI {
			return text(lockText(s.Lock)), nil
		}
	}
	return text("unlocked\n"), nil
}

func lockText(l sheep.Lock) string {
	switch {
	case l.State == sheep.Exclusive:
		return fmt.Sprintf("locked %v\n", l.Owner)
	case l.State != sheep.Shared || len(l.Participants) == 0:
		return "unlocked\n"
	}
	var b strings.Builder
	b.WriteString("shared")
	for _, p := range l.Participants {
		b.WriteString(" " + p.Node.String())
	}
	return b.String() + "\n"
}

// snapshotsDir is the snapshots of a disk, each in a directory.
func (t *FS) snapshotsDir(name string) *dir {
	return t.dir("vdi/"+name+"/snapshots", nil, ways{
		find: func(ctx context.Context, label string) (*dir, error) {
			v, err := version(label)
			if err != nil {
				return nil, err
			}
			c := t.remote()
			defer c.Close()
			if _, err := c.Lookup(ctx, name, v); err != nil {
				return nil, err
			}
			return t.snapshotDir(name, label, v), nil
		},
		list: func(ctx context.Context) ([]string, error) {
			family, err := t.catalog.family(ctx, name)
			var labels []string
			for _, l := range family {
				if l.snapshot {
					labels = append(labels, l.label(family))
				}
			}
			return labels, err
		},
		mkdir: func(ctx context.Context, tag string) error { return t.snapshot(ctx, name, tag) },
		rmdir: func(ctx context.Context, label string) error { return t.deleteSnapshot(ctx, name, label) },
	})
}

// snapshotDir is the directory of one snapshot.
func (t *FS) snapshotDir(name, label string, v remote.Version) *dir {
	path := "vdi/" + name + "/snapshots/" + label
	return t.dir(path, []fixed{
		t.reader(path, "info", t.aboutVDI(name, v, t.vdiInfo)),
		t.reader(path, "info.json", t.aboutVDI(name, v, t.vdiJSON)),
		t.reader(path, "objects", t.aboutVDI(name, v, t.vdiObjects)),
	}, ways{})
}

// snapshot takes a snapshot.
func (t *FS) snapshot(ctx context.Context, name, tag string) error {
	if numeric(tag) {
		return refuse(syscall.EINVAL, "a tag that is a number would be taken for a snapshot id")
	}
	if len(tag) > maxName {
		return refuse(syscall.ENAMETOOLONG, "the tag is longer than %d bytes", maxName)
	}
	c := t.remote()
	defer c.Close()
	switch _, err := c.Lookup(ctx, name, remote.Version{Tag: tag}); {
	case err == nil:
		return refuse(syscall.EEXIST, "%s has a snapshot %s", name, tag)
	case remote.Result(err) != proto.ResultNoTag:
		return err
	}
	id, err := c.Lookup(ctx, name, remote.Version{})
	if err != nil {
		return err
	}
	h, err := c.Header(ctx, id)
	if err != nil {
		return err
	}
	defer t.catalog.changed()
	_, err = c.TakeSnapshot(ctx, h, tag)
	return err
}

// deleteSnapshot deletes a snapshot.
func (t *FS) deleteSnapshot(ctx context.Context, name, label string) error {
	v, err := version(label)
	if err != nil {
		return err
	}
	c := t.remote()
	defer c.Close()
	defer t.catalog.changed()
	return c.DeleteVDI(ctx, name, v)
}
