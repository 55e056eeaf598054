package proto_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// sentinels names the error of every code.
var sentinels = map[proto.Result]error{
	0x01: proto.ErrUnknown, 0x02: sheep.ErrNoObject, 0x03: sheep.ErrIO, 0x04: sheep.ErrVDIExists,
	0x05: sheep.ErrInvalid, 0x06: sheep.ErrSystem, 0x07: sheep.ErrVDILocked, 0x08: sheep.ErrNoVDI,
	0x09: proto.ErrNoBaseVDI, 0x0A: proto.ErrVDIRead, 0x0B: proto.ErrVDIWrite, 0x0C: proto.ErrBaseVDIRead,
	0x0D: proto.ErrBaseVDIWrite, 0x0E: sheep.ErrNoTag, 0x0F: proto.ErrStartup, 0x10: proto.ErrVDINotLocked,
	0x11: sheep.ErrShutdown, 0x12: sheep.ErrNoMemory, 0x13: sheep.ErrFullVDI, 0x14: sheep.ErrVersion,
	0x15: sheep.ErrNoSpace, 0x16: sheep.ErrWaitForFormat, 0x17: sheep.ErrWaitForJoin, 0x18: proto.ErrJoinFailed,
	0x19: sheep.ErrHalt, 0x1A: sheep.ErrReadOnly, 0x1D: sheep.ErrInvalidated,
	0x81: proto.ErrOldEpoch, 0x82: proto.ErrNewEpoch, 0x83: proto.ErrNotFormatted, 0x84: proto.ErrInvalidCtime,
	0x85: proto.ErrInvalidEpoch, 0x86: sheep.ErrNetwork, 0x87: proto.ErrNoCache, 0x88: sheep.ErrBufferSmall,
	0x89: proto.ErrForceRecover, 0x8A: proto.ErrNoStore, 0x8B: sheep.ErrNotSupported, 0x8C: proto.ErrInRecovery,
	0x8D: sheep.ErrKilled, 0x8E: proto.ErrObjectExists, 0x8F: sheep.ErrAgain, 0x90: proto.ErrStaleObject,
	0x91: sheep.ErrCluster, 0x92: proto.ErrVDINotEmpty, 0x93: proto.ErrNotFound, 0x94: proto.ErrIncomplete,
	0x95: proto.ErrCollecting, 0x97: proto.ErrGatewayMode, 0x98: proto.ErrVNodesStrategy, 0x99: proto.ErrNoCheckpoint,
	0xE0: sheep.ErrNotOwner, 0xE1: sheep.ErrStaleOwner, 0xE2: sheep.ErrStaleCopy,
}

func TestEveryResultIsAnErrorAndBack(t *testing.T) {
	named := 0
	for code := range proto.Result(0x100) {
		err := code.Err()
		if got := proto.ResultOf(err); got != code {
			t.Errorf("%#02x comes back as %#02x", uint32(code), uint32(got))
		}
		if got := proto.ResultOf(fmt.Errorf("read: %w", err)); err != nil && got != code {
			t.Errorf("%#02x, wrapped, comes back as %#02x", uint32(code), uint32(got))
		}
		want, ok := sentinels[code]
		if ok {
			named++
			if !errors.Is(err, want) {
				t.Errorf("%#02x is %v, want %v", uint32(code), err, want)
			}
			continue
		}
		if e, ok := errors.AsType[*proto.ResultError](err); code != 0 && (!ok || e.Code != code) {
			t.Errorf("%#02x is %v, want a ResultError", uint32(code), err)
		}
	}
	if named != len(sentinels) {
		t.Errorf("%d codes have a sentinel, want %d", named, len(sentinels))
	}
	if proto.ResultSuccess.Err() != nil {
		t.Error("success is an error")
	}
}

func TestErrorsThatHaveNoCodeOfTheirOwn(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want proto.Result
	}{
		{"a request of an old epoch", &sheep.StaleEpochError{Sent: 1, Current: 2}, proto.ResultOldEpoch},
		{"a wrapped one", fmt.Errorf("write: %w", &sheep.StaleEpochError{}), proto.ResultOldEpoch},
		{"another owner that is known", &sheep.NotOwnerError{VDI: 1}, proto.ResultNotOwner},
		{"lost writes", fmt.Errorf("flush: %w", sheep.ErrLostWrites), proto.ResultIO},
		{"a malformed message", proto.ErrMalformed, proto.ResultInvalid},
		{"a request that was cancelled", context.Canceled, proto.ResultNetwork},
		{"a request that took too long", context.DeadlineExceeded, proto.ResultNetwork},
		{"a connection that took too long", os.ErrDeadlineExceeded, proto.ResultNetwork},
		{"a cancelled request with a cause", errors.Join(context.Canceled, sheep.ErrShutdown), proto.ResultShutdown},
		{"copies that are absent and broken", errors.Join(sheep.ErrNoObject, sheep.ErrIO), proto.ResultIO},
		{"what nobody has foreseen", errors.New("oops"), proto.ResultSystemError},
	} {
		if got := proto.ResultOf(c.err); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestResultTexts(t *testing.T) {
	for code, want := range map[proto.Result]string{
		0x00: "Success", 0x01: "Unknown error", 0x02: "No object found", 0x03: "I/O error",
		0x04: "VDI exists already", 0x05: "Invalid parameters", 0x06: "System error",
		0x07: "VDI is already locked", 0x08: "No VDI found", 0x09: "No base VDI found",
		0x0A: "Failed to read from requested VDI", 0x0B: "Failed to write to requested VDI",
		0x0C: "Failed to read from base VDI", 0x0D: "Failed to write to base VDI",
		0x0E: "Failed to find requested tag", 0x0F: "System is still booting", 0x10: "VDI is not locked",
		0x11: "System is shutting down", 0x12: "Out of memory on server", 0x13: "Maximum number of VDIs reached",
		0x14: "Protocol version mismatch", 0x15: "Server has no space for new objects",
		0x16: "Waiting for cluster to be formatted", 0x17: "Waiting for other nodes to join cluster",
		0x18: "Node has failed to join cluster", 0x19: "IO has halted as there are not enough living nodes",
		0x1A: "Object is read-only", 0x1D: "Inode object is invalidated", 0x81: "Request has an old epoch",
		0x82: "Request has a new epoch", 0x83: "Cluster has not been formatted", 0x84: "Creation times differ",
		0x85: "Invalid epoch", 0x86: "Network error between sheep", 0x87: "No cache object found",
		0x88: "The buffer is too small", 0x89: "Cluster is running/halted and cannot be force recovered",
		0x8A: "Targeted backend store is not found", 0x8B: "Operation is not supported",
		0x8C: "Targeted node is in recovery", 0x8D: "Node is killed", 0x8E: "Object ID exists already",
		0x8F: "Ask to try again", 0x90: "Object may be stale", 0x91: "Cluster driver error",
		0x97: "Targeted node is gateway mode", 0x98: "Invalid cluster vnodes strategy",
		0x1B: "Invalid error code 1b", 0x95: "Invalid error code 95", 0xFFFFFFFF: "Invalid error code ffffffff",
	} {
		if got := code.String(); got != want {
			t.Errorf("%#02x: got %q, want %q", uint32(code), got, want)
		}
	}
}

func TestClientsNeverSeeOurOwnResults(t *testing.T) {
	for code := range proto.Result(0x100) {
		got := code.ForClient()
		switch {
		case code < 0xE0 && got != code:
			t.Errorf("%#02x becomes %#02x", uint32(code), uint32(got))
		case sentinels[got] != nil && got >= 0xE0:
			t.Errorf("%#02x stays %#02x", uint32(code), uint32(got))
		}
	}
}

func TestResponsesCarryTheirDetails(t *testing.T) {
	req := proto.Header{Op: proto.OpOwnerWrite, Epoch: 3}
	resp := req.Response(4, proto.ResultOldEpoch)
	stale, ok := errors.AsType[*sheep.StaleEpochError](resp.Err(req))
	if !ok || *stale != (sheep.StaleEpochError{Sent: 3, Current: 4}) {
		t.Errorf("old epoch: got %v", resp.Err(req))
	}

	owner := netip.MustParseAddrPort("10.0.0.2:7000")
	resp = req.Response(3, proto.ResultNotOwner)
	if err := resp.Err(req); !errors.Is(err, sheep.ErrNotOwner) {
		t.Errorf("unknown owner: got %v", err)
	}
	resp.Body = proto.NotOwnerReply{VDI: 9, Owner: owner}.Body()
	other, ok := errors.AsType[*sheep.NotOwnerError](resp.Err(req))
	if !ok || other.VDI != 9 || other.Owner.Addr != owner {
		t.Errorf("known owner: got %v", resp.Err(req))
	}

	if err := req.Response(3, proto.ResultSuccess).Err(req); err != nil {
		t.Errorf("success: got %v", err)
	}
	if err := req.Response(3, proto.ResultNoObject).Err(req); !errors.Is(err, sheep.ErrNoObject) {
		t.Errorf("no object: got %v", err)
	}
}
