package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"sheepdog/sheep"
)

// A watcher notices that other members have died or do not beat any more.
type watcher struct {
	d      *Driver
	open   map[sheep.Incarnation]*watched
	looked int64 // when it looked last
}

// watched is what a watcher knows of a member.
type watched struct {
	file   *memberFile
	beat   int64 // the latest heartbeat seen
	since  int64 // when it was first seen, or the watcher itself came back from a sleep
	struck int64 // when its leave was logged last, or 0
}

// watch looks after the others until ctx is done.
func (d *Driver) watch(ctx context.Context) {
	w := &watcher{d: d, open: map[sheep.Incarnation]*watched{}, looked: boottime()}
	defer w.close()
	poll := time.NewTicker(d.cfg.Poll)
	defer poll.Stop()
	tidy := time.NewTicker(10 * d.cfg.Beat)
	defer tidy.Stop()
	// A dying process closes its files before its locks go: look again shortly.
	soon := time.NewTimer(0)
	defer soon.Stop()
	tries := 0
	for {
		select {
		case <-d.died:
			tries = 8
			soon.Reset(0)
		case <-soon.C:
			if tries--; tries > 0 {
				soon.Reset(time.Millisecond << (8 - tries))
			}
		case <-poll.C:
		case <-tidy.C:
			d.tidy()
		case <-ctx.Done():
			return
		}
		w.look()
	}
}

// look logs the leaves of members that are dead or silent.
func (w *watcher) look() {
	d, now := w.d, boottime()
	// While this process was stopped, it could not see anybody beat.
	slept := now-w.looked > int64(d.cfg.Expel-d.cfg.Lease)/2+int64(d.cfg.Poll)
	w.looked = now
	joined := d.joined()
	for inc, m := range w.open {
		if !slices.Contains(joined, inc) {
			m.close()
			delete(w.open, inc)
		}
	}
	for _, inc := range joined {
		m := w.open[inc]
		if m == nil {
			m = &watched{since: now}
			w.open[inc] = m
		}
		if slept {
			m.since = now
		}
		if m.struck != 0 && now-m.struck < int64(d.cfg.Beat) {
			continue
		}
		if l, gone := w.examine(inc, m, now); gone {
			m.struck = now
			if err := d.append(recordLeave, l.append(nil), nil); err != nil {
				d.cfg.Log.Error("log the leave of a member", "member", inc, "err", err)
				continue
			}
			d.cfg.Log.Info("a member is gone", "member", inc, "reason", l.reason)
		}
	}
}

// examine reports whether a member is gone, and with what words.
func (w *watcher) examine(inc sheep.Incarnation, m *watched, now int64) (leaving, bool) {
	d := w.d
	if m.file == nil {
		f, err := openMember(d.dir, inc)
		if errors.Is(err, fs.ErrNotExist) {
			return leaving{who: inc, reason: "died"}, true
		}
		if err != nil {
			d.cfg.Log.Error("look after a member", "member", inc, "err", err)
			return leaving{}, false
		}
		m.file = f
	}
	if !m.file.alive() {
		m.close()
		return leaving{who: inc, reason: "died"}, true
	}
	beat, _, err := m.file.read()
	if err != nil {
		d.cfg.Log.Error("look after a member", "member", inc, "err", err)
		return leaving{}, false
	}
	if beat != m.beat {
		m.beat, m.since = beat, now
	}
	if silent := time.Duration(now - m.since); silent >= d.cfg.Expel {
		return leaving{who: inc, beat: beat, reason: fmt.Sprintf("no heartbeat for %v", silent.Round(time.Millisecond))}, true
	}
	return leaving{}, false
}

func (m *watched) close() {
	if m.file != nil {
		m.file.close()
		m.file = nil
	}
}

func (w *watcher) close() {
	for _, m := range w.open {
		m.close()
	}
}

// tidy removes the files of processes that are gone and have no part in the
// cluster any more, and generations of the log that nobody can need.
func (d *Driver) tidy() {
	joined := d.joined()
	incs, err := memberFiles(d.dir)
	if err != nil {
		d.cfg.Log.Error("tidy up", "err", err)
		return
	}
	for _, inc := range incs {
		if inc != d.self && !slices.Contains(joined, inc) && d.isDead(inc) {
			d.dir.Remove(memberName(inc)) // or somebody else does
		}
	}
	d.tidyLogs()
	d.tidyTemporary()
}

// tidyTemporary removes what processes left that died while they made a file.
func (d *Driver) tidyTemporary() {
	names, err := readNames(d.dir)
	if err != nil {
		return
	}
	for _, name := range names {
		fi, err := d.dir.Stat(name)
		if strings.HasSuffix(name, ".tmp") && err == nil && time.Since(fi.ModTime()) > 2*d.cfg.Expel {
			d.dir.Remove(name)
		}
	}
}

// tidyLogs removes the generations whose successor is older than any member
// may be silent: who has not read that far is expelled.
func (d *Driver) tidyLogs() {
	gens, err := generations(d.dir)
	if err != nil {
		return
	}
	slices.Sort(gens)
	for i, g := range gens[:max(len(gens)-1, 0)] {
		fi, err := d.dir.Stat(logName(gens[i+1]))
		if err == nil && time.Since(fi.ModTime()) > 2*d.cfg.Expel {
			d.dir.Remove(logName(g))
		}
	}
}

// keepBeating renews the lease until ctx is done.
func (d *Driver) keepBeating(ctx context.Context) {
	tick := time.NewTicker(d.cfg.Beat)
	defer tick.Stop()
	for {
		if err := d.renew(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.Error("the lease of this node is not renewed", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// renew writes a heartbeat. If the lease has run out meanwhile, the others may
// be about to expel this process: it counts again only when the log says that
// it came back first.
func (d *Driver) renew(ctx context.Context) error {
	last := d.beat.Load()
	if last == 0 {
		return nil // expelled
	}
	if err := d.healthy(); err != nil {
		return err
	}
	now := boottime()
	if now-last >= int64(d.cfg.Lease) {
		if err := d.wake(ctx, now); err != nil {
			return err
		}
	}
	if err := d.present(); err != nil {
		select {
		case d.lost <- err:
		default:
		}
		return err
	}
	if err := d.member.beat(now); err != nil {
		return err
	}
	d.beat.CompareAndSwap(last, now) // unless this process was expelled
	return nil
}

// present returns an error if somebody has removed this process's file, so that
// the others cannot but take it for dead, or the log.
func (d *Driver) present() error {
	d.mu.Lock()
	generation := d.turned
	d.mu.Unlock()
	if _, err := d.dir.Stat(memberName(d.self)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("local cluster: %w: somebody removed %s from %s", sheep.ErrCluster, memberName(d.self), d.path)
	}
	if _, err := d.dir.Stat(logName(generation)); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if gens, err := generations(d.dir); err != nil || len(gens) > 0 {
		return nil // tidied up after this process looked
	}
	return fmt.Errorf("local cluster: %w: somebody removed %s from %s", sheep.ErrCluster, logName(generation), d.path)
}

// wake logs that this process is back, and waits until it has read that.
func (d *Driver) wake(ctx context.Context, now int64) error {
	done := make(chan struct{})
	if err := d.append(recordWake, le.AppendUint64(nil, uint64(now)), done); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// healthy returns why this process should be taken for dead, if it should: the
// store does not answer, or the node does not come to the end of the log.
func (d *Driver) healthy() error {
	if since := d.behind.Load(); since != 0 {
		if late := time.Duration(boottime() - since); late > d.cfg.Lease/2 {
			return fmt.Errorf("%w: behind the log for %v", sheep.ErrCluster, late.Round(time.Millisecond))
		}
	}
	if d.health != nil {
		return d.health()
	}
	return nil
}

// leaseCheck is for how long Lease trusts what it found. Asking CLOCK_BOOTTIME
// takes a system call, the clock that the runtime uses does not. The latter
// stops while the machine sleeps, but so does everybody who could expel this
// process, and the lease ends long before anybody may.
const leaseCheck = time.Millisecond

// Lease implements cluster.Driver.
func (d *Driver) Lease() error {
	last := d.beat.Load()
	if last == 0 {
		return errNotMember
	}
	now := time.Since(d.created)
	if at := d.checked.Load(); at != 0 && now-time.Duration(at) < leaseCheck {
		return nil
	}
	if boottime()-last >= int64(d.cfg.Lease) {
		return errLapsed
	}
	d.checked.Store(int64(now))
	return nil
}
