package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Host is a machine whose kernel exports are attached to. The zero value is
// this machine; the fields are for tests and for those who may load modules.
type Host struct {
	Sys  string // where devices are described; empty: /sys
	Dev  string // where their nodes are; empty: /dev
	Proc string // empty: /proc

	// Open returns the kernel's client or an error that matches
	// os.ErrNotExist; nil is OpenKernel.
	Open func() (Kernel, error)

	// Load loads the kernel's module. It is called when the kernel has no
	// client; nil does not try.
	Load func(context.Context) error
}

// A Device is a block device that is attached to an export, perhaps by
// another program.
type Device struct {
	Index    uint32
	Path     string // of its node, which may be missing
	Size     uint64 // bytes
	ReadOnly bool
	URI      string // of the export; empty if the kernel does not know

	Connections int // as Attach made it; 0 means unknown

	id string // changes when the device is attached again
}

func (h Host) sys(parts ...string) string {
	root := h.Sys
	if root == "" {
		root = "/sys"
	}
	return filepath.Join(append([]string{root}, parts...)...)
}

// Node returns the path of the device with the number.
func (h Host) Node(index uint32) string {
	root := h.Dev
	if root == "" {
		root = "/dev"
	}
	return filepath.Join(root, "nbd"+strconv.FormatUint(uint64(index), 10))
}

// maxIndex is the largest number that a device can have: the kernel has 20 bits
// for minor numbers.
const maxIndex = 1<<20 - 1

// ParseDevice returns the number of a device called /dev/nbdN or nbdN.
func ParseDevice(s string) (uint32, bool) {
	digits, ok := strings.CutPrefix(strings.TrimPrefix(s, "/dev/"), "nbd")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || n > maxIndex || digits != strconv.FormatUint(n, 10) {
		return 0, false
	}
	return uint32(n), true
}

// List returns the attached devices in the order of their numbers.
func (h Host) List() ([]Device, error) {
	entries, err := os.ReadDir(h.sys("block"))
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	var list []Device
	for _, e := range entries {
		index, ok := ParseDevice(e.Name())
		if !ok {
			continue
		}
		d, err := h.Device(index)
		if errors.Is(err, ErrNotAttached) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Device) int { return int(a.Index) - int(b.Index) })
	return list, nil
}

// Device returns the device with the number; the error of one that is not
// attached matches ErrNotAttached.
func (h Host) Device(index uint32) (Device, error) {
	d := Device{Index: index, Path: h.Node(index)}
	dir := h.sys("block", "nbd"+strconv.FormatUint(uint64(index), 10))
	var err error
	if d.id, err = readLine(filepath.Join(dir, "pid")); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return Device{}, fmt.Errorf("%s: %w", d.Path, ErrNotAttached)
	}
	size, ro := "", ""
	if err == nil {
		size, err = readLine(filepath.Join(dir, "size"))
	}
	if err == nil {
		ro, err = readLine(filepath.Join(dir, "ro"))
	}
	if err == nil {
		d.Size, err = strconv.ParseUint(size, 10, 54)
	}
	if err != nil {
		return Device{}, fmt.Errorf("look at %s: %w", d.Path, err)
	}
	d.Size *= sector
	d.ReadOnly = ro == "1"
	d.URI, _ = readLine(filepath.Join(dir, "backend")) // kernels before 5.14 have none
	return d, nil
}

// sector is the unit in which the kernel tells sizes.
const sector = 512

func readLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSuffix(string(b), "\n"), err
}

// kernel opens the kernel's client. If there is none, it has the module loaded
// and looks again.
func (h Host) kernel(ctx context.Context) (Kernel, error) {
	open := h.Open
	if open == nil {
		open = OpenKernel
	}
	k, err := open()
	if errors.Is(err, fs.ErrNotExist) && h.Load != nil && !h.loaded() && h.Load(ctx) == nil {
		k, err = open()
	}
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, fs.ErrNotExist) && h.loaded():
		return nil, fmt.Errorf("%w: the module nbd is loaded, but only the host's network namespace sees it: "+
			"attach on the host, or in a container that uses the host's network", ErrNoKernel)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: run 'modprobe nbd' as root, in case of a container on its host; "+
			"a kernel without the module was built without CONFIG_BLK_DEV_NBD", ErrNoKernel)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoKernel, err)
}

// loaded reports whether the kernel has the module or was built with it.
func (h Host) loaded() bool {
	if _, err := os.Stat(h.sys("module", "nbd")); err == nil {
		return true
	}
	proc := h.Proc
	if proc == "" {
		proc = "/proc"
	}
	b, _ := os.ReadFile(filepath.Join(proc, "modules")) // a kernel without modules has no such file
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "nbd ") {
			return true
		}
	}
	return false
}
