package nbd

import (
	"math/bits"
	"sync"
)

// Size classes of buffers are powers of two between these.
const (
	minClass = 10 // 1 KiB
	maxClass = 26 // 64 MiB
)

// headRoom is the space before the data of a buffer, so that head and data of
// a reply leave in one piece.
const headRoom = 64

// A buffer holds the data of one request.
type buffer struct {
	mem   []byte
	class int
}

// data returns the first n bytes of the buffer's data.
func (b *buffer) data(n int) []byte { return b.mem[headRoom : headRoom+n] }

// A bufferPool recycles buffers by size class. The zero value is ready for use
// by any number of goroutines.
type bufferPool struct {
	classes [maxClass + 1]sync.Pool
}

// classOf returns the smallest class for n bytes, which must be in range.
func classOf(n int) int {
	if n <= 1<<minClass {
		return minClass
	}
	return bits.Len(uint(n - 1))
}

func (p *bufferPool) get(n int) *buffer {
	class := classOf(n)
	if b, ok := p.classes[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{mem: make([]byte, headRoom+1<<class), class: class}
}

func (p *bufferPool) put(b *buffer) {
	if b != nil {
		p.classes[b.class].Put(b)
	}
}
