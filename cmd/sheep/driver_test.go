package main

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

func TestALocalSheepThatOtherMachinesReachSaysHowToJoinThem(t *testing.T) {
	for _, tt := range []struct {
		name string
		bind netip.Addr
		want bool
	}{
		{"all addresses", netip.Addr{}, true},
		{"an address of a network", netip.MustParseAddr("10.0.0.1"), true},
		{"the loopback", netip.MustParseAddr("127.0.0.1"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			cfg := config{driver: driverLocal, driverOption: t.TempDir(), bind: tt.bind, log: slog.New(slog.NewTextHandler(&log, nil))}
			if _, err := newDriver(cfg); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(log.String(), "start the first sheep with -c gossip and the others with -c gossip:"); got != tt.want {
				t.Errorf("the log says %q", log.String())
			}
		})
	}
}
