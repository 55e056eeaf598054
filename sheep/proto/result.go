package proto

import (
	"context"
	"errors"
	"fmt"

	"sheepdog/sheep"
)

// A Result says how a request ended.
type Result uint32

// The results, as peers have seen them: never renumber.
const (
	ResultSuccess       Result = 0x00
	ResultUnknown       Result = 0x01
	ResultNoObject      Result = 0x02
	ResultIO            Result = 0x03
	ResultVDIExists     Result = 0x04
	ResultInvalid       Result = 0x05 // in answer to FLUSH_VDI: no need to flush, ever
	ResultSystemError   Result = 0x06
	ResultVDILocked     Result = 0x07
	ResultNoVDI         Result = 0x08
	ResultNoBaseVDI     Result = 0x09
	ResultVDIRead       Result = 0x0A
	ResultVDIWrite      Result = 0x0B
	ResultBaseVDIRead   Result = 0x0C
	ResultBaseVDIWrite  Result = 0x0D
	ResultNoTag         Result = 0x0E
	ResultStartup       Result = 0x0F
	ResultVDINotLocked  Result = 0x10
	ResultShutdown      Result = 0x11
	ResultNoMemory      Result = 0x12
	ResultFullVDI       Result = 0x13
	ResultVersion       Result = 0x14
	ResultNoSpace       Result = 0x15
	ResultWaitForFormat Result = 0x16
	ResultWaitForJoin   Result = 0x17
	ResultJoinFailed    Result = 0x18
	ResultHalt          Result = 0x19
	ResultReadOnly      Result = 0x1A
	ResultInvalidated   Result = 0x1D

	ResultOldEpoch     Result = 0x81
	ResultNewEpoch     Result = 0x82
	ResultNotFormatted Result = 0x83
	ResultInvalidCtime Result = 0x84
	ResultInvalidEpoch Result = 0x85
	ResultNetwork      Result = 0x86
	ResultNoCache      Result = 0x87
	ResultBufferSmall  Result = 0x88
	ResultForceRecover Result = 0x89
	ResultNoStore      Result = 0x8A
	ResultNotSupported Result = 0x8B
	ResultInRecovery   Result = 0x8C
	ResultKilled       Result = 0x8D
	ResultObjectExists Result = 0x8E
	ResultAgain        Result = 0x8F
	ResultStaleObject  Result = 0x90
	ResultCluster      Result = 0x91
	ResultVDINotEmpty  Result = 0x92
	ResultNotFound     Result = 0x93
	ResultIncomplete   Result = 0x94
	ResultCollecting   Result = 0x95
	ResultGatewayMode  Result = 0x97
	ResultVNodes       Result = 0x98
	ResultNoCheckpoint Result = 0x99
)

// Results of our own peer and owner wire; clients never see them, ForClient
// sees to that. Never renumber.
const (
	ResultNotOwner   Result = 0xE0
	ResultStaleOwner Result = 0xE1
	ResultStaleCopy  Result = 0xE2
)

// Conditions that have a result but no error in package sheep: most only dog
// and other administration tools ever see.
var (
	ErrUnknown        = errors.New("unknown error")
	ErrNoBaseVDI      = errors.New("no base VDI found")
	ErrVDIRead        = errors.New("failed to read from requested VDI")
	ErrVDIWrite       = errors.New("failed to write to requested VDI")
	ErrBaseVDIRead    = errors.New("failed to read from base VDI")
	ErrBaseVDIWrite   = errors.New("failed to write to base VDI")
	ErrStartup        = errors.New("system is still booting")
	ErrVDINotLocked   = errors.New("VDI is not locked")
	ErrJoinFailed     = errors.New("node has failed to join cluster")
	ErrOldEpoch       = errors.New("request has an old epoch")
	ErrNewEpoch       = errors.New("request has a new epoch")
	ErrNotFormatted   = errors.New("cluster has not been formatted")
	ErrInvalidCtime   = errors.New("creation times differ")
	ErrInvalidEpoch   = errors.New("invalid epoch")
	ErrNoCache        = errors.New("no cache object found")
	ErrForceRecover   = errors.New("cluster is running or halted and cannot be force recovered")
	ErrNoStore        = errors.New("targeted backend store is not found")
	ErrInRecovery     = errors.New("targeted node is in recovery")
	ErrObjectExists   = errors.New("object ID exists already")
	ErrStaleObject    = errors.New("object may be stale")
	ErrVDINotEmpty    = errors.New("VDI is not empty")
	ErrNotFound       = errors.New("not found")
	ErrIncomplete     = errors.New("object is still being uploaded")
	ErrCollecting     = errors.New("lock states are still being collected")
	ErrGatewayMode    = errors.New("targeted node is gateway mode")
	ErrVNodesStrategy = errors.New("invalid cluster vnodes strategy")
	ErrNoCheckpoint   = errors.New("no checkpoint entry")
)

// results is the one table of results: code, error, and the text that dog
// prints and scripts match. A code without text prints as C prints it, as an
// invalid one. An error is carried by the first code that it matches, so "no
// object" comes last: it is a statement on all copies, and one joined with
// another error is none. Never written.
var results = [...]struct {
	code Result
	err  error
	text string
}{
	{ResultNotOwner, sheep.ErrNotOwner, "Gateway does not own the VDI"},
	{ResultStaleOwner, sheep.ErrStaleOwner, "Ownership of the VDI has moved on"},
	{ResultStaleCopy, sheep.ErrStaleCopy, "Copy is not known to be current"},
	{ResultOldEpoch, ErrOldEpoch, "Request has an old epoch"},
	{ResultNewEpoch, ErrNewEpoch, "Request has a new epoch"},
	{ResultUnknown, ErrUnknown, "Unknown error"},
	{ResultIO, sheep.ErrIO, "I/O error"},
	{ResultVDIExists, sheep.ErrVDIExists, "VDI exists already"},
	{ResultInvalid, sheep.ErrInvalid, "Invalid parameters"},
	{ResultSystemError, sheep.ErrSystem, "System error"},
	{ResultVDILocked, sheep.ErrVDILocked, "VDI is already locked"},
	{ResultNoVDI, sheep.ErrNoVDI, "No VDI found"},
	{ResultNoBaseVDI, ErrNoBaseVDI, "No base VDI found"},
	{ResultVDIRead, ErrVDIRead, "Failed to read from requested VDI"},
	{ResultVDIWrite, ErrVDIWrite, "Failed to write to requested VDI"},
	{ResultBaseVDIRead, ErrBaseVDIRead, "Failed to read from base VDI"},
	{ResultBaseVDIWrite, ErrBaseVDIWrite, "Failed to write to base VDI"},
	{ResultNoTag, sheep.ErrNoTag, "Failed to find requested tag"},
	{ResultStartup, ErrStartup, "System is still booting"},
	{ResultVDINotLocked, ErrVDINotLocked, "VDI is not locked"},
	{ResultShutdown, sheep.ErrShutdown, "System is shutting down"},
	{ResultNoMemory, sheep.ErrNoMemory, "Out of memory on server"},
	{ResultFullVDI, sheep.ErrFullVDI, "Maximum number of VDIs reached"},
	{ResultVersion, sheep.ErrVersion, "Protocol version mismatch"},
	{ResultNoSpace, sheep.ErrNoSpace, "Server has no space for new objects"},
	{ResultWaitForFormat, sheep.ErrWaitForFormat, "Waiting for cluster to be formatted"},
	{ResultWaitForJoin, sheep.ErrWaitForJoin, "Waiting for other nodes to join cluster"},
	{ResultJoinFailed, ErrJoinFailed, "Node has failed to join cluster"},
	{ResultHalt, sheep.ErrHalt, "IO has halted as there are not enough living nodes"},
	{ResultReadOnly, sheep.ErrReadOnly, "Object is read-only"},
	{ResultInvalidated, sheep.ErrInvalidated, "Inode object is invalidated"},
	{ResultNotFormatted, ErrNotFormatted, "Cluster has not been formatted"},
	{ResultInvalidCtime, ErrInvalidCtime, "Creation times differ"},
	{ResultInvalidEpoch, ErrInvalidEpoch, "Invalid epoch"},
	{ResultNetwork, sheep.ErrNetwork, "Network error between sheep"},
	{ResultNoCache, ErrNoCache, "No cache object found"},
	{ResultBufferSmall, sheep.ErrBufferSmall, "The buffer is too small"},
	{ResultForceRecover, ErrForceRecover, "Cluster is running/halted and cannot be force recovered"},
	{ResultNoStore, ErrNoStore, "Targeted backend store is not found"},
	{ResultNotSupported, sheep.ErrNotSupported, "Operation is not supported"},
	{ResultInRecovery, ErrInRecovery, "Targeted node is in recovery"},
	{ResultKilled, sheep.ErrKilled, "Node is killed"},
	{ResultObjectExists, ErrObjectExists, "Object ID exists already"},
	{ResultAgain, sheep.ErrAgain, "Ask to try again"},
	{ResultStaleObject, ErrStaleObject, "Object may be stale"},
	{ResultCluster, sheep.ErrCluster, "Cluster driver error"},
	{ResultVDINotEmpty, ErrVDINotEmpty, ""},
	{ResultNotFound, ErrNotFound, ""},
	{ResultIncomplete, ErrIncomplete, ""},
	{ResultCollecting, ErrCollecting, ""},
	{ResultGatewayMode, ErrGatewayMode, "Targeted node is gateway mode"},
	{ResultVNodes, ErrVNodesStrategy, "Invalid cluster vnodes strategy"},
	{ResultNoCheckpoint, ErrNoCheckpoint, ""},
	{ResultNoObject, sheep.ErrNoObject, "No object found"},
}

// A ResultError is a result that nobody has given a meaning.
type ResultError struct {
	Code Result
}

func (e *ResultError) Error() string { return e.Code.String() }

// Err returns the error that r stands for, nil for success, and a *ResultError
// for a code without a meaning. ResultOf(r.Err()) is r.
func (r Result) Err() error {
	if r == ResultSuccess {
		return nil
	}
	for i := range results {
		if results[i].code == r {
			return results[i].err
		}
	}
	return &ResultError{Code: r}
}

// ResultOf returns the result that carries err over the wire. Deferred writes
// that were lost are an I/O error to those who flush; a request that ended
// with its context or its time is a network error, which gateways retry; what
// nobody has foreseen is a system error.
func ResultOf(err error) Result {
	if err == nil {
		return ResultSuccess
	}
	if _, ok := errors.AsType[*sheep.StaleEpochError](err); ok {
		return ResultOldEpoch
	}
	for i := range results {
		if errors.Is(err, results[i].err) {
			return results[i].code
		}
	}
	if e, ok := errors.AsType[*ResultError](err); ok {
		return e.Code
	}
	switch {
	case errors.Is(err, sheep.ErrLostWrites):
		return ResultIO
	case errors.Is(err, context.Canceled), timedOut(err):
		return ResultNetwork
	}
	return ResultSystemError
}

// timedOut reports whether err is that of a deadline, of a context or a
// connection.
func timedOut(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && e.Timeout()
}

// ForClient returns r if C's clients know it. A result of our own wire becomes
// an I/O error.
func (r Result) ForClient() Result {
	switch r {
	case ResultNotOwner, ResultStaleOwner, ResultStaleCopy:
		return ResultIO
	}
	return r
}

// String returns the text that dog prints for r. Scripts match these texts:
// never reword.
func (r Result) String() string {
	if r == ResultSuccess {
		return "Success"
	}
	for i := range results {
		if results[i].code == r && results[i].text != "" {
			return results[i].text
		}
	}
	return fmt.Sprintf("Invalid error code %x", uint32(r))
}
