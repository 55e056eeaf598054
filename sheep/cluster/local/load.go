package local

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"sheepdog/sheep/cluster"
)

// load opens the newest generation of the log and restores the machine from it.
// It makes one if there is none that is of any use.
func (d *Driver) load(m cluster.Machine) error {
	for {
		gens, err := generations(d.dir)
		if err != nil {
			return fmt.Errorf("local cluster: %w", err)
		}
		newest := uint64(0)
		if len(gens) > 0 {
			newest = slices.Max(gens)
		}
		l, err := openLog(d.dir, newest, d.boot)
		if err == nil {
			if err = m.Restore(l.index, l.snapshot); err == nil {
				return d.use(l, decodeRoll(l.roll))
			}
			l.file.Close()
			err = fmt.Errorf("%w: %w", errUnusable, err)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && newest > 0:
			// The others have moved on meanwhile.
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errUnusable):
			if err := d.restart(newest, l, err); err != nil {
				return err
			}
		default:
			return fmt.Errorf("local cluster: %w", err)
		}
	}
}

// restart makes a generation that starts from nothing. Its indexes are larger
// than those of any log before: no log lives by more than an entry a nanosecond.
func (d *Driver) restart(last uint64, old *logFile, why error) error {
	alive, err := othersAlive(d.dir, d.self)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	if alive {
		if gens, err := generations(d.dir); err == nil && slices.ContainsFunc(gens, func(g uint64) bool { return g > last }) {
			return nil // made by them just now
		}
		return fmt.Errorf("local cluster: other processes use %s with a log that this one cannot use: %w", d.path, why)
	}
	index := uint64(time.Now().UnixNano())
	if old != nil {
		index = max(index, old.index+1)
	}
	if last > 0 {
		d.cfg.Log.Info("starting a new log", "old", logName(last), "reason", why)
	}
	_, err = createLog(d.dir, last+1, d.self, d.boot, index, nil, nil)
	return err
}

// use makes l the log that is read and appended to.
func (d *Driver) use(l *logFile, r roll) error {
	if err := d.notify.watchLog(logName(l.generation)); err != nil {
		return fmt.Errorf("watch %s: %w", logName(l.generation), err)
	}
	if err := d.member.use(); err != nil {
		return err
	}
	d.reader = reader{log: l, off: l.start}
	d.index = l.index
	d.rotating = false
	l.snapshot, l.roll = nil, nil
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cur != nil {
		d.cur.file.Close()
	}
	d.cur, d.roll = l, r
	d.scanned, d.turned = l.start, l.generation
	d.done.Store(l.start)
	// What this process logged after the end of the last generation counts for nothing there.
	for _, number := range sortedKeys(d.pending) {
		if err := d.writeLocked(number, d.pending[number]); err != nil {
			return err
		}
	}
	return nil
}
