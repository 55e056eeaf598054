package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
)

// A step is one command line of the comparison with C's dog, run by both on a
// cluster of C's that each of them finds just formatted.
type step struct {
	line   string                      // what the shell is to run; dog is one of the two
	before func(*testing.T, *cCluster) // happens before it, if set
	sorted bool                        // the order of the output's lines says nothing
	status int                         // our exit status where it is to differ from C's, which is 0
}

// steps is a life of a cluster. Names are chosen so that numbers of VDIs do not
// collide.
func steps() []step {
	return []step{
		{line: "dog cluster info"},
		{line: "dog cluster info -v"},
		{line: "dog cluster info -r"},
		{line: "dog cluster info -d"},
		{line: "dog node list"},
		{line: "dog node list -r"},
		{line: "dog node info"},
		{line: "dog node info -r"},
		{line: "dog node md info -A"},
		{line: "dog node md info -r"},
		{line: "dog node recovery"},
		{line: "dog node recovery info -r"},
		{line: "dog node recovery get-throttle"},
		{line: "dog vdi list"},
		{line: "dog vdi tree"},
		{line: "dog vdi graph"},
		{line: "dog vdi create test 20M -v"},
		{line: "dog vdi create test 20M"},
		{line: "dog vdi create other 16777216 -v -r"},
		{line: "dog vdi create --copies=3 three 4M"},
		{line: "dog vdi create small 8M -z 20"},
		{line: "dog vdi create full 12M -P"},
		{line: "dog vdi create zero 0"},
		{line: "dog vdi create 'with space' 10M"},
		{line: "head -c 9000000 /dev/zero | tr '\\0' a | dog vdi write test 1M 12M"},
		{line: "printf hello | dog vdi write test 0 512"},
		{line: "head -c 3000000 /dev/zero | tr '\\0' b | dog vdi write small 1000001 3000000"},
		{line: "printf hello | dog vdi write nosuch"},
		{line: "dog vdi write test 20M </dev/null"},
		{line: "dog vdi write test 21M </dev/null"},
		{line: "dog vdi read test | sha1sum"},
		{line: "dog vdi read test 1000000 100000 | sha1sum"},
		{line: "dog vdi read test 20M"},
		{line: "dog vdi read test 21M"},
		{line: "dog vdi read small 999999 | sha1sum"},
		{line: "dog vdi snapshot -s snap1 test -v"},
		{line: "dog vdi snapshot -s snap1 test"},
		{line: "dog vdi snapshot test -v -r"},
		{line: "dog vdi snapshot -R -v test"},
		{line: "dog vdi snapshot -s s nosuch"},
		{line: "dog vdi snapshot nosuch"},
		{line: "printf changed | dog vdi write test 8M 1024"},
		{line: "dog vdi read test | sha1sum"},
		{line: "dog vdi read -s snap1 test | sha1sum"},
		{line: "dog vdi read -s 2 test | sha1sum"},
		{line: "dog vdi object map test"},
		{line: "dog vdi object map -s snap1 test"},
		{line: "dog vdi object map test -i 2"},
		{line: "dog vdi object map test -i 4"},
		{line: "dog vdi object map test -i 0x1"},
		{line: "dog vdi object map nosuch"},
		{line: "dog vdi object location test"},
		{line: "dog vdi object location test -i 1"},
		{line: "dog vdi object location test -i 4"},
		{line: "dog vdi object location nosuch"},
		{line: "dog vdi object location test -i foo"},
		{line: "dog vdi clone -s snap1 test clone1 -v"},
		{line: "dog vdi clone -s snap1 test clone1"},
		{line: "dog vdi clone -s 2 test clone2 -v -r"},
		{line: "dog vdi clone -n -s snap1 test deep"},
		{line: "dog vdi clone -P -s snap1 test prealloc"},
		{line: "dog vdi clone -s nope test c3"},
		{line: "dog vdi clone -s nope nosuch c3"},
		{line: "dog vdi read deep | sha1sum"},
		{line: "dog vdi read prealloc | sha1sum"},
		{line: "dog vdi object map prealloc"},
		{line: "dog vdi object map deep"},
		{line: "printf x | dog vdi write clone1 4M 1"},
		{line: "dog vdi read clone1 | sha1sum"},
		{line: "dog vdi list"},
		{line: "dog vdi list -r"},
		{line: "dog vdi list test"},
		{line: "dog vdi list -r nosuch"},
		{line: "dog vdi list -o 007c2b2500000001"},
		{line: "dog vdi list -o zz"},
		{line: "dog vdi list -o 807c2b2500000000"},
		{line: "dog vdi tree"},
		{line: "dog vdi graph"},
		{line: "dog vdi resize test 40M"},
		{line: "dog vdi resize test 40M"},
		{line: "dog vdi resize nosuch 40M"},
		{line: "dog vdi read test | sha1sum"},
		{line: "dog vdi rollback -f -s snap1 test -v"},
		{line: "dog vdi read test | sha1sum"},
		{line: "printf yes | dog vdi rollback -s 2 test -v -r"},
		{line: "dog vdi rollback -f -s nope test"},
		{line: "dog vdi snapshot -s leaf1 test"},
		{line: "dog vdi rollback -f -s snap1 test"},
		{line: "dog vdi snapshot -s leaf2 test"},
		{line: "dog vdi rollback -f -s snap1 test"},
		{line: "dog vdi tree"},
		{line: "dog vdi graph"},
		{line: "dog vdi list -r"},
		{line: "dog vdi setattr test k1 v1"},
		{line: "dog vdi setattr -x test k1 v2"},
		{line: "dog vdi setattr test k2 ''"},
		{line: "printf value | dog vdi setattr test k3"},
		{line: "dog vdi getattr test k1"},
		{line: "dog vdi getattr test k2"},
		{line: "dog vdi getattr test k3"},
		{line: "dog vdi getattr test k4"},
		{line: "dog vdi getattr nosuch k4"},
		{line: "dog vdi setattr -d test k1"},
		{line: "dog vdi setattr -d test k1"},
		{line: "dog vdi setattr nosuch k v"},
		{line: "dog vdi check test"},
		{line: "dog vdi check -s snap1 test"},
		{line: "dog vdi check -e test"},
		{line: "dog vdi check nosuch"},
		{line: "dog vdi check -e nosuch"},
		{line: "dog cluster check"},
		{line: "dog vdi lock list"},
		{line: "dog vdi lock unlock test"},
		{line: "dog vdi lock unlock nosuch"},
		{line: "dog vdi lock unlock -s snap1 test"},
		{line: "dog vdi lock unlock -s 2 test"},
		{line: "dog vdi delete -s snap1 test"},
		{line: "dog vdi delete -s snap1 test"},
		{line: "dog vdi delete -s 77 test"},
		{line: "dog vdi delete test"},
		{line: "dog vdi delete test"},
		{line: "dog vdi delete nosuch"},
		{line: "dog vdi delete -m 1 full"},
		{line: "dog vdi object map full"},
		{line: "dog vdi delete full -B 2"},
		{line: "dog vdi delete other"},
		{line: "dog vdi read clone1 | sha1sum"},
		{line: "dog vdi list -r"},
		{line: "dog vdi tree"},
		{line: "dog cluster recover disable"},
		{line: "dog cluster info"},
		{line: "dog cluster recover enable"},
		{line: "dog cluster recover force -f"},
		{line: "dog node recovery set-throttle 10 100"},
		{line: "dog node recovery get-throttle"},
		{line: "dog node recovery set-throttle 0 0"},
		{line: "dog node log level set debug"},
		{line: "dog node log level get"},
		{line: "dog node log level set info"},
		{line: "dog node log level list"},
		{line: "dog node vnodes set 3"},
		{line: "dog vdi list -T | head -1"},
		{line: "dog vdi read nosuch -T"},
	}
}

// lockSteps is about VDIs that are open.
func lockSteps() []step {
	return []step{
		{line: "dog vdi create bar 10M"},
		{line: "dog vdi create zero 10M"},
		{line: "dog vdi snapshot -s s1 zero"},
		{line: "dog vdi lock list", before: func(t *testing.T, c *cCluster) {
			c.lock(t, "bar", "", 0, proto.LockNormal)
			c.lock(t, "zero", "", 1, proto.LockShared)
			c.lock(t, "zero", "", 0, proto.LockShared)
			c.lock(t, "zero", "s1", 2, proto.LockNormal)
		}},
		{line: "dog vdi lock unlock bar"},
		{line: "dog vdi lock list"},
		{line: "dog vdi lock unlock bar"},
		{line: "dog vdi lock unlock -s s1 zero"},
		{line: "dog vdi lock list"},
	}
}

// damageSteps is about copies that are lost or differ.
func damageSteps() []step {
	at := func(n int) string { return fmt.Sprintf("007c2b25%08x", n) }
	return []step{
		{line: "dog vdi create test 20M"},
		{line: "head -c 20000000 /dev/zero | tr '\\0' a | dog vdi write test"},
		{line: "dog vdi check test"},
		{line: "dog vdi check -e test", sorted: true, before: func(t *testing.T, c *cCluster) {
			c.damage(t, 0, at(0), false)
			c.damage(t, 1, at(1), false)
			c.damage(t, 2, at(1), false)
			c.damage(t, 0, "807c2b2500000000", false)
			c.damage(t, 2, at(2), true)
		}},
		{line: "dog vdi check test", sorted: true},
		{line: "dog vdi check -e test"},
		{line: "dog vdi check test"},
		{line: "dog vdi read test | sha1sum"},
		{line: "dog vdi check test", sorted: true, status: 1, before: func(t *testing.T, c *cCluster) {
			for i := range 3 {
				c.damage(t, i, at(3), false)
			}
		}},
		{line: "dog cluster check", sorted: true, status: 1},
	}
}

// TestAgainstC runs the same command lines with C's dog and with ours and
// compares everything that they print, and what they leave behind.
func TestAgainstC(t *testing.T) {
	sheep, theirs := os.Getenv("C_SHEEP"), os.Getenv("C_DOG")
	if sheep == "" || theirs == "" {
		t.Skip("C_SHEEP and C_DOG do not name the programs of C Sheepdog")
	}
	c := startC(t, sheep, theirs)
	ours := build(t)
	for _, test := range []struct {
		name   string
		format string
		steps  []step
	}{
		{"the life of some VDIs", "-c 2", steps()},
		{"VDIs that are open", "-c 2 -l", lockSteps()},
		{"copies that are damaged", "-c 3", damageSteps()},
	} {
		t.Run(test.name, func(t *testing.T) {
			want, got := c.play(t, theirs, test.format, test.steps), c.play(t, ours, test.format, test.steps)
			for i, s := range test.steps {
				if s.status != 0 {
					want[i] = strings.Replace(want[i], "exit status 0\n", fmt.Sprintf("exit status %d\n", s.status), 1)
				}
				if got[i] != want[i] {
					t.Errorf("%s\ngot:\n%s\nwant:\n%s", s.line, got[i], want[i])
				}
			}
		})
	}
}

// play formats the cluster and returns what a program prints at each step.
func (c *cCluster) play(t *testing.T, program, format string, steps []step) []string {
	t.Helper()
	if out := c.shell(t, program, "dog cluster format -f "+format); out != "using backend plain store\nexit status 0\n" {
		t.Fatalf("cluster format: %s", out)
	}
	var outs []string
	for _, s := range steps {
		if s.before != nil {
			s.before(t, c)
		}
		out := mask(c.shell(t, program, s.line))
		if s.sorted {
			out = strings.Join(slices.Sorted(strings.Lines(out)), "")
		}
		outs = append(outs, out)
	}
	return outs
}

// mask hides what differs from run to run: times, and how full disks are.
func mask(out string) string {
	for _, m := range []struct{ re, to string }{
		{`\d{4}-\d\d-\d\d`, "DATE"},
		{`\d\d:\d\d:\d\d`, "HH:MM:SS"},
		{`DATE \d\d:\d\d`, "DATE HH:MM"},
		{`at [A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ HH:MM:SS \d{4}`, "at CTIME"},
		{`\b1[0-9]{9}\b`, "SECONDS"},
		{`\d+\.\d{3} seconds`, "TIME seconds"},
		{`(?m)^( *\d|Total|127\.0\.0\.1:\d+ \d)([\t ])[0-9. MGTB]+[\t ][0-9. MGTB]+[\t ][0-9. MGTB]+[\t ] *\d+%`, "${1}${2}SPACE"},
	} {
		out = regexp.MustCompile(m.re).ReplaceAllString(out, m.to)
	}
	return out
}

// A cCluster is three daemons of C's.
type cCluster struct {
	port int
	dir  string // of the stores n0, n1 and n2
}

// lock locks a VDI through node i.
func (c *cCluster) lock(t *testing.T, name, tag string, i int, kind proto.LockType) {
	t.Helper()
	conn, err := client.Dial(t.Context(), fmt.Sprintf("127.0.0.1:%d", c.port+i))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := proto.Header{Version: proto.ClientVersion, Op: proto.OpLockVDI, Flags: proto.FlagWrite, Body: proto.VDIBody{Type: kind}.Body()}
	resp, _, err := conn.Do(t.Context(), h, proto.AppendLookup(nil, name, tag), nil)
	if err != nil || resp.Result != proto.ResultSuccess {
		t.Fatalf("lock %s: %v, %v", name, resp.Result, err)
	}
}

// damage removes node i's copy of an object or replaces it by one that differs.
func (c *cCluster) damage(t *testing.T, i int, object string, change bool) {
	t.Helper()
	path := filepath.Join(c.dir, fmt.Sprintf("n%d", i), "obj", object)
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path) // with its attributes, where C keeps the digest
	}
	if err == nil && change {
		b[12345]++
		err = os.WriteFile(path, b, 0o640)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const firstPort = 7950

// startC starts three daemons of C's that end with the test.
func startC(t *testing.T, sheep, dog string) *cCluster {
	t.Helper()
	dir := t.TempDir()
	c := &cCluster{port: firstPort, dir: dir}
	for i := range 3 {
		store := filepath.Join(dir, fmt.Sprintf("n%d", i))
		pid := store + ".pid"
		cmd := exec.Command(sheep, "-f", "-b", "127.0.0.1", "-y", "127.0.0.1", "-c", "local:"+filepath.Join(dir, "shm"),
			"-p", fmt.Sprint(c.port+i), "-z", fmt.Sprint(i), "-P", pid, store)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill() // its exit status says the same
			cmd.Wait()
		})
		c.await(t, dog, fmt.Sprintf("dog node list -r -p %d | wc -l", c.port+i), fmt.Sprint(i+1))
	}
	return c
}

// await runs a line until it prints want.
func (c *cCluster) await(t *testing.T, dog, line, want string) {
	t.Helper()
	var out string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if out = c.shell(t, dog, line+" 2>/dev/null"); strings.HasPrefix(out, want+"\n") {
			return
		}
	}
	t.Fatalf("%s: got %s, want %s", line, out, want)
}

// shell runs a line in which dog is the given program and returns what it
// prints, both outputs in one, and the exit status of dog.
func (c *cCluster) shell(t *testing.T, program, line string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(program, filepath.Join(dir, "dog")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-o", "pipefail", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), fmt.Sprintf("SHEEPDOG_DOG_PORT=%d", c.port), "TZ=UTC", "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("%s: %v", line, err)
	}
	return out.String() + fmt.Sprintf("exit status %d\n", cmd.ProcessState.ExitCode())
}

// build builds the program under test.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dog")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}
