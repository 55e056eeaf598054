package tests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// TestTheLossOfAnObjectIsAccepted damages all copies of three objects: one that only
// the disk has, one of which a snapshot has an older version, and one that the disk
// shares with the snapshot. The cluster says which they are, goes on with the rest,
// and a person gives them up one by one.
func TestTheLossOfAnObjectIsAccepted(t *testing.T) {

	const size = 4 << 20
	c := harness.Start(t, harness.Config{})
	c.Format(2)
	n := c.Nodes[0]
	word := func(s string) []byte { return bytes.Repeat([]byte(s), size/len(s)) }
	older, newer, shared := word("older..."), word("newer..."), word("shared..")
	c.Dog("vdi", "create", "disk", "16M")
	c.DogAt(n, bytes.Join([][]byte{older, older, shared, shared}, nil), "vdi", "write", "disk")
	c.Dog("vdi", "snapshot", "-s", "tag", "disk")
	c.DogAt(n, bytes.Join([][]byte{newer, newer}, nil), "vdi", "write", "disk")
	c.Dog("vdi", "create", "other", "4M")
	c.DogAt(n, newer, "vdi", "write", "other")

	spoilt := func(name string, index int) string { // the id
		t.Helper()
		var report struct{ Object string }
		out := c.Dog("vdi", "object", "location", name, "-i", fmt.Sprint(index), "--json")
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(c.Dir, "n*", "obj", report.Object))
		if err != nil || len(files) != 2 {
			t.Fatalf("object %s has the files %q, %v", report.Object, files, err)
		}
		for _, file := range files {
			if err := os.Truncate(file, 100); err != nil {
				t.Fatal(err)
			}
		}
		return report.Object
	}
	mine, lone, common := spoilt("disk", 1), spoilt("other", 0), spoilt("disk", 2)
	for _, at := range []struct{ name, off string }{{"disk", "4M"}, {"disk", "8M"}, {"other", "0"}} {
		if r := c.RunDog(n, nil, "vdi", "read", at.name, at.off, "4M"); r.Code == 0 {
			t.Errorf("what is damaged at %s of %s can be read", at.off, at.name)
		}
	}
	c.Until("the objects to be told", func(context.Context) error {
		var report struct {
			Health     string
			Unreadable []string
			VDIs       []struct {
				Name       string
				Unreadable int
			}
		}
		r := c.RunDog(n, nil, "cluster", "health", "--json")
		err := json.Unmarshal([]byte(r.Stdout), &report)
		text := c.RunDog(n, nil, "cluster", "health").Stdout
		if err != nil || r.Code != 1 || len(report.Unreadable) != 3 || !strings.Contains(text, "VDI other: 1 unreadable objects") ||
			!strings.Contains(r.Stdout, mine) || !strings.Contains(r.Stdout, lone) || !strings.Contains(r.Stdout, common) {
			return fmt.Errorf("health %d, %v:\n%s%s", r.Code, err, r.Stdout, text)
		}
		return nil
	})
	if got := c.Dog("vdi", "read", "disk", "0", "4M"); got != string(newer) {
		t.Error("the objects that are not damaged cannot be read")
	}
	if r := c.RunDog(n, nil, "vdi", "object", "accept-loss", "disk", "-i", "0"); r.Code == 0 || !strings.Contains(r.Stderr, "can be read") {
		t.Errorf("the loss of an object that is well: %+v", r)
	}
	if r := c.RunDog(n, []byte("no\n"), "vdi", "object", "accept-loss", "other", "-i", "0"); r.Code == 0 || !strings.Contains(r.Stdout, "read as zeroes") {
		t.Errorf("the loss was not confirmed: %+v", r)
	}
	if out := c.DogAt(n, []byte("yes\n"), "vdi", "object", "accept-loss", "other", "-i", "0"); !strings.Contains(out, "It is lost to: other\n") {
		t.Errorf("the loss of an object of its own:\n%s", out)
	}
	if out := c.Dog("vdi", "object", "accept-loss", "-f", "disk", "-i", "1"); !strings.Contains(out, "what was there before") {
		t.Errorf("the loss of an object with an older version:\n%s", out)
	}
	if out := c.Dog("vdi", "object", "accept-loss", "-f", "disk", "-i", "2"); !strings.Contains(out, `disk (snapshot 1, tag "tag")`) {
		t.Errorf("the loss of an object that is shared:\n%s", out)
	}
	zeroes := make([]byte, size)
	for _, want := range []struct {
		args []string
		data []byte
	}{
		{[]string{"other"}, zeroes},
		{[]string{"disk"}, bytes.Join([][]byte{newer, older, zeroes, shared}, nil)},
		{[]string{"-s", "tag", "disk"}, bytes.Join([][]byte{older, older, zeroes, shared}, nil)},
	} {
		if got := c.Dog(append([]string{"vdi", "read"}, want.args...)...); got != string(want.data) {
			t.Errorf("what %q has is wrong", want.args)
		}
	}
	c.WaitRecovered()
	c.Check("disk")
	c.Check("other")
	c.DogAt(n, newer, "vdi", "write", "other")
	if r := c.RunDog(n, nil, "cluster", "health"); r.Code != 0 {
		t.Errorf("health in the end: %s", r.Stdout)
	}
	var logs strings.Builder
	for _, n := range c.Nodes {
		logs.WriteString(n.Log())
	}
	if got := strings.Count(logs.String(), "accepted the loss"); got != 3 {
		t.Errorf("the logs tell of %d losses, want 3", got)
	}
}
