package tests_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"sheepdog/tests/native"
)

// TestAllKilledAtOnce kills all sheep at one instant under load, and starts them
// in a random order, again and again. The write-through clients live through it;
// the write-back client dies too, as nobody could tell it what it has lost.
func TestAllKilledAtOnce(t *testing.T) {
	const enough = 30 * time.Second
	rounds := killRounds(t)
	seed := seed(t)
	rng := rand.New(rand.NewPCG(seed, 4))
	s := newStorm(t, seed)
	through, back := s.clients[0], s.clients[1]
	through.start(t.Context(), t, s.stop)
	s.witness.start(t.Context(), s.stop)
	begin := time.Now()
	for round := 1; rounds == 0 && time.Since(begin) < enough || round <= rounds; round++ {
		ctx, cancel := context.WithCancel(t.Context())
		back.start(ctx, t, nil)
		time.Sleep(time.Duration(100+rng.IntN(2000)) * time.Millisecond) // the moment of the failure
		failed(t, s.clients)
		s.Kill()
		cancel()
		if err := <-back.done; err != nil {
			t.Fatalf("back: %v", err)
		}
		order := rng.Perm(len(s.Nodes))
		for _, i := range order {
			s.Nodes[i].Start()
		}
		t.Logf("round %d, started in the order %v: whole again after %v", round, order, s.WaitRecovered().Round(time.Millisecond))
		dev, err := native.Open(t.Context(), native.Config{Servers: socks(s.Hosts, order[0])}, back.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := back.load.Verify(t.Context(), dev, true); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		dev.Close()
	}
	back.start(t.Context(), t, s.stop)
	s.check(t)
}

// killRounds returns how often to kill all: SHEEP_TEST_ROUNDS, or 0, which is as
// often as there is time for.
func killRounds(t *testing.T) int {
	t.Helper()
	v := os.Getenv("SHEEP_TEST_ROUNDS")
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("SHEEP_TEST_ROUNDS: %v", err)
	}
	return n
}
