// Package nbd serves disks over the Network Block Device protocol, to QEMU,
// the Linux kernel, libnbd and everything else that speaks it.
//
// A Server offers the disks of an Exports on any number of listeners. It
// negotiates in the fixed newstyle, with TLS where it is configured, and then
// answers requests as they come: one goroutine per connection reads them,
// bounded workers carry them out on the Device, and replies leave in the order
// of completion, many in one write. Requests whose Device is known to be quick
// are carried out by the reader itself, because waking a worker would cost more
// than the request.
//
// What a stranger can cost is bounded. Lengths are checked before anything is
// allocated, the memory of requests comes out of a budget that no connection
// can take whole, and a client that neither reads nor writes for long while
// something is under way is cut off. Whenever the protocol has an error reply,
// the error is replied and the connection goes on: the payload of a refused
// write is read and thrown away.
//
// No acknowledged write is lost by a disconnection: what is in flight runs to
// its end, and the device is flushed before it is closed. The package knows
// nothing about sheep; what it serves is whatever implements Device.
package nbd
