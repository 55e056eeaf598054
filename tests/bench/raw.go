package main

import (
	"context"
	"os"
	"syscall"
)

// measureRaw runs a job on a file beside the stores.
func measureRaw(t *bench, cfg config, j job) figure {
	dir, err := os.MkdirTemp("", "sheepraw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(dir + "/raw")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := &rawFile{f: f, size: cfg.size}
	fill(t, d, cfg.size)
	d.each = j.flush == 0
	got, _ := measure(t, cfg, j, d)
	t.Logf("raw           %-60s %s", j.name, got.describe(j))
	return got
}

// A rawFile is a file used like a disk of the cluster.
type rawFile struct {
	f    *os.File
	size int64
	each bool // sync each write
}

func (r *rawFile) Size() int64 { return r.size }

func (r *rawFile) ReadAt(_ context.Context, p []byte, off int64) error {
	_, err := r.f.ReadAt(p, off)
	return err
}

func (r *rawFile) WriteAt(ctx context.Context, p []byte, off int64) error {
	_, err := r.f.WriteAt(p, off)
	if err == nil && r.each {
		err = r.Flush(ctx)
	}
	return err
}

// Flush makes the file's data durable, as a store must.
func (r *rawFile) Flush(context.Context) error { return syscall.Fdatasync(int(r.f.Fd())) }
