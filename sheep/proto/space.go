package proto

import "encoding/binary"

// SpaceReportSize is the length of a SpaceReport.
const SpaceReportSize = 32

// A SpaceReport is the answer to GET_SPACE: how full the disk of a node is, in
// bytes. Each field has eight bytes, in this order.
type SpaceReport struct {
	Size     uint64 // of the disk; 0 if the node stores nothing
	Free     uint64
	NearFull uint64 // with less free, recovery brings no more copies
	Reserve  uint64 // with less free, writes that need space are refused
}

// DecodeSpaceReport decodes the record at the start of b.
func DecodeSpaceReport(b []byte) (SpaceReport, error) {
	if len(b) < SpaceReportSize {
		return SpaceReport{}, short("report of the space", len(b), SpaceReportSize)
	}
	le := binary.LittleEndian
	return SpaceReport{Size: le.Uint64(b), Free: le.Uint64(b[8:]), NearFull: le.Uint64(b[16:]), Reserve: le.Uint64(b[24:])}, nil
}

// Append appends the record's 32 bytes to b.
func (s SpaceReport) Append(b []byte) []byte {
	for _, n := range []uint64{s.Size, s.Free, s.NearFull, s.Reserve} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// Full says in words how full the disk is: "full", "near full", or nothing.
func (s SpaceReport) Full() string {
	switch {
	case s.Size == 0:
	case s.Free < s.Reserve:
		return "full"
	case s.Free < s.NearFull:
		return "near full"
	}
	return ""
}
