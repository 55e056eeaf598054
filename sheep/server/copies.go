package server

import (
	"context"
	"errors"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Scrub compares the copies of objects in the background.
type Scrub interface {
	Report() proto.ScrubReport
}

// getCopy serves GET_COPY, by which copies are compared and judged. The asker's
// idea of the epoch is not held against it.
func (d *Daemon) getCopy(r *Request) {
	report, err := d.CopyOf(r.Ctx, proto.DecodeObjectBody(r.Header.Body).ID)
	if err != nil {
		d.fail(r, err)
		return
	}
	d.record(r, proto.CopyReportSize, report.Append)
}

// CopyOf says what this node's copy of the object is worth, and what is in it as
// read now. That it cannot be read is part of the answer.
func (d *Daemon) CopyOf(ctx context.Context, id sheep.ObjectID) (proto.CopyReport, error) {
	for {
		view := d.Cluster.View()
		report := proto.CopyReport{CopyState: proto.CopyState{ID: id}}
		if m, ok := view.MemberAt(d.Hello.Node); ok {
			report.Joined = m.Joined
		}
		states, err := d.copies().States(ctx, view.Epoch, []sheep.ObjectID{id})
		if err == nil {
			report.CopyState = states[0]
			report.Digest, err = d.copies().Digest(ctx, view.Epoch, id)
			report.Read = proto.ResultOf(err)
		}
		if _, stale := errors.AsType[*sheep.StaleEpochError](err); stale && d.Cluster.View().Epoch != view.Epoch {
			continue
		}
		if err == nil || errors.Is(err, sheep.ErrNoObject) || errors.Is(err, sheep.ErrIO) {
			if report.Read == proto.ResultNoObject {
				report.Bits &^= proto.CopyExists // its file may be gone though the store has not noticed
			}
			return report, nil
		}
		return report, err
	}
}

// getScrub serves GET_SCRUB.
func (d *Daemon) getScrub(r *Request) {
	var report proto.ScrubReport
	if d.Scrub != nil {
		report = d.Scrub.Report()
	}
	if int(r.Header.Room()) < proto.ScrubRoom {
		invalid(d, r)
		return
	}
	r.Reply(proto.Response{}, report.Append(r.Room(proto.ScrubRoom)[:0]))
}

// getSpace serves GET_SPACE.
func (d *Daemon) getSpace(r *Request) {
	var report proto.SpaceReport
	var err error
	if d.self().VNodes > 0 {
		report, err = d.Store.Room()
	}
	if err != nil {
		d.fail(r, err)
		return
	}
	d.record(r, proto.SpaceReportSize, report.Append)
}

// Losses knows what is wrong with objects, and gives up what cannot be read.
type Losses interface {
	Damage() proto.DamageReport

	// Accept makes an object that nobody can read anew, as a copy of from or,
	// if that is 0, of zeroes.
	Accept(ctx context.Context, id, from sheep.ObjectID) error
}

// getDamage serves GET_DAMAGE.
func (d *Daemon) getDamage(r *Request) {
	var report proto.DamageReport
	if d.Losses != nil {
		report = d.Losses.Damage()
	}
	if int(r.Header.Room()) < proto.DamageRoom {
		invalid(d, r)
		return
	}
	r.Reply(proto.Response{}, report.Append(nil))
}

// acceptLoss serves ACCEPT_LOSS.
func (d *Daemon) acceptLoss(r *Request) {
	if d.Losses == nil {
		unsupported(d, r)
		return
	}
	b := proto.DecodeObjectBody(r.Header.Body)
	d.finish(r, d.Losses.Accept(r.Ctx, b.ID, b.COW))
}
