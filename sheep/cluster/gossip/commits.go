package gossip

import (
	"sync"

	"github.com/hashicorp/raft"
)

// A commitNotifier lets followers know soon what is committed. Raft tells them
// with the next entry, or after CommitTimeout; so this logs a barrier, one for
// all that was committed while the last one was under way.
type commitNotifier struct {
	mu      sync.Mutex
	running bool // guarded by mu
	again   bool // guarded by mu
}

// notify has the followers told of what is committed now. It does not wait.
func (n *commitNotifier) notify(r *raft.Raft) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running {
		n.again = true
		return
	}
	n.running = true
	go n.run(r) // ends when Raft has answered, which it does when it stops, too
}

func (n *commitNotifier) run(r *raft.Raft) {
	for {
		err := r.Barrier(applyTimeout).Error()
		n.mu.Lock()
		if !n.again || err != nil {
			n.running, n.again = false, false
			n.mu.Unlock()
			return
		}
		n.again = false
		n.mu.Unlock()
	}
}
