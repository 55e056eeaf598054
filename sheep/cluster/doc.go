// Package cluster is what the daemons of one cluster agree on: who is a member,
// the epoch and its nodes, which gateway owns which VDI, which VDIs exist and
// who locks them, and whose turn it is to run a cluster operation.
//
// All of it is one state machine. A Driver gives every member the same entries
// in the same order (joins, leaves, messages); the state is a pure function of
// them, without clock, network or disk, so that every member computes the same
// answer. Cluster is the runtime around it: it proposes messages for this node,
// waits until they are applied here, and publishes an immutable View.
//
// What the package promises: epochs and generations only grow; at most one
// gateway owns a VDI; at most one plan is open; a node that may not be part of
// the cluster (another cluster's store, another version, an address that is
// taken) is refused by the log before it costs an epoch. What it does not: an
// entry says what was agreed, never that a node has acted on it. Ownership
// that must wait for another gateway says so (Draining).
//
// Where C Sheepdog differs: when only gateways remain, they wait for a storage
// node instead of exiting; changing the copies of a VDI begins an epoch; nodes
// that start while the others still shut down wait for their end.
package cluster
