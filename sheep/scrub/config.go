package scrub

import "time"

// Defaults of Config.
const (
	DefaultRate  = 32 << 20
	DefaultEvery = 7 * 24 * time.Hour
)

// A Config says when and how fast a node scrubs. Its zero value does not scrub.
type Config struct {
	Rate  uint64        // bytes of objects that are compared in a second, at most; 0 is no limit
	Every time.Duration // from the end of a pass to the beginning of the next; 0 means never
	Hours Hours         // in which it works
}

// DefaultConfig scrubs once a week, slowly.
func DefaultConfig() Config { return Config{Rate: DefaultRate, Every: DefaultEvery} }

// Hours are hours of the day by the local clock: From up to To, past midnight if To
// comes before From. The zero Hours are all.
type Hours struct{ From, To int }

// Has reports whether now is within the hours.
func (h Hours) Has(now time.Time) bool {
	hour := now.Hour()
	switch {
	case h.From == h.To:
		return true
	case h.From < h.To:
		return h.From <= hour && hour < h.To
	}
	return h.From <= hour || hour < h.To
}
