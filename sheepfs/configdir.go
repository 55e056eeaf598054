package sheepfs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// settings are what can be changed while the tree is mounted.
type settings struct {
	pageCache   atomic.Bool // of volumes opened from now on
	objectCache atomic.Bool // without effect
}

// configDir is the settings.
func (t *FS) configDir() *dir {
	return t.dir("config", []fixed{
		t.file("config", "page_cache", flagFile(&t.settings.pageCache)),
		t.file("config", "object_cache", flagFile(&t.settings.objectCache)),
		t.file("config", "sheep_info", control{
			show: func(context.Context) (content, error) { return text(t.door.server() + "\n"), nil },
			obey: t.moveTo,
		}),
	}, ways{})
}

// flagFile shows and changes a setting that is on or off.
func flagFile(flag *atomic.Bool) control {
	return control{
		show: func(context.Context) (content, error) {
			if flag.Load() {
				return text("1\n"), nil
			}
			return text("0\n"), nil
		},
		obey: func(_ context.Context, line string) error {
			n, err := strconv.ParseInt(strings.Trim(line, " \t"), 0, 64)
			if err != nil {
				return refuse(syscall.EINVAL, "%q is not a number", line)
			}
			flag.Store(n != 0)
			return nil
		},
	}
}

// moveTo goes on with another sheep of the same cluster. If it does not answer
// all stays as it was.
func (t *FS) moveTo(ctx context.Context, line string) error {
	addr, err := hostPort(strings.Trim(line, " \t"))
	if err != nil {
		return err
	}
	here, there := t.remote(), t.remoteAt(addr)
	defer here.Close()
	defer there.Close()
	theirs, err := there.Info(ctx, "")
	if err != nil {
		return refuse(syscall.EINVAL, "no sheep answers at %s: %v", addr, err)
	}
	if ours, err := here.Info(ctx, ""); err == nil && ours.Ctime != theirs.Ctime {
		return refuse(syscall.EINVAL, "%s is of another cluster", addr)
	}
	if err := t.door.move(ctx, addr); err != nil {
		return fmt.Errorf("go on with %s: %w", addr, err)
	}
	t.volumes.disks.roaming.Move(addr)
	return nil
}
