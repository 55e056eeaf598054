// Package gossip is the cluster driver for daemons on many machines: they find
// each other by gossip (hashicorp/memberlist) and agree on the order of
// everything by Raft (hashicorp/raft), and need no other service.
//
// Each node keeps the Raft log in its store directory. Up to five nodes, an odd
// number, are voters; the others are non-voters, here called followers. The
// leader's autopilot replaces a voter that has died by a follower that lives.
// The log carries commands: joins, leaves, messages, and the begin of each
// leadership. The FSM, which is a function of the log, numbers the entries that
// the machine is given. Numbers never repeat, not even when the log had to
// begin again.
//
// Gossip decides nothing: it finds addresses, and names suspects for people. Who
// is dead the leader decides by leases. A member asks the leader to renew its
// lease every Heartbeat; the leader agrees only after a majority of the voters
// has said, later than the question came, that there is no newer leader. The
// lease counts from before the question was sent, by a clock that goes on while
// the machine sleeps. The leader expels a member that has not asked for the time
// ExpelAfter, which is longer than the lease; a new leader, who does not know
// whom the last one answered, counts from its election, and adds LeaderLease. So
// whoever is cut off has stopped serving before the others may act on its death,
// and who was expelled learns it when the cut heals, and joins as a new member.
//
// When the majority of the voters is lost for ever, an operator may force a
// recovery: the survivor with the newest log begins a new timeline of the
// cluster, in which it is the only voter and nobody is a member, and the others
// follow it. A node that comes from an older timeline forgets its log and joins
// as a new member.
//
// One TCP and UDP port carries it all. With a key, every stream is TLS 1.3 with
// a certificate that the key implies and nobody else can show, and gossip
// packets are sealed with another key derived from it.
package gossip
