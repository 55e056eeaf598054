package command_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sheepdog/cmd/dog/internal/command"
	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// checkLeaks runs dog cluster check with further options. during happens while
// dog waits for its second look, if it does.
func checkLeaks(t *testing.T, c *fakesheep.Cluster, stdin string, during func(), options ...string) result {
	t.Helper()
	return runEnv(t, c, command.Env{
		Args: append([]string{"cluster", "check"}, options...), Stdin: strings.NewReader(stdin),
		Pause: func(context.Context, time.Duration) error {
			during()
			return nil
		},
	})
}

func nothing() {}

const (
	testVDI  sheep.VDIID = 0x7c2b25
	checked              = "fix vdi test\nfinish check&repair test\n"
	hint                 = "'dog cluster check --sweep' removes leaked objects\n"
	question             = "    __\n   ()'`;\n   /\\|`\n  /  |   Caution! Removed objects cannot be restored.\n" +
		"(/_)_|_  Are you sure you want to continue? [yes/no]: "
)

func found(ids ...sheep.ObjectID) string {
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&b, "leaked object %v\n", id)
	}
	fmt.Fprintf(&b, "found %d leaked object(s), which no image refers to\n", len(ids))
	return b.String()
}

func removed(ids ...sheep.ObjectID) string {
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&b, "removed object %v\n", id)
	}
	return b.String()
}

// enter writes into the map of the VDI, at all copies of the inode.
func enter(c *fakesheep.Cluster, vdi, owner sheep.VDIID, index uint32) {
	id := sheep.InodeObject(vdi)
	for _, at := range c.Holders(id, 3) {
		if inode := c.Copy(at, id); inode != nil {
			binary.LittleEndian.PutUint32(inode[proto.MapOffset+proto.MapEntrySize*index:], uint32(owner))
		}
	}
}

// has reports whether a node has the object.
func has(c *fakesheep.Cluster, id sheep.ObjectID) bool {
	for i := range 4 {
		if c.Copy(i, id) != nil {
			return true
		}
	}
	return false
}

func TestCheckFindsLeaks(t *testing.T) {
	used := sheep.DataObject(testVDI, 0)
	leak := sheep.DataObject(testVDI, 1)
	stranger := sheep.VDIID(0x123456)
	for _, test := range []struct {
		name string
		put  []sheep.ObjectID
		want []sheep.ObjectID
	}{
		{"nothing leaks", nil, nil},
		{"a data object that is in no map", []sheep.ObjectID{leak}, []sheep.ObjectID{leak}},
		{"a data object of a number that no image has", []sheep.ObjectID{sheep.DataObject(stranger, 7)}, []sheep.ObjectID{sheep.DataObject(stranger, 7)}},
		{"the ledger of an object that is in a map is kept", []sheep.ObjectID{used.Ledger()}, nil},
		{"the ledger of an object that is in no map", []sheep.ObjectID{leak.Ledger()}, []sheep.ObjectID{leak.Ledger()}},
		{"an object and its ledger", []sheep.ObjectID{leak.Ledger(), leak}, []sheep.ObjectID{leak, leak.Ledger()}},
		{"the saved state of an image is kept", []sheep.ObjectID{sheep.VMStateObject(testVDI, 3)}, nil},
		{"the saved state of no image", []sheep.ObjectID{sheep.VMStateObject(stranger, 3)}, []sheep.ObjectID{sheep.VMStateObject(stranger, 3)}},
		{"attributes and inodes are kept", []sheep.ObjectID{sheep.AttrObject(stranger, 1), sheep.InodeObject(stranger)}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _, _ := damaged(t)
			for _, id := range test.put {
				c.Put(id)
			}
			want := result{stdout: checked}
			if len(test.want) > 0 {
				want = result{stdout: checked + found(test.want...), stderr: hint, status: 1}
			}
			wantResult(t, checkLeaks(t, c, "", nothing), want)
			for _, id := range test.put {
				if !has(c, id) {
					t.Errorf("object %v was removed by a check that was not asked to", id)
				}
			}
			if len(test.want) == 0 {
				return
			}
			wantResult(t, checkLeaks(t, c, "", nothing, "--sweep", "-f"),
				result{stdout: checked + found(test.want...) + removed(test.want...)})
			wantResult(t, checkLeaks(t, c, "", nothing), result{stdout: checked})
			if !has(c, used) {
				t.Error("the object of the image was removed")
			}
		})
	}
}

func TestSweepOfDeletedVDI(t *testing.T) {
	c, id, _ := damaged(t)
	mustRun(t, c, "", "vdi", "delete", "test")
	if has(c, id) {
		t.Fatal("the object was not deleted with its image")
	}
	state := sheep.VMStateObject(testVDI, 0)
	c.Put(id)
	c.Put(state)
	wantResult(t, checkLeaks(t, c, "", nothing, "--sweep", "--force"), result{stdout: found(id, state) + removed(id, state)})
}

// TestSweepOfHalfDeletedVDI is about a VDI whose deletion ended with the daemons:
// it has no name any more, but still a map.
func TestSweepOfHalfDeletedVDI(t *testing.T) {
	c, id, _ := damaged(t)
	mustRun(t, c, "", "vdi", "delete", "test")
	c.Put(id)
	enter(c, testVDI, testVDI, 0)
	wantResult(t, checkLeaks(t, c, "", nothing, "--sweep", "--force"), result{stdout: found(id) + removed(id)})
}

func TestSweepSparesWhatOthersShare(t *testing.T) {
	c, id, _ := damaged(t)
	mustRun(t, c, "", "vdi", "snapshot", "-s", "one", "test")
	mustRun(t, c, "", "vdi", "clone", "-s", "one", "test", "clone")
	mustRun(t, c, "", "vdi", "delete", "-s", "one", "test")
	mustRun(t, c, "", "vdi", "delete", "test")
	r := checkLeaks(t, c, "", nothing, "--sweep", "-f")
	wantResult(t, r, result{stdout: "fix vdi clone\nfinish check&repair clone\n"})
	if !has(c, id) {
		t.Error("the object of a deleted snapshot that a clone uses was removed")
	}
}

func TestSweepAsks(t *testing.T) {
	c, _, _ := damaged(t)
	id := sheep.DataObject(testVDI, 1)
	c.Put(id)
	wantResult(t, checkLeaks(t, c, "no\n", nothing, "--sweep"),
		result{stdout: checked + found(id) + question, stderr: "Aborted: nothing was changed\n", status: 1})
	if !has(c, id) {
		t.Error("the object was removed though the answer was no")
	}
	wantResult(t, checkLeaks(t, c, "yes\n", nothing, "--sweep"), result{stdout: checked + found(id) + question + removed(id)})
}

func TestObjectsInTheMakingAreNoLeaks(t *testing.T) {
	c, _, _ := damaged(t)
	id := sheep.DataObject(testVDI, 1)
	c.Put(id)
	looked := false
	r := checkLeaks(t, c, "", func() {
		looked = true
		enter(c, testVDI, testVDI, 1)
	}, "--sweep", "-f")
	wantResult(t, r, result{stdout: checked})
	if !looked || !has(c, id) {
		t.Errorf("second look %v, object still there %v, want both", looked, has(c, id))
	}
}

// A slowAnswer enters an object into the map before it says yes.
type slowAnswer struct{ before func() }

func (a slowAnswer) Read(p []byte) (int, error) {
	a.before()
	return copy(p, "yes\n"), nil
}

func TestSweepLooksAgainAfterTheQuestion(t *testing.T) {
	c, _, _ := damaged(t)
	id := sheep.DataObject(testVDI, 1)
	c.Put(id)
	r := runEnv(t, c, command.Env{
		Args:  []string{"cluster", "check", "--sweep"},
		Stdin: slowAnswer{func() { enter(c, testVDI, testVDI, 1) }},
		Pause: func(context.Context, time.Duration) error { return nil },
	})
	wantResult(t, r, result{stdout: checked + found(id) + question})
	if !has(c, id) {
		t.Error("an object that was entered into the map during the question was removed")
	}
}

func TestSweepLeavesOpenImagesAlone(t *testing.T) {
	c := fakesheep.Formatted(4, 3, proto.ClusterLock)
	mustRun(t, c, "", "vdi", "create", "test", "10M")
	id := sheep.DataObject(testVDI, 1)
	c.Put(id)
	c.Lock(0, testVDI)
	wantResult(t, checkLeaks(t, c, "", nothing, "--sweep", "-f"), result{
		stdout: checked + found(id), stderr: "failed to remove object " + id.String() + ": somebody has its image open\n", status: 1})
	if !has(c, id) {
		t.Error("the object of an open image was removed")
	}
}

func TestNothingIsSweptInDoubt(t *testing.T) {
	const doubt = "Leaked objects cannot be told from others: "
	for _, test := range []struct {
		name   string
		spoil  func(*fakesheep.Cluster)
		stderr string // the end of it
	}{
		{"an inode is lost", func(c *fakesheep.Cluster) {
			for i := range 4 {
				c.Drop(i, sheep.InodeObject(testVDI))
			}
		}, doubt + "object 807c2b2500000000 cannot be read: No object found\n"},
		{"a node does not list its objects", func(c *fakesheep.Cluster) { c.Fail(proto.OpGetObjList, proto.ResultIO) },
			doubt + "the objects of node 127.0.0.1:7000 cannot be listed: I/O error\n"},
		{"a node does not answer", func(c *fakesheep.Cluster) { c.Kill(3) },
			doubt + "the objects of node 127.0.0.1:7003 cannot be listed: I/O error\n"},
		{"a node does not say what it has", func(c *fakesheep.Cluster) { c.Fail(proto.OpOIDsExist, proto.ResultIO) },
			doubt + "node 127.0.0.1:7000 does not say which objects it has: I/O error\n"},
		{"the locks are unknown", func(c *fakesheep.Cluster) { c.Fail(proto.OpGetVDICopies, proto.ResultIO) },
			doubt + "locks cannot be listed: I/O error\n"},
		{"an image is damaged", func(c *fakesheep.Cluster) {
			at := c.Holders(sheep.DataObject(testVDI, 0), 3)
			c.Copy(at[0], sheep.DataObject(testVDI, 0))[5] ^= 1
			c.Copy(at[1], sheep.DataObject(testVDI, 0))[5] ^= 2
		}, "Nothing is removed while images are damaged\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _, _ := damaged(t)
			id := sheep.DataObject(testVDI, 1)
			c.Put(id)
			test.spoil(c)
			r := checkLeaks(t, c, "", nothing, "--sweep", "-f")
			if !strings.HasSuffix(r.stderr, test.stderr) || r.status != 1 {
				t.Errorf("got %+v, want status 1 and the message %q", r, test.stderr)
			}
			if strings.Contains(r.stdout, "removed object") || !has(c, id) {
				t.Errorf("an object was removed: %+v", r)
			}
		})
	}
}

func TestSweepTellsWhatItCannotRemove(t *testing.T) {
	c, _, _ := damaged(t)
	id := sheep.DataObject(testVDI, 1)
	c.Put(id)
	c.Fail(proto.OpRemoveObj, proto.ResultIO)
	wantResult(t, checkLeaks(t, c, "", nothing, "--sweep", "-f"), result{
		stdout: checked + found(id), stderr: "failed to remove object " + id.String() + ": I/O error\n", status: 1})

	c, _, _ = damaged(t)
	for i := range 4 {
		c.PutAt(i, id)
	}
	wantResult(t, checkLeaks(t, c, "", nothing, "--sweep", "-f"), result{
		stdout: checked + found(id) + removed(id),
		stderr: "object " + id.String() + " is still on a node that should not have it\n", status: 1})
}

func TestLongListsOfObjects(t *testing.T) {
	c, _, _ := damaged(t)
	var want []sheep.ObjectID
	for i := range uint32(20000) { // more than the first room for a list
		id := sheep.DataObject(testVDI, 100+i)
		want = append(want, id)
		c.PutAt(0, id)
	}
	r := checkLeaks(t, c, "", nothing)
	wantResult(t, r, result{stdout: checked + found(want...), stderr: hint, status: 1})
}

func TestInterruptedCheckRemovesNothing(t *testing.T) {
	c, _, _ := damaged(t)
	id := sheep.DataObject(testVDI, 1)
	c.Put(id)
	r := runEnv(t, c, command.Env{
		Args:  []string{"cluster", "check", "--sweep", "-f"},
		Pause: func(context.Context, time.Duration) error { return errors.New("woken") },
	})
	if r.status != 1 || !has(c, id) {
		t.Errorf("got %+v, object still there %v, want status 1 and the object", r, has(c, id))
	}
}
