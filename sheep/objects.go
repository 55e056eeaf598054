package sheep

import "context"

// A Ref names an object and all that the links below need to know of it, so
// that no link looks anything up twice. The Guard fills ID, Policy and Size,
// the gateway Generation, the fan-out Epoch.
type Ref struct {
	ID         ObjectID
	Policy     Policy
	Size       uint32     // of the whole object, bytes
	Generation Generation // of the ownership that a write is made under; 0 on reads
	Epoch      Epoch
	IfStale    IfStale // the fan-out sets it
	Elsewhere  bool    // likewise: other holders have the object, so that one that has not has lost it
}

// An IfStale says what a holder does with a request for an object of which its
// copy is not current.
type IfStale uint8

// What holders do.
const (
	// StaleWaits makes the copy current first, which may mean to fetch the object.
	StaleWaits IfStale = iota

	// StaleRefuses makes the copy current first if it need not be fetched for that.
	// Otherwise the answer is ErrStaleCopy.
	StaleRefuses

	// StaleNotes, of a write that no other holder will take any more, takes note that
	// what it covers is to be fetched after the answer, if the object is to be fetched
	// anyway.
	StaleNotes
)

// A Write is one change of one object. It replaces len(Data) bytes at Off, or
// zeroes Zero bytes there (punching a hole), never both.
type Write struct {
	Off  uint32
	Data []byte // the receiver must not keep or change it after returning
	Zero uint32

	// Create makes the object, replacing one that exists: bytes outside the
	// written range become zero. Without it the object must exist.
	Create bool

	// From, with Create, names an object whose bytes fill the new one outside
	// the written range. The gateway resolves it; no link below sees it.
	From *Ref

	// Durable asks for the write to be on stable storage at every copy before
	// it is answered. Creation is always durable, and so is any write to
	// metadata (ObjectID.Metadata).
	Durable bool

	// After lists the objects that this write makes reachable. They must be
	// durable before it is.
	After []ObjectID
}

// Len returns the number of bytes that w covers.
func (w *Write) Len() uint32 {
	if w.Zero != 0 {
		return w.Zero
	}
	return uint32(len(w.Data))
}

// Objects stores objects. Every link of the request path implements it.
//
// Calls may be made concurrently. A link that orders requests (the gateway)
// says so. An error leaves the object as it was or with any part of the write
// applied; the same call may be repeated. ErrNoObject means that the object
// does not exist on any node that should have it.
type Objects interface {
	// Read fills p from offset off of the object. Bytes past the object's
	// size read as zero.
	Read(ctx context.Context, ref Ref, p []byte, off uint32) error

	// Write changes the object. When it returns nil every copy of the current
	// epoch has the write, and has it durably if that was asked for.
	Write(ctx context.Context, ref Ref, w *Write) error

	// Remove removes every copy of the object, durably. If there was none it
	// returns ErrNoObject, also when it is repeated after it has succeeded.
	Remove(ctx context.Context, ref Ref) error
}

// A Flusher makes deferred writes durable. Every link implements it.
type Flusher interface {
	// Flush returns nil when every write to vdi that was answered before the
	// call is durable at every copy.
	Flush(ctx context.Context, vdi VDIID) error
}
