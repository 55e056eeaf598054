package cluster

import "slices"

// maxAhead bounds the numbers that a sequence keeps beyond a missing one.
const maxAhead = 4096

// A sequence remembers which of a member's proposals were applied: all up to
// low, and those in ahead, which is sorted. A number that stays missing while
// maxAhead later ones come counts as applied.
type sequence struct {
	low   uint64
	ahead []uint64
}

// add reports whether n is new, and remembers it.
func (q *sequence) add(n uint64) bool {
	i, found := slices.BinarySearch(q.ahead, n)
	if n <= q.low || found {
		return false
	}
	q.ahead = slices.Insert(q.ahead, i, n)
	if len(q.ahead) > maxAhead {
		q.low = q.ahead[0] - 1
	}
	k := 0
	for k < len(q.ahead) && q.ahead[k] == q.low+1 {
		q.low++
		k++
	}
	q.ahead = slices.Delete(q.ahead, 0, k)
	return true
}
