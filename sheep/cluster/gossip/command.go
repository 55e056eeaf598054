package gossip

import (
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// errBadCommand is what a command gets that no member of this version sends.
var errBadCommand = errors.New("malformed command")

// A commandKind says what a command does to the FSM. Logs have them: never
// renumber.
type commandKind uint8

const (
	commandJoin       commandKind = 1
	commandLeave      commandKind = 2
	commandMessage    commandKind = 3
	commandLeadership commandKind = 4 // a leader's first command
	commandExpel      commandKind = 5 // members leave in one step
	commandJoinAll    commandKind = 6 // nodes join in one step
)

// A command is the data of an entry of Raft's log. Integers are little-endian.
//
//	offset  size  field
//	     0     1  kind
//	     1     8  incarnation: of the member that joins, leaves or proposes; of the leader; else 0
//	     9     8  time, nanoseconds since 1970 by the author's clock
//	    17     8  leadership: that begins, or during which members are expelled; else 0
//	    25     1  length of the node's ID
//	    26        ID of the node that joins, or leads
//	              data: hello, reason, message; of a leadership the cluster ID; of an
//	              expulsion see there; of nodes that join in one step for each the
//	              length of its join (4 bytes), and that
type command struct {
	kind       commandKind
	inc        sheep.Incarnation
	time       int64
	leadership uint64
	id         string
	data       []byte
}

const commandHeader = 26

// maxCommand bounds a command that carries the longest data.
const maxCommand = commandHeader + 255 + cluster.MaxJoin

func (c command) append(b []byte) []byte {
	b = append(b, byte(c.kind))
	b = le.AppendUint64(b, uint64(c.inc))
	b = le.AppendUint64(b, uint64(c.time))
	b = le.AppendUint64(b, c.leadership)
	b = append(b, byte(len(c.id)))
	b = append(b, c.id...)
	return append(b, c.data...)
}

// maxJoinAll bounds the data of a commandJoinAll, unless it has one join only.
const maxJoinAll = 8 << 20

// decodeCommand is the inverse of append. The command's data is part of b.
func decodeCommand(b []byte) (command, error) {
	if len(b) < commandHeader || len(b) > maxJoinAll+maxCommand {
		return command{}, fmt.Errorf("%w: %d bytes", errBadCommand, len(b))
	}
	c := command{
		kind:       commandKind(b[0]),
		inc:        sheep.Incarnation(le.Uint64(b[1:])),
		time:       int64(le.Uint64(b[9:])),
		leadership: le.Uint64(b[17:]),
	}
	n := int(b[25])
	if len(b) < commandHeader+n {
		return command{}, fmt.Errorf("%w: ID of %d bytes", errBadCommand, n)
	}
	c.id = string(b[commandHeader : commandHeader+n])
	c.data = b[commandHeader+n:]
	if c.kind < commandJoin || c.kind > commandJoinAll {
		return command{}, fmt.Errorf("%w: kind %d", errBadCommand, c.kind)
	}
	return c, nil
}

// An expulsion is the data of a commandExpel:
//
//	offset  size  field
//	     0     1  1 if no member that stays is known to live, else 0
//	     1     4  number of members; each: incarnation
//	              reason
type expulsion struct {
	alone   bool
	members []sheep.Incarnation
	reason  string
}

func (x expulsion) append(b []byte) []byte {
	alone := byte(0)
	if x.alone {
		alone = 1
	}
	b = le.AppendUint32(append(b, alone), uint32(len(x.members)))
	for _, inc := range x.members {
		b = le.AppendUint64(b, uint64(inc))
	}
	return append(b, x.reason...)
}

// decodeExpulsion is the inverse of append.
func decodeExpulsion(b []byte) (expulsion, error) {
	r := &reader{b: b}
	x := expulsion{alone: r.take(1)[0] != 0}
	for range r.count(8) {
		x.members = append(x.members, sheep.Incarnation(le.Uint64(r.take(8))))
	}
	if r.short {
		return expulsion{}, fmt.Errorf("%w: expulsion of %d bytes", errBadCommand, len(b))
	}
	x.reason = string(r.b)
	return x, nil
}

// joinAll returns a command for all of joins, or for as many of the first ones
// as one command takes.
func joinAll(joins []command) command {
	all := command{kind: commandJoinAll}
	for _, c := range joins {
		all.time = max(all.time, c.time)
		b := c.append(nil)
		if len(all.data) > 0 && len(all.data)+len(b) > maxJoinAll {
			break
		}
		all.data = append(le.AppendUint32(all.data, uint32(len(b))), b...)
	}
	return all
}

// decodeJoinAll returns the joins of a commandJoinAll.
func decodeJoinAll(b []byte) ([]command, error) {
	var joins []command
	for r := (&reader{b: b}); len(r.b) > 0; {
		c, err := decodeCommand(r.take(int(le.Uint32(r.take(4)))))
		if err != nil {
			return nil, err
		}
		if r.short || c.kind != commandJoin {
			return nil, fmt.Errorf("%w: kind %d among joins", errBadCommand, c.kind)
		}
		joins = append(joins, c)
	}
	return joins, nil
}
