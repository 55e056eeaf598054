package tests_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// mountHelper returns a link to sheepfs by the name that mount calls.
func mountHelper(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mount.sheepfs")
	if err := os.Symlink(sheepfsProgram(t), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// runDaemon runs a program that is to become a daemon, and returns its exit
// status and what it said.
func runDaemon(t *testing.T, program string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := harness.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer stop.Stop()
	cmd.Wait() // its result is in ProcessState
	return cmd.ProcessState.ExitCode(), out.String()
}

// mountPoint returns a directory on which nothing is mounted when the test ends.
func mountPoint(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mnt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for isMounted(dir) {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
				return
			}
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// daemonsOn returns the processes of sheepfs whose command line has the directory.
func daemonsOn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && bytes.Contains(line, []byte("\x00"+dir+"\x00")) && bytes.Contains(line, []byte("sheepfs")) {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// waitNoDaemon waits until no sheepfs serves the directory any more.
func waitNoDaemon(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(daemonsOn(t, dir)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("sheepfs still runs: %v", daemonsOn(t, dir))
		}
	}
}

func TestSheepfsDaemonTellsTheTruth(t *testing.T) {
	c := sheepfsCluster(t)
	port, free := fmt.Sprint(c.Nodes[0].Port.Number), fmt.Sprint(harness.FreePort(t).Number)
	sheepfs, helper := sheepfsProgram(t), mountHelper(t)
	dir := mountPoint(t)
	file := filepath.Join(c.Dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, refused := range []struct {
		about   string
		program string
		args    []string
		code    int
		says    string
	}{
		{"no sheep", sheepfs, []string{"-p", free, dir}, 1, "connection refused"},
		{"no sheep, as a helper", helper, []string{"127.0.0.1:" + free, dir}, 32, "connection refused"},
		{"no sheep, with a source", sheepfs, []string{"127.0.0.1:" + free, dir, "-o", "rw"}, 32, "connection refused"},
		{"no mount point", sheepfs, []string{"-p", port, dir + "/none"}, 1, "no such file"},
		{"a file as mount point", sheepfs, []string{"-p", port, file}, 1, "not a directory"},
		{"no argument", sheepfs, nil, 1, "mount point"},
		{"too many arguments", sheepfs, []string{"a:1", "b", "c"}, 1, "mount point"},
		{"a bad port", sheepfs, []string{"-p", "99999", dir}, 1, "Invalid port number '99999'"},
		{"a bad source", helper, []string{"a:b:c:d", dir}, 1, "HOST:PORT"},
		{"an unknown option", sheepfs, []string{"-x", dir}, 1, "--help"},
		{"an unknown mount option", helper, []string{"127.0.0.1:" + port, dir, "-o", "rw,nonsense"}, 1, "nonsense"},
		{"a bad umask", helper, []string{"127.0.0.1:" + port, dir, "-o", "umask=999"}, 1, "umask"},
		{"a bad log level", sheepfs, []string{"-l", "level=loud", dir}, 1, "Invalid log level"},
	} {
		code, said := runDaemon(t, refused.program, refused.args...)
		if code != refused.code || !strings.Contains(said, refused.says) || strings.Count(said, "\n") > 2 {
			t.Errorf("%s: status %d, said %q; want status %d and words like %q", refused.about, code, said, refused.code, refused.says)
		}
		if isMounted(dir) {
			t.Fatalf("%s: it is mounted", refused.about)
		}
	}
	if code, said := runDaemon(t, sheepfs, "--help"); code != 0 || !strings.Contains(said, "MOUNTPOINT") {
		t.Errorf("--help: status %d, said %q", code, said)
	}
	if code, said := runDaemon(t, helper, "127.0.0.1:"+port, dir, "-f"); code != 0 || isMounted(dir) {
		t.Errorf("a fake mount: status %d, said %q", code, said)
	}
}

func TestSheepfsDaemon(t *testing.T) {
	c := sheepfsCluster(t)
	port := fmt.Sprint(c.Nodes[0].Port.Number)
	for _, start := range []struct {
		about   string
		program string
		args    func(dir string) []string
		source  string // in the table of mounts
	}{
		{"by hand", sheepfsProgram(t), func(dir string) []string { return []string{"-p", port, dir} }, "127.0.0.1:" + port},
		{"as mount calls it", mountHelper(t), func(dir string) []string {
			return []string{"127.0.0.1:" + port, dir, "-n", "-o", "rw,_netdev,nosuid,user=root,x-systemd.automount,page_cache,allow_other"}
		}, "127.0.0.1:" + port},
		{"as fuse's helper calls it", sheepfsProgram(t), func(dir string) []string {
			return []string{"127.0.0.1:" + port, dir, "-o", "rw,dev,suid,fsname=cluster"}
		}, "cluster"},
	} {
		t.Run(start.about, func(t *testing.T) {
			dir := mountPoint(t)
			if code, said := runDaemon(t, start.program, start.args(dir)...); code != 0 || said != "" {
				t.Fatalf("status %d, said %q", code, said)
			}
			if !isMounted(dir) {
				t.Fatal("it is not mounted when the command returns")
			}
			if b, err := os.ReadFile(dir + "/cluster/health"); err != nil || string(b) != "ok\n" {
				t.Errorf("health is %q (%v)", b, err)
			}
			if mounts, _ := os.ReadFile("/proc/self/mounts"); !bytes.Contains(mounts, []byte(start.source+" "+dir+" fuse.sheepfs ")) {
				t.Errorf("the table of mounts lacks %s:\n%s", start.source, mounts)
			}
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			waitNoDaemon(t, dir)
		})
	}
}

func TestSheepfsSIGTERMUnmounts(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := m.wait(20 * time.Second); code != 0 || isMounted(m.dir) {
		t.Errorf("after SIGTERM the status is %d, and it is mounted: %t", code, isMounted(m.dir))
	}

	busy := mountSheepfs(t, c, c.Nodes[0])
	f, err := os.Open(busy.path("vdi/list"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := busy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := busy.wait(30 * time.Second); code != 0 || isMounted(busy.dir) {
		t.Errorf("in use, after SIGTERM the status is %d, and it is mounted: %t", code, isMounted(busy.dir))
	}
}

func TestSheepfsWaitsForASheepAtBoot(t *testing.T) {
	c := harness.New(t, harness.Config{})
	m := startSheepfs(t, c, "127.0.0.1:"+fmt.Sprint(c.Nodes[0].Port.Number), "-o", "_netdev")
	time.Sleep(500 * time.Millisecond) // it finds no sheep
	if isMounted(m.dir) {
		t.Error("it is mounted without a sheep")
	}
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	for deadline := time.Now().Add(30 * time.Second); !isMounted(m.dir); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not mounted though the sheep is there")
		}
	}
	if got := m.read("cluster/health"); got != "stopped\nWaiting for cluster to be formatted\n" {
		t.Errorf("health before the format: %q", got)
	}
	if got, want := m.read("cluster/info"), c.Dog("cluster", "info"); got != want {
		t.Errorf("cluster/info has %q, want %q", got, want)
	}
	if got, want := m.read("vdi/list"), c.Dog("vdi", "list"); got != want {
		t.Errorf("vdi/list has %q, want %q", got, want)
	}
	if names := m.names("vdi"); len(names) != 4 {
		t.Errorf("vdi has %q", names)
	}
	c.Format(2)
	if got := m.read("cluster/health"); got != "ok\n" {
		t.Errorf("health after the format: %q", got)
	}

	started := time.Now()
	late := startSheepfs(t, c, "127.0.0.1:"+fmt.Sprint(harness.FreePort(t).Number), "-o", "wait=1")
	if code := late.wait(20 * time.Second); code != 32 || time.Since(started) < time.Second {
		t.Errorf("without a sheep for a second the status is %d after %v", code, time.Since(started))
	}
}

func TestSheepfsByMount(t *testing.T) {
	c := sheepfsCluster(t)
	harness.Need(t, "unshare", "mount", "umount")
	// In a mount namespace of its own the helper may be put where mount looks.
	script := `set -e
mount --make-rprivate /
trap 'umount -l "$2" 2>/dev/null || true' EXIT
mount -t tmpfs none /usr/sbin
ln -s "$1" /usr/sbin/mount.sheepfs
mount -t sheepfs "$3" "$2" -o _netdev,noexec
cat "$2/cluster/health"
grep -c " $2 fuse.sheepfs " /proc/self/mounts
umount "$2"
! mount -t sheepfs 127.0.0.1:1 "$2" 2>/dev/null
`
	cmd := exec.Command("timeout", "60", "unshare", "-m", "bash", "-c", script, "bash", sheepfsProgram(t), mountPoint(t), c.Nodes[0].Addr())
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "ok\n1\n" {
		t.Errorf("mount -t sheepfs: %v\n%s", err, out)
	}
}

// TestSheepfsFromFstab has mount read a line of fstab while there is no sheep, as
// at boot: it waits. Later it is unmounted and mounted again.
func TestSheepfsFromFstab(t *testing.T) {
	c := harness.New(t, harness.Config{Nodes: 1})
	harness.Need(t, "unshare", "mount", "umount")
	dir, table := mountPoint(t), filepath.Join(c.Dir, "fstab")
	line := fmt.Sprintf("127.0.0.1:%d %s sheepfs _netdev,nofail,wait=80,noatime,x-systemd.automount 0 0\n", c.Nodes[0].Port.Number, dir)
	if err := os.WriteFile(table, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `set -e
mount --make-rprivate /
trap 'umount -l "$2" 2>/dev/null || true' EXIT
mount -t tmpfs none /usr/sbin
ln -s "$1" /usr/sbin/mount.sheepfs
mount -a -T "$3" -t sheepfs
head -n 1 "$2/cluster/health"
umount "$2"
mount -T "$3" "$2"
mount -o remount,ro "$2"
grep -c " $2 fuse.sheepfs ro," /proc/self/mounts
! mkdir "$2/vdi/x" 2>/dev/null
mount -o remount,rw "$2"
grep -c " $2 fuse.sheepfs rw," /proc/self/mounts
cat "$2/node/list" | wc -l
umount "$2"
`
	cmd := exec.Command("timeout", "100", "unshare", "-m", "bash", "-c", script, "bash", sheepfsProgram(t), dir, table)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := harness.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	defer harness.KillGroup(cmd)
	for deadline := time.Now().Add(30 * time.Second); len(daemonsOn(t, dir)) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("mount does not start its helper")
		}
	}
	c.Nodes[0].Start()
	c.WaitJoined()
	err := cmd.Wait()
	if want := "stopped\n1\n1\n2\n"; err != nil || out.String() != want {
		t.Errorf("mount from fstab: %v\n%s\nwant\n%s", err, out.String(), want)
	}
	waitNoDaemon(t, dir)
}

// TestSheepfsWithoutRoot mounts as a user who is in no group.
func TestSheepfsWithoutRoot(t *testing.T) {
	c := sheepfsCluster(t)
	harness.Need(t, "unshare", "mount", "setpriv", "fusermount3", "mknod")
	dir, err := os.MkdirTemp("", "mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	program, err := filepath.EvalSymlinks(sheepfsProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	// The device may be for root alone: another node of it, in a mount namespace.
	script := `set -e
mount --make-rprivate /
mknod "$4/fuse" c 10 229
chmod 666 "$4/fuse"
mount --bind "$4/fuse" /dev/fuse
chmod 755 "$4" "$(dirname "$1")"
user="setpriv --reuid=65534 --regid=65534 --clear-groups"
trap '$user fusermount3 -u -z "$2" 2>/dev/null || true' EXIT
$user "$1" "$3" "$2"
$user cat "$2/cluster/health"
ls "$2" 2>/dev/null || echo 'root has no business here'
$user bash -c 'echo "disk 8M" > "$0/vdi/create"; printf hello > "$0/volume/disk"; head -c 5 "$0/volume/disk"' "$2"
$user fusermount3 -u "$2"
if $user "$1" -o allow_other "$3" "$2" 2>"$4/said"; then echo mounted; fi
grep -o 'user_allow_other' "$4/said"
`
	cmd := exec.Command("timeout", "60", "unshare", "-m", "bash", "-c", script, "bash", program, dir, c.Nodes[0].Addr(), c.Dir)
	out, err := cmd.CombinedOutput()
	if want := "ok\nroot has no business here\nhellouser_allow_other\n"; err != nil || string(out) != want {
		t.Errorf("without root: %v\n%s\nwant\n%s", err, out, want)
	}
	waitNoDaemon(t, dir)
}
