package nbd

import "github.com/pojntfx/go-nbd/pkg/protocol"

// Constants of the protocol under the names of its specification. Those that
// go-nbd defines are taken from there, the others continue them. Clients have
// seen them all: never renumber.
const (
	magicOldstyle = protocol.NEGOTIATION_MAGIC_OLDSTYLE // "NBDMAGIC"
	magicOption   = protocol.NEGOTIATION_MAGIC_OPTION   // "IHAVEOPT"
	magicOptReply = protocol.NEGOTIATION_MAGIC_REPLY

	magicRequest    = protocol.TRANSMISSION_MAGIC_REQUEST
	magicReply      = protocol.TRANSMISSION_MAGIC_REPLY
	magicStructured = uint32(0x668e33ef)

	// Handshake flags of the server; the client answers with the same bits.
	flagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	flagNoZeroes      = uint16(1 << 1)

	optExportName      = uint32(1)
	optAbort           = protocol.NEGOTIATION_ID_OPTION_ABORT
	optList            = protocol.NEGOTIATION_ID_OPTION_LIST
	optStartTLS        = uint32(5)
	optInfo            = protocol.NEGOTIATION_ID_OPTION_INFO
	optGo              = protocol.NEGOTIATION_ID_OPTION_GO
	optStructuredReply = uint32(8)
	optListMeta        = uint32(9)
	optSetMeta         = uint32(10)

	repACK           = protocol.NEGOTIATION_TYPE_REPLY_ACK
	repServer        = protocol.NEGOTIATION_TYPE_REPLY_SERVER
	repInfo          = protocol.NEGOTIATION_TYPE_REPLY_INFO
	repMetaContext   = uint32(4)
	repErrUnsup      = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED
	repErrPolicy     = uint32(1<<31 | 2)
	repErrInvalid    = uint32(1<<31 | 3)
	repErrTLSReqd    = uint32(1<<31 | 5)
	repErrUnknown    = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN
	repErrShutdown   = uint32(1<<31 | 7)
	repErrTooBig     = uint32(1<<31 | 9)
	infoExport       = protocol.NEGOTIATION_TYPE_INFO_EXPORT
	infoName         = protocol.NEGOTIATION_TYPE_INFO_NAME
	infoDescription  = protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION
	infoBlockSize    = protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE
	contextSheepdog  = "sheepdog:shared"
	contextBaseAlloc = "base:allocation"

	// Transmission flags.
	hasFlags        = protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	readOnly        = uint16(1 << 1)
	sendFlush       = uint16(1 << 2)
	sendFUA         = uint16(1 << 3)
	sendTrim        = uint16(1 << 5)
	sendWriteZeroes = uint16(1 << 6)
	sendDF          = uint16(1 << 7)
	canMultiConn    = protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
	sendCache       = uint16(1 << 10)
	sendFastZero    = uint16(1 << 11)

	cmdRead        = protocol.TRANSMISSION_TYPE_REQUEST_READ
	cmdWrite       = protocol.TRANSMISSION_TYPE_REQUEST_WRITE
	cmdDisc        = protocol.TRANSMISSION_TYPE_REQUEST_DISC
	cmdFlush       = uint16(3)
	cmdTrim        = uint16(4)
	cmdCache       = uint16(5)
	cmdWriteZeroes = uint16(6)
	cmdBlockStatus = uint16(7)

	// Command flags.
	cmdFUA      = uint16(1 << 0)
	cmdNoHole   = uint16(1 << 1)
	cmdDF       = uint16(1 << 2)
	cmdReqOne   = uint16(1 << 3)
	cmdFastZero = uint16(1 << 4)

	// Chunks of structured replies.
	chunkDone        = uint16(1 << 0) // a flag
	chunkNone        = uint16(0)
	chunkOffsetData  = uint16(1)
	chunkOffsetHole  = uint16(2)
	chunkBlockStatus = uint16(5)
	chunkError       = uint16(1<<15 | 1)

	nbdEPERM     = errno(protocol.TRANSMISSION_ERROR_EPERM)
	nbdEIO       = errno(5)
	nbdENOMEM    = errno(12)
	nbdEINVAL    = errno(protocol.TRANSMISSION_ERROR_EINVAL)
	nbdENOSPC    = errno(28)
	nbdEOVERFLOW = errno(75)
	nbdENOTSUP   = errno(95)
	nbdESHUTDOWN = errno(108)
)

// Sizes of what is on the wire.
const (
	optionHeaderSize  = 16
	requestHeaderSize = 28
	simpleReplySize   = 16
	chunkHeaderSize   = 20

	maxString = 4096 // the specification's limit of names and descriptions
)
