package sheepfs

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A catalog knows which disks and snapshots there are.
//
// It asks for the state of all VDIs, which every sheep has at hand, and reads the
// inodes only of those that it has not seen before. What it keeps of an inode
// never changes: neither the name nor the tag of a VDI does once it is a
// snapshot, and a number is not used again, except in clusters that recycle
// numbers, where nothing is kept.
type catalog struct {
	tree *FS

	turn chan struct{} // has room for one: held by whoever refreshes

	mu     sync.Mutex
	known  map[sheep.VDIID]listed // guarded by mu
	names  map[string][]listed    // guarded by mu; the working VDI first, then snapshots by id
	loaded time.Time              // guarded by mu
	ctime  uint64                 // guarded by mu; of the cluster that known is about
}

// A listed is one disk or snapshot of the catalog.
type listed struct {
	vdi      sheep.VDIID
	name     string
	tag      string
	snapID   uint32
	snapshot bool
}

// label returns the name of a snapshot's directory: the tag, or the id if the tag
// cannot be a name, would be taken for an id or belongs to two snapshots.
func (l listed) label(family []listed) string {
	if !fileName(l.tag) || numeric(l.tag) {
		return decimal(l.snapID)
	}
	for _, o := range family {
		if o.snapshot && o.tag == l.tag && o.snapID < l.snapID {
			return decimal(l.snapID)
		}
	}
	return l.tag
}

func newCatalog(t *FS) *catalog {
	return &catalog{tree: t, turn: make(chan struct{}, 1)}
}

// fresh is how long what was found is good enough for looking one name up: for
// the catalog and for the kernel.
const fresh = time.Second

// disks returns the names of the disks, also of those of which only snapshots are
// left.
func (c *catalog) disks(ctx context.Context) ([]string, error) {
	if err := c.refresh(ctx, 0); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	names := slices.Sorted(maps.Keys(c.names))
	return slices.DeleteFunc(names, func(n string) bool { return !fileName(n) }), nil
}

// family returns the disk with the name and its snapshots, as of now.
func (c *catalog) family(ctx context.Context, name string) ([]listed, error) {
	if err := c.refresh(ctx, 0); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[name], nil
}

// seen reports whether there was a disk with the name a moment ago. It never asks
// anybody.
func (c *catalog) seen(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.loaded) < fresh && len(c.names[name]) > 0
}

// exists reports whether there is a disk with the name, or a snapshot of one.
func (c *catalog) exists(ctx context.Context, name string) (bool, error) {
	if err := c.refresh(ctx, fresh); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.names[name]) > 0, nil
}

// changed forgets when the catalog was loaded: the next who asks gets a new one.
func (c *catalog) changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded = time.Time{}
}

// refresh makes the catalog at most age old.
func (c *catalog) refresh(ctx context.Context, age time.Duration) error {
	asked := time.Now()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	loaded := c.loaded
	c.mu.Unlock()
	if loaded.After(asked) || age > 0 && time.Since(loaded) < age {
		return nil
	}
	return c.load(ctx)
}

// load asks for the state of all VDIs and reads the inodes that are new.
func (c *catalog) load(ctx context.Context) error {
	r := c.tree.remote()
	defer r.Close()
	began := time.Now()
	keep, ctime, err := keepable(ctx, r)
	if err != nil {
		return err
	}
	states, err := r.States(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	known := c.known
	if !keep || ctime != c.ctime {
		known = nil
	}
	c.mu.Unlock()
	now := make(map[sheep.VDIID]listed, len(states))
	var unknown []sheep.VDIID
	for _, s := range states {
		l, ok := known[s.VDI]
		switch {
		case s.Deleted:
		case ok && l.snapshot == s.Snapshot:
			now[s.VDI] = l
		default:
			unknown = append(unknown, s.VDI)
		}
	}
	for l := range remote.Ordered(slices.Values(unknown), headerWidth, func(id sheep.VDIID) outcome { return read(ctx, r, id) }) {
		switch {
		case l.err != nil:
			return l.err
		case l.name != "":
			now[l.vdi] = l.listed
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.names, c.loaded, c.ctime = now, byName(now), began, ctime
	return nil
}

// headerWidth is how many inodes are read at once.
const headerWidth = 64

// keepable reports whether numbers of VDIs mean the same for ever, and in which
// cluster.
func keepable(ctx context.Context, r *remote.Cluster) (keep bool, ctime uint64, err error) {
	_, data, err := r.Do(ctx, remote.Request{Op: proto.OpStatCluster, Into: make([]byte, proto.EpochRecordSize(0))})
	switch {
	case remote.Result(err) != proto.ResultSuccess && len(data) == 0:
		return false, 0, nil // not formatted, or not known to be
	case remote.Result(err) == proto.ResultSuccess && err != nil:
		return false, 0, err
	case len(data) == 0:
		return false, 0, nil
	}
	e, err := proto.DecodeEpochRecord(data, 0)
	return e.Flags&proto.ClusterRecycleVIDs == 0, e.Ctime, err
}

// An outcome is what became of reading an inode. Without a name it is none:
// deleted meanwhile, or lost.
type outcome struct {
	listed
	err error // why nothing can be read now
}

func read(ctx context.Context, r *remote.Cluster, id sheep.VDIID) outcome {
	h, err := r.Header(ctx, id)
	if errors.Is(err, sheep.ErrNoObject) || errors.Is(err, sheep.ErrIO) {
		return outcome{}
	}
	if err != nil {
		return outcome{err: err}
	}
	return outcome{listed: listed{vdi: id, name: h.Name, tag: h.Tag, snapID: h.SnapID, snapshot: h.Snapshot()}}
}

func byName(known map[sheep.VDIID]listed) map[string][]listed {
	names := make(map[string][]listed)
	for _, l := range known {
		names[l.name] = append(names[l.name], l)
	}
	for _, family := range names {
		slices.SortFunc(family, func(a, b listed) int {
			if a.snapshot != b.snapshot {
				if b.snapshot {
					return -1
				}
				return 1
			}
			return cmp.Compare(a.snapID, b.snapID)
		})
	}
	return names
}

// fileName reports whether a file can have the name.
func fileName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxName && !strings.ContainsAny(s, "/\x00")
}
