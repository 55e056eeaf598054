package command

import "context"

// A group is the first word of a command line.
type group struct {
	name     string
	about    string
	options  []option // what letters mean here
	names    bool     // the first argument is the name of a VDI
	commands []command
}

// A command is the second word.
type command struct {
	name    string
	about   string
	options string // letters, in the order of the usage line
	json    bool   // there is --json
	sweep   bool   // there is --sweep
	undo    bool   // there is --undo
	args    string // as the usage line shows them
	nodes   bool   // fetch the list of nodes first
	needs   int    // least number of arguments
	max     int    // largest number of arguments, or -1
	local   bool   // arguments are local files
	run     func(context.Context, *session) error
	guess   func(context.Context, *session) []string // completes the first argument where it is no VDI
	words   []word                                   // alternatives of a third word; then run is theirs
}

// A word is the third word.
type word struct {
	name      string
	about     string
	byDefault bool // meant if there is no third word
	nodes     bool
	needs     int
	max       int
	file      bool // the first argument is a local file, not a VDI
	run       func(context.Context, *session) error
}

// groups is the whole tree of commands.
func groups() []group {
	return []group{
		{name: "vdi", about: "virtual disks", options: vdiOptions(), names: true, commands: vdiCommands()},
		{name: "vm", about: "virtual machines", options: vdiOptions(), commands: vmCommands()},
		{name: "node", about: "daemons", options: nodeOptions(), commands: nodeCommands()},
		{name: "cluster", about: "the cluster", options: clusterOptions(), commands: clusterCommands()},
		{name: "nbd", about: "disks as block devices of this machine", options: nbdOptions(), commands: nbdCommands()},
	}
}

func vdiCommands() []command {
	return []command{
		{name: "check", about: "compare the copies of an image and repair them", options: "seaphfvT", json: true, args: "<vdiname>", nodes: true, needs: 1, max: 1, run: vdiCheck},
		{name: "create", about: "make an image", options: "PycaphrvzT", args: "<vdiname> <size>", nodes: true, needs: 1, max: 2, run: vdiCreate},
		{name: "snapshot", about: "make a snapshot of an image", options: "saphrvTR", args: "<vdiname>", needs: 1, max: 1, run: vdiSnapshot},
		{name: "clone", about: "make an image of a snapshot", options: "sPnaphrvT", args: "<src vdi> <dst vdi>", needs: 1, max: 2, run: vdiClone},
		{name: "delete", about: "delete an image or a snapshot", options: "saphTBIm", args: "<vdiname>", needs: 1, max: 1, run: vdiDelete},
		{name: "rollback", about: "set an image back to a snapshot", options: "saphfrvTBI", args: "<vdiname>", needs: 1, max: 1, run: vdiRollback},
		{name: "list", about: "list images and snapshots", options: "aprhoT", json: true, args: "[vdiname]", max: 1, run: vdiList},
		{name: "tree", about: "show which image came from which", options: "aphT", run: vdiTree},
		{name: "graph", about: "the same, for Graphviz", options: "aphT", run: vdiGraph},
		{name: "deadline", about: "show or set how long clients of an image wait for a request", options: "saphT", args: "<vdiname> [<seconds> | forever | cluster]", needs: 1, max: 2, run: vdiDeadline},
		{name: "object", about: "show the objects of an image", options: "isafphvT", json: true, args: "<vdiname>", words: []word{
			{name: "location", about: "show which nodes have an object", nodes: true, needs: 1, max: 1, run: vdiObjectLocation},
			{name: "map", about: "show which objects are allocated", needs: 1, max: 1, run: vdiObjectMap},
			{name: "accept-loss", about: "give up an object (-i) that no node can read", nodes: true, needs: 1, max: 1, run: vdiObjectAcceptLoss},
			{name: "dump-inode", about: "print the inode in a local file", needs: 1, max: 1, file: true, run: vdiObjectDump},
		}},
		{name: "track", about: "show where an object was in each epoch", options: "isaphoT", args: "<vdiname>", needs: 1, max: 1, run: notSupported},
		{name: "setattr", about: "set or delete an attribute of an image", options: "dxaphT", args: "<vdiname> <key> [value]", needs: 1, max: 3, run: vdiSetattr},
		{name: "getattr", about: "print an attribute of an image", options: "aphT", args: "<vdiname> <key>", needs: 1, max: 2, run: vdiGetattr},
		{name: "resize", about: "make an image larger", options: "aphT", args: "<vdiname> <new size>", needs: 1, max: 2, run: vdiResize},
		{name: "read", about: "write what is in an image to standard output", options: "saphT", args: "<vdiname> [<offset> [<len>]]", needs: 1, max: 3, run: vdiRead},
		{name: "write", about: "write standard input to an image", options: "apwhT", args: "<vdiname> [<offset> [<len>]]", needs: 1, max: 3, run: vdiWrite},
		{name: "backup", about: "write what changed between two snapshots to standard output", options: "sFaphT", args: "<vdiname>", needs: 1, max: 2, run: notSupported},
		{name: "restore", about: "read a backup from standard input", options: "saphTBI", args: "<vdiname>", needs: 1, max: 2, run: notSupported},
		{name: "alter-copy", about: "change the redundancy of an image", options: "caphTf", args: "<vdiname>", needs: 1, max: 1, run: notSupported},
		{name: "lock", about: "show or break the locks of images", options: "saphvT", json: true, words: []word{
			{name: "list", about: "list locked images", run: vdiLockList},
			{name: "unlock", about: "take the lock of an image away", needs: 1, max: 1, run: vdiLockUnlock},
		}},
	}
}

func vmCommands() []command {
	return []command{
		{name: "list", about: "list images and who has them open", options: "aprhT", json: true, max: 1, run: vmList},
	}
}

func nodeCommands() []command {
	return []command{
		{name: "kill", about: "stop a daemon", options: "aprhlT", args: "<node id>", nodes: true, max: 1, run: nodeKill},
		{name: "list", about: "list nodes", options: "aprhT", json: true, nodes: true, run: nodeList},
		{name: "info", about: "show how full the nodes are", options: "aprhT", json: true, nodes: true, run: nodeInfo},
		{name: "recovery", about: "show or hold back the recovery of nodes", options: "aphPrwT", json: true, args: "<max> <interval> [rate]", words: []word{
			{name: "info", about: "show which nodes are in recovery (default)", byDefault: true, nodes: true, run: nodeRecoveryInfo},
			{name: "waiting", about: "show which objects cannot be made current yet, and why", nodes: true, run: nodeRecoveryWaiting},
			{name: "set-throttle", about: "recover at most max objects per interval (milliseconds), and rate bytes a second", nodes: true, needs: 1, max: 3, run: nodeSetThrottle},
			{name: "get-throttle", about: "show how recovery is held back", nodes: true, run: nodeGetThrottle},
		}},
		{name: "maintenance", about: "have the absence of a node start no recovery", options: "aphT", args: "<node> on [duration] | <node> off", nodes: true, max: 3, run: nodeMaintenance},
		{name: "drain", about: "move what a node holds to the others", options: "aphfT", undo: true, args: "<node>", nodes: true, needs: 1, max: 1, run: nodeDrain},
		{name: "md", about: "show or change the disks of a node", options: "aprAfhT", json: true, args: "[disks]", words: []word{
			{name: "info", about: "show the disks", nodes: true, run: nodeMDInfo},
			{name: "plug", about: "add disks", needs: 1, max: 1, run: notSupported},
			{name: "unplug", about: "remove disks", needs: 1, max: 1, run: notSupported},
		}},
		{name: "slow", about: "show the requests that have been in flight for long, and what they wait for", options: "aprhT", json: true, args: "[node]", nodes: true, max: 1, run: nodeSlow},
		{name: "stat", about: "show what the node has done", options: "aprwhT", json: true, run: nodeStat},
		{name: "log", about: "show or set how much the node logs", options: "aphT", words: []word{
			{name: "level", about: "get, set <level>, or list the levels there are", needs: 1, max: 2, run: nodeLogLevel},
		}},
		{name: "vnodes", about: "set the number of vnodes of the node", options: "aph", args: "<num of vnodes>", words: []word{
			{name: "set", about: "set the number of vnodes", needs: 1, max: 1, run: nodeVNodesSet},
		}},
		{name: "format", about: "choose the store of a node that does not run", options: "aphT", args: "<directory of sheep> <a name of store format>", needs: 1, max: 2, local: true, run: nodeFormat},
	}
}

func clusterCommands() []command {
	return []command{
		{name: "info", about: "show the state and the history of the cluster", options: "aprhvTd", json: true, nodes: true, run: clusterInfo},
		{name: "health", about: "say how the cluster is, for people and monitors", options: "aphT", json: true, run: clusterHealth},
		{name: "members", about: "show who decides in a cluster of several machines", options: "aprhT", json: true, run: clusterMembers},
		{name: "format", about: "make a new, empty cluster of the nodes", options: "bcltaphzTVRfF", nodes: true, run: clusterFormat},
		{name: "shutdown", about: "stop all daemons", options: "aphT", run: clusterShutdown},
		{name: "snapshot", about: "save the cluster to a directory, or load it", options: "aphTm", args: "<tag|idx> <path> [vdi1] [vdi2] ...", words: []word{
			{name: "save", about: "save the snapshots of images", needs: 1, max: -1, run: notSupported},
			{name: "list", about: "list what was saved", needs: 1, max: 1, run: notSupported},
			{name: "load", about: "format the cluster and load what was saved", needs: 1, max: -1, run: notSupported},
			{name: "show", about: "show the images of a saved cluster", needs: 1, max: 2, run: notSupported},
		}},
		{name: "recover", about: "control recovery", options: "afphT", words: []word{
			{name: "force", about: "run without the members that are missing", run: clusterRecoverForce},
			{name: "enable", about: "recover after membership changes", run: clusterRecoverEnable},
			{name: "disable", about: "do not recover after membership changes", run: clusterRecoverDisable},
			{name: "delay", about: "show or set how long nodes that left are waited for", max: 1, run: clusterRecoverDelay},
		}},
		{name: "deadline", about: "show or set how long clients wait for a request", options: "aphT", args: "[<seconds> | forever]", max: 1, run: clusterDeadline},
		{name: "reweight", about: "adapt the vnodes to the sizes of the disks", options: "aphT", run: notSupported},
		{name: "check", about: "compare and repair the copies of all images, look for leaked objects", options: "aphvTf", sweep: true, nodes: true, run: clusterCheck},
		{name: "alter-copy", about: "change the default redundancy", options: "aphTcf", run: notSupported},
	}
}

func nbdCommands() []command {
	return []command{
		{name: "list", about: "list what a sheep exports and what is attached here", options: "nrhT", json: true, run: nbdList},
		{name: "attach", about: "make an exported disk a block device of this machine", options: "nctdbRMFlfhT", args: "<export> [/dev/nbdN]", needs: 1, max: 2, run: nbdAttach, guess: guessExport},
		{name: "detach", about: "end a block device", options: "nfhT", args: "<export> | /dev/nbdN", needs: 1, max: 1, run: nbdDetach, guess: guessDevice},
		{name: "monitor", about: "replace the connections of a block device that die (attach starts it)", options: "nclhT", args: "<export> | /dev/nbdN [export]", needs: 1, max: 2, run: nbdMonitor, guess: guessDevice},
	}
}

// notSupported runs the commands that exist in other versions of dog.
func notSupported(_ context.Context, s *session) error {
	return fail(ExitFailure, "%s: %s: not supported yet", s.app.env.Program, s.fullName())
}
