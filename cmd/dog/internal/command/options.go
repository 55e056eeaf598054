package command

import (
	"strconv"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/remote"
)

// The options of a run, parsed.
type options struct {
	address string
	port    string

	raw, verbose, json, elapsed bool

	snapshot    remote.Version
	hasSnapshot bool
	from        remote.Version
	hasFrom     bool

	policy    sheep.Policy
	hasPolicy bool
	shift     uint8
	index     uint32
	hasIndex  bool
	oid       sheep.ObjectID
	hasOID    bool
	store     string

	batch, interval int64
	maxReclaim      int64 // -1 is all

	prealloc, noShare, hyper, exclusive, delete, writeback, force, exist, reduce bool
	all, progress, watch, local, sweep, undo                                     bool
	nbd                                                                          nbdSettings

	lock, strict, fixedVNodes, recycle, avoidDiskFull, diff, multithread bool
}

// An option is one option of one group of commands.
type option struct {
	letter string
	name   string
	text   []string // what it does, in lines
	set    func(*options) *bool
	value  func(*options, string) error // of options with an argument
}

func toggle(letter, name, text string, set func(*options) *bool) option {
	return option{letter: letter, name: name, text: strings.Split(text, "\n"), set: set}
}

func valued(letter, name, text string, value func(*options, string) error) option {
	return option{letter: letter, name: name, text: strings.Split(text, "\n"), value: value}
}

// jsonOption is the option that the commands have that can print JSON.
func jsonOption() option {
	return toggle("", "json", "print JSON, for scripts", func(o *options) *bool { return &o.json })
}

// sweepOption is the option of the check that removes what it finds.
func sweepOption() option {
	return toggle("", "sweep", "remove the objects that no image refers to", func(o *options) *bool { return &o.sweep })
}

// undoOption is the option of the command that can be undone.
func undoOption() option {
	return toggle("", "undo", "end what the command has begun", func(o *options) *bool { return &o.undo })
}

// commonOptions are those that mean the same in every group.
func commonOptions() []option {
	return []option{
		valued("a", "address", "specify the daemon address (default: localhost)", func(o *options, s string) error {
			o.address = s
			return checkAddress(s)
		}),
		valued("p", "port", "specify the daemon port", func(o *options, s string) error {
			o.port = s
			return checkPort(s)
		}),
		toggle("r", "raw", "print for scripts: no header, one blank between\nfields, sizes in bytes", func(o *options) *bool { return &o.raw }),
		toggle("v", "verbose", "print more", func(o *options) *bool { return &o.verbose }),
		toggle("h", "help", "display this help and exit", nil),
		toggle("T", "time", "show elapsed time", func(o *options) *bool { return &o.elapsed }),
	}
}

func vdiOptions() []option {
	return []option{
		toggle("P", "prealloc", "allocate all data objects at once", func(o *options) *bool { return &o.prealloc }),
		toggle("n", "no-share", "copy all data and share nothing with the source", func(o *options) *bool { return &o.noShare }),
		valued("i", "index", "choose the data object with this index", parseIndex),
		valued("s", "snapshot", "choose the snapshot with this id or tag", func(o *options, s string) (err error) {
			o.hasSnapshot = true
			o.snapshot, err = parseVersion(s)
			return err
		}),
		toggle("x", "exclusive", "fail if the key exists", func(o *options) *bool { return &o.exclusive }),
		toggle("d", "delete", "delete the key", func(o *options) *bool { return &o.delete }),
		toggle("w", "writeback", "let the cluster write back later, and flush at the end", func(o *options) *bool { return &o.writeback }),
		valued("c", "copies", "specify the data redundancy level", parsePolicy),
		valued("F", "from", "back up what changed since this snapshot", func(o *options, s string) (err error) {
			o.hasFrom = true
			o.from, err = parseVersion(s)
			return err
		}),
		toggle("f", "force", "do operation forcibly", func(o *options) *bool { return &o.force }),
		toggle("y", "hyper", "make a hyper volume, of up to 16 PB", func(o *options) *bool { return &o.hyper }),
		valued("o", "oid", "choose the data object with this id (hexadecimal)", parseOID),
		toggle("e", "exist", "only look whether all objects are there; compare\nand repair nothing", func(o *options) *bool { return &o.exist }),
		valued("z", "block_size_shift", "make data objects of 2^this bytes, 20 to 31", parseShift),
		toggle("R", "reduce-identical-snapshots", "take no snapshot of a VDI that has not changed", func(o *options) *bool { return &o.reduce }),
		valued("B", "nr-batched-reclamation", "release so many objects at a time (default: 128)", func(o *options, s string) (err error) {
			o.batch, err = parsePositive(s, "The number of batched reclamation must be positive integer")
			return err
		}),
		valued("I", "reclamation-interval", "pause for so many seconds between batches", func(o *options, s string) (err error) {
			o.interval, err = parsePositive(s, "The interval of batched reclamation must be positive integer")
			return err
		}),
		valued("m", "max-reclaim", "release at most so many objects, and keep the VDI", func(o *options, s string) error {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				return fail(ExitFailure, "The maximum number of reclamation is invalid: %s", s)
			}
			o.maxReclaim = n
			return nil
		}),
	}
}

func nodeOptions() []option {
	return []option{
		toggle("A", "all", "show the disks of all nodes", func(o *options) *bool { return &o.all }),
		toggle("P", "progress", "follow the recovery of the node", func(o *options) *bool { return &o.progress }),
		toggle("w", "watch", "print again every second", func(o *options) *bool { return &o.watch }),
		toggle("l", "local", "choose the node that is asked", func(o *options) *bool { return &o.local }),
		toggle("f", "force", "do not ask for confirmation", func(o *options) *bool { return &o.force }),
	}
}

func clusterOptions() []option {
	return []option{
		valued("b", "store", "choose the backend store (default: plain)", func(o *options, s string) error {
			if len(s) > 15 || s == "" {
				return fail(ExitFailure, "Invalid store name '%s'", s)
			}
			o.store = s
			return nil
		}),
		valued("c", "copies", "specify the default data redundancy (number of copies)", parsePolicy),
		toggle("f", "force", "do not prompt for confirmation", func(o *options) *bool { return &o.force }),
		toggle("F", "avoid-diskfull", "do not recover what would fill disks", func(o *options) *bool { return &o.avoidDiskFull }),
		toggle("l", "lock", "let a VDI be opened by one user at a time", func(o *options) *bool { return &o.lock }),
		toggle("m", "multithread", "save several objects at a time", func(o *options) *bool { return &o.multithread }),
		toggle("R", "recyclevid", "use the numbers of deleted VDIs again", func(o *options) *bool { return &o.recycle }),
		toggle("t", "strict", "refuse to write while copies are missing", func(o *options) *bool { return &o.strict }),
		valued("z", "block_size_shift", "make data objects of 2^this bytes by default, 20 to 31", parseShift),
		toggle("V", "fixedvnodes", "let each node say how many vnodes it has", func(o *options) *bool { return &o.fixedVNodes }),
		toggle("d", "diff", "show what changed from epoch to epoch", func(o *options) *bool { return &o.diff }),
	}
}

// optionsOf returns the options of c in the order of its letters.
func optionsOf(g group, c command) []option {
	known := append(commonOptions(), g.options...)
	var opts []option
	for _, letter := range c.options {
		for _, o := range known {
			if o.letter == string(letter) {
				opts = append(opts, o)
				break
			}
		}
	}
	if c.json {
		opts = append(opts, jsonOption())
	}
	if c.undo {
		opts = append(opts, undoOption())
	}
	if c.sweep {
		opts = append(opts, sweepOption())
	}
	return opts
}
