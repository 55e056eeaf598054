package native

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// The parts of an inode that clients know.
const (
	InodeHeaderSize = 4664    // up to the map
	InodeClientSize = 4198968 // with the map
)

// InodeID returns the object id of the inode of a VDI.
func InodeID(vid uint32) uint64 { return 1<<63 | uint64(vid)<<32 }

// DataID returns the object id of the index'th data object of a VDI.
func DataID(vid, index uint32) uint64 { return uint64(vid)<<32 | uint64(index) }

// ObjectBody returns the body of a request about an object.
func ObjectBody(oid, cow uint64, copies uint8, offset uint32) (b [32]byte) {
	binary.LittleEndian.PutUint64(b[0:], oid)
	binary.LittleEndian.PutUint64(b[8:], cow)
	b[16] = copies
	binary.LittleEndian.PutUint32(b[24:], offset)
	return b
}

// VDIBody returns the body of a request about a VDI.
func VDIBody(size uint64, base uint32, copies, policy, shift uint8, snap, lock uint32) (b [32]byte) {
	binary.LittleEndian.PutUint64(b[0:], size)
	binary.LittleEndian.PutUint32(b[8:], base)
	b[12], b[13], b[15] = copies, policy, shift
	binary.LittleEndian.PutUint32(b[16:], snap)
	binary.LittleEndian.PutUint32(b[20:], lock)
	return b
}

// Name returns a NUL-padded name of 256 bytes.
func Name(s string) []byte {
	b := make([]byte, 256)
	copy(b, s)
	return b
}

// CreateVDI makes a disk and returns its number. Zero copies means what the
// cluster says.
func CreateVDI(ctx context.Context, c *Conn, name string, size uint64, copies uint8) (uint32, error) {
	resp, err := c.Do(ctx, &Request{Op: OpNewVDI, Flags: FlagWrite, Data: Name(name), Body: VDIBody(size, 0, copies, 0, 0, 0, 0)})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("create %q: %w", name, err)
	}
	return binary.LittleEndian.Uint32(resp.Body[4:]), nil
}

// LookUp returns the number of the working VDI of that name.
func LookUp(ctx context.Context, c *Conn, name string) (uint32, error) {
	resp, err := c.Do(ctx, &Request{Proto: 1, Op: OpGetVDIInfo, Flags: FlagWrite, Data: append(Name(name), Name("")...)})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("look up %q: %w", name, err)
	}
	return binary.LittleEndian.Uint32(resp.Body[4:]), nil
}

// A Node is an entry of the node list.
type Node struct {
	Addr   netip.AddrPort
	VNodes uint16
	Zone   uint32
}

// A Status is what one node says about the cluster.
type Status struct {
	Epoch  uint32
	Result Result // Success when the cluster runs
	Nodes  []Node
}

// Stat asks the node at the other end how the cluster is.
func Stat(ctx context.Context, c *Conn) (Status, error) {
	resp, err := c.Do(ctx, &Request{Proto: 10, Op: OpStatCluster, Into: make([]byte, 48)})
	if err != nil {
		return Status{}, err
	}
	s := Status{Epoch: resp.Epoch, Result: resp.Result}
	const entry = 80
	resp, err = c.Do(ctx, &Request{Proto: 10, Op: OpGetNodeList, Into: make([]byte, 6144*entry)})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return Status{}, fmt.Errorf("node list: %w", err)
	}
	for b := resp.Data; len(b) >= entry; b = b[entry:] {
		s.Nodes = append(s.Nodes, decodeNode(b))
	}
	return s, nil
}

func decodeNode(b []byte) Node {
	addr := netip.AddrFrom16([16]byte(b[24:40]))
	if [12]byte(b[24:36]) == [12]byte{} && b[36] != 0 {
		addr = netip.AddrFrom4([4]byte(b[36:40]))
	}
	return Node{
		Addr:   netip.AddrPortFrom(addr, binary.LittleEndian.Uint16(b[40:])),
		VNodes: binary.LittleEndian.Uint16(b[64:]),
		Zone:   binary.LittleEndian.Uint32(b[68:]),
	}
}

// Recovering reports whether the node at the other end is fetching objects.
func Recovering(ctx context.Context, c *Conn) (bool, error) {
	resp, err := c.Do(ctx, &Request{Proto: 10, Op: OpStatRecovery, Into: make([]byte, 24)})
	if err != nil {
		return false, err
	}
	if err := resp.Err(); err != nil {
		return false, err
	}
	return len(resp.Data) > 0 && resp.Data[0] != 0, nil
}

// Ask dials server, runs fn on the connection and closes it.
func Ask[T any](ctx context.Context, server string, fn func(context.Context, *Conn) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := Dial(ctx, server)
	if err != nil {
		var zero T
		return zero, err
	}
	defer c.Close()
	return fn(ctx, c)
}
