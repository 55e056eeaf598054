package placement

import (
	"encoding/binary"

	"sheepdog/sheep"
)

// The parameters of 64-bit FNV-1a.
const (
	fnvBasis = 0xcbf29ce484222325
	fnvPrime = 0x100000001b3
)

// fnv folds b into h.
func fnv[T []byte | string](b T, h uint64) uint64 {
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * fnvPrime
	}
	return h
}

// fnv64 folds the eight little-endian bytes of v into h.
func fnv64(v, h uint64) uint64 {
	for range 8 {
		h = (h ^ v&0xff) * fnvPrime
		v >>= 8
	}
	return h
}

// next returns the point of the ring that follows h in a sequence of points.
func next(h uint64) uint64 { return fnv64(h, h) }

// Hash returns the place of b on a ring: FNV-1a of b, folded once into itself.
func Hash(b []byte) uint64 { return next(fnv(b, fnvBasis)) }

// Hash64 returns the place of v on a ring: Hash of its eight little-endian
// bytes. Objects are placed by it.
func Hash64(v uint64) uint64 { return next(fnv64(v, fnvBasis)) }

// Next returns the point that follows h in a sequence of points: those of a
// node start after the hash of its address, those of a disk after the hash of
// its path.
func Next(h uint64) uint64 { return next(h) }

// HashName returns the low 24 bits of the hash of a VDI's name: where the
// search for its number begins, except that there 0 stands for 1.
func HashName(name string) sheep.VDIID {
	return sheep.VDIID(fnv(name, fnvBasis) & (sheep.MaxVDIs - 1))
}

// AttrID returns the id at which the search for an attribute's object begins.
func AttrID(name, tag [256]byte, snapID uint32, key [256]byte) uint32 {
	h := fnv(name[:], fnvBasis)
	h = fnv(tag[:], h)
	h = fnv(binary.LittleEndian.AppendUint32(nil, snapID), h)
	return uint32(fnv(key[:], h))
}
