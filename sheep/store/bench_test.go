package store_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/store"
)

// BenchmarkWrite4K writes 4 KiB at a time into objects that exist.
func BenchmarkWrite4K(b *testing.B) {
	for _, durable := range []bool{false, true} {
		for _, parallel := range []int{1, 16} {
			b.Run(fmt.Sprintf("durable=%t/parallel=%d", durable, parallel), func(b *testing.B) {
				benchmarkWrite(b, durable, parallel)
			})
		}
	}
}

func benchmarkWrite(b *testing.B, durable bool, parallel int) {
	s, err := store.Open(b.TempDir()+"/store", store.Config{Reserve: 1})
	if err != nil {
		b.Fatal(err)
	}
	const objects = 64
	full := make([]byte, 1<<20)
	for i := range full {
		full[i] = byte(i) | 1
	}
	for i := range uint32(objects) {
		w := sheep.Write{Create: true, Data: full}
		c, err := s.Write(sheep.DataObject(1, i), 1<<20, 1, &w)
		if err == nil {
			err = c.Wait(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := s.FlushAll(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4096)
	b.ReportAllocs()
	b.SetParallelism(parallel)
	b.ResetTimer()
	var n atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		w := sheep.Write{Data: full[:4096], Durable: durable}
		for pb.Next() {
			i := n.Add(1)
			w.Off = i / objects % 256 * 4096
			c, err := s.Write(sheep.DataObject(1, i%objects), 1<<20, 1, &w)
			if err == nil {
				err = c.Wait(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.StopTimer()
	if err := s.Close(true); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCreate makes objects of 4 MiB, with 4 KiB of data and with 4 MiB.
func BenchmarkCreate(b *testing.B) {
	for _, n := range []int{4 << 10, 4 << 20} {
		for _, parallel := range []int{1, 8} {
			b.Run(fmt.Sprintf("data=%d/parallel=%d", n, parallel), func(b *testing.B) {
				benchmarkCreate(b, n, parallel)
			})
		}
	}
}

func benchmarkCreate(b *testing.B, n, parallel int) {
	s, err := store.Open(b.TempDir()+"/store", store.Config{Reserve: 1})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i) | 1
	}
	b.SetBytes(int64(n))
	b.SetParallelism(parallel)
	b.ResetTimer()
	var next atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		w := sheep.Write{Create: true, Data: data}
		for pb.Next() {
			c, err := s.Write(sheep.DataObject(1, next.Add(1)), 4<<20, 1, &w)
			if err == nil {
				err = c.Wait(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.StopTimer()
	if err := s.Close(true); err != nil {
		b.Fatal(err)
	}
}
