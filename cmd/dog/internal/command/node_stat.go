package command

import (
	"context"
	"time"

	"sheepdog/sheep/listing"
	"sheepdog/sheep/remote"
)

// A statReport is the JSON form of node stat.
type statReport struct {
	listing.Stats
	Scrub *listing.Scrub `json:"scrub,omitempty"`
}

// nodeStat shows what the node has done, or every second what it is doing.
func nodeStat(ctx context.Context, s *session) error {
	st, err := s.Stat(ctx)
	if err != nil {
		return statFailed(err)
	}
	now := listing.NewStats(st)
	report, err := s.Scrub(ctx, "")
	known := err == nil // by our daemons
	if s.opts.json {
		all := statReport{Stats: now}
		if known {
			all.Scrub = new(listing.NewScrub(report))
		}
		return s.writeJSON(all)
	}
	if !s.opts.watch {
		if !s.opts.raw {
			s.print("%s", listing.StatHead)
		}
		s.printStat("Client", now.Client, nil)
		s.printStat("Peer", now.Peer, nil)
		if known && !s.opts.raw {
			s.print("\n%s", listing.NewScrub(report).Lines(s.app.env.Location))
		}
		return nil
	}
	for {
		if err := s.app.env.Pause(ctx, time.Second); err != nil {
			return nil // an interrupt is how watching ends
		}
		if st, err = s.Stat(ctx); err != nil {
			return statFailed(err)
		}
		before := now
		now = listing.NewStats(st)
		if !s.opts.raw {
			s.print("Request\tActive\tTotal\tWrite\tRead\tRemove\tFlush\tAll WR\tAll RD\tWRBW\tRDBW\tRPS\n")
		}
		s.printStat("Client", now.Client, &before.Client)
		s.printStat("Peer", now.Peer, &before.Peer)
		if err := s.out.Flush(); err != nil {
			return fail(ExitSystem, "Failed to write the output: %v", err)
		}
	}
}

func statFailed(err error) error {
	if unreachable(err) {
		return quiet(ExitSystem)
	}
	return fail(ExitFailure, "failed to get stat information: %s", remote.Text(err))
}

// printStat prints one row, and with before the change since then.
func (s *session) printStat(name string, r listing.Stat, before *listing.Stat) {
	if !s.opts.raw {
		s.print("%s\t", name)
	}
	s.print("%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s", r.Active, r.Total, r.Writes, r.Reads, r.Removes, r.Flushes,
		s.size(r.BytesWritten), s.size(r.BytesRead))
	if before != nil {
		s.print("\t%s\t%s\t%d", s.size(r.BytesWritten-before.BytesWritten), s.size(r.BytesRead-before.BytesRead), r.Total-before.Total)
	}
	s.print("\n")
}
