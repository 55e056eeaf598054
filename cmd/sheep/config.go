package main

import (
	"log/slog"
	"net/netip"
	"time"

	"sheepdog/cmd/internal/logging"
	"sheepdog/sheep"
	"sheepdog/sheep/scrub"
)

// A config is everything that the command line says, checked, with defaults
// filled in and every path absolute. Nothing is started before it is complete.
type config struct {
	dir string // store directory; it exists

	// Addresses.
	bind   netip.Addr     // to listen on; zero means all
	port   uint16         // to listen on, and told to the others
	myAddr netip.Addr     // told to the others; never zero
	ioAddr netip.AddrPort // second address for object traffic, or zero

	// What this node is in the cluster.
	zone         sheep.ZoneID
	vnodes       uint16 // given by the operator; 0 means automatic
	gateway      bool   // store nothing: no vnodes, no space
	driver       string // one of supportedDrivers
	driverOption string // of the local driver: what followed its name, as an absolute path, or empty
	gossip       gossipConfig

	// The store and recovery.
	noSync      bool
	journalSize int64 // bytes of the write journal; 0 means the store's default
	recovery    recoveryThrottle
	scrub       scrub.Config

	nbd nbdConfig

	// The process.
	foreground bool
	pidFile    string // empty means none
	logs       logConfig
	notices    []notice // what is to be logged about the command line itself

	// The log, open: set before runNode gets the config.
	log       *slog.Logger
	threshold *logging.Threshold // of log; for GET_LOGLEVEL and SET_LOGLEVEL
}

// A recoveryThrottle bounds recovery to so many objects per interval, and to so
// many bytes a second. Zeroes mean no bound; max and interval are both zero or
// both positive.
type recoveryThrottle struct {
	max      uint32
	interval time.Duration
	rate     uint64
}

// A logConfig says where the log goes.
type logConfig struct {
	severity    logging.Severity
	format      logging.Format
	destination destination
	dir         string // of the log file
}

// A destination is a place for the log, by its name on the command line.
type destination string

const (
	toFile   destination = "default"
	toSyslog destination = "syslog"
	toStdout destination = "stdout" // in fact stderr, as ever
)

// A notice is a remark on the command line that is not worth refusing to start.
type notice struct {
	level slog.Level
	text  string
}
