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

	"sheepdog/sheep"
)

// What a node keeps of itself in its database.
var (
	versionKey = []byte("version") // of the database and of the log's commands: one byte
	idKey      = []byte("id")      // 16 hexadecimal digits, drawn when the directory was made
	clusterKey = []byte("cluster") // see clusterID
	peersKey   = []byte("peers")   // lines of ID, blank, address
	rejoinKey  = []byte("rejoin")  // a clusterID: the next start forgets the log, to follow that timeline
	recoverKey = []byte("recover") // a clusterID: the next start begins that timeline
)

const dataVersion = 1

// A dataDir is what a node keeps in its store directory: its own ID, the
// addresses of its peers, and Raft's log and snapshots.
type dataDir struct {
	*logStore
	dir string
	id  string
}

// openDataDir opens the directory, and makes it first if it does not exist.
func openDataDir(dir string) (*dataDir, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("open the cluster's log: %w", err)
	}
	s, err := openLogStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, fmt.Errorf("open the cluster's log: %w", err)
	}
	h := &dataDir{logStore: s, dir: dir}
	if err := cmp.Or(h.identify(), h.resetIfAsked()); err != nil {
		return nil, errors.Join(fmt.Errorf("open the cluster's log: %w", err), s.close())
	}
	return h, nil
}

// identify reads this node's ID, or draws one.
func (h *dataDir) identify() error {
	b, err := h.get(selfBucket, idKey)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		var raw [8]byte
		rand.Read(raw[:])
		b = []byte(hex.EncodeToString(raw[:]))
		if err := cmp.Or(h.put(selfBucket, versionKey, []byte{dataVersion}), h.put(selfBucket, idKey, b)); err != nil {
			return err
		}
	}
	h.id = string(b)
	v, err := h.get(selfBucket, versionKey)
	if err == nil && (len(v) != 1 || v[0] != dataVersion) {
		err = fmt.Errorf("%w: the directory has version %d, not %d", sheep.ErrVersion, v, dataVersion)
	}
	return err
}

// resetIfAsked forgets the log if rejoin has asked for it. The request goes
// last, so that a crash in the middle leaves it to the next start.
func (h *dataDir) resetIfAsked() error {
	asked, err := h.get(selfBucket, rejoinKey)
	if err != nil || asked == nil {
		return err
	}
	id, err := decodeClusterID(asked)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "snapshots")); err != nil {
		return err
	}
	return cmp.Or(h.wipe(), h.setClusterID(id), h.remove(selfBucket, rejoinKey))
}

// rejoin has the log forgotten at the next start, for that of the timeline id.
func (h *dataDir) rejoin(id clusterID) error { return h.put(selfBucket, rejoinKey, id.append(nil)) }

// clusterID returns the cluster that this node belongs to.
func (h *dataDir) clusterID() (clusterID, error) {
	b, err := h.get(selfBucket, clusterKey)
	if err != nil || b == nil {
		return clusterID{}, err
	}
	return decodeClusterID(b)
}

func (h *dataDir) setClusterID(id clusterID) error {
	return h.put(selfBucket, clusterKey, id.append(nil))
}

// askRecovery has the next start begin the timeline id.
func (h *dataDir) askRecovery(id clusterID) error {
	return h.put(selfBucket, recoverKey, id.append(nil))
}

// recovery returns the timeline that this start has to begin, if there is one.
func (h *dataDir) recovery() (clusterID, error) {
	b, err := h.get(selfBucket, recoverKey)
	if err != nil || b == nil {
		return clusterID{}, err
	}
	return decodeClusterID(b)
}

func (h *dataDir) endRecovery() error { return h.remove(selfBucket, recoverKey) }

// peers returns the addresses of other nodes, by ID, as they were last known.
func (h *dataDir) peers() (map[string]string, error) {
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

func (h *dataDir) setPeers(peers map[string]string) error {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		fmt.Fprintln(&b, id, peers[id])
	}
	return h.put(selfBucket, peersKey, []byte(b.String()))
}

// bootstrap makes this node the only voter of a new cluster.
func (h *dataDir) bootstrap(conf *raft.Config, snaps raft.SnapshotStore, trans raft.Transport, addr string) (clusterID, error) {
	var id clusterID
	rand.Read(id.uuid[:])
	if err := h.setClusterID(id); err != nil {
		return clusterID{}, err
	}
	return id, raft.BootstrapCluster(conf, h, h, snaps, trans, onlyVoter(conf.LocalID, addr))
}

// onlyVoter is the configuration of a cluster of one.
func onlyVoter(id raft.ServerID, addr string) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: id, Address: raft.ServerAddress(addr)}}}
}
