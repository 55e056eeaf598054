package vdi

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
)

// maxProbes bounds the search for an attribute.
const maxProbes = 1 << 16

// An attrAction is what is to be done with an attribute. The log of a cluster
// has the numbers: never renumber.
type attrAction uint8

const (
	attrGet    attrAction = 0
	attrSet    attrAction = 1
	attrCreate attrAction = 2
	attrDelete attrAction = 3
)

func actionOf(flags proto.Flags) attrAction {
	switch {
	case flags&proto.FlagAttrDelete != 0:
		return attrDelete
	case flags&proto.FlagAttrCreate == 0:
		return attrGet
	case flags&proto.FlagAttrExcl != 0:
		return attrCreate
	}
	return attrSet
}

// Attr finds, makes, replaces or deletes the attribute that data, a whole
// attribute object, names, as flags say. The answer says in which object the
// attribute is: its VDI is the hash of the name, because attributes belong to
// names and outlive snapshots.
//
// It fails as Lookup does; with sheep.ErrNoObject if the attribute is not there;
// with sheep.ErrVDIExists if it is and must not be.
func (o *Operations) Attr(ctx context.Context, data []byte, flags proto.Flags) (proto.VDIReply, error) {
	a, err := proto.DecodeAttr(data)
	if err != nil {
		return proto.VDIReply{}, fmt.Errorf("%w: %w", sheep.ErrInvalid, err)
	}
	plan := attrPlan{action: actionOf(flags), attr: a}
	if plan.action != attrGet {
		result, err := o.planner.Plan(ctx, PlanAttr, plan.encode())
		if err != nil {
			return proto.VDIReply{}, err
		}
		m, err := decodeMade(result)
		return m.reply(), err
	}
	q := plan.query()
	v, err := o.Lookup(ctx, q.Name, q.Tag, q.SnapID)
	if err != nil {
		return proto.VDIReply{}, err
	}
	id, found, err := o.probe(ctx, &a.AttrHeader)
	if err != nil {
		return proto.VDIReply{}, err
	}
	if !found {
		return proto.VDIReply{}, fmt.Errorf("attribute of VDI %q: %w", q.Name, sheep.ErrNoObject)
	}
	return attrMade(id, v).reply(), nil
}

func (m made) reply() proto.VDIReply {
	return proto.VDIReply{VDI: m.VDI, Attr: m.Attr, Copies: m.Copies, BlockShift: m.BlockShift}
}

func attrMade(id sheep.ObjectID, v sheep.VDI) made {
	copies, _ := v.Policy.Wire()
	return made{VDI: id.VDI(), Attr: id.Index(), Copies: copies, BlockShift: v.BlockShift}
}

// query returns the query for the VDI that the attribute is of.
func (p attrPlan) query() query {
	return query{proto.Text(p.attr.Name[:]), proto.Text(p.attr.Tag[:]), p.attr.SnapID}
}

// executeAttr runs PlanAttr. Run again it may find its own effect, which is then
// no error.
func (o *Operations) executeAttr(ctx context.Context, p attrPlan) (made, error) {
	q := p.query()
	v, err := o.find(ctx, q, 0)
	if err != nil {
		return made{}, err
	}
	id, found, err := o.probe(ctx, &p.attr.AttrHeader)
	if err != nil {
		return made{}, err
	}
	switch p.action {
	case attrDelete:
		if !found && !p.retry {
			return made{}, fmt.Errorf("attribute of VDI %q: %w", q.Name, sheep.ErrNoObject)
		}
		if found { // the object stays, so that the search goes on behind it
			w := sheep.Write{Data: []byte{0}, Durable: true}
			err = o.guard.Write(ctx, sheep.Ref{ID: id}, &w)
		}
	case attrCreate:
		mine := false
		if found && p.retry {
			if mine, err = o.holds(ctx, id, p.attr.Value); err != nil {
				return made{}, err
			}
		}
		if found && !mine {
			return made{}, fmt.Errorf("attribute of VDI %q: %w", q.Name, sheep.ErrVDIExists)
		}
		err = o.writeAttr(ctx, v, id, p.attr)
	default:
		err = o.writeAttr(ctx, v, id, p.attr)
	}
	return attrMade(id, v), err
}

func (o *Operations) writeAttr(ctx context.Context, v sheep.VDI, id sheep.ObjectID, a proto.Attr) error {
	h, err := ReadHeader(ctx, o.next, v)
	if err != nil {
		return err
	}
	a.Ctime = h.CreateTime
	w := sheep.Write{Data: a.Append(nil), Create: true, Durable: true}
	return o.guard.Write(ctx, sheep.Ref{ID: id}, &w)
}

// probe returns the object of the attribute, or the first absent one where it
// could be.
func (o *Operations) probe(ctx context.Context, want *proto.AttrHeader) (id sheep.ObjectID, found bool, err error) {
	hash := placement.HashName(proto.Text(want.Name[:]))
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
		if h, err := proto.DecodeAttrHeader(buf); err == nil && h.Same(want) {
			return id, true, nil
		}
	}
	return 0, false, fmt.Errorf("attributes of VDI %q: %w", proto.Text(want.Name[:]), sheep.ErrFullVDI)
}

// holds reports whether the attribute in object id has the value.
func (o *Operations) holds(ctx context.Context, id sheep.ObjectID, value []byte) (bool, error) {
	buf := make([]byte, sheep.AttrSize)
	if err := o.guard.Read(ctx, sheep.Ref{ID: id}, buf, 0); err != nil {
		return false, err
	}
	a, err := proto.DecodeAttr(buf)
	return err == nil && bytes.Equal(a.Value, value), err
}
