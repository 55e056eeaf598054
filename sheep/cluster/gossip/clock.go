package gossip

import (
	"time"

	"golang.org/x/sys/unix"
)

// boottime returns the time of CLOCK_BOOTTIME, in nanoseconds: it goes on while
// the machine sleeps, and nobody can set it.
func boottime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return int64(time.Since(time.Time{})) // cannot happen: the clock exists since Linux 2.6.39
	}
	return ts.Nano()
}
