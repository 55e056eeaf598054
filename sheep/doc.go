// Package sheep is the language that every part of Sheepdog speaks: the names
// of things (objects, disks, nodes, epochs), the errors that mean something to
// more than one part, and the one interface that all links of the request path
// implement.
//
// The words, one per idea:
//
//	object       up to 4 MiB (by default) of a disk, or its metadata; the unit of placement
//	VDI          a virtual disk or a snapshot of one; has a 24-bit number and a name
//	inode        the metadata object of a VDI: header, map of data objects, references
//	copy         one whole stored instance of a replicated object
//	stripe,strip erasure coding: a stripe is a row of data and parity strips
//	node         a daemon; zone: a failure domain; vnode: a point of a node on the ring
//	epoch        the number of one membership of the cluster; it only grows
//	generation   the number of one ownership of a VDI by a gateway; it only grows
//	incarnation  the number of one life of a daemon's process
//	gateway      the role that turns a client's request into requests to peers
//	owner        the one gateway that may write a VDI at the moment
//	peer         another daemon seen from this one
//	driver       the means by which nodes agree on membership and order events
//	recovery     copying what a node should hold in the new epoch
//	plan         a cluster operation, logged before its first step
//
// A request goes down a chain, and each link knows only the next:
//
//	server → vdi.Guard → gateway → [cache] → fanout → replica → store
//
// The package imports nothing but the standard library and holds no state.
package sheep
