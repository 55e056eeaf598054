package sheepfs

import (
	"context"
	"fmt"
	"strings"

	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
)

// clusterDir is what concerns the cluster as a whole.
func (t *FS) clusterDir() *dir {
	return t.dir("cluster", []fixed{
		t.reader("cluster", "info", t.clusterInfo),
		t.reader("cluster", "epochs", t.clusterEpochs),
		t.reader("cluster", "health", t.health),
	}, ways{})
}

// epochs returns the epochs, the newest first, and why the cluster does not run.
func (t *FS) epochs(ctx context.Context) ([]proto.EpochRecord, error, error) {
	c := t.remote()
	defer c.Close()
	m, err := c.Membership(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("node list: %w", err)
	}
	return c.Epochs(ctx, m.Epoch, len(m.Nodes))
}

// clusterInfo is what dog cluster info prints.
func (t *FS) clusterInfo(ctx context.Context) (content, error) {
	epochs, state, err := t.epochs(ctx)
	if err != nil {
		return nil, err
	}
	var newest proto.EpochRecord
	if len(epochs) > 0 {
		newest = epochs[0]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Cluster status: %s\n\n", listing.Status(newest, state))
	if newest.Ctime != 0 {
		fmt.Fprintf(&b, "%s\n%s", listing.Created(newest, t.cfg.Zone), listing.Epochs)
		t.writeEpochs(&b, epochs)
	}
	return text(b.String()), nil
}

func (t *FS) writeEpochs(b *strings.Builder, epochs []proto.EpochRecord) {
	for _, e := range epochs {
		b.WriteString(listing.Epoch(e, listing.EpochNodes(e), t.cfg.Zone))
	}
}

// clusterEpochs has a line for each epoch, the newest first.
func (t *FS) clusterEpochs(ctx context.Context) (content, error) {
	epochs, state, err := t.epochs(ctx)
	if err == nil && len(epochs) == 0 {
		err = state
	}
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	t.writeEpochs(&b, epochs)
	return text(b.String()), nil
}
