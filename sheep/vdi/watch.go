package vdi

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// WatchMap has fn called for every write to the map of v's inode that this
// gateway applies, as the owner, for whichever client: slots first and following
// now name owners. The calls come in the order of the writes, before a request
// that follows can see what was written and before an object that was released
// is gone. fn must not wait or keep owners. If a write has failed half-way, so
// that nobody knows what the map has, owners is nil. No call is under way or comes
// any more when stop has returned.
func (g *Guard) WatchMap(v sheep.VDIID, fn func(first uint32, owners []sheep.VDIID)) (stop func()) {
	return g.watchers.add(v, fn)
}

// watchers are those who want to know of map writes. The zero watchers is
// ready for use.
type watchers struct {
	mu   sync.RWMutex
	list map[sheep.VDIID][]*watcher // guarded by mu
}

type watcher struct {
	fn func(first uint32, owners []sheep.VDIID)
}

func (ws *watchers) add(v sheep.VDIID, fn func(uint32, []sheep.VDIID)) (stop func()) {
	w := &watcher{fn}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.list == nil {
		ws.list = make(map[sheep.VDIID][]*watcher)
	}
	ws.list[v] = append(ws.list[v], w)
	return func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		rest := slices.DeleteFunc(ws.list[v], func(o *watcher) bool { return o == w })
		if ws.list[v] = rest; len(rest) == 0 {
			delete(ws.list, v)
		}
	}
}

// errForgotten is given to notify when nobody knows what the map has become.
var errForgotten = errors.New("the map was written by somebody else")

// notifyEntries tells who watches v of entries of neighbouring objects.
func (ws *watchers) notifyEntries(v sheep.VDIID, entries []proto.BTreeEntry) {
	slots := make([]byte, 0, len(entries)*proto.MapEntrySize)
	for _, e := range entries {
		slots = binary.LittleEndian.AppendUint32(slots, uint32(e.VDI))
	}
	ws.notify(v, entries[0].Index, slots, nil)
}

// notify tells who watches v that slots were written from slot first on, or
// that err has left the map in an unknown state.
func (ws *watchers) notify(v sheep.VDIID, first uint32, slots []byte, err error) {
	ws.mu.RLock()
	defer ws.mu.RUnlock()
	list := ws.list[v]
	if len(list) == 0 {
		return
	}
	var owners []sheep.VDIID
	if err == nil {
		owners = make([]sheep.VDIID, len(slots)/proto.MapEntrySize)
		for i := range owners {
			owners[i] = ownerAt(slots, i)
		}
	}
	for _, w := range list {
		w.fn(first, owners)
	}
}
