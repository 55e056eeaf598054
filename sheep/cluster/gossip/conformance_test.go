package gossip_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/clustertest"
	"sheepdog/sheep/cluster/gossip"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// hasty returns times that let a test wait for an expulsion, and a log that is
// compacted every few hundred messages.
func hasty() gossip.Config {
	return gossip.Config{
		Bind: netip.AddrPortFrom(loopback, 0), Advertise: netip.AddrPortFrom(loopback, 0),
		Heartbeat:       100 * time.Millisecond,
		Lease:           1500 * time.Millisecond,
		ExpelAfter:      3 * time.Second,
		LeaderLease:     300 * time.Millisecond,
		ElectionTimeout: 500 * time.Millisecond,
		Log:             slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level()})),
	}
}

func level() slog.Level {
	if os.Getenv("SHEEP_TEST_LEVEL") == "debug" {
		return slog.LevelDebug
	}
	return slog.LevelError
}

// member takes the first node directory of place that no process uses. A process
// that takes that of a dead one is its next life.
func member(place string) (dir string, others []string) {
	for i := 0; ; i++ {
		dir := filepath.Join(place, fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			panic(err)
		}
		lock, err := syscall.Open(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			panic(err)
		}
		if syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			return dir, others // the lock ends with the process
		}
		others = append(others, dir)
	}
}

func TestMain(m *testing.M) {
	os.Exit(clustertest.Main(m, func(place string) cluster.Driver {
		dir, others := member(place)
		cfg := hasty()
		cfg.Dir = dir
		for _, other := range others {
			if b, err := os.ReadFile(filepath.Join(other, "addr")); err == nil {
				cfg.Seeds = append(cfg.Seeds, string(b))
			}
		}
		port := freePort()
		cfg.Bind, cfg.Advertise = netip.AddrPortFrom(loopback, port), netip.AddrPortFrom(loopback, port)
		if err := os.WriteFile(filepath.Join(dir, "addr"), []byte(cfg.Advertise.String()), 0o600); err != nil {
			panic(err)
		}
		return gossip.New(cfg)
	}))
}

func TestDriver(t *testing.T) {
	clustertest.Drivers(t, clustertest.Suite{
		Place:  func(t *testing.T) string { return t.TempDir() },
		Lease:  hasty().Lease,
		Expel:  hasty().ExpelAfter + time.Second,
		Steady: 4, // and a fifth voter that may die
	})
}
