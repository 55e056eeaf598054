package attach

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Constants of the handshake under the names of the specification. Those that
// go-nbd defines are taken from there, the others continue them. Servers have
// seen them all: never renumber.
const (
	magicServer   = protocol.NEGOTIATION_MAGIC_OLDSTYLE // "NBDMAGIC", of all styles
	magicOldstyle = uint64(0x420281861253)
	magicOption   = protocol.NEGOTIATION_MAGIC_OPTION // "IHAVEOPT"
	magicReply    = protocol.NEGOTIATION_MAGIC_REPLY

	flagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	flagNoZeroes      = uint16(1 << 1)

	optAbort = protocol.NEGOTIATION_ID_OPTION_ABORT
	optList  = protocol.NEGOTIATION_ID_OPTION_LIST
	optInfo  = protocol.NEGOTIATION_ID_OPTION_INFO
	optGo    = protocol.NEGOTIATION_ID_OPTION_GO

	repACK        = protocol.NEGOTIATION_TYPE_REPLY_ACK
	repServer     = protocol.NEGOTIATION_TYPE_REPLY_SERVER
	repInfo       = protocol.NEGOTIATION_TYPE_REPLY_INFO
	repError      = uint32(1 << 31) // a flag
	repErrUnsup   = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED
	repErrPolicy  = uint32(1<<31 | 2)
	repErrTLSReqd = uint32(1<<31 | 5)
	repErrUnknown = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN

	infoExport    = protocol.NEGOTIATION_TYPE_INFO_EXPORT
	infoBlockSize = protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE
)

// Sizes of what is on the wire, and the bounds of what is believed.
const (
	helloSize  = 18
	replySize  = 20
	exportSize = 12
	blocksSize = 14

	maxString  = 4096             // of names and descriptions, by the specification
	maxReply   = 2*maxString + 64 // data of one reply
	maxExports = 1 << 20          // in a list
	maxInfos   = 64               // in the answer about one export
)

// A Flags tells what an export can do: the transmission flags of the protocol.
type Flags uint16

// The flags that matter to those who attach.
const (
	HasFlags  = Flags(protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS)
	ReadOnly  = Flags(1 << 1)
	SendFlush = Flags(1 << 2)
	MultiConn = Flags(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN)
)

// An Info is what a server says about an export.
type Info struct {
	Size     uint64 // bytes
	Flags    Flags
	MinBlock uint32 // requests must be aligned to it, a power of two; 0 if the server does not say
}

// A reply is the header of a server's answer to an option.
//
//	offset  size  field, big-endian
//	     0     8  magic
//	     8     4  option that is answered
//	    12     4  type; the highest bit means an error
//	    16     4  length of the data that follow
type reply struct {
	option, kind, length uint32
}

// decodeReply decodes a header of replySize bytes. It refuses lengths above
// maxReply, so a caller may allocate that much.
func decodeReply(b []byte) (reply, error) {
	if len(b) != replySize || binary.BigEndian.Uint64(b) != magicReply {
		return reply{}, fmt.Errorf("%w: no reply to an option", ErrServer)
	}
	r := reply{
		option: binary.BigEndian.Uint32(b[8:]),
		kind:   binary.BigEndian.Uint32(b[12:]),
		length: binary.BigEndian.Uint32(b[16:]),
	}
	if r.length > maxReply {
		return reply{}, fmt.Errorf("%w: %d bytes in one reply", ErrServer, r.length)
	}
	return r, nil
}

// appendOption appends an option and its data.
func appendOption(b []byte, option uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// appendAsk appends the data of INFO and GO: the name with its length in front,
// and what is wanted besides the size, which is the block size.
func appendAsk(b []byte, export string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint16(b, 1)
	return binary.BigEndian.AppendUint16(b, infoBlockSize)
}

// decodeServer decodes the data of a reply to LIST: a name with its length in
// front, then the description.
func decodeServer(b []byte) (name, description string, err error) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return "", "", fmt.Errorf("%w: the name of an export does not end", ErrServer)
	}
	n := binary.BigEndian.Uint32(b)
	name, description = string(b[4:4+n]), string(b[4+n:])
	if len(name) > maxString || !utf8.ValidString(name) || len(description) > maxString {
		return "", "", fmt.Errorf("%w: the name of an export is no good", ErrServer)
	}
	return name, description, nil
}

// decode adds the data of an INFO reply to i. What it does not know it ignores,
// as the specification demands.
func (i *Info) decode(b []byte) error {
	if len(b) < 2 {
		return fmt.Errorf("%w: information without a type", ErrServer)
	}
	switch binary.BigEndian.Uint16(b) {
	case infoExport:
		if len(b) != exportSize {
			return fmt.Errorf("%w: %d bytes about the size of the export", ErrServer, len(b))
		}
		i.Size = binary.BigEndian.Uint64(b[2:])
		i.Flags = Flags(binary.BigEndian.Uint16(b[10:]))
		if i.Flags&HasFlags == 0 || i.Size > maxSize {
			return fmt.Errorf("%w: an export of %d bytes with the flags %#x", ErrServer, i.Size, uint16(i.Flags))
		}
	case infoBlockSize:
		if len(b) != blocksSize {
			return fmt.Errorf("%w: %d bytes about the block size", ErrServer, len(b))
		}
		i.MinBlock = binary.BigEndian.Uint32(b[2:])
		if i.MinBlock == 0 || i.MinBlock&(i.MinBlock-1) != 0 || i.MinBlock > maxMinBlock {
			return fmt.Errorf("%w: blocks of %d bytes", ErrServer, i.MinBlock)
		}
	}
	return nil
}

const (
	maxSize     = 1<<63 - 1 // the kernel's offsets have a sign
	maxMinBlock = 64 << 10  // by the specification
)
