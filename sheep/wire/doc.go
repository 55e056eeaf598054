// Package wire is the plumbing that both ends of a connection share: how bytes
// get into a socket in few system calls and out of it without needless copies.
//
// A Writer combines what many goroutines send. Whoever finds the socket idle
// writes what has gathered; the others only append and go on. Nobody who
// appends ever waits for the other side: if the socket is full, a goroutine of
// the Writer takes over until it is empty again. A Reader hands out messages
// from one buffer and lets large payloads pass it by. Buffers recycles memory
// by size class, so that a busy connection allocates nothing.
//
// The package knows messages only as runs of bytes that must not be torn
// apart. It promises that the bytes of one message are contiguous and that
// whoever lent it a payload is told exactly once when it is free again. It
// does not bound what is queued; its users do, by what they admit.
package wire
