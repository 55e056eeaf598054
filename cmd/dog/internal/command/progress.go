package command

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progressEvery is how often a progress bar is drawn.
const progressEvery = 200 * time.Millisecond

// A progress is a bar on a terminal, with the rate and the time that is left.
// The nil progress draws nothing.
type progress struct {
	w       io.Writer
	width   int
	total   uint64
	format  func(uint64) string
	started time.Time

	done  uint64
	drawn time.Time
}

// newProgress returns a bar for total units, or nil if w is no terminal.
func (s *session) newProgress(w io.Writer, width int, total uint64, format func(uint64) string) *progress {
	if width == 0 || total == 0 {
		return nil
	}
	return &progress{w: w, width: width, total: total, format: format, started: time.Now()}
}

// add says that n more units are done.
func (p *progress) add(n uint64) {
	if p == nil {
		return
	}
	p.done = min(p.done+n, p.total)
	if time.Since(p.drawn) >= progressEvery || p.done == p.total {
		p.draw()
	}
}

// set says how many units are done.
func (p *progress) set(n uint64) {
	if p != nil && n >= p.done {
		p.add(n - p.done)
	}
}

// finish ends the line of a bar that did not come to its end.
func (p *progress) finish() {
	if p != nil && p.done < p.total && !p.drawn.IsZero() {
		p.show("\n")
	}
}

// barSpare is how many columns of a line are not the bar, without rate and time.
const barSpare = 30

func (p *progress) draw() {
	p.drawn = time.Now()
	share := float64(p.done) / float64(p.total)
	extra := p.rate()
	cells := max(p.width-barSpare-len(extra), 1)
	at := int(share * float64(cells))
	bar := strings.Repeat("=", min(at, cells))
	if at < cells {
		bar += ">" + strings.Repeat(" ", cells-at-1)
	}
	line := fmt.Sprintf("%5.1f %% [%s] %s / %s%s", share*100, bar, p.format(p.done), p.format(p.total), extra)
	if p.done == p.total {
		line = fmt.Sprintf("%-*s\n", p.width, line)
	}
	p.show("\r" + line)
}

// rate returns how fast it goes and how long it will take, once that is known.
func (p *progress) rate() string {
	took := p.drawn.Sub(p.started)
	if took < time.Second || p.done == 0 || p.width < 70 {
		return ""
	}
	perSecond := float64(p.done) / took.Seconds()
	left := time.Duration(float64(p.total-p.done) / perSecond * float64(time.Second))
	return fmt.Sprintf("  %s/s, %v left", p.format(uint64(perSecond)), left.Round(time.Second))
}

func (p *progress) show(text string) {
	io.WriteString(p.w, text) // nobody can be told that a bar was not drawn
	if o, ok := p.w.(*output); ok {
		o.Show()
	}
}
