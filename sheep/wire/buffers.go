package wire

import (
	"math/bits"
	"sync"
)

// Size classes of Buffers are powers of two between these.
const (
	minClass = 9  // 512 bytes
	maxClass = 26 // 64 MiB
)

// A Buffer is a piece of memory lent by Buffers.
type Buffer struct {
	B     []byte // of the length that was asked for
	class int
}

// Buffers lends memory by size class. The zero value is ready for use by any
// number of goroutines. Its contents are not cleared between uses.
type Buffers struct {
	classes [maxClass + 1]sync.Pool
}

// Get returns a buffer with n bytes. Sizes above 64 MiB are allocated afresh.
func (p *Buffers) Get(n int) *Buffer {
	class := minClass
	if n > 1<<minClass {
		class = bits.Len(uint(n - 1))
	}
	if class > maxClass {
		return &Buffer{B: make([]byte, n), class: class}
	}
	if b, ok := p.classes[class].Get().(*Buffer); ok {
		b.B = b.B[:n]
		return b
	}
	return &Buffer{B: make([]byte, n, 1<<class), class: class}
}

// Put takes b back. The caller must not use it any more. A nil b is ignored.
func (p *Buffers) Put(b *Buffer) {
	if b == nil || b.class > maxClass {
		return
	}
	b.B = b.B[:0]
	p.classes[b.class].Put(b)
}
