// Package vdi is what inodes mean: to object I/O, to names, and to the
// operations that make, snapshot, clone and delete disks.
//
// The Guard is the link through which clients' requests enter the chain. It
// knows from the table of VDIs, without reading inodes, how redundant an object
// is, how large, and whether it may be written; what clients say of copies is
// not believed. Most requests pass through it unchanged. A write to an inode does
// not: the header is merged with the stored one, so that a client's old copy
// cannot undo what others have done, and a write to the map releases the data
// objects that it no longer refers to.
//
// A Disk is a VDI as a block device, for all front doors that are not QEMU: it
// reads the map, makes objects and gives them up, and follows the head of its name
// when a snapshot is taken. Its requests go through the Guard, of this node or at
// the other end of a connection.
//
// Operations are what needs the whole cluster to stand still: they run as plans
// of the cluster log. Each step may be repeated, so that another node can finish
// what a dead one began.
//
// # References
//
// Slot i of an inode's map names the VDI that owns data object i. A snapshot or
// clone copies the map, so an object may be in many maps. Each slot has a
// reference (generation, count): how many copies away from the original map it
// is, and how often it was copied. The ledger of an object adds up what has been
// released: L starts as 1, 0, 0, …, and releasing (g, c) takes 1 from L[g] and
// adds c to L[g+1]. When all of L is 0 nobody refers to the object. Layout and
// arithmetic are those of C Sheepdog.
//
// A release is counted after the map write that it follows from is durable, and
// at most once: when a gateway dies in between, the object leaks. Before an
// object is removed the maps that could name it are read. So a miscount can keep
// an object for nothing but cannot take one away; Sweep finds the leaks.
//
// # Crashes
//
// A plan that was begun is run again by another node, from its start.
//
// A new inode N over a base B goes through these stages; the stage is recorded
// in N while N has no name:
//
//	1 images  N is created with B's map; its references carry B's counts.
//	          Run again: from the start, B is as it was.
//	2 counts  B's counts become the images plus one. Run again: the same values.
//	3 zero    N's counts become 0. Run again: the same.
//	4 named   N has its name. Run again: recognised by the creation time, which
//	          is part of the plan.
//	5 frozen  the head that became a snapshot has its time. Then the log shows
//	          both at once to everybody.
//
// A plan that fails before stage 3 is undone. Should it fail later, references
// remain counted that nobody has, which is a leak.
//
// A deletion first takes away the name; from then on it can only go forward. It
// then goes through the map in batches: mark the references of the batch, release
// the objects, clear the batch. A mark that is found when the plan is run again
// says that the release may have been counted already, and the object's ledger is
// then computed anew from the maps of its family. A deletion that fails can be
// repeated by deleting the VDI again.
package vdi
