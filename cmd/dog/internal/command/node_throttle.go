package command

import (
	"context"
	"strconv"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/size"
)

// nodeGetThrottle shows how recovery is held back.
func nodeGetThrottle(ctx context.Context, s *session) error {
	t, err := s.Throttle(ctx)
	if err != nil {
		return requestFailed(err)
	}
	s.print("max (%d), interval (%d)", t.Max, t.Interval)
	if h, err := s.Healing(ctx, ""); err == nil && h.Limit > 0 {
		s.print(", rate (%d)", h.Limit)
	}
	s.print("\n")
	return nil
}

// nodeSetThrottle holds recovery back.
func nodeSetThrottle(ctx context.Context, s *session) error {
	most, err := strconv.ParseUint(s.args[0], 10, 32)
	if err != nil {
		return fail(ExitUsage, "Invalid max (%s)", s.args[0])
	}
	if len(s.args) < 2 {
		return fail(ExitUsage, "Invalid interval max (%d), interval ((null))", most)
	}
	interval, err := strconv.ParseUint(s.args[1], 10, 63)
	if err != nil {
		return fail(ExitUsage, "Invalid interval (%s)", s.args[1])
	}
	if (most == 0) != (interval == 0) {
		return fail(ExitUsage, "Invalid interval max (%d), interval (%d)", most, interval)
	}
	var rate uint64
	if len(s.args) > 2 {
		if rate, err = size.Parse(s.args[2]); err != nil {
			return fail(ExitUsage, "Invalid rate (%s)", s.args[2])
		}
	}
	if err := s.SetThrottle(ctx, proto.Throttle{Max: uint32(most), Interval: interval}); err != nil {
		return requestFailed(err)
	}
	if err := s.SetHealRate(ctx, rate); err != nil && len(s.args) > 2 {
		return requestFailed(err)
	}
	return nil
}
