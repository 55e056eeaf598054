// Package attach makes exports of NBD servers block devices of this machine.
//
// The Linux kernel has an NBD client, which knows how to read and write but not
// how to connect. This package does the rest: it chooses an export over one or
// several connections, hands the connections to the kernel through generic
// netlink, and gives back the name of the device. The kernel keeps the export's
// URI with the device, so that List can say later what is attached where,
// without any state of our own.
//
// A connection may die, and the kernel waits then for a new one, for as long as
// the attachment allows. Monitor provides it: the kernel tells when a connection
// has died, and Monitor connects to the first address that serves the export
// and hands the new connection over. Applications notice a delay, no error.
//
// Everything a server sends is checked before it is used, and what the kernel's
// client cannot do is refused before anything is attached: TLS, several
// connections to a server that does not allow them.
package attach

import "errors"

// The conditions that callers tell apart. Errors that match one of the first
// three say what to do.
var (
	ErrNoKernel = errors.New("the kernel's NBD client cannot be reached")
	ErrNoNode   = errors.New("the device has no node")
	ErrRights   = errors.New("not permitted")

	ErrBusy        = errors.New("in use")
	ErrNotAttached = errors.New("not attached")
	ErrRefused     = errors.New("refused") // by the server, whatever the reason
	ErrNoExport    = errors.New("no such export")
	ErrNeedsTLS    = errors.New("the server demands TLS, which the kernel's NBD client cannot do: use its UNIX socket, or a sheep on this machine")
	ErrUnusable    = errors.New("not usable as a block device")
	ErrServer      = errors.New("bad answer of the NBD server")
)
