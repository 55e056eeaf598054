package nbd_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"sheepdog/nbd"
)

// BenchmarkRead keeps depth reads of 4 KiB in flight on one connection through
// a unix socket. An operation is one read.
func BenchmarkRead(b *testing.B) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("delay=%v/depth=%d", delay, depth), func(b *testing.B) {
				m := newMemory(1 << 20)
				m.delay = delay
				c := serve(b, exports{"a": m}, nbd.Config{}).open(b, "a", true)
				c.SetDeadline(time.Time{})
				pump(b, c, request(cmdRead, 0, 1, 4096, 4096), 28+4096, depth)
			})
		}
	}
}

// BenchmarkWrite is BenchmarkRead for writes.
func BenchmarkWrite(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			c := serve(b, exports{"a": newMemory(1 << 20)}, nbd.Config{}).open(b, "a", true)
			c.SetDeadline(time.Time{})
			pump(b, c, append(request(cmdWrite, 0, 1, 4096, 4096), ramp(4096)...), 16, depth)
		})
	}
}

func pump(b *testing.B, c *client, request []byte, reply, depth int) {
	b.ReportAllocs()
	batch, replies := bytes.Repeat(request, depth), make([]byte, reply*depth)
	b.SetBytes(4096)
	for done := 0; b.Loop(); {
		if done++; done%depth != 0 {
			continue
		}
		if _, err := c.Write(batch); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, replies); err != nil {
			b.Fatal(err)
		}
	}
}
