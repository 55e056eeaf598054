// Package history records what concurrent clients did to the blocks of a disk,
// and judges whether it can be true.
//
// Each block is a register. A write gives it a value that no other write of the
// history has, so that a read tells which write it saw. The blocks behaved
// rightly if every operation can be given one moment between its call and its
// return at which it took effect, so that each read returns what the last write
// before it wrote: then the history is linearizable. Package porcupine searches
// for these moments.
//
// A write without an answer may have been executed, may be executed at any
// later time, and may never be. If no read saw it, it is as if it had not been
// tried. If some did, it took effect at the latest when the first of them had
// its answer. A read without an answer says nothing.
package history

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// A Block is the number of a block. Every block begins with value 0.
type Block int64

// A Value is what a block holds. Values of writes are taken from Recorder.Write.
type Value uint64

// A Recorder collects operations. Any number of goroutines may use it.
type Recorder struct {
	begin time.Time

	mu   sync.Mutex
	last Value
	ops  []*Op
}

// An Op is an operation that has begun.
type Op struct {
	recorder *Recorder
	client   int
	block    Block
	write    bool
	value    Value
	call     time.Duration // since the recorder began
	back     time.Duration // guarded by recorder.mu; zero until the answer
}

// NewRecorder returns a recorder of an empty history.
func NewRecorder() *Recorder { return &Recorder{begin: time.Now()} }

// Write begins a write of a value that is returned with it. Unless the caller
// calls Op.Written, the write counts as one whose outcome is unknown.
func (r *Recorder) Write(client int, block Block) (*Op, Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	op := &Op{recorder: r, client: client, block: block, write: true, value: r.last, call: time.Since(r.begin)}
	r.ops = append(r.ops, op)
	return op, op.value
}

// Written says that the write was acknowledged.
func (op *Op) Written() { op.returned(op.value) }

// Read begins a read. Unless the caller calls Op.Found, it says nothing.
func (r *Recorder) Read(client int, block Block) *Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	op := &Op{recorder: r, client: client, block: block, call: time.Since(r.begin)}
	r.ops = append(r.ops, op)
	return op
}

// Found says what a read found.
func (op *Op) Found(v Value) { op.returned(v) }

func (op *Op) returned(v Value) {
	op.recorder.mu.Lock()
	defer op.recorder.mu.Unlock()
	op.value = v
	op.back = max(time.Since(op.recorder.begin), 1)
}

// Counts are how many operations a history has.
type Counts struct {
	Reads, Writes, Unknown int // with an answer; writes without one
}

// Counts returns the number of operations recorded so far.
func (r *Recorder) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	var c Counts
	for _, op := range r.ops {
		switch {
		case op.back == 0 && op.write:
			c.Unknown++
		case op.back == 0:
		case op.write:
			c.Writes++
		default:
			c.Reads++
		}
	}
	return c
}

// ErrUndecided means that the search was given up.
var ErrUndecided = errors.New("whether the history is linearizable was not found out in time")

// Check returns an error unless the history is linearizable for each block. The
// error tells about one block for which it is not; page, unless it is empty,
// names a file for a drawing of that block's operations.
func (r *Recorder) Check(patience time.Duration, page string) error {
	var errs []error
	deadline := time.Now().Add(patience)
	blocks := r.blocks()
	for _, block := range slices.Sorted(maps.Keys(blocks)) {
		if err := check(block, blocks[block], time.Until(deadline), page); err != nil {
			errs = append(errs, err)
			page = "" // of the first one
		}
	}
	return errors.Join(errs...)
}

// blocks returns copies of the operations, by block, in the order of their begin.
func (r *Recorder) blocks() map[Block][]Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	blocks := make(map[Block][]Op)
	for _, op := range r.ops {
		blocks[op.block] = append(blocks[op.block], *op)
	}
	return blocks
}

// A Violation is a block whose operations cannot be true.
type Violation struct {
	Block Block
	Why   string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("block %d: its history is not linearizable: %s", v.Block, v.Why)
}

func check(block Block, ops []Op, patience time.Duration, page string) error {
	ops, err := settle(block, ops)
	if err != nil {
		return err
	}
	history := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		history[i] = porcupine.Operation{
			ClientId: op.client, Input: op, Output: op.value, Call: int64(op.call), Return: int64(op.back),
		}
	}
	patience = max(patience, time.Millisecond)
	switch porcupine.CheckOperationsTimeout(register(), history, patience) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("block %d, %d operations: %w", block, len(ops), ErrUndecided)
	}
	_, info := porcupine.CheckOperationsVerbose(register(), history, patience) // takes more memory
	v := &Violation{block, describe(ops, info)}
	if page != "" {
		if err := porcupine.VisualizePath(register(), info, page); err != nil {
			return errors.Join(v, err)
		}
		v.Why += "; drawn in " + page
	}
	return v
}

// settle leaves out what says nothing, and gives each write without an answer
// the latest time at which it can have taken effect.
func settle(block Block, ops []Op) ([]Op, error) {
	seen := make(map[Value]time.Duration) // the earliest answer of a read
	written := map[Value]bool{0: true}
	for _, op := range ops {
		if op.write {
			written[op.value] = true
		}
	}
	for _, op := range ops {
		if op.write || op.back == 0 {
			continue
		}
		if !written[op.value] {
			return nil, &Violation{block, fmt.Sprintf("client %d read %d, which was never written", op.client, op.value)}
		}
		if t, ok := seen[op.value]; !ok || op.back < t {
			seen[op.value] = op.back
		}
	}
	var settled []Op
	for _, op := range ops {
		if op.back == 0 && op.write {
			op.back = max(seen[op.value], op.call) // a read from before the write is for porcupine to refuse
			if _, ok := seen[op.value]; !ok {
				continue
			}
		}
		if op.back != 0 {
			settled = append(settled, op)
		}
	}
	return settled, nil
}

// register is the model of a block.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return Value(0) },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(Op)
			if op.write {
				return true, op.value
			}
			return op.value == state.(Value), state
		},
		DescribeOperation: func(input, _ any) string { return input.(Op).String() },
		DescribeState:     func(state any) string { return fmt.Sprint(state) },
	}
}

func (op Op) String() string {
	what := "read"
	if op.write {
		what = "write"
	}
	return fmt.Sprintf("%s %d", what, op.value)
}

// describe tells how far a history can be true, and what happened there.
func describe(ops []Op, info porcupine.LinearizationInfo) string {
	const before, after = 12, 6
	var longest []int
	for _, partial := range slices.Concat(info.PartialLinearizations()...) {
		if len(partial) > len(longest) {
			longest = partial
		}
	}
	stuck := -1 // the operation that ended first among those left over
	for i, op := range ops {
		if !slices.Contains(longest, i) && (stuck < 0 || op.back < ops[stuck].back) {
			stuck = i
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d operations can be put in order, but then:", len(longest), len(ops))
	for i := max(0, stuck-before); i < min(len(ops), stuck+after); i++ {
		mark := ""
		if i == stuck {
			mark = "  <-"
		}
		fmt.Fprintf(&b, "\n  %v to %v client %d: %v%s", ops[i].call.Round(time.Microsecond), ops[i].back.Round(time.Microsecond), ops[i].client, ops[i], mark)
	}
	return b.String()
}
