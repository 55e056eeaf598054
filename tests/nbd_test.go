package tests_test

import (
	"path/filepath"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/nbdclient"
)

// nbdCluster starts a formatted cluster whose nodes export their disks on the
// UNIX socket nbd.sock in their directories.
func nbdCluster(t *testing.T, nodes, copies int, args ...string) *harness.Cluster {
	t.Helper()
	c := harness.New(t, harness.Config{Nodes: nodes, Args: args})
	withNBD(c)
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	c.Format(copies)
	return c
}

// withNBD has the nodes of c export their disks from the next start on.
func withNBD(c *harness.Cluster) {
	for _, n := range c.Nodes {
		n.Args = append(n.Args[:len(n.Args):len(n.Args)], "--nbd", "unix:"+nbdSocket(n))
	}
}

func nbdSocket(n *harness.Node) string { return filepath.Join(n.Dir, "nbd.sock") }

// nbdURI names an export of n for clients that take URIs.
func nbdURI(n *harness.Node, export string) string {
	return "nbd+unix:///" + export + "?socket=" + nbdSocket(n)
}

// dialNBD connects to an export of n until the test ends.
func dialNBD(t *testing.T, n *harness.Node, export string) *nbdclient.Client {
	t.Helper()
	dev, err := nbdclient.Dial(t.Context(), "unix:"+nbdSocket(n), export)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}
