package cluster_test

import (
	"testing"
	"time"

	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/clustertest"
)

func TestAfterAShutdownAMissingMinorityIsNotWaitedForForEver(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 3)
	old := nodes[0].View()
	must(t, nodes[0].Shutdown(t.Context()))
	for _, n := range nodes {
		n.cancel()
		<-n.done
	}
	begin := time.Now()
	const patience = 200 * time.Millisecond
	for i := range 2 {
		cfg := config(&l, i+1)
		cfg.Incarnation += 10
		cfg.StartPatience = patience
		cfg.History = cluster.History{Epoch: 1, Nodes: old.Nodes, Time: old.EpochTime, Settings: old.Settings}
		nodes[i] = run(t, cfg)
	}
	for _, n := range nodes[:2] {
		must(t, n.Wait(t.Context(), func(v *cluster.View) bool { return v.Status == cluster.OK }))
		if v := n.View(); v.Epoch != 2 || len(v.Nodes) != 2 || v.ForcedEpoch != 0 {
			t.Errorf("the view is %+v", v)
		}
	}
	if took := time.Since(begin); took < patience {
		t.Errorf("that took %v, less than %v", took, patience)
	}
}
