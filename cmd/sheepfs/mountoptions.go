package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
)

// netdevWait is how long a mount that fstab marks as one over the network waits
// for its sheep.
const netdevWait = 60 * time.Second

// mountOptions takes a list of -o.
func (c *commandLine) mountOptions(list string) error {
	for item := range strings.SplitSeq(list, ",") {
		if item == "" {
			continue
		}
		name, value, _ := strings.Cut(item, "=")
		known, err := c.mountOption(name, value)
		if err != nil {
			return wrong("mount option %s: %v", item, err)
		}
		if !known && !c.sloppy && !ignored(name) {
			return wrong("unknown mount option %s%s", item, tryHelp)
		}
	}
	return nil
}

// mountOption takes one option, and reports whether it knows it.
func (c *commandLine) mountOption(name, value string) (known bool, err error) {
	switch name {
	case "ro":
		c.fs.ReadOnly = true
	case "rw":
		c.fs.ReadOnly = false
	case "dev", "nodev", "suid", "nosuid", "exec", "noexec":
		c.fs.Options = append(c.fs.Options, name)
	case "remount":
		c.remount = true
	case "allow_other":
		c.fs.AllowOther = true
	case "allow_root":
		if os.Geteuid() != 0 { // who else mounts is no other to root
			err = errors.New("only root can give it; allow_other lets all users in")
		}
	case "page_cache", "kernel_cache":
		c.fs.PageCache = true
	case "direct_io":
		c.fs.PageCache = false
	case "object_cache":
		c.fs.ObjectCache = true
	case "fsname":
		c.fs.Source = value
	case "address":
		c.address = value
	case "port":
		c.port = value
	case "foreground":
		c.foreground = true
	case "debug":
		c.fs.Debug = true
	case "loglevel", "logdir", "logformat", "logdst":
		err = c.logItem(strings.TrimPrefix(name, "log"), value)
	default:
		return c.numericOption(name, value)
	}
	return true, err
}

// numericOption takes an option with a number.
func (c *commandLine) numericOption(name, value string) (known bool, err error) {
	switch name {
	case "_netdev":
		if c.fs.Wait == 0 {
			c.fs.Wait = netdevWait
		}
	case "wait":
		if c.fs.Wait, err = seconds(value); c.fs.Wait == 0 && err == nil {
			c.fs.Wait = -1 // also with _netdev
		}
	case "patience":
		c.fs.Patience, err = seconds(value)
	case "umask":
		var mask uint64
		if mask, err = strconv.ParseUint(value, 8, 32); err == nil && mask&0o777 == 0o777 {
			err = errors.New("nobody could use anything")
		}
		c.fs.Mode = 0o777 &^ uint32(mask)
	case "uid":
		c.fs.UID, err = id(value)
	case "gid":
		c.fs.GID, err = id(value)
	default:
		return false, nil
	}
	return true, err
}

func id(value string) (uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	return uint32(n), err
}

// ignored reports whether an option is for mount(8), for systemd, or says what is
// the case anyway.
func ignored(name string) bool {
	switch name {
	case "auto", "noauto", "user", "nouser", "users", "owner", "group", "defaults", "nofail", "comment",
		"async", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "lazytime", "nolazytime",
		"big_writes", "default_permissions", "subtype", "max_read", "nonempty", "auto_unmount", "loud", "silent":
		return true
	}
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}
