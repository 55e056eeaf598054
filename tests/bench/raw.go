package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
)

// A rawFile is a file used like a disk of the cluster.
type rawFile struct {
	f    *os.File
	size int64
	each bool // sync each write
}

// newRawFile makes a file beside the stores and fills it with noise.
func newRawFile(t *bench, size int64) *rawFile {
	dir, err := os.MkdirTemp("", "sheepraw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r := &rawFile{f: f, size: size}
	fill(t, r, size)
	return r
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
