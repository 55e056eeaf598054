package gossip

import (
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// errBadCommand is what a command gets that no member of this version sends.
var errBadCommand = errors.New("malformed command")

// A commandKind says what a command does to the ledger. Logs have them: never
// renumber.
type commandKind uint8

const (
	commandJoin    commandKind = 1
	commandLeave   commandKind = 2
	commandMessage commandKind = 3
	commandReign   commandKind = 4 // the author of the log from here on; its first entry
)

// A command is an entry of Raft's log. Integers are little-endian.
//
//	offset  size  field
//	     0     1  kind
//	     1     8  incarnation: of who joins, leaves or proposes; of the leader that begins to reign
//	     9     8  time, nanoseconds since 1970 by the author's clock
//	    17     8  reign: that begins, or in which somebody is expelled; else 0
//	    25     1  length of the id of the node
//	    26        id: of the node that joins, or leads
//	              data: hello, reason, message; of a reign the cluster that it begins, if it begins one
type command struct {
	kind  commandKind
	who   sheep.Incarnation
	time  int64
	reign uint64
	id    string
	data  []byte
}

const commandHeader = 26

// maxCommand bounds a command that carries the longest data.
const maxCommand = commandHeader + 255 + cluster.MaxJoin

func (c command) append(b []byte) []byte {
	b = append(b, byte(c.kind))
	b = le.AppendUint64(b, uint64(c.who))
	b = le.AppendUint64(b, uint64(c.time))
	b = le.AppendUint64(b, c.reign)
	b = append(b, byte(len(c.id)))
	b = append(b, c.id...)
	return append(b, c.data...)
}

// decodeCommand is the inverse of append. The command's data is part of b.
func decodeCommand(b []byte) (command, error) {
	if len(b) < commandHeader || len(b) > maxCommand {
		return command{}, fmt.Errorf("%w: %d bytes", errBadCommand, len(b))
	}
	c := command{
		kind:  commandKind(b[0]),
		who:   sheep.Incarnation(le.Uint64(b[1:])),
		time:  int64(le.Uint64(b[9:])),
		reign: le.Uint64(b[17:]),
	}
	n := int(b[25])
	if len(b) < commandHeader+n {
		return command{}, fmt.Errorf("%w: id of %d bytes", errBadCommand, n)
	}
	c.id = string(b[commandHeader : commandHeader+n])
	c.data = b[commandHeader+n:]
	if c.kind < commandJoin || c.kind > commandReign {
		return command{}, fmt.Errorf("%w: kind %d", errBadCommand, c.kind)
	}
	return c, nil
}

// A kingdom is which history of which cluster a log tells. Its zero value is
// that of a node that knows of none.
//
//	offset  size  field
//	     0    16  cluster, drawn at random when it began
//	    16     4  branch: how often an operator has given up a majority that was lost
type kingdom struct {
	cluster [16]byte
	branch  uint32
}

const kingdomSize = 20

func (k kingdom) append(b []byte) []byte {
	return le.AppendUint32(append(b, k.cluster[:]...), k.branch)
}

func decodeKingdom(b []byte) (kingdom, error) {
	if len(b) != kingdomSize {
		return kingdom{}, fmt.Errorf("%w: cluster of %d bytes", errBadCommand, len(b))
	}
	return kingdom{[16]byte(b), le.Uint32(b[16:])}, nil
}

// known reports whether k is that of any cluster.
func (k kingdom) known() bool { return k.cluster != [16]byte{} }

func (k kingdom) String() string { return fmt.Sprintf("%x.%d", k.cluster[:4], k.branch) }
