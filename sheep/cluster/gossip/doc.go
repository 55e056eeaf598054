// Package gossip is the cluster driver for daemons on many machines: they find
// each other by gossip and agree on the order of everything by Raft, and need
// no other service.
//
// Each node keeps the Raft log in its store directory. Up to five nodes, an odd
// number, vote on it; the others follow. A member that has died is replaced as
// a voter by one that lives. The log carries joins, leaves and messages; a
// ledger, which is a function of the log, numbers the entries that the machine
// is given. Numbers never repeat, not even when the log had to begin again.
//
// What gossip says is hearsay and changes nothing: it finds addresses, and
// tells people who is suspected. Who is dead the leader decides by leases. A
// member asks the leader to renew its lease every Beat; the leader agrees only
// after a majority of the voters has said, later than the question came, that
// there is no newer leader. The lease counts from before the question was sent,
// by a clock that goes on while the machine sleeps. The leader has a member
// leave when it was not asked for the time Expel, which is longer than the
// lease; a new leader, who does not know whom the last one answered, counts
// from its election, and adds LeaderLease. So whoever is cut off has stopped
// serving before the others may act on its death, and who was expelled learns
// it when the cut heals, and begins a new life.
//
// One TCP and UDP port carries it all. With a key, every stream is TLS 1.3 with
// a certificate that the key implies and nobody else can show, and gossip
// packets are sealed with another key derived from it.
package gossip
