package nbd

import "context"

// An Exports is the set of disks that a Server offers. Its methods are called
// from many goroutines. An error that is or wraps syscall.ENOENT means that
// there is no such export, one of ESHUTDOWN that the server is about to end;
// any other refuses the client, who is shown its text.
type Exports interface {
	// List returns the exports in a stable order.
	List(ctx context.Context) ([]Export, error)

	// Stat describes an export. It opens nothing and locks nothing.
	Stat(ctx context.Context, name string) (Info, error)

	// Open opens an export for one connection. The Device is closed when that
	// connection ends. ctx is for the opening only.
	Open(ctx context.Context, name string) (Device, error)
}

// An Export is what a client sees in a list of exports.
type Export struct {
	Name        string // at most 4096 bytes of UTF-8
	Description string
}

// Info describes an export as it is when it is opened.
type Info struct {
	Size        uint64 // bytes
	ReadOnly    bool
	MultiConn   bool   // a flush on one connection covers the writes of the others
	Preferred   uint32 // preferred block size in bytes, a power of two; 0 means 4096
	Description string

	// CheapExtents says that Extents costs next to nothing beside reading. Then
	// long reads ask it first and send holes as such.
	CheapExtents bool
}

// A Device is an open export. Its methods are called from many goroutines at
// once. Ranges are not empty and lie inside Info().Size, the server checks; Info
// must not change.
//
// An error that is or wraps a syscall.Errno reaches the client as the number
// that the protocol has for it, any other as EIO. When ctx ends, a method must
// return soon: that happens only when a drain has run out of time, or never.
// Slices belong to the caller when a method returns.
type Device interface {
	Info() Info

	// Read fills p from off.
	Read(ctx context.Context, p []byte, off uint64) error

	// Write writes p at off. With fua it is durable on return, otherwise after
	// the next Flush.
	Write(ctx context.Context, p []byte, off uint64, fua bool) error

	// Zero makes n bytes from off read as zeroes, or, with ZeroTrim, forgets
	// them.
	Zero(ctx context.Context, off, n uint64, mode ZeroMode) error

	// Extents yields the states of consecutive ranges from off until n bytes are
	// covered or yield returns false. Lengths are not zero. The last range may
	// reach beyond n.
	Extents(ctx context.Context, off, n uint64, yield func(length uint64, state ExtentState) bool) error

	// Flush makes durable all writes that had been answered before it was called.
	Flush(ctx context.Context) error

	// Close ends the device. The server has flushed before, and calls nothing
	// afterwards.
	Close() error
}

// A Teller is a Device whose Flush goes on to fail with what it has to say until
// the client has heard it.
type Teller interface {
	// Told says that the client has got the answer that err was the reason for.
	Told(err error)
}

// Receipts know which replies a client has got.
type Receipts interface {
	// Expect notes that a reply is about to be sent. The caller calls sent, once, when
	// it has been, or with an error if it never will be; got is called when the client
	// has the reply, if ever.
	Expect(got func()) (sent func(error))

	// Open reports whether there are replies of which it is not known.
	Open() bool

	// Collect waits until no reply is on its way to the socket, and looks which have
	// arrived. The client has sent something since, or ended the connection in order.
	Collect()
}

// atOnce takes what is sent for received.
type atOnce struct{}

func (atOnce) Expect(got func()) func(error) {
	return func(err error) {
		if err == nil {
			got()
		}
	}
}
func (atOnce) Open() bool { return false }
func (atOnce) Collect()   {}

// A Prefetcher is a Device that can read ahead: n bytes from off will soon be
// read. On other devices the cache command does nothing, successfully.
type Prefetcher interface {
	Prefetch(ctx context.Context, off, n uint64) error
}

// A ZeroMode says how a range is to be zeroed. It is a set of bits.
type ZeroMode uint32

// The bits of a ZeroMode.
const (
	ZeroFUA    ZeroMode = 1 << 0 // durable on return
	ZeroNoHole ZeroMode = 1 << 1 // keep the space allocated
	ZeroFast   ZeroMode = 1 << 2 // ENOTSUP, having done nothing, if it would not be faster than a write
	ZeroTrim   ZeroMode = 1 << 3 // the content may become anything, as long as reads agree about it
)

// An ExtentState says what is known about a range. It is a set of bits; the
// low ones are those of the protocol's base:allocation.
type ExtentState uint32

// The bits of an ExtentState.
const (
	ExtentHole   ExtentState = 1 << 0 // takes no space
	ExtentZero   ExtentState = 1 << 1 // reads as zeroes
	ExtentShared ExtentState = 1 << 8 // data still shared with a parent: sheepdog:shared
)
