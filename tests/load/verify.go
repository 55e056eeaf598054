package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// BlockSize is the unit in which a Load writes.
const BlockSize = 4096

const magic = 0x6b636f6c42706873

// Fill makes p the content of version v of a block.
//
//	offset  size  field
//	     0     8  magic
//	     8     8  number of the block
//	    16     8  version
//	    24     8  seed of the load
//	    32  4060  pseudo-random bytes, drawn from the three above
//	  4092     4  CRC-32C of all before
func Fill(p []byte, seed uint64, number int64, v uint64) {
	binary.LittleEndian.PutUint64(p[0:], magic)
	binary.LittleEndian.PutUint64(p[8:], uint64(number))
	binary.LittleEndian.PutUint64(p[16:], v)
	binary.LittleEndian.PutUint64(p[24:], seed)
	x := seed*0x9e3779b97f4a7c15 ^ uint64(number)<<32 ^ v | 1
	for o := 32; o < BlockSize-8; o += 8 { // xorshift
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[o:], x)
	}
	binary.LittleEndian.PutUint32(p[BlockSize-8:], uint32(x))
	binary.LittleEndian.PutUint32(p[BlockSize-4:], checksum(p))
}

func checksum(p []byte) uint32 {
	return crc32.Checksum(p[:BlockSize-4], crc32.MakeTable(crc32.Castagnoli))
}

// version returns the version that p holds of a block; zeroes are version 0.
func (l *Load) version(i int64, p []byte) (uint64, error) {
	if bytes.Equal(p, make([]byte, BlockSize)) {
		return 0, nil
	}
	number, v, seed := binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])
	switch {
	case binary.LittleEndian.Uint64(p) != magic:
		return 0, fmt.Errorf("block %d: no block of a load, it begins % x", i, p[:32])
	case number != uint64(i) || seed != l.cfg.Seed:
		return 0, fmt.Errorf("block %d of load %d: holds block %d of load %d", i, l.cfg.Seed, number, seed)
	case checksum(p) != binary.LittleEndian.Uint32(p[BlockSize-4:]):
		return 0, fmt.Errorf("block %d: torn; begins as version %d", i, v)
	}
	return v, nil
}

// clock is the form in which daemons log the time, and more of it.
const clock = "15:04:05.000"

// judge returns the version in p, and an error unless it is one that may be
// seen. After a loss of power that reaches down to what was durable.
func (l *Load) judge(i int64, p []byte, lost bool) (uint64, error) {
	v, err := l.version(i, p)
	if err != nil {
		return 0, err
	}
	b := &l.blocks[i]
	low := b.acked
	if lost || b.doubt {
		low = b.durable
	}
	if v < low || v > b.top {
		return 0, fmt.Errorf("block %d: version %d, want %d to %d (acknowledged %d at %s, durable %d since %s)",
			i, v, low, b.top, b.acked, b.when.Format(clock), b.durable, b.synced.Format(clock))
	}
	return v, nil
}

// Verify reads the whole of dev and returns an error unless each block holds
// what it may hold. Nothing else may be using dev. What was found is from then
// on the only thing that may be found, so a second Verify through another node
// shows whether the nodes agree. Set lost if the machines lost their power
// since the last Verify.
func (l *Load) Verify(ctx context.Context, dev Device, lost bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	const chunk = 256 // blocks
	buf := make([]byte, chunk*BlockSize)
	var errs []error
	for first := int64(0); first < int64(len(l.blocks)); first += chunk {
		p := buf[:min(chunk, int64(len(l.blocks))-first)*BlockSize]
		if err := dev.ReadAt(ctx, p, first*BlockSize); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		for i := first; len(p) > 0; i, p = i+1, p[BlockSize:] {
			v, err := l.judge(i, p[:BlockSize], lost)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			b := &l.blocks[i]
			b.top, b.acked, b.durable, b.doubt = v, v, v, false
		}
	}
	clear(l.unflushed)
	if n := len(errs); n > 10 {
		errs = append(errs[:10], fmt.Errorf("and %d more", n-10))
	}
	return errors.Join(errs...)
}
