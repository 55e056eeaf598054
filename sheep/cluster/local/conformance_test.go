package local_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/clustertest"
	"sheepdog/sheep/cluster/local"
)

// hasty returns times that let a test wait for an expulsion, and a log that
// changes its generation every few hundred messages.
func hasty() local.Config {
	return local.Config{
		Beat:   100 * time.Millisecond,
		Lease:  2 * time.Second,
		Expel:  5 * time.Second,
		MaxLog: 200 << 10,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func TestMain(m *testing.M) {
	os.Exit(clustertest.Main(m, func(place string) cluster.Driver { return local.New(place, hasty()) }))
}

func TestDriver(t *testing.T) {
	clustertest.Drivers(t, clustertest.Suite{
		Place: func(t *testing.T) string { return filepath.Join(t.TempDir(), "cluster") },
		Lease: hasty().Lease,
		Expel: hasty().Expel,
	})
}
