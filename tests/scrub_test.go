package tests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// A scrubReport is what dog node stat --json says of the background scrub.
type scrubReport struct {
	Scrub struct {
		Last *struct{ Began, Compared, Differing, Repaired uint64 }
		Left []string
	}
}

// scrubs asks every node what its scrub has found.
func scrubs(t *testing.T, c *harness.Cluster) []scrubReport {
	t.Helper()
	var all []scrubReport
	for _, n := range c.Alive() {
		var r scrubReport
		if err := json.Unmarshal([]byte(c.DogAt(n, nil, "node", "stat", "--json")), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// logged reports whether a line of log has what and one of texts.
func logged(log, what string, texts ...string) bool {
	for line := range strings.Lines(log) {
		if strings.Contains(line, what) && slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(line, s) }) {
			return true
		}
	}
	return false
}

// TestTheScrubRepairsWhatNobodyReads spoils copies that no client touches. The
// nodes find and repair them by themselves, and say so.
func TestTheScrubRepairsWhatNobodyReads(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 4, Args: []string{"--scrub", "every=1s,rate=0"}})
	c.Format(3)
	content := bytes.Repeat([]byte("something to be kept "), 1<<20)
	content = content[:20<<20]
	c.Dog("vdi", "create", "disk", "20M")
	c.DogAt(c.Nodes[0], content, "vdi", "write", "disk")
	c.WaitRecovered()
	files := func(n *harness.Node, pattern string) []string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(n.Dir, "obj", pattern))
		if err != nil || len(all) == 0 {
			t.Fatalf("node %d has the objects %q, %v", n.ID, all, err)
		}
		return all
	}
	taken := make(map[string]bool)
	choose := func(n *harness.Node) string { // of the object of each file there is another that is good
		t.Helper()
		for _, file := range files(n, "00*") {
			if name := filepath.Base(file); !taken[name] {
				taken[name] = true
				return file
			}
		}
		t.Fatalf("node %d has no object that is not spoiled yet", n.ID)
		return ""
	}
	spoil(t, choose(c.Nodes[0]), 4321, 1)
	if err := os.Remove(choose(c.Nodes[1])); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(choose(c.Nodes[2]), 12345); err != nil {
		t.Fatal(err)
	}
	c.Until("the scrub", func(context.Context) error {
		var logs strings.Builder
		left := 0
		for i, r := range scrubs(t, c) {
			if r.Scrub.Last == nil {
				return fmt.Errorf("node %d has not ended a pass", i)
			}
			left += len(r.Scrub.Left)
			logs.WriteString(c.Nodes[i].Log())
		}
		for name := range taken {
			// A node that reads its copy and finds it cut short does not wait for the comparison.
			if !logged(logs.String(), "oid="+name, "copies differed and are equal again", "will be fetched from another node") {
				return fmt.Errorf("object %s is not repaired", name)
			}
		}
		if left != 0 {
			return fmt.Errorf("%d objects are left", left)
		}
		return nil
	})
	if got := c.DogAt(c.Nodes[0], nil, "vdi", "read", "disk"); got != string(content) {
		t.Error("the disk has not what was written")
	}
	if out := c.Dog("node", "stat"); !strings.Contains(out, "\nLast scrub: ended ") {
		t.Errorf("dog node stat says nothing of the scrub:\n%s", out)
	}
	c.Check("disk")
}
