package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// A DamageClass says what is wrong with an object, from bad to worse.
type DamageClass uint8

// The classes: never renumber.
const (
	Degraded   DamageClass = 1 // a copy is missing, or not yet known to be current
	Unrepaired DamageClass = 2 // copies may differ, and are to be compared
	Unreadable DamageClass = 3 // no copy can be read now: all are damaged, or absent nodes have the newest
)

func (c DamageClass) String() string {
	switch c {
	case Degraded:
		return "degraded"
	case Unrepaired:
		return "unrepaired"
	case Unreadable:
		return "unreadable"
	}
	return fmt.Sprintf("damage %d", uint8(c))
}

// Limits of a DamageReport.
const (
	MaxDamaged = 16384
	DamageRoom = damageHead + MaxDamaged*damageSize

	damageHead = 16
	damageSize = 9
)

// A Damaged is an object that is not as it should be, as far as one node knows.
type Damaged struct {
	ID    sheep.ObjectID
	Class DamageClass
}

// A DamageReport is the answer to GET_DAMAGE.
//
//	offset  size  field
//	     0     8  number of objects that the answering node knows of; not all need follow
//	     8     8  cluster operations that are open
//	    16        objects, the worst first, each: 8 bytes id, 1 byte class
type DamageReport struct {
	Total   uint64
	Plans   uint64
	Objects []Damaged
}

// Append appends the report to b, its list cut to the limit.
func (r DamageReport) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint64(b, r.Total), r.Plans)
	for _, o := range r.Objects[:min(len(r.Objects), MaxDamaged)] {
		b = append(le.AppendUint64(b, uint64(o.ID)), byte(o.Class))
	}
	return b
}

// DecodeDamageReport decodes b.
func DecodeDamageReport(b []byte) (DamageReport, error) {
	le := binary.LittleEndian
	if len(b) < damageHead || len(b) > DamageRoom || (len(b)-damageHead)%damageSize != 0 {
		return DamageReport{}, fmt.Errorf("%w: report of damage, of %d bytes", ErrMalformed, len(b))
	}
	r := DamageReport{Total: le.Uint64(b), Plans: le.Uint64(b[8:])}
	for b = b[damageHead:]; len(b) > 0; b = b[damageSize:] {
		r.Objects = append(r.Objects, Damaged{ID: sheep.ObjectID(le.Uint64(b)), Class: DamageClass(b[8])})
	}
	return r, nil
}
