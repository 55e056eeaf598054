package tests_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// These tests compare with C sheepdog 1.0, where C_SHEEP and C_DOG name its
// programs.

// TestCDogSeesTheSame lets both administration programs describe one cluster of
// ours, byte for byte.
func TestCDogSeesTheSame(t *testing.T) {
	theirs := harness.FromEnv(t, "C_DOG")
	c := harness.Start(t, harness.Config{})
	c.Format(2)
	c.Dog("vdi", "create", "a", "64M")
	c.DogAt(c.Nodes[0], []byte(strings.Repeat("text", 5000)), "vdi", "write", "a", "5M", "20000")
	c.Dog("vdi", "snapshot", "-s", "one", "a")
	c.Dog("vdi", "clone", "-s", "one", "a", "b")
	c.DogAt(c.Nodes[1], []byte("other"), "vdi", "write", "b", "0", "5")
	c.Dog("vdi", "setattr", "a", "key", "value")
	for _, args := range []string{
		"vdi list", "vdi list -r", "vdi list a", "vdi list -r b", "vdi list nosuch", "vdi tree", "vdi graph",
		"vdi object map a", "vdi object location a -i 1", "vdi getattr a key", "vdi getattr a nosuch",
		"vdi read a 5M 100", "vdi read -s one a 5M 100", "vdi read b 0 10", "vdi check a", "vdi check -e b",
		"node list", "node list -r", "node recovery", "node md info", "cluster info", "cluster info -r", "cluster info -v",
		"vdi create a 1M", "vdi snapshot -s one a", "vdi resize a 1M", "vdi delete nosuch", "vdi snapshot nosuch", "vdi read nosuch",
	} {
		t.Run(args, func(t *testing.T) {
			want := c.RunProgram(theirs, c.Nodes[0], nil, strings.Fields(args)...)
			got := c.RunDog(c.Nodes[0], nil, strings.Fields(args)...)
			if got != want {
				t.Errorf("ours ends with status %d and says\n%s%s\ntheirs ends with status %d and says\n%s%s",
					got.Code, got.Stdout, got.Stderr, want.Code, want.Stdout, want.Stderr)
			}
		})
	}
}

// TestCDogAdministers changes a cluster of ours with the C program alone.
func TestCDogAdministers(t *testing.T) {
	theirs := harness.FromEnv(t, "C_DOG")
	programs := harness.Build(t)
	c := harness.Start(t, harness.Config{Sheep: programs.Sheep, Dog: theirs})
	c.Format(2)
	text := strings.Repeat("text", 5000)
	c.Dog("vdi", "create", "a", "64M")
	c.DogAt(c.Nodes[1], []byte(text), "vdi", "write", "a", "5M", "20000")
	c.Dog("vdi", "snapshot", "-s", "one", "a")
	c.DogAt(c.Nodes[2], []byte("overwritten"), "vdi", "write", "a", "5M", "11")
	c.Dog("vdi", "clone", "-s", "one", "a", "b")
	for name, want := range map[string]string{"a": "overwritten" + text[11:], "b": text} {
		if got := c.DogAt(c.Nodes[0], nil, "vdi", "read", name, "5M", "20000"); got != want {
			t.Errorf("%s holds %q...", name, got[:20])
		}
		c.Check(name)
	}
	c.DogAt(c.Nodes[0], []byte("yes\n"), "vdi", "rollback", "-s", "one", "a")
	if got := c.Dog("vdi", "read", "a", "5M", "20000"); got != text {
		t.Errorf("after a rollback a holds %q...", got[:20])
	}
	backup := c.Dog("vdi", "snapshot", "-s", "two", "a") + c.Dog("vdi", "backup", "-F", "one", "-s", "two", "a")
	if len(backup) < 24 {
		t.Errorf("a backup has %d bytes", len(backup))
	}
	c.Dog("vdi", "resize", "b", "128M")
	c.Dog("vdi", "delete", "b")
	if got := c.Dog("vdi", "list", "-r", "b"); got != "" {
		t.Errorf("after its deletion b is listed: %s", got)
	}
	c.Dog("node", "kill", "2")
	if code, err := c.Nodes[2].Wait(patience); err != nil || code != 0 {
		t.Errorf("the killed node ended with status %d (%v)", code, err)
	}
	c.Dog("cluster", "shutdown")
	for _, n := range c.Nodes[:2] {
		if code, err := n.Wait(patience); err != nil || code != 0 {
			t.Errorf("node %d ended with status %d (%v)", n.ID, code, err)
		}
	}
}

// TestAStoreMovesBetweenImplementations writes with C sheepdog, goes on with
// ours in the same directories, and goes back.
func TestAStoreMovesBetweenImplementations(t *testing.T) {
	sheep, dog := harness.FromEnv(t, "C_SHEEP"), harness.FromEnv(t, "C_DOG")
	base, err := os.MkdirTemp("", "move")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	var dirs []string
	for _, name := range []string{"a", "b", "c"} {
		dirs = append(dirs, filepath.Join(base, name))
	}
	seed := seed(t)
	first, second := fileSystem(t, seed, 64<<20), fileSystem(t, seed+1, 64<<20)
	load := func(c *harness.Cluster, image, tag string) {
		t.Helper()
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		c.DogAt(c.Nodes[0], b, "vdi", "write", "vol", "0", "64M")
		c.Dog("vdi", "snapshot", "-s", tag, "vol")
	}
	// The addresses are part of the placement, so the same nodes come back.
	theirs := harness.Start(t, harness.Config{Dirs: dirs, Sheep: sheep, Dog: dog})
	theirs.Format(2)
	theirs.Dog("vdi", "create", "vol", "64M")
	load(theirs, first, "one")
	theirs.Shutdown()

	ours := theirs.With(t, harness.Build(t))
	ours.StartAll()
	same(t, "what C wrote", first, ours.Dog("vdi", "read", "vol"))
	ours.Check("vol")
	load(ours, second, "two")
	same(t, "the snapshot of C", first, ours.Dog("vdi", "read", "-s", "one", "vol"))
	ours.Shutdown()

	again := theirs.With(t, harness.Programs{Sheep: sheep, Dog: dog})
	again.StartAll()
	same(t, "what we wrote", second, again.Dog("vdi", "read", "-s", "two", "vol"))
	same(t, "the snapshot of C", first, again.Dog("vdi", "read", "-s", "one", "vol"))
	again.Check("vol")
}
