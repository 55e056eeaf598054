package history_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sheepdog/tests/history"
)

// A script is a history: calls and returns in the order in which they happen.
type script struct {
	t    *testing.T
	r    *history.Recorder
	ops  map[string]*history.Op
	vals map[string]history.Value
}

func newScript(t *testing.T) *script {
	return &script{t, history.NewRecorder(), map[string]*history.Op{}, map[string]history.Value{}}
}

// play runs steps: "w a" begins the write a, "w+ a" is its answer, "r b" begins
// the read b, "r+ b a" says that it found what a wrote, and 0 what was there
// from the begin.
func (s *script) play(steps string) {
	s.t.Helper()
	for step := range strings.SplitSeq(steps, ", ") {
		f := strings.Fields(step)
		switch f[0] {
		case "w":
			s.ops[f[1]], s.vals[f[1]] = s.r.Write(len(s.ops), 1)
		case "w+":
			s.ops[f[1]].Written()
		case "r":
			s.ops[f[1]] = s.r.Read(len(s.ops), 1)
		case "r+":
			s.ops[f[1]].Found(s.vals[f[2]])
		default:
			s.t.Fatalf("no such step: %q", step)
		}
		time.Sleep(time.Microsecond) // no two steps at one moment, as moments count as overlapping
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name  string
		steps string
		ok    bool
	}{
		{"a block that nobody wrote is empty", "r x, r+ x 0", true},
		{"a read finds what was written", "w a, w+ a, r x, r+ x a", true},
		{"an acknowledged write is not found", "w a, w+ a, r x, r+ x 0", false},
		{"an old value comes back", "w a, w+ a, w b, w+ b, r x, r+ x a", false},
		{"a read beside a write finds the old", "w a, r x, r+ x 0, w+ a", true},
		{"a read beside a write finds the new", "w a, r x, r+ x a, w+ a", true},
		{"a write is seen and then gone", "w a, r x, r+ x a, r y, r+ y 0, w+ a", false},
		{"two writes at a time end in either order", "w a, w b, w+ a, w+ b, r x, r+ x a, r y, r+ y a", true},
		{"two writes at a time end in one order only", "w a, w b, w+ a, w+ b, r x, r+ x a, r y, r+ y b", false},
		{"a write without an answer was not executed", "w a, r x, r+ x 0", true},
		{"a write without an answer was executed", "w a, r x, r+ x a", true},
		{"a write without an answer is executed later", "w a, w b, w+ b, r x, r+ x b, r y, r+ y a", true},
		{"a write without an answer is executed twice", "w a, r x, r+ x a, w b, w+ b, r y, r+ y a", false},
		{"a write is found before it was made", "r x, w a, r y, r+ y 0, w+ a, r+ x a", true},
		{"a read without an answer says nothing", "w a, r x, w+ a, r y, r+ y a", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.play(tt.steps)
			err := s.r.Check(time.Minute, "")
			if _, bad := errors.AsType[*history.Violation](err); bad == tt.ok || err != nil && !bad {
				t.Errorf("%s: got %v", tt.steps, err)
			}
		})
	}
}

func TestAValueThatWasNeverWritten(t *testing.T) {
	r := history.NewRecorder()
	r.Read(0, 7).Found(12)
	if _, bad := errors.AsType[*history.Violation](r.Check(time.Minute, "")); !bad {
		t.Error("it was accepted")
	}
}

func TestAViolationIsDrawn(t *testing.T) {
	s := newScript(t)
	s.play("w a, w+ a, r x, r+ x 0")
	page := filepath.Join(t.TempDir(), "page.html")
	err := s.r.Check(time.Minute, page)
	if err == nil || !strings.Contains(err.Error(), "read 0  <-") || !strings.Contains(err.Error(), page) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "write 1") {
		t.Errorf("the page: %v", err)
	}
}

// TestRandomHistories records what goroutines do to a register that is right,
// and finds nothing; then one read is changed, and it is found.
func TestRandomHistories(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := history.NewRecorder()
	var mu sync.Mutex
	var state history.Value
	var wg sync.WaitGroup
	for c := range 4 {
		rng := rand.New(rand.NewPCG(seed, uint64(c)))
		wg.Go(func() {
			for range 2000 {
				if rng.IntN(2) == 0 {
					op, v := r.Write(c, 0)
					if rng.IntN(20) == 0 { // no answer: executed or not
						if rng.IntN(2) == 0 {
							mu.Lock()
							state = v
							mu.Unlock()
						}
						continue
					}
					mu.Lock()
					state = v
					mu.Unlock()
					op.Written()
					continue
				}
				op := r.Read(c, 0)
				mu.Lock()
				v := state
				mu.Unlock()
				op.Found(v)
			}
		})
	}
	wg.Wait()
	if err := r.Check(time.Minute, ""); err != nil {
		t.Fatal(err)
	}
	c := r.Counts()
	if c.Reads+c.Writes+c.Unknown != 8000 || c.Unknown == 0 {
		t.Errorf("counted %+v", c)
	}
	r.Read(0, 0).Found(1) // long overwritten
	if err := r.Check(time.Minute, ""); err == nil {
		t.Error("an old value was not found")
	}
}
