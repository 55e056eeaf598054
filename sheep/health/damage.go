package health

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// MaxListed bounds the objects and the VDIs that a report lists.
const MaxListed = 1000

// A VDI is how many objects of a VDI are not as they should be. Each object counts
// once, as the worst that a node knows of it.
type VDI struct {
	ID         sheep.VDIID
	Name       string // empty if it cannot be read
	Degraded   uint64 // a copy is missing, or not yet known to be current
	Unrepaired uint64 // copies may differ
	Unreadable uint64 // no copy can be read at present
}

func (v VDI) String() string {
	var words []string
	for _, count := range []struct {
		n    uint64
		what proto.DamageClass
	}{{v.Unreadable, proto.Unreadable}, {v.Unrepaired, proto.Unrepaired}, {v.Degraded, proto.Degraded}} {
		if count.n > 0 {
			words = append(words, fmt.Sprintf("%d %v", count.n, count.what))
		}
	}
	name := v.Name
	if name == "" {
		name = fmt.Sprintf("number %v", v.ID)
	}
	return fmt.Sprintf("VDI %s: %s objects", name, strings.Join(words, ", "))
}

// damage is what all nodes together know of objects.
type damage struct {
	objects map[sheep.ObjectID]proto.DamageClass
	plans   uint64
	more    uint64 // objects that were counted and not named
}

func (d *damage) add(r proto.DamageReport) {
	if d.objects == nil {
		d.objects = make(map[sheep.ObjectID]proto.DamageClass)
	}
	for _, o := range r.Objects {
		d.objects[o.ID] = max(d.objects[o.ID], o.Class)
	}
	d.more += r.Total - min(r.Total, uint64(len(r.Objects)))
	d.plans = max(d.plans, r.Plans)
}

// vdis returns the counts for each VDI.
func (d *damage) vdis() []VDI {
	all := make(map[sheep.VDIID]*VDI)
	for id, class := range d.objects {
		v := all[id.VDI()]
		if v == nil {
			v = &VDI{ID: id.VDI()}
			all[v.ID] = v
		}
		switch class {
		case proto.Unreadable:
			v.Unreadable++
		case proto.Unrepaired:
			v.Unrepaired++
		default:
			v.Degraded++
		}
	}
	var list []VDI
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, *all[id])
	}
	return list
}

// unreadable returns the objects that nobody can read, ascending.
func (d *damage) unreadable() (ids []sheep.ObjectID) {
	for _, id := range slices.Sorted(maps.Keys(d.objects)) {
		if d.objects[id] == proto.Unreadable {
			ids = append(ids, id)
		}
	}
	return ids
}

// damage says what is wrong with objects. name returns the name of a VDI.
func (r *Report) damage(d damage, name func(sheep.VDIID) string) {
	vdis := d.vdis()
	r.VDIs, r.Plans = vdis[:min(len(vdis), MaxListed)], d.plans
	for i := range r.VDIs {
		v := &r.VDIs[i]
		if d.objects[sheep.InodeObject(v.ID)] != proto.Unreadable {
			v.Name = name(v.ID)
		}
		level := Recovering
		if v.Unreadable > 0 {
			level = Degraded
		}
		r.find(level, "%v", *v)
	}
	if d.more > 0 {
		r.find(Recovering, "and up to %d more objects", d.more)
	}
	if ids := d.unreadable(); len(ids) > 0 {
		r.Unreadable = ids[:min(len(ids), MaxListed)]
		r.find(Degraded, "%d objects cannot be read at present: %s", len(ids), shortList(ids))
	}
	if d.plans > 0 {
		r.find(OK, "%d operations on disks are under way", d.plans)
	}
}

// shown is how many objects a reason names.
const shown = 8

func shortList(ids []sheep.ObjectID) string {
	var names []string
	for _, id := range ids[:min(len(ids), shown)] {
		names = append(names, id.String())
	}
	if len(ids) > shown {
		names = append(names, "...")
	}
	return strings.Join(names, " ")
}

// suspects says which nodes the leader of the cluster has not heard from as it
// should. Clusters without a leader have nothing to say.
func (r *Report) suspects(ctx context.Context, c *remote.Cluster) {
	peers, err := c.Members(ctx)
	if err != nil {
		return
	}
	for _, p := range peers {
		if p.Bits&proto.PeerSuspect != 0 && p.Bits&proto.PeerMember != 0 {
			r.find(Degraded, "node %v is suspect: it was not heard from for %v", p.Node, p.Silent)
		}
	}
}
