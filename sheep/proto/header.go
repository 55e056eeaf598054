package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// HeaderSize is the length of a request's and of a response's header.
const HeaderSize = 48

// MaxData bounds the data of one message: the largest object and some room.
// How much of it an operation may use is for the server to say.
const MaxData = 2<<30 + 64<<10

// The versions that headers carry; Opcode.AcceptsVersion says where.
const (
	ClientVersion   = 2  // of opcodes below 0x80
	InternalVersion = 10 // of C's opcodes from 0x80
	PeerVersion     = 1  // of our own opcodes between daemons
)

// ErrMalformed says that bytes are not what they should be. It matches
// sheep.ErrInvalid.
var ErrMalformed = fmt.Errorf("malformed message: %w", sheep.ErrInvalid)

// Flags are the flags of a request.
type Flags uint16

// The flags, as peers have seen them: never renumber. FlagWildcard and
// FlagAttrCreate are one bit, told apart by the opcode.
const (
	FlagWrite     Flags = 0x0001 // data follows the request
	FlagCOW       Flags = 0x0002 // on create: start from ObjectBody.COW
	FlagCache     Flags = 0x0004 // the client flushes; the write may be deferred
	FlagDirect    Flags = 0x0008 // bypass every cache
	FlagPiggyback Flags = 0x0010 // data is returned although data was sent
	FlagTGT       Flags = 0x0020 // an iSCSI target that takes part in inode coherence
	FlagFwd       Flags = 0x0040 // a gateway's request to itself
	FlagRecovery  Flags = 0x0080 // sent by recovery
	FlagWildcard  Flags = 0x0100 // READ_PEER by recovery: any epoch's copy will do

	FlagAttrCreate Flags = 0x0100 // GET_VDI_ATTR: create or set
	FlagAttrExcl   Flags = 0x0200 // GET_VDI_ATTR: fail if it exists
	FlagAttrDelete Flags = 0x0400 // GET_VDI_ATTR: delete
)

// Has reports whether all of the bits are set.
func (f Flags) Has(bits Flags) bool { return f&bits == bits }

// A Header precedes every request.
//
//	offset  size  field
//	     0     1  protocol version
//	     1     1  opcode
//	     2     2  flags
//	     4     4  epoch the sender believes in; only peers look at it
//	     8     4  sequence number, echoed by the response
//	    12     4  length of the data. With FlagWrite it follows the header,
//	              without it is the most that the sender wants in return
//	    16    32  body, laid out by the opcode
type Header struct {
	Version uint8
	Op      Opcode
	Flags   Flags
	Epoch   sheep.Epoch
	Seq     uint32
	DataLen uint32
	Body    [32]byte
}

// DecodeHeader decodes the header at the start of b. It refuses lengths above
// MaxData. It does not judge version and opcode: a wrong one is answered, it
// does not cost the connection.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, short("request header", len(b), HeaderSize)
	}
	le := binary.LittleEndian
	h := Header{
		Version: b[0],
		Op:      Opcode(b[1]),
		Flags:   Flags(le.Uint16(b[2:])),
		Epoch:   sheep.Epoch(le.Uint32(b[4:])),
		Seq:     le.Uint32(b[8:]),
		DataLen: le.Uint32(b[12:]),
		Body:    [32]byte(b[16:HeaderSize]),
	}
	if h.DataLen > MaxData {
		return Header{}, fmt.Errorf("%w: request of %d bytes of data", ErrMalformed, h.DataLen)
	}
	return h, nil
}

// Append appends the header's 48 bytes to b.
func (h Header) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, h.Version, byte(h.Op))
	b = le.AppendUint16(b, uint16(h.Flags))
	b = le.AppendUint32(b, uint32(h.Epoch))
	b = le.AppendUint32(b, h.Seq)
	b = le.AppendUint32(b, h.DataLen)
	return append(b, h.Body[:]...)
}

// Payload returns the number of bytes that follow the request.
func (h Header) Payload() uint32 {
	if h.Flags&FlagWrite == 0 {
		return 0
	}
	return h.DataLen
}

// Room returns the most bytes of data that a response to h may carry.
func (h Header) Room() uint32 {
	if h.Flags&FlagWrite != 0 && h.Flags&FlagPiggyback == 0 {
		return 0
	}
	return h.DataLen
}

// Response returns the response to h with the result, and with the rest as C
// fills it: version and flags zero, opcode and sequence number echoed.
func (h Header) Response(epoch sheep.Epoch, r Result) Response {
	return Response{Op: h.Op, Epoch: epoch, Seq: h.Seq, Result: r}
}

// A Response precedes every answer; DataLen bytes follow it.
//
//	offset  size  field
//	     0     1  protocol version, 0
//	     1     1  opcode of the request
//	     2     2  flags, 0
//	     4     4  epoch of the answering node
//	     8     4  sequence number of the request
//	    12     4  length of the data that follows
//	    16     4  result
//	    20    28  body, laid out by the opcode
type Response struct {
	Version uint8
	Op      Opcode
	Flags   Flags
	Epoch   sheep.Epoch
	Seq     uint32
	DataLen uint32
	Result  Result
	Body    [28]byte
}

// DecodeResponse decodes the response header at the start of b. It refuses
// lengths above MaxData; the caller knows how much it asked for and refuses
// more than that.
func DecodeResponse(b []byte) (Response, error) {
	if len(b) < HeaderSize {
		return Response{}, short("response header", len(b), HeaderSize)
	}
	le := binary.LittleEndian
	r := Response{
		Version: b[0],
		Op:      Opcode(b[1]),
		Flags:   Flags(le.Uint16(b[2:])),
		Epoch:   sheep.Epoch(le.Uint32(b[4:])),
		Seq:     le.Uint32(b[8:]),
		DataLen: le.Uint32(b[12:]),
		Result:  Result(le.Uint32(b[16:])),
		Body:    [28]byte(b[20:HeaderSize]),
	}
	if r.DataLen > MaxData {
		return Response{}, fmt.Errorf("%w: response of %d bytes of data", ErrMalformed, r.DataLen)
	}
	return r, nil
}

// Append appends the response header's 48 bytes to b.
func (r Response) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, r.Version, byte(r.Op))
	b = le.AppendUint16(b, uint16(r.Flags))
	b = le.AppendUint32(b, uint32(r.Epoch))
	b = le.AppendUint32(b, r.Seq)
	b = le.AppendUint32(b, r.DataLen)
	b = le.AppendUint32(b, uint32(r.Result))
	return append(b, r.Body[:]...)
}

// Err returns the error that r carries in answer to h, with the details that
// only the header has, or nil: a *sheep.StaleEpochError for an old epoch, a
// *sheep.NotOwnerError if the answer to an owner request names the owner, else
// what Result.Err returns.
func (r Response) Err(h Header) error {
	switch r.Result {
	case ResultSuccess:
		return nil
	case ResultOldEpoch:
		return &sheep.StaleEpochError{Sent: h.Epoch, Current: r.Epoch}
	case ResultNotOwner:
		if n := DecodeNotOwnerReply(r.Body); n.Owner.IsValid() {
			return &sheep.NotOwnerError{VDI: n.VDI, Owner: sheep.Node{Addr: n.Owner}}
		}
	}
	return r.Result.Err()
}

// short is the error for input that ends too early.
func short(what string, have, want int) error {
	return fmt.Errorf("%w: %s of %d bytes, want %d", ErrMalformed, what, have, want)
}
