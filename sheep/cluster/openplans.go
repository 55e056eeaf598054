package cluster

// OpenPlans returns how many plans are being executed or wait for their turn.
func (c *Cluster) OpenPlans() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.state.plans)
}
