package gossip

// Compact takes a snapshot now.
func (d *Driver) Compact() error { return d.raft.Snapshot().Error() }
