package vdi

import (
	"context"
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
)

// maxProbes bounds the search for an attribute.
const maxProbes = 1 << 16

// An AttrAction is what is to be done with an attribute. The log of a cluster
// has the numbers: never renumber.
type AttrAction uint8

// The actions.
const (
	AttrGet    AttrAction = 0 // say where it is, sheep.ErrNoObject if it is not
	AttrSet    AttrAction = 1 // make it or replace its value
	AttrCreate AttrAction = 2 // make it, sheep.ErrVDIExists if it is there
	AttrDelete AttrAction = 3 // remove it, sheep.ErrNoObject if it is not there
)

// An AttrRequest names an attribute of the VDI that Query names, and says what
// to do with it. Value matters when it is set.
type AttrRequest struct {
	Query
	Key    string
	Value  []byte
	Action AttrAction
}

// Attr does what r asks for and returns the object that the attribute is in. Its
// VDI is the hash of the name: attributes belong to names, and outlive snapshots.
func (o *Operations) Attr(ctx context.Context, r AttrRequest) (sheep.ObjectID, error) {
	if len(r.Name) > maxName || len(r.Tag) > proto.LabelSize || len(r.Key) > proto.LabelSize ||
		len(r.Value) > proto.AttrValueSize || r.Action > AttrDelete {
		return 0, fmt.Errorf("%w: attribute %q of VDI %q", sheep.ErrInvalid, r.Key, r.Name)
	}
	if r.Action == AttrGet {
		if _, err := o.Lookup(ctx, r.Query); err != nil {
			return 0, err
		}
		id, found, err := o.probe(ctx, r)
		if err == nil && !found {
			err = fmt.Errorf("attribute %q of VDI %q: %w", r.Key, r.Name, sheep.ErrNoObject)
		}
		return id, err
	}
	result, err := o.planner.Plan(ctx, PlanAttr, attrPlan{AttrRequest: r}.encode())
	if err != nil {
		return 0, err
	}
	m, err := decodeMade(result)
	return sheep.AttrObject(m.VDI, m.Attr), err
}

// executeAttr runs PlanAttr. A plan whose effect is there already succeeds if
// it was this one: it may be run again.
func (o *Operations) executeAttr(ctx context.Context, p attrPlan) (made, error) {
	v, err := o.find(ctx, p.Query, 0)
	if err != nil {
		return made{}, err
	}
	id, found, err := o.probe(ctx, p.AttrRequest)
	switch {
	case err != nil:
		return made{}, err
	case found && p.Action == AttrCreate:
		same, err := o.holds(ctx, id, p.Value)
		if err != nil || !same || !p.retry {
			return made{}, errors.Join(err, fmt.Errorf("attribute %q of VDI %q: %w", p.Key, p.Name, sheep.ErrVDIExists))
		}
	case !found && p.Action == AttrDelete:
		if p.retry {
			break
		}
		return made{}, fmt.Errorf("attribute %q of VDI %q: %w", p.Key, p.Name, sheep.ErrNoObject)
	case p.Action == AttrDelete:
		w := sheep.Write{Data: []byte{0}, Durable: true} // stays, so that later ones are found
		if err := o.guard.Write(ctx, sheep.Ref{ID: id}, &w); err != nil {
			return made{}, err
		}
	default:
		if err := o.writeAttr(ctx, v, id, p.AttrRequest); err != nil {
			return made{}, err
		}
	}
	copies, _ := v.Policy.Wire()
	return made{VDI: id.VDI(), Attr: id.Index(), Copies: copies, BlockShift: v.BlockShift}, nil
}

func (o *Operations) writeAttr(ctx context.Context, v sheep.VDI, id sheep.ObjectID, r AttrRequest) error {
	h, err := ReadHeader(ctx, o.next, v)
	if err != nil {
		return err
	}
	a := proto.Attr{AttrHeader: r.header(), Value: r.Value}
	a.Ctime = h.CreateTime
	w := sheep.Write{Data: a.Append(nil), Create: true, Durable: true}
	return o.guard.Write(ctx, sheep.Ref{ID: id}, &w)
}

func (r AttrRequest) header() proto.AttrHeader {
	return proto.AttrHeader{
		Name: proto.Label(r.Name), Tag: proto.Label(r.Tag), Key: proto.Label(r.Key),
		SnapID: r.SnapID, ValueLen: uint32(len(r.Value)),
	}
}

// probe returns the object of the attribute, or the first absent one where it
// could be.
func (o *Operations) probe(ctx context.Context, r AttrRequest) (id sheep.ObjectID, found bool, err error) {
	want := r.header()
	hash := placement.HashName(r.Name)
	first := placement.AttrID(want.Name, want.Tag, want.SnapID, want.Key)
	buf := make([]byte, proto.AttrHeaderSize)
	for i := range uint32(maxProbes) {
		id = sheep.AttrObject(hash, first+i)
		err := o.guard.Read(ctx, sheep.Ref{ID: id}, buf, 0)
		if errors.Is(err, sheep.ErrNoObject) {
			return id, false, nil
		}
		if err != nil {
			return 0, false, fmt.Errorf("read attribute %v: %w", id, err)
		}
		if h, err := proto.DecodeAttrHeader(buf); err == nil && h.Same(&want) {
			return id, true, nil
		}
	}
	return 0, false, fmt.Errorf("attribute %q of VDI %q: %w", r.Key, r.Name, sheep.ErrFullVDI)
}

// holds reports whether the attribute in object id has the value.
func (o *Operations) holds(ctx context.Context, id sheep.ObjectID, value []byte) (bool, error) {
	buf := make([]byte, sheep.AttrSize)
	if err := o.guard.Read(ctx, sheep.Ref{ID: id}, buf, 0); err != nil {
		return false, err
	}
	a, err := proto.DecodeAttr(buf)
	return err == nil && string(a.Value) == string(value), err
}
