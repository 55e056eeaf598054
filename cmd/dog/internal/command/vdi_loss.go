package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// lossPatience is how long an object must not be readable to count as lost.
const lossPatience = 5 * time.Second

// vdiObjectAcceptLoss gives up an object that no node can read: afterwards it reads
// as what the image before it has there, or as zeroes.
func vdiObjectAcceptLoss(ctx context.Context, s *session) error {
	if !s.opts.hasIndex {
		return badUsage("Please name the object: --index")
	}
	h, err := s.open(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return also(err, "FATAL: no inode objects")
	}
	if uint64(s.opts.index) >= objectIndexes(h) {
		return fail(ExitFailure, "The offset is too large!")
	}
	owner, err := s.ownerOf(ctx, h, s.opts.index)
	if err != nil {
		return err
	}
	if owner == 0 {
		return fail(ExitFailure, "The inode object 0x%x idx %d is not allocated", uint32(h.VDI), s.opts.index)
	}
	id := sheep.DataObject(owner, s.opts.index)
	why := s.unreadable(ctx, id)
	if why == nil {
		return fail(ExitFailure, "Object %v can be read, nothing of it is lost", id)
	}
	from := s.before(ctx, owner, s.opts.index)
	s.sayLoss(ctx, h, id, from, why)
	if !s.opts.force {
		if err := s.confirm(caution("Caution! What it had cannot be had back then,", "even if absent nodes return.", sure)); err != nil {
			return err
		}
	}
	return s.acceptLoss(ctx, id, from)
}

// unreadable returns why an object cannot be read, nil if it can.
func (s *session) unreadable(ctx context.Context, id sheep.ObjectID) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lossPatience, fmt.Errorf("there is no answer in %v", lossPatience))
	defer cancel()
	err := s.Read(ctx, id, make([]byte, 512), 0)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// before returns the object that the image before the owner has in the place of
// the owner's at index, or zero.
func (s *session) before(ctx context.Context, owner sheep.VDIID, index uint32) sheep.ObjectID {
	h, err := s.Header(ctx, owner)
	if err != nil || h.Parent == 0 {
		return 0
	}
	parent, err := s.Header(ctx, h.Parent)
	if err != nil {
		return 0
	}
	older, err := s.Owner(ctx, parent, index)
	if err != nil || older == 0 || older == owner {
		return 0
	}
	id := sheep.DataObject(older, index)
	if s.unreadable(ctx, id) != nil {
		return 0
	}
	return id
}

// sayLoss says what is lost, and what will be there instead.
func (s *session) sayLoss(ctx context.Context, h *proto.InodeHeader, id, from sheep.ObjectID, why error) {
	start := uint64(id.Index()) << h.BlockShift
	s.print("Object %v, bytes %d to %d of %s, cannot be read: %s\n", id, start, start+1<<h.BlockShift-1, h.Name, remote.Text(why))
	if users := s.usersOf(ctx, id); len(users) > 0 {
		s.print("It is lost to: %s\n", strings.Join(users, ", "))
	}
	if from != 0 {
		s.print("It will read as object %v, what was there before.\n", from)
	} else {
		s.print("It will read as zeroes.\n")
	}
}

// usersOf returns the images and snapshots whose maps name the object.
func (s *session) usersOf(ctx context.Context, id sheep.ObjectID) (names []string) {
	listed, err := s.VDIs(ctx, remote.Query{})
	if err != nil {
		return nil
	}
	for l := range listed {
		if l.Err != nil {
			continue
		}
		if owner, err := s.Owner(ctx, l.Header, id.Index()); err != nil || owner != id.VDI() {
			continue
		}
		name := l.Header.Name
		if l.Header.Snapshot() {
			name = fmt.Sprintf("%s (snapshot %d, tag \"%s\")", name, l.Header.SnapID, l.Header.Tag)
		}
		names = append(names, name)
	}
	return names
}

// acceptLoss asks one node after the other: only the owner of the VDI can do it, if
// there is one.
func (s *session) acceptLoss(ctx context.Context, id, from sheep.ObjectID) error {
	var err error
	for _, n := range s.nodes.Nodes {
		if err = s.AcceptLoss(ctx, remote.Address(n), id, from); err == nil {
			s.print("The loss of object %v is accepted; the log of %v tells of it.\n", id, n)
			return nil
		}
		if remote.Result(err) != proto.ResultNotOwner && !unreachable(err) {
			break
		}
	}
	return fail(ExitFailure, "Failed to accept the loss of object %v: %s", id, remote.Text(err))
}
