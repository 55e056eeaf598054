package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"

	"sheepdog/sheep/client"
	"sheepdog/sheep/vdi"
	"sheepdog/tests/harness"
	"sheepdog/tests/load"
)

// A fuseCase is a job through a mount of sheepfs, and what it is compared with.
type fuseCase struct {
	job
	cached bool // through the page cache of the kernel, beside go-fuse's loopback; else directly, beside the client library and an empty file system
}

func fuseCases() []fuseCase {
	var all []fuseCase
	for _, depth := range []int{1, 4} {
		all = append(all,
			fuseCase{job{fmt.Sprintf("1 MiB sequential read, depth %d", depth), false, 1 << 20, depth, 0}, false},
			fuseCase{job{fmt.Sprintf("1 MiB sequential write, depth %d, a flush every 64", depth), true, 1 << 20, depth, 64}, false})
	}
	all = append(all,
		fuseCase{job{"4 KiB random read, depth 16", false, 4 << 10, 16, 0}, false},
		fuseCase{job{"4 KiB random write, depth 16, a flush every 64", true, 4 << 10, 16, 64}, false})
	for _, depth := range []int{1, 16} {
		all = append(all, fuseCase{job{fmt.Sprintf("4 KiB random read, depth %d, page cache", depth), false, 4 << 10, depth, 0}, true})
	}
	return append(all, fuseCase{job{"4 KiB random write, depth 16, page cache, a flush every 64", true, 4 << 10, 16, 64}, true})
}

// runSheepfs measures a mount of sheepfs beside what it is made of, in turns, and
// returns a table.
func runSheepfs(t *bench, cfg config) string {
	var b strings.Builder
	b.WriteString("| copies | case | beside | that | empty file system | sheepfs | ratio | at best |\n|---|---|---|---|---|---|---|---|\n")
	for _, copies := range cfg.copies {
		one := &bench{ctx: t.ctx}
		t.Cleanup(one.finish) // if a failure ends the program
		c := start(one, cfg, cfg.subject[0], copies)
		library := libraryDisk(one, c)
		direct, cached := sheepfsVolume(one, cfg, c), sheepfsVolume(one, cfg, c, "--pagecache")
		loopback, empty := loopbackFile(one, cfg), emptyFileOf(one, cfg)
		for _, j := range fuseCases() {
			if !strings.Contains(j.name, cfg.only) {
				continue
			}
			about, base, volume := "client library", library, direct
			if j.cached {
				about, base, volume = "go-fuse loopback of a file", load.Device(loopback), cached
			}
			var theirs, ours, nobodys []figure
			for range cfg.rounds {
				f, _ := measure(t, cfg, j.job, base)
				theirs = append(theirs, f)
				f, _ = measure(t, cfg, j.job, volume)
				ours = append(ours, f)
				if !j.cached {
					f, _ = measure(t, cfg, j.job, empty)
					nobodys = append(nobodys, f)
				}
			}
			that, sheepfs := median(theirs), median(ours)
			alone, best := "-", "-"
			if !j.cached { // a request takes its time in both, one after the other
				e := median(nobodys)
				alone, best = e.rate(j.job), fmt.Sprintf("%.2f", e.perSecond/(e.perSecond+that.perSecond))
			}
			t.Logf("%d copies, %s\n  %-26s %s\n  %-26s %s", copies, j.name, about, that.describe(j.job), "sheepfs", sheepfs.describe(j.job))
			fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s | %.2f | %s |\n", copies, j.name, about, that.rate(j.job), alone, sheepfs.rate(j.job), sheepfs.perSecond/that.perSecond, best)
		}
		one.finish()
	}
	return b.String()
}

// A library is the disk as sheepfs has it, without FUSE.
type library struct{ *vdi.Disk }

func libraryDisk(t *bench, c *harness.Cluster) load.Device {
	r := client.NewRoaming(c.Nodes[0].Addr(), client.RoamingConfig{})
	t.Cleanup(func() { r.Close() })
	d, err := vdi.OpenDisk(t.ctx, client.NewObjects(r), "bench", "", 0, vdi.DiskConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(context.Background()) })
	return library{d}
}

func (l library) Size() int64 { return int64(l.Disk.Size()) }

func (l library) ReadAt(ctx context.Context, p []byte, off int64) error {
	return l.Disk.ReadAt(ctx, p, uint64(off))
}

func (l library) WriteAt(ctx context.Context, p []byte, off int64) error {
	return l.Disk.WriteAt(ctx, p, uint64(off), false)
}

// sheepfsVolume mounts the cluster and opens its disk. What the kernel may keep of
// it has been read once.
func sheepfsVolume(t *bench, cfg config, c *harness.Cluster, args ...string) *rawFile {
	program := filepath.Join(filepath.Dir(cfg.subject[0].sheep), "sheepfs")
	dir := mounted(t, func(dir string) *exec.Cmd {
		return exec.Command(program, append(args, "-f", "-p", fmt.Sprint(c.Nodes[0].Port.Number), dir)...)
	})
	return openFile(t, filepath.Join(dir, "volume", "bench"), cfg.size)
}

// loopbackFile is a file beside the stores through the file system that go-fuse
// has as an example, served by a process of its own as sheepfs is.
func loopbackFile(t *bench, cfg config) *rawFile {
	raw := newRawFile(t, cfg.size)
	dir := mounted(t, func(dir string) *exec.Cmd {
		return exec.Command("/proc/self/exe", serveLoopback, filepath.Dir(raw.f.Name()), dir)
	})
	return openFile(t, filepath.Join(dir, filepath.Base(raw.f.Name())), cfg.size)
}

// emptyFileOf is a file of a file system that does nothing, served likewise.
func emptyFileOf(t *bench, cfg config) *rawFile {
	dir := mounted(t, func(dir string) *exec.Cmd {
		return exec.Command("/proc/self/exe", serveEmpty, fmt.Sprint(cfg.size), dir)
	})
	return openFile(t, filepath.Join(dir, "file"), cfg.size)
}

func openFile(t *bench, path string, size int64) *rawFile {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r := &rawFile{f: f, size: size}
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		if err := r.ReadAt(t.ctx, p, off); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// mounted runs a server of a file system until the end, and returns where it is
// mounted.
func mounted(t *bench, command func(dir string) *exec.Cmd) string {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(dir)
	cmd.Stderr = os.Stderr
	if err := harness.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("umount", "-l", dir).Run()
		cmd.Wait() // ends with the mount
		os.Remove(dir)
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), " "+dir+" ") {
			return dir
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not mount", cmd.Path)
		}
	}
}

// What this program serves to be compared with.
const (
	serveLoopback = "-loopback" // of a directory
	serveEmpty    = "-empty"    // of a size in bytes
)

// serveFiles mounts one of them on dir and serves it until it is unmounted.
func serveFiles(what, of, dir string) error {
	var root fs.InodeEmbedder
	var err error
	if what == serveLoopback {
		root, err = fs.NewLoopbackRoot(of)
	} else {
		var size uint64
		size, err = strconv.ParseUint(of, 10, 64)
		root = &emptyRoot{size: size}
	}
	if err != nil {
		return err
	}
	hour := time.Hour // the kernel may believe what it knows
	o := fs.Options{EntryTimeout: &hour, AttrTimeout: &hour}
	o.MaxWrite, o.FsName = 1<<20, what
	server, err := fs.Mount(dir, root, &o)
	if err != nil {
		return err
	}
	server.Wait()
	return nil
}
