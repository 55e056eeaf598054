package gossip

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// What a node keeps of itself in its database.
var (
	idKey      = []byte("id")      // 16 hexadecimal digits, drawn when the directory was made
	kingdomKey = []byte("kingdom") // see kingdom
	peersKey   = []byte("peers")   // lines of id, blank, address
	resetKey   = []byte("reset")   // there if the log is to be forgotten at the next start
)

// A home is what a node keeps in its store directory.
type home struct {
	*logStore
	dir string
	id  string
}

// openHome opens the directory of cfg, and makes it first if it does not exist.
func openHome(dir string) (*home, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("open the cluster's log: %w", err)
	}
	s, err := openLogStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, fmt.Errorf("open the cluster's log: %w", err)
	}
	h := &home{logStore: s, dir: dir}
	if err := cmp.Or(h.reset(), h.identify()); err != nil {
		return nil, errors.Join(fmt.Errorf("open the cluster's log: %w", err), s.close())
	}
	return h, nil
}

// identify reads this node's id, or draws one.
func (h *home) identify() error {
	b, err := h.get(selfBucket, idKey)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		var raw [8]byte
		rand.Read(raw[:])
		b = []byte(hex.EncodeToString(raw[:]))
		if err := h.put(selfBucket, idKey, b); err != nil {
			return err
		}
	}
	h.id = string(b)
	return nil
}

// reset forgets the log if that was asked for. The request goes last, so that
// a crash in the middle leaves it to the next start.
func (h *home) reset() error {
	asked, err := h.get(selfBucket, resetKey)
	if err != nil || asked == nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "snapshots")); err != nil {
		return err
	}
	if err := h.wipe(); err != nil {
		return err
	}
	if err := h.put(selfBucket, kingdomKey, kingdom{}.append(nil)); err != nil {
		return err
	}
	return h.remove(selfBucket, resetKey)
}

// forget has the log forgotten at the next start.
func (h *home) forget() error { return h.put(selfBucket, resetKey, []byte{1}) }

// kingdom returns the kingdom that this node belongs to.
func (h *home) kingdom() (kingdom, error) {
	b, err := h.get(selfBucket, kingdomKey)
	if err != nil || b == nil {
		return kingdom{}, err
	}
	return decodeKingdom(b)
}

func (h *home) setKingdom(k kingdom) error { return h.put(selfBucket, kingdomKey, k.append(nil)) }

// peers returns the addresses of other nodes, by id, as they were last known.
func (h *home) peers() (map[string]string, error) {
	b, err := h.get(selfBucket, peersKey)
	if err != nil {
		return nil, err
	}
	peers := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if id, addr, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			peers[id] = addr
		}
	}
	return peers, nil
}

func (h *home) setPeers(peers map[string]string) error {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		fmt.Fprintln(&b, id, peers[id])
	}
	return h.put(selfBucket, peersKey, []byte(b.String()))
}

// newCluster makes this node the only voter of a new cluster.
func (h *home) newCluster(conf *raft.Config, snaps raft.SnapshotStore, trans raft.Transport, addr string) (kingdom, error) {
	var k kingdom
	rand.Read(k.cluster[:])
	if err := h.setKingdom(k); err != nil {
		return kingdom{}, err
	}
	first := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: raft.ServerAddress(addr)}}}
	return k, raft.BootstrapCluster(conf, h, h, snaps, trans, first)
}
