package main

import (
	"strings"
	"testing"
	"time"
)

func TestPauseBeforeANodeRejoins(t *testing.T) {
	start := time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name   string
		st     stage
		pause  time.Duration
		inARow int
	}{
		{"the first time", stage{}, 0, 1},
		{"soon after", stage{Rejoins: 1, Rejoined: start.Add(-time.Second)}, time.Second, 2},
		{"again", stage{Rejoins: 2, Rejoined: start.Add(-59 * time.Second)}, 2 * time.Second, 3},
		{"the longest pause", stage{Rejoins: 6, Rejoined: start.Add(-time.Second)}, 32 * time.Second, 7},
		{"never longer", stage{Rejoins: 100, Rejoined: start.Add(-time.Second)}, 32 * time.Second, 101},
		{"after a good time", stage{Rejoins: 9, Rejoined: start.Add(-61 * time.Second)}, 0, 1},
		{"the clock was set back", stage{Rejoins: 9, Rejoined: start.Add(time.Hour)}, 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.st.Daemon, test.st.Dir, test.st.ReadyFD = true, "/here", 3
			next, pause := test.st.rejoin(start)
			if pause != test.pause || next.Rejoins != test.inARow {
				t.Errorf("pause %v, %d in a row, want %v, %d", pause, next.Rejoins, test.pause, test.inARow)
			}
			want := stage{Settled: true, Daemon: true, Dir: "/here", Rejoins: next.Rejoins, Rejoined: start.Add(pause)}
			if next != want {
				t.Errorf("got %+v, want %+v", next, want)
			}
		})
	}
}

func TestStageTravelsThroughTheEnvironment(t *testing.T) {
	want := stage{Settled: true, Daemon: true, Dir: "/a \"b\"\n", Rejoins: 3, Rejoined: time.Unix(1, 2).UTC()}
	for _, v := range want.environment() {
		if text, ok := strings.CutPrefix(v, stageVar+"="); ok {
			t.Setenv(stageVar, text)
		}
	}
	if got, err := takeStage(); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := takeStage(); err != nil || got != (stage{}) {
		t.Errorf("the second time got %+v, %v, want nothing", got, err)
	}
}

func TestStageOfSomebodyElse(t *testing.T) {
	t.Setenv(stageVar, "yes")
	if _, err := takeStage(); err == nil {
		t.Error("no error")
	}
}
