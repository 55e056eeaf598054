package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"sheepdog/sheep"
	"sheepdog/sheep/size"
)

// A refusal is an error with the number that a process is to get for it.
type refusal struct {
	errno syscall.Errno
	text  string
}

func (r *refusal) Error() string { return r.text }

// Unwrap returns the error number.
func (r *refusal) Unwrap() error { return r.errno }

// refuse returns an error with a number and words for people.
func refuse(errno syscall.Errno, format string, args ...any) error {
	return &refusal{errno, fmt.Sprintf(format, args...)}
}

// errnoOf returns the error number that a process gets for err.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, e := range []struct {
		err   error
		errno syscall.Errno
	}{
		{sheep.ErrNoVDI, syscall.ENOENT},
		{sheep.ErrNoTag, syscall.ENOENT},
		{sheep.ErrVDIExists, syscall.EEXIST},
		{sheep.ErrVDILocked, syscall.EBUSY},
		{sheep.ErrNoSpace, syscall.ENOSPC},
		{sheep.ErrFullVDI, syscall.ENOSPC},
		{sheep.ErrReadOnly, syscall.EROFS},
		{sheep.ErrInvalid, syscall.EINVAL},
		{size.ErrInvalid, syscall.EINVAL},
		{sheep.ErrNotSupported, syscall.EOPNOTSUPP},
		{sheep.ErrNoMemory, syscall.ENOMEM},
		{context.Canceled, syscall.EINTR},
		{os.ErrClosed, syscall.EIO},
		{sheep.ErrNetwork, syscall.EIO},
	} {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EIO
}
