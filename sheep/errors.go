package sheep

import (
	"errors"
	"fmt"
	"slices"
)

// Conditions that more than one part knows. sheep/proto has the table that
// carries them over the wire.
var (
	ErrNoObject      = errors.New("no object found")
	ErrIO            = errors.New("I/O error")
	ErrInvalid       = errors.New("invalid parameters")
	ErrSystem        = errors.New("system error")
	ErrNoSpace       = errors.New("server has no space for new objects")
	ErrReadOnly      = errors.New("object is read-only")
	ErrHalt          = errors.New("IO has halted as there are not enough living nodes")
	ErrNoVDI         = errors.New("no VDI found")
	ErrNoTag         = errors.New("failed to find requested tag")
	ErrVDIExists     = errors.New("VDI exists already")
	ErrVDILocked     = errors.New("VDI is already locked")
	ErrFullVDI       = errors.New("maximum number of VDIs reached")
	ErrWaitForFormat = errors.New("waiting for cluster to be formatted")
	ErrWaitForJoin   = errors.New("waiting for other nodes to join cluster")
	ErrShutdown      = errors.New("system is shutting down")
	ErrKilled        = errors.New("node is killed")
	ErrNetwork       = errors.New("network error between sheep")
	ErrNotSupported  = errors.New("operation is not supported")
	ErrInvalidated   = errors.New("inode object is invalidated")
	ErrNoMemory      = errors.New("out of memory on server")
	ErrVersion       = errors.New("protocol version mismatch")
	ErrBufferSmall   = errors.New("the buffer is too small")
	ErrAgain         = errors.New("ask to try again")
	ErrCluster       = errors.New("cluster driver error")
	ErrNotOwner      = errors.New("this gateway does not own the VDI")
	ErrStaleOwner    = errors.New("the ownership of the VDI has moved on")
	ErrLostWrites    = errors.New("deferred writes were lost with the nodes that held them")
	ErrStaleCopy     = errors.New("the copy is not yet known to be current")
)

// A StaleEpochError says that a request was sent in another epoch than its
// receiver's.
type StaleEpochError struct {
	Sent    Epoch // the sender's
	Current Epoch // the receiver's
}

func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("request has epoch %d, this node is at %d", e.Sent, e.Current)
}

// A LostWritesError says that deferred writes to a VDI were lost. It matches
// ErrLostWrites. Flushes fail because of them until Told has been called.
type LostWritesError struct {
	VDI    VDIID
	Why    string
	Forget func() // is called by Told
}

func (e *LostWritesError) Error() string {
	return fmt.Sprintf("flush VDI %v: %s: %v", e.VDI, e.Why, ErrLostWrites)
}

// Is reports whether target is ErrLostWrites.
func (e *LostWritesError) Is(target error) bool { return target == ErrLostWrites }

// IsAny reports whether err matches one of targets.
func IsAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// Told takes note that a client gets the error of its flush, or that somebody
// else sees to it that one will: what it says was lost is not told of again.
func Told(err error) {
	if e, ok := errors.AsType[*LostWritesError](err); ok {
		e.Forget()
	}
}

// A NotOwnerError says that another gateway owns the VDI. It matches ErrNotOwner.
type NotOwnerError struct {
	VDI   VDIID
	Owner Node
}

func (e *NotOwnerError) Error() string {
	return fmt.Sprintf("VDI %v is owned by %v", e.VDI, e.Owner)
}

// Is reports whether target is ErrNotOwner.
func (e *NotOwnerError) Is(target error) bool { return target == ErrNotOwner }
