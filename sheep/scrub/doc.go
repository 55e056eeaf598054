// Package scrub compares the copies of objects that nobody has touched for long,
// and mends what has decayed.
//
// Copies that were equal once part when a disk loses or flips what it stores, or
// when somebody meddles with the files. Clients do not notice, since they read one
// copy only, until that copy is the last. A Scrubber therefore reads every copy of
// every object from time to time and compares them. Each node compares the objects
// whose first copy it holds, and those whose first copy is missing where it should
// be, so that together they compare each object once in a pass.
//
// Which copy is right is decided by Judge, which dog uses, too: what most copies
// agree on, else what was written last according to the epochs that the stores have
// recorded. Copies that wait for recovery have no say. Where copies are equally new
// and none has a majority, nothing is overwritten: the object is listed, and a
// person decides.
//
// The work is patient. It pauses while recovery is unfinished anywhere, keeps to a
// rate and to its hours of the day, gives way to the requests of clients, and goes
// on after a restart where it was.
package scrub
