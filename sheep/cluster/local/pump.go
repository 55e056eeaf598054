package local

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// pump applies what the log has.
func (d *Driver) pump(m cluster.Machine) error {
	for !d.gone {
		r, ok, err := d.reader.next()
		if err != nil {
			return fmt.Errorf("local cluster: %w", err)
		}
		if !ok {
			d.applied(d.reader.end())
			return d.limit()
		}
		d.index++
		if r.kind == recordRotate {
			if err := d.rotate(m); err != nil {
				return fmt.Errorf("local cluster: end of %s: %w", logName(d.reader.log.generation), err)
			}
			continue
		}
		d.apply(r, m)
		if r.author == d.self {
			d.readBack(r.number)
		}
		d.done.Store(d.reader.off)
	}
	return nil
}

// apply gives the machine what the record means, if it means anything.
func (d *Driver) apply(r record, m cluster.Machine) {
	e := cluster.Entry{
		Index:  d.index,
		Kind:   cluster.EntryKind(r.kind),
		Member: r.author,
		Time:   r.time,
		Data:   slices.Clone(r.data),
	}
	switch r.kind {
	case recordJoin:
		if !d.enter(r) {
			return
		}
	case recordMessage:
		if !d.onRoll(r.author) {
			return
		}
	case recordLeave:
		l, ok := decodeLeaving(r.data)
		if !ok || !d.strike(l) {
			return
		}
		e.Member, e.Data = l.who, []byte(l.reason)
		if l.who == d.self {
			d.depart(r.author, l)
		}
	case recordWake:
		d.mu.Lock()
		d.roll.wake(r.author, r.data)
		d.mu.Unlock()
		return
	default:
		return
	}
	m.Apply(e)
}

// enter puts the author of a join on the roll, once.
func (d *Driver) enter(r record) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, joined := d.roll[r.author]; joined {
		return false
	}
	d.roll[r.author] = 0
	return true
}

func (d *Driver) onRoll(inc sheep.Incarnation) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, joined := d.roll[inc]
	return joined
}

func (d *Driver) strike(l leaving) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.roll.leave(l)
}

// depart ends this process's membership.
func (d *Driver) depart(author sheep.Incarnation, l leaving) {
	d.beat.Store(0)
	d.gone = true
	if author != d.self {
		d.left = fmt.Errorf("%w: this process was expelled: %s", sheep.ErrCluster, l.reason)
	}
}

// limit ends the generation when it has become too long.
func (d *Driver) limit() error {
	l := d.reader.log
	if d.rotating || d.reader.end()-l.start < d.cfg.MaxLog {
		return nil
	}
	d.rotating = true
	return d.append(recordRotate, nil, nil)
}

// rotate goes on with the next generation, which starts with the state at the
// end of this one. Everybody comes to the same state; who is first writes it.
func (d *Driver) rotate(m cluster.Machine) error {
	old := d.reader.log.generation
	snapshot := m.Snapshot()
	d.mu.Lock()
	r := d.roll
	// The record that ended the generation has done so, whoever wrote it.
	for number, w := range d.pending {
		if w.kind == recordRotate {
			delete(d.pending, number)
		}
	}
	d.mu.Unlock()
	if err := d.succeed(old, r, snapshot); err != nil {
		return err
	}
	l, err := openLog(d.dir, old+1, d.boot)
	if err != nil {
		return err
	}
	if l.index != d.index || !bytes.Equal(l.roll, r.marshal()) || !bytes.Equal(l.snapshot, snapshot) {
		return errors.Join(fmt.Errorf("%w: this process has come to another state than the one that wrote %s",
			sheep.ErrCluster, logName(old+1)), l.file.Close())
	}
	return d.use(l, r)
}

// succeed makes the generation after old unless it exists. A process that was
// away for so long that the others have done with that generation, and removed
// it, must not make it again: they remove none before it has been out of use for
// longer than the expulsion of a member takes.
func (d *Driver) succeed(old uint64, r roll, snapshot []byte) error {
	begin := boottime()
	if d.outrun(old + 1) {
		return nil
	}
	made, err := createLog(d.dir, old+1, d.self, d.boot, d.index, r.marshal(), snapshot)
	if err != nil {
		return err
	}
	if made && boottime()-begin > int64(d.cfg.Expel) && d.outrun(old+1) {
		return errors.Join(fmt.Errorf("%w: the other processes are generations ahead", sheep.ErrCluster),
			d.dir.Remove(logName(old+1)))
	}
	return nil
}

// outrun reports whether there is a generation after g.
func (d *Driver) outrun(g uint64) bool {
	gens, err := generations(d.dir)
	return err != nil || slices.ContainsFunc(gens, func(other uint64) bool { return other > g })
}
