package tests_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/nbdclient"
)

// A lockRow is what the tests look at of dog vdi lock list --json.
type lockRow struct {
	Name    string `json:"name"`
	Holders []struct {
		Node   string    `json:"node"`
		Client string    `json:"client"`
		Since  time.Time `json:"since"`
		Bound  bool      `json:"ends_with_client"`
	} `json:"holders"`
}

// locksAt returns the locks as node n sees them.
func locksAt(t *testing.T, c *harness.Cluster, n *harness.Node) []lockRow {
	t.Helper()
	var rows []lockRow
	if err := json.Unmarshal([]byte(c.DogAt(n, nil, "vdi", "lock", "list", "--json")), &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// wantHolder waits until node n sees that a client, whose name begins so, has the
// lock of a disk through another node.
func wantHolder(t *testing.T, c *harness.Cluster, n, of *harness.Node, disk, client string, bound bool) {
	t.Helper()
	c.Until("the lock of "+disk, func(context.Context) error {
		rows := locksAt(t, c, n)
		i := slices.IndexFunc(rows, func(r lockRow) bool { return r.Name == disk })
		if i < 0 {
			return fmt.Errorf("locked are %+v", rows)
		}
		h := rows[i].Holders[0]
		if h.Node != of.Addr() || !strings.HasPrefix(h.Client, client) || h.Bound != bound || time.Since(h.Since) > time.Hour || time.Since(h.Since) < -time.Minute {
			t.Fatalf("%s is locked by %+v, want %s of %s", disk, h, client, of.Addr())
		}
		return nil
	})
}

// wantNoLock waits until node n sees no lock.
func wantNoLock(t *testing.T, c *harness.Cluster, n *harness.Node, what string) {
	t.Helper()
	c.Until("the end of the lock: "+what, func(context.Context) error {
		if rows := locksAt(t, c, n); len(rows) > 0 {
			return fmt.Errorf("locked are %+v", rows)
		}
		return nil
	})
}

func lockingCluster(t *testing.T) *harness.Cluster {
	t.Helper()
	c := harness.New(t, harness.Config{Nodes: 3})
	withNBD(c)
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	c.Format(2, "-l")
	c.Dog("vdi", "create", "disk", "8M")
	return c
}

func TestTheLockOfAnNBDClientEndsWithIt(t *testing.T) {
	c := lockingCluster(t)
	front, other := c.Nodes[0], c.Nodes[1]
	for what, end := range map[string]func(*nbdclient.Client) error{
		"a client that says good-bye": (*nbdclient.Client).Close,
		"a connection that breaks":    (*nbdclient.Client).Drop,
	} {
		dev := dialNBD(t, front, "disk")
		wantHolder(t, c, other, front, "disk", "nbd unix", true)
		c.Dog("vdi", "snapshot", "-s", what, "disk") // the lock goes on with the new head
		wantHolder(t, c, other, front, "disk", "nbd unix", true)
		if err := end(dev); err != nil {
			t.Error(err)
		}
		wantNoLock(t, c, other, what)
	}
}

func TestTheLockOfAnNBDClientEndsWithItsSheep(t *testing.T) {
	c := lockingCluster(t)
	front, other := c.Nodes[0], c.Nodes[1]
	dialNBD(t, front, "disk")
	wantHolder(t, c, other, front, "disk", "nbd unix", true)
	front.Kill()
	wantNoLock(t, c, other, "its sheep was killed")
	dialNBD(t, other, "disk")
	wantHolder(t, c, other, other, "disk", "nbd unix", true)
}

func TestTheLockOfAMountEndsWithIt(t *testing.T) {
	c := lockingCluster(t)
	front, other := c.Nodes[0], c.Nodes[1]
	for what, end := range map[string]func(m *sheepfsMount, f *os.File){
		"the file is closed":  func(_ *sheepfsMount, f *os.File) { f.Close() },
		"it is unmounted":     func(m *sheepfsMount, f *os.File) { f.Close(); syscall.Unmount(m.dir, 0) },
		"sheepfs was killed":  func(m *sheepfsMount, _ *os.File) { harness.KillGroup(m.cmd) },
		"its sheep is killed": func(*sheepfsMount, *os.File) { front.Kill() },
	} {
		t.Run(what, func(t *testing.T) {
			if !front.Alive() {
				front.Start()
				c.WaitRecovered()
			}
			m := mountSheepfs(t, c, front)
			f, err := os.OpenFile(m.path("volume/disk"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			wantHolder(t, c, other, front, "disk", "sheepfs 127.0.0.1:", true)
			end(m, f)
			if what == "its sheep is killed" { // it is taken again through another one
				c.Until("the lock to move", func(context.Context) error {
					rows := locksAt(t, c, other)
					if len(rows) != 1 || rows[0].Holders[0].Node == front.Addr() {
						return fmt.Errorf("locked are %+v", rows)
					}
					return nil
				})
				f.Close()
			}
			wantNoLock(t, c, other, what)
		})
	}
}

// QEMU locks on a connection of its own, which it closes: its lock lasts until it is
// given back, or taken away.
func TestTheLockOfANativeClientOutlivesItsConnection(t *testing.T) {
	c := lockingCluster(t)
	lock(t, c.Nodes[0], "disk")
	wantHolder(t, c, c.Nodes[1], c.Nodes[0], "disk", "native 127.0.0.1:", false)
	if got := c.Dog("vdi", "lock", "list", "-v"); !strings.Contains(got, c.Nodes[0].Addr()) || !strings.Contains(got, "native 127.0.0.1:") {
		t.Errorf("got:\n%s", got)
	}
	c.Dog("vdi", "lock", "unlock", "disk")
	wantNoLock(t, c, c.Nodes[1], "it was taken away")
}
