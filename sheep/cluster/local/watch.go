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
