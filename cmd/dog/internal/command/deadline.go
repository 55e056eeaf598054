package command

import (
	"context"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// clusterDeadline shows or sets how long clients wait for a request before they
// get an error.
func clusterDeadline(ctx context.Context, s *session) error {
	if len(s.args) > 0 {
		d, err := parseDeadline(s.args[0])
		if err == nil {
			err = s.setDeadline(ctx, 0, d)
		}
		if err != nil {
			return err
		}
	}
	list, err := s.Statuses(ctx)
	if err != nil {
		return requestFailed(err)
	}
	own := 0
	for _, v := range list.VDIs {
		if v.Deadline != proto.AsCluster {
			own++
		}
	}
	s.print("Cluster deadline: %s\n", deadlineText(list.Deadline))
	if own > 0 {
		s.print("VDIs with a deadline of their own: %d\n", own)
	}
	return nil
}

// vdiDeadline shows or sets the same for one VDI.
func vdiDeadline(ctx context.Context, s *session) error {
	id, err := s.Lookup(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return openFailed(s.name(), s.opts.snapshot, err)
	}
	if len(s.args) > 1 {
		d := proto.AsCluster
		if s.args[1] != "cluster" {
			if d, err = parseDeadline(s.args[1]); err != nil {
				return err
			}
		}
		if err := s.setDeadline(ctx, id, d); err != nil {
			return err
		}
	}
	list, err := s.Statuses(ctx)
	if err != nil {
		return requestFailed(err)
	}
	if own := ownDeadline(list, id); own != proto.AsCluster {
		s.print("Deadline of VDI %s: %s\n", s.name(), deadlineText(own))
	} else {
		s.print("Deadline of VDI %s: that of the cluster, %s\n", s.name(), deadlineText(list.Deadline))
	}
	return nil
}

func (s *session) setDeadline(ctx context.Context, id sheep.VDIID, d time.Duration) error {
	if err := s.SetDeadline(ctx, id, d); err != nil {
		return requestFailed(err)
	}
	return nil
}

// ownDeadline returns the deadline that a VDI has of its own, or proto.AsCluster.
func ownDeadline(list proto.VDIStatusList, id sheep.VDIID) time.Duration {
	for _, v := range list.VDIs {
		if v.VDI == id {
			return v.Deadline
		}
	}
	return proto.AsCluster
}

// forEver is the deadline that never passes, on the command line.
const forEver = "forever"

func parseDeadline(arg string) (time.Duration, error) {
	if arg == forEver {
		return 0, nil
	}
	return parseDuration(arg)
}

func deadlineText(d time.Duration) string {
	if d == 0 {
		return forEver
	}
	return shortDuration(d)
}
