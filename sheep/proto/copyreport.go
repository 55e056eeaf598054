package proto

import (
	"encoding/binary"
)

// CopyReportSize is the length of a CopyReport.
const CopyReportSize = CopyStateSize + 32

// A CopyReport is the answer to GET_COPY: what a node says of its copy of one
// object, and the hash of what it has read of it for this answer.
//
//	offset  size  field
//	     0    24  CopyState
//	    24     8  when the life of the answering daemon began, by the index of the cluster's log
//	    32    20  SHA-1 of the stored object; zero if it was not read
//	    52     4  result of reading it
type CopyReport struct {
	CopyState
	Joined uint64
	Digest [20]byte
	Read   Result
}

// DecodeCopyReport decodes the record at the start of b.
func DecodeCopyReport(b []byte) (CopyReport, error) {
	if len(b) < CopyReportSize {
		return CopyReport{}, short("copy report", len(b), CopyReportSize)
	}
	state, err := DecodeCopyState(b)
	if err != nil {
		return CopyReport{}, err
	}
	le := binary.LittleEndian
	return CopyReport{
		CopyState: state,
		Joined:    le.Uint64(b[24:]),
		Digest:    [20]byte(b[32:]),
		Read:      Result(le.Uint32(b[52:])),
	}, nil
}

// Append appends the record's 56 bytes to b.
func (c CopyReport) Append(b []byte) []byte {
	b = c.CopyState.Append(b)
	b = binary.LittleEndian.AppendUint64(b, c.Joined)
	b = append(b, c.Digest[:]...)
	return binary.LittleEndian.AppendUint32(b, uint32(c.Read))
}

// Exists reports whether the node has a copy.
func (c CopyReport) Exists() bool { return c.Bits&CopyExists != 0 }

// Trusted reports whether the node knows its copy, or the absence of one, to be
// current.
func (c CopyReport) Trusted() bool { return c.Bits&CopyTrusted != 0 }
