package sheepfs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
)

// root returns the root of the tree.
func (t *FS) root() fs.InodeEmbedder {
	return &rootDir{dir: *t.dir("", []fixed{
		{"cluster", func() node { return t.clusterDir() }},
		{"config", func() node { return t.configDir() }},
		{"node", func() node { return t.nodesDir() }},
		{"vdi", func() node { return t.vdisDir() }},
	}, ways{})}
}

// A rootDir is the root of the tree.
type rootDir struct{ dir }

var _ fs.NodeOnAdder = (*rootDir)(nil)

// OnAdd hangs the volumes into the tree.
func (r *rootDir) OnAdd(ctx context.Context) {
	if r.tree.volumes != nil {
		r.keep(ctx, "volume", r.tree.volumes, syscall.S_IFDIR)
	}
}
