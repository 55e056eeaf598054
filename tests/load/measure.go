package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Job is one way to use a device, as fast as it goes. Requests of up to 64 KiB
// go to random places, longer ones one after the other.
type Job struct {
	Write bool
	Block int // bytes of a request
	Depth int // requests at a time
	Flush int // writes between flushes, 0 if each is durable when answered
}

// A Speed is what came of a job.
type Speed struct {
	Count     int64   // operations
	PerSecond float64 // operations
	P50, P99  time.Duration
}

// Measure runs a job for a while.
func Measure(ctx context.Context, j Job, dev Device, d time.Duration) (Speed, error) {
	var (
		wg      sync.WaitGroup
		next    atomic.Int64 // sequential offset, in blocks
		count   atomic.Int64
		latency = make([][]time.Duration, j.Depth)
		errs    = make([]error, j.Depth)
		blocks  = dev.Size() / int64(j.Block)
		start   = time.Now()
	)
	for w := range j.Depth {
		wg.Go(func() {
			p := Noise(j.Block)
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for errs[w] == nil && time.Since(start) < d {
				block := rng.Int64N(blocks)
				if j.Block > 64<<10 {
					block = (next.Add(1) - 1) % blocks
				} else if j.Write { // never two writes to the same block at a time
					block = block/int64(j.Depth)*int64(j.Depth) + int64(w)
					block %= blocks
				}
				began := time.Now()
				errs[w] = j.operate(ctx, dev, p, block*int64(j.Block), &count)
				latency[w] = append(latency[w], time.Since(began))
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return Speed{}, fmt.Errorf("measure: %w", err)
		}
	}
	return speed(slices.Concat(latency...), took), nil
}

func speed(latencies []time.Duration, took time.Duration) Speed {
	slices.Sort(latencies)
	n := len(latencies)
	return Speed{
		Count: int64(n), PerSecond: float64(n) / took.Seconds(),
		P50: latencies[n/2], P99: latencies[n*99/100],
	}
}

// operate does one operation of a job, and the flush that may be due.
func (j Job) operate(ctx context.Context, dev Device, p []byte, off int64, count *atomic.Int64) error {
	if !j.Write {
		return dev.ReadAt(ctx, p, off)
	}
	if err := dev.WriteAt(ctx, p, off); err != nil {
		return err
	}
	if n := count.Add(1); j.Flush > 0 && n%int64(j.Flush) == 0 {
		return dev.Flush(ctx)
	}
	return nil
}

// MeasureWhile runs a job in windows of length d for as long as more says, and
// at least once. It calls more after each window.
func MeasureWhile(ctx context.Context, j Job, dev Device, d time.Duration, more func() bool) ([]Speed, error) {
	var windows []Speed
	for {
		s, err := Measure(ctx, j, dev, d)
		if err != nil {
			return nil, err
		}
		windows = append(windows, s)
		if !more() {
			return windows, nil
		}
	}
}

// Noise returns n random bytes without zeroes.
func Noise(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rand.N(255) + 1)
	}
	return p
}
