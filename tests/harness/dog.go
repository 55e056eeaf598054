package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// A Run is what a program did.
type Run struct {
	Stdout, Stderr string
	Code           int
}

// RunDog runs dog against node n.
func (c *Cluster) RunDog(n *Node, stdin []byte, args ...string) Run {
	c.t.Helper()
	return c.RunProgram(c.dog, n, stdin, args...)
}

// RunProgram runs another program that takes the arguments of dog.
func (c *Cluster) RunProgram(program string, n *Node, stdin []byte, args ...string) Run {
	c.t.Helper()
	args = append(args[:len(args):len(args)], "-a", "127.0.0.1", "-p", strconv.Itoa(n.Port.Number))
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(c.t.Context(), program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		c.t.Fatalf("dog %s: %v", strings.Join(args, " "), err)
	}
	return Run{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Dog runs dog against the first living node and returns its output. The test
// ends if dog fails.
func (c *Cluster) Dog(args ...string) string {
	c.t.Helper()
	return c.DogAt(c.Alive()[0], nil, args...)
}

// DogAt runs dog against node n with some standard input and returns its
// output. The test ends if dog fails.
func (c *Cluster) DogAt(n *Node, stdin []byte, args ...string) string {
	c.t.Helper()
	r := c.RunDog(n, stdin, args...)
	if r.Code != 0 {
		c.t.Fatalf("dog %s: status %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Check lets dog compare the copies of a disk and fails the test if it found
// anything to repair or to complain about.
func (c *Cluster) Check(name string) {
	c.t.Helper()
	checked(c.t, name, c.RunDog(c.Alive()[0], nil, "vdi", "check", name))
}

func checked(t TB, name string, r Run) {
	t.Helper()
	if want := fmt.Sprintf("finish check&repair %s\n", name); r.Code != 0 || r.Stdout != want || r.Stderr != "" {
		t.Errorf("dog vdi check %s: status %d\n%s%s", name, r.Code, r.Stdout, r.Stderr)
	}
}
