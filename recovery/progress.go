package recovery

import (
	"sync"
	"time"

	"sheepdog/sheep/cluster"
)

// A Progress is how far this node is from having every copy current.
type Progress struct {
	Running  bool   // not every copy is known to be current, and recovery is not disabled
	Finished uint64 // objects known to be current
	Total    uint64 // objects that this node should hold
	Left     uint64 // bytes of the others, at most: copies that are equal are not fetched

	Objects, Bytes uint64        // fetched since every copy was current
	Rate           uint64        // bytes a second that are being fetched
	ETA            time.Duration // until the end at the present speed; 0 if not known

	Later   uint64        // objects that wait for absent nodes
	Recheck time.Duration // so long they do, at least; cluster.NoEnd is for ever
	Awaited []Awaited
}

// window is over how long speed is measured, in samples of a second at least.
const window = 10

// A sample is how much was done at some time.
type sample struct {
	at    time.Time
	steps uint64
	bytes uint64
}

// progress counts. Its zero value is ready.
type progress struct {
	mu      sync.Mutex
	now     Progress // guarded by mu; without what depends on the time
	steps   uint64   // guarded by mu
	totals  Fetched  // guarded by mu; of this life
	base    Fetched  // guarded by mu; totals when every copy was current
	samples []sample // guarded by mu; the latest last
}

// Fetched is how much a node has fetched from others.
type Fetched struct{ Objects, Bytes uint64 }

// begin takes note of a new pass over total objects.
func (r *Recoverer) begin(total int, s schedule) {
	var left uint64
	for _, id := range s.now {
		left += uint64(r.ref(id, 0).Size)
	}
	p := &r.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = Progress{
		Total: uint64(total), Finished: uint64(total - len(s.now) - len(s.later)), Left: left, Later: uint64(len(s.later)),
	}
	p.sampleLocked(time.Now())
}

// end takes note that every copy is current.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.samples, p.base = Progress{}, nil, p.totals
}

// step takes note that an object of size bytes has had its turn.
func (p *progress) step(done bool, size uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if done {
		p.now.Finished++
		p.now.Left -= min(p.now.Left, uint64(size))
	}
	p.steps++
	p.sampleLocked(time.Now())
}

// fetched takes note of an object that was fetched.
func (p *progress) fetched(size uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.totals.Objects++
	p.totals.Bytes += uint64(size)
}

func (p *progress) sampleLocked(now time.Time) {
	if n := len(p.samples); n > 0 && now.Sub(p.samples[n-1].at) < time.Second {
		return
	}
	p.samples = append(p.samples, sample{at: now, steps: p.steps, bytes: p.totals.Bytes})
	p.samples = p.samples[max(0, len(p.samples)-window):]
}

// read returns the progress at the time now.
func (p *progress) read(now time.Time) Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.now
	got.Objects, got.Bytes = p.totals.Objects-p.base.Objects, p.totals.Bytes-p.base.Bytes
	if len(p.samples) == 0 {
		return got
	}
	past := now.Sub(p.samples[0].at)
	if past < time.Second/10 {
		return got
	}
	got.Rate = uint64(float64(p.totals.Bytes-p.samples[0].bytes) / past.Seconds())
	if steps := p.steps - p.samples[0].steps; steps > 0 {
		todo := got.Total - min(got.Total, got.Finished+got.Later)
		got.ETA = time.Duration(float64(todo) / float64(steps) * float64(past))
	}
	return got
}

// Progress returns how far this node is.
func (r *Recoverer) Progress() Progress {
	view, _ := r.current()
	p := r.progress.read(time.Now())
	p.Running = view != nil && view.Status == cluster.OK && view.Epoch != 0 && !view.RecoveryDisabled && !r.Settled(view.Epoch)
	if view != nil && p.Later > 0 {
		p.Awaited, p.Recheck = r.awaited(view)
	}
	return p
}

// Fetched returns how much this node has fetched in this life.
func (r *Recoverer) Fetched() Fetched {
	r.progress.mu.Lock()
	defer r.progress.mu.Unlock()
	return r.progress.totals
}
