// Package proto is the codec of everything that Sheepdog puts on a wire or
// into a file that others read: message headers and their bodies, result
// codes, inodes, node entries, cluster and store records.
//
// It is pure: bytes in, values out, and back. Every layout has its byte table
// beside its type, an Append method that writes it, and a decoder that checks
// lengths and counts before it allocates anything. What a decoder accepts,
// Append turns back into the same bytes, except that padding and bytes that
// the layout calls reserved are ignored when read and zero when written. The
// integers are little-endian throughout.
//
// Two wires share the framing. The client wire is that of C Sheepdog, byte for
// byte: QEMU, tgt and dog speak it. The peer and owner wire, between daemons,
// is our own (opcodes 0xD0 to 0xE5) and carries PeerVersion; daemons of
// different kinds never form one cluster.
//
// Wire structs stay at the wire: a server turns them into the values of
// package sheep at once. An error of a decoder matches ErrMalformed, and so
// sheep.ErrInvalid.
package proto
