package proto

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"sheepdog/sheep"
)

// Limits of the answer to GET_VDI_STATUS.
const (
	vdiStatusHead  = 16
	vdiStatusSize  = 48
	lockHolderSize = addrSize + 10
	maxHolderText  = 255
	addrSize       = 18 // of what appendAddr appends
)

// AsCluster is the deadline of a VDI that has none of its own.
const AsCluster time.Duration = -1

// A VDIStatusList is the answer to GET_VDI_STATUS: what the cluster's log says of a
// VDI or, if ObjectBody.ID is 0, of all VDIs that have an owner, a lock or a deadline
// of their own. Integers are little-endian, durations are nanoseconds.
//
//	offset  size  field
//	     0     8  deadline of the cluster, 0 for ever
//	     8     4  number of VDIs
//	    12     4  zero
//	    16        the VDIs, each:
//	           4  VDI
//	           1  bits
//	           1  number of lock holders
//	           2  zero
//	           8  generation of the ownership, 0 if nobody has it
//	          18  address (16) and port (2) of the owner, or zeroes
//	           6  zero
//	           8  deadline, -1 for that of the cluster, 0 for ever
//	              lock holders, each:
//	          18  address and port of the gateway
//	           8  since when: nanoseconds since 1970, 0 if not known
//	           2  zero
//	              kind and address of the client, each after its length (1)
type VDIStatusList struct {
	Deadline time.Duration
	VDIs     []VDIStatus
}

// The bits of a VDIStatus.
const (
	VDIDraining uint8 = 0x01 // the gateway before has not finished: nobody may write
	VDIFrozen   uint8 = 0x02 // the owner has it for an operation on the VDI, as a snapshot
	VDIBound    uint8 = 0x04 // the lock ends with its client
)

// A VDIStatus is one VDI of a VDIStatusList.
type VDIStatus struct {
	VDI        sheep.VDIID
	Bits       uint8
	Generation sheep.Generation
	Owner      netip.AddrPort // zero if nobody owns it
	Deadline   time.Duration
	Holders    []LockHolder
}

// A LockHolder is a gateway that has a lock, or shares it.
type LockHolder struct {
	Node   netip.AddrPort
	Since  int64 // nanoseconds since 1970; 0 if not known
	Client sheep.Client
}

// Append appends the list to b.
func (l VDIStatusList) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(l.Deadline))
	b = le.AppendUint64(b, uint64(uint32(len(l.VDIs))))
	for _, v := range l.VDIs {
		holders := v.Holders[:min(len(v.Holders), maxParticipants)]
		b = le.AppendUint32(b, uint32(v.VDI))
		b = append(b, v.Bits, uint8(len(holders)), 0, 0)
		b = le.AppendUint64(b, uint64(v.Generation))
		b = append(appendAddr(b, v.Owner), 0, 0, 0, 0, 0, 0)
		b = le.AppendUint64(b, uint64(v.Deadline))
		for _, h := range holders {
			b = le.AppendUint64(appendAddr(b, h.Node), uint64(h.Since))
			b = append(b, 0, 0)
			for _, text := range []string{h.Client.Kind, h.Client.Addr} {
				text = text[:min(len(text), maxHolderText)]
				b = append(append(b, uint8(len(text))), text...)
			}
		}
	}
	return b
}

// DecodeVDIStatusList decodes b.
func DecodeVDIStatusList(b []byte) (VDIStatusList, error) {
	le := binary.LittleEndian
	if len(b) < vdiStatusHead {
		return VDIStatusList{}, short("status of VDIs", len(b), vdiStatusHead)
	}
	l := VDIStatusList{Deadline: duration(b)}
	n := le.Uint64(b[8:])
	for b = b[vdiStatusHead:]; len(b) > 0; {
		v, size, ok := decodeVDIStatus(b)
		if !ok {
			return VDIStatusList{}, fmt.Errorf("%w: status of VDIs", ErrMalformed)
		}
		l.VDIs = append(l.VDIs, v)
		b = b[size:]
	}
	if n != uint64(len(l.VDIs)) {
		return VDIStatusList{}, fmt.Errorf("%w: status of %d VDIs, not %d", ErrMalformed, len(l.VDIs), n)
	}
	return l, nil
}

// decodeVDIStatus decodes the record at the start of b, and returns its length.
func decodeVDIStatus(b []byte) (v VDIStatus, n int, ok bool) {
	le := binary.LittleEndian
	if len(b) < vdiStatusSize || b[5] > maxParticipants {
		return v, 0, false
	}
	v = VDIStatus{
		VDI: sheep.VDIID(le.Uint32(b)), Bits: b[4], Generation: sheep.Generation(le.Uint64(b[8:])), Owner: decodeAddr(b[16:]),
		Deadline: time.Duration(le.Uint64(b[40:])),
	}
	if v.Deadline < AsCluster {
		return v, 0, false
	}
	n = vdiStatusSize
	for range b[5] {
		if len(b) < n+lockHolderSize {
			return v, 0, false
		}
		h := LockHolder{Node: decodeAddr(b[n:]), Since: int64(le.Uint64(b[n+addrSize:]))}
		n += lockHolderSize
		for _, text := range []*string{&h.Client.Kind, &h.Client.Addr} {
			if len(b) < n+1 || len(b) < n+1+int(b[n]) {
				return v, 0, false
			}
			size := int(b[n])
			*text = string(b[n+1 : n+1+size])
			n += 1 + size
		}
		v.Holders = append(v.Holders, h)
	}
	return v, n, true
}

// DeadlineOrderSize is the length of a DeadlineOrder.
const DeadlineOrderSize = 16

// A DeadlineOrder sets how long clients wait: the data of SET_DEADLINE.
//
//	offset  size  field
//	     0     4  VDI, or 0 for the cluster
//	     4     4  zero
//	     8     8  nanoseconds, 0 for ever, -1 (of a VDI) for that of the cluster
type DeadlineOrder struct {
	VDI      sheep.VDIID
	Deadline time.Duration
}

// Append appends the order to b.
func (o DeadlineOrder) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(o.VDI))
	return binary.LittleEndian.AppendUint64(b, uint64(o.Deadline))
}

// DecodeDeadlineOrder decodes b.
func DecodeDeadlineOrder(b []byte) (DeadlineOrder, error) {
	if len(b) < DeadlineOrderSize {
		return DeadlineOrder{}, short("deadline", len(b), DeadlineOrderSize)
	}
	vdi := binary.LittleEndian.Uint64(b)
	o := DeadlineOrder{VDI: sheep.VDIID(vdi), Deadline: time.Duration(binary.LittleEndian.Uint64(b[8:]))}
	if vdi > math.MaxUint32 || o.Deadline < AsCluster {
		return DeadlineOrder{}, fmt.Errorf("%w: deadline %d of VDI %x", ErrMalformed, o.Deadline, vdi)
	}
	return o, nil
}
