package sheepfs

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A dir is a directory. Its fixed children are always there; beyond them, find
// and list say what is there at the moment.
type dir struct {
	fs.Inode

	tree  *FS
	path  string // in the tree, "" of the root
	fixed []fixed
	ways  ways
	kept  map[string]*fs.Inode // children that exist once; set before the dir is used
}

// A fixed is a child that is always there.
type fixed struct {
	name string
	make func() node
}

// ways are what a directory can do beyond having fixed children. A nil one is
// refused.
type ways struct {
	// find returns the directory with the name.
	find func(ctx context.Context, name string) (*dir, error)

	// list returns the names of the directories.
	list func(ctx context.Context) ([]string, error)

	mkdir func(ctx context.Context, name string) error
	rmdir func(ctx context.Context, name string) error
}

// A node is a file or a directory of the tree.
type node interface {
	fs.InodeEmbedder
	mode() uint32 // type and permissions
}

var (
	_ fs.NodeGetattrer = (*dir)(nil)
	_ fs.NodeSetattrer = (*dir)(nil)
	_ fs.NodeLookuper  = (*dir)(nil)
	_ fs.NodeReaddirer = (*dir)(nil)
	_ fs.NodeMkdirer   = (*dir)(nil)
	_ fs.NodeRmdirer   = (*dir)(nil)
	_ fs.NodeUnlinker  = (*dir)(nil)
	_ fs.NodeCreater   = (*dir)(nil)
	_ fs.NodeStatfser  = (*dir)(nil)
)

func (t *FS) dir(path string, fixed []fixed, w ways) *dir {
	return &dir{tree: t, path: path, fixed: fixed, ways: w}
}

func (d *dir) mode() uint32 { return syscall.S_IFDIR | 0o755 }

// keep makes n, which exists once, a child for ever. It is to be called by OnAdd.
func (d *dir) keep(ctx context.Context, name string, n fs.InodeEmbedder, mode uint32) {
	child := d.NewPersistentInode(ctx, n, fs.StableAttr{Mode: mode})
	d.AddChild(name, child, false)
	if d.kept == nil {
		d.kept = make(map[string]*fs.Inode)
	}
	d.kept[name] = child
}

// in returns the path of a child.
func (d *dir) in(name string) string {
	if d.path == "" {
		return name
	}
	return d.path + "/" + name
}

// file returns a fixed child that is a control file of the directory path.
func (t *FS) file(path, name string, c control) fixed {
	return fixed{name, func() node { return t.control(path+"/"+name, c) }}
}

// reader returns a fixed child that only shows something.
func (t *FS) reader(path, name string, show func(context.Context) (content, error)) fixed {
	return t.file(path, name, control{show: show})
}

// Getattr tells what all directories have in common.
func (d *dir) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.tree.fill(&out.Attr, d.mode())
	out.SetTimeout(fixedTimeout)
	return 0
}

// Setattr refuses to change anything but times, which it ignores.
func (d *dir) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	return d.Getattr(ctx, nil, out)
}

// fixedTimeout is how long the kernel may believe that a fixed child is there, and
// what it was told of the attributes, which never change.
const fixedTimeout = time.Hour

// Lookup finds a fixed child, or what find finds.
func (d *dir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if make := d.maker(name); make != nil {
		out.SetEntryTimeout(fixedTimeout)
		return d.enter(ctx, name, make(), out), 0
	}
	if child := d.kept[name]; child != nil {
		d.tree.fill(&out.Attr, child.Mode()|0o755)
		out.SetEntryTimeout(fixedTimeout)
		return child, 0
	}
	if d.ways.find == nil {
		return nil, syscall.ENOENT
	}
	ctx, cancel := d.tree.reading(ctx)
	defer cancel()
	n, err := d.ways.find(ctx, name)
	if err != nil {
		return nil, errnoOf(err)
	}
	out.SetEntryTimeout(fresh)
	return d.enter(ctx, name, n, out), 0
}

// enter returns the inode of the child: the one that the kernel knows, or else
// that of n.
func (d *dir) enter(ctx context.Context, name string, n node, out *fuse.EntryOut) *fs.Inode {
	d.tree.fill(&out.Attr, n.mode())
	out.SetAttrTimeout(fixedTimeout)
	if child := d.GetChild(name); child != nil {
		return child
	}
	return d.NewInode(ctx, n, fs.StableAttr{Mode: n.mode() & syscall.S_IFMT})
}

// maker returns what makes the fixed child with the name, or nil.
func (d *dir) maker(name string) func() node {
	for _, f := range d.fixed {
		if f.name == name {
			return f.make
		}
	}
	return nil
}

// Readdir returns the fixed children and what list lists.
func (d *dir) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	entries := make([]fuse.DirEntry, 0, len(d.fixed))
	for _, f := range d.fixed {
		entries = append(entries, fuse.DirEntry{Name: f.name, Mode: f.make().mode()})
	}
	for name, child := range d.kept {
		entries = append(entries, fuse.DirEntry{Name: name, Mode: child.Mode()})
	}
	if d.ways.list != nil {
		ctx, cancel := d.tree.reading(ctx)
		defer cancel()
		names, err := d.ways.list(ctx)
		if err != nil {
			return nil, errnoOf(err)
		}
		for _, name := range names {
			if d.maker(name) == nil {
				entries = append(entries, fuse.DirEntry{Name: name, Mode: syscall.S_IFDIR})
			}
		}
	}
	return fs.NewListDirStream(entries), 0
}

// Mkdir makes a directory where that means something.
func (d *dir) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if d.ways.mkdir == nil {
		return nil, syscall.EPERM
	}
	if d.maker(name) != nil {
		return nil, syscall.EEXIST
	}
	ctx, cancel := d.tree.changing(ctx)
	defer cancel()
	if err := d.ways.mkdir(ctx, name); err != nil {
		return nil, d.refused("mkdir", name, err)
	}
	return d.Lookup(ctx, name, out)
}

// Rmdir removes a directory where that means something.
func (d *dir) Rmdir(ctx context.Context, name string) syscall.Errno {
	if d.ways.rmdir == nil || d.maker(name) != nil {
		return syscall.EPERM
	}
	ctx, cancel := d.tree.changing(ctx)
	defer cancel()
	if err := d.ways.rmdir(ctx, name); err != nil {
		return d.refused("rmdir", name, err)
	}
	return 0
}

// Unlink refuses: no file can be removed.
func (d *dir) Unlink(context.Context, string) syscall.Errno { return syscall.EPERM }

// Create refuses: no file can be made.
func (d *dir) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EPERM
}

// refused logs why something could not be done to a directory.
func (d *dir) refused(op, name string, err error) syscall.Errno {
	errno := errnoOf(err)
	d.tree.log.Info("refused", "op", op, "file", printable(d.in(name)), "err", printable(err.Error()), "errno", int(errno))
	return errno
}
