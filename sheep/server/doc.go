// Package server is the front door of a sheep for the native protocol: it
// accepts connections over TCP and a UNIX socket, reads requests, decides
// whether they may be served in the cluster's present state, and has them
// served by the part that knows how.
//
// There are two halves. Server is the machinery: one goroutine per connection
// reads requests, whose answers are sent in the order of their completion and
// combined into few writes. A request runs either on the reading goroutine,
// when it is known not to wait, or on a worker. What may be under way is bounded
// in bytes, per connection and, for each Class of requests, in all; whoever does
// not read his answers is not read from either. Daemon is the meaning: one table
// with an entry for each opcode, and the operations in files by theme.
//
// Requests of clients enter at the Guard, those of other gateways at the Owner,
// those of peers at the Replica, and none is ever passed to a link above; that
// is why requests cannot run in circles.
//
// The package promises that a malformed request costs its own connection at
// most: lengths are checked against what the opcode allows before memory is
// taken, payloads of refused requests are skipped, and a connection is dropped
// only when the start of its next request cannot be known. What has been
// accepted is finished even if its sender has gone.
package server
