package nbd

import (
	"context"
	"errors"
	"syscall"
)

// An errno is an error number as the protocol defines them. Zero is success.
type errno uint32

// errShutdown is the cause of the end of what a drain had no time left for.
var errShutdown = errors.New("the server is shutting down")

// errnoOf returns the number that carries err to a client.
func errnoOf(err error) errno {
	if err == nil {
		return 0
	}
	if errors.Is(err, errShutdown) || errors.Is(err, context.Canceled) {
		return nbdESHUTDOWN
	}
	no, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return nbdEIO
	}
	switch no {
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return nbdEPERM
	case syscall.ENOMEM:
		return nbdENOMEM
	case syscall.EINVAL:
		return nbdEINVAL
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return nbdENOSPC
	case syscall.ENOTSUP: // EOPNOTSUPP is the same number
		return nbdENOTSUP
	case syscall.ESHUTDOWN:
		return nbdESHUTDOWN
	}
	return nbdEIO // EOVERFLOW too: the protocol keeps it for reads that are too long
}

// optionError returns the reply to an option for which the exports answered
// with err.
func optionError(err error) uint32 {
	if errors.Is(err, errShutdown) || errors.Is(err, context.Canceled) {
		return repErrShutdown
	}
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		switch no {
		case syscall.ENOENT:
			return repErrUnknown
		case syscall.ESHUTDOWN:
			return repErrShutdown
		}
	}
	return repErrPolicy
}
