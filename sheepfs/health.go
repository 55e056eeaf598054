package sheepfs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sheepdog/sheep/health"
)

// healthPatience bounds how long the answer takes.
const healthPatience = 10 * time.Second

// health is one word, then the reasons. It is there to be read when all else is
// not, so it never fails.
func (t *FS) health(ctx context.Context) (content, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, min(t.cfg.Patience, healthPatience), errPatience)
	defer cancel()
	c := t.remote()
	defer c.Close()
	report := health.Diagnose(ctx, c)
	var b strings.Builder
	fmt.Fprintln(&b, report.Level)
	for _, r := range report.Reasons {
		fmt.Fprintln(&b, printable(r))
	}
	return text(b.String()), nil
}
