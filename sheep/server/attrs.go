package server

import (
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// getVDIAttr serves GET_VDI_ATTR: finds, sets or deletes an attribute. The
// client reads the value as an object.
func (d *Daemon) getVDIAttr(r *Request) {
	a, err := proto.DecodeAttr(r.Data)
	if err != nil {
		d.fail(r, err)
		return
	}
	id, err := d.Operations.Attr(r.Ctx, vdi.AttrRequest{
		Query:  vdi.Query{Name: proto.Text(a.Name[:]), Tag: proto.Text(a.Tag[:]), SnapID: a.SnapID},
		Key:    proto.Text(a.Key[:]),
		Value:  a.Value,
		Action: attrAction(r.Header.Flags),
	})
	if err != nil {
		d.fail(r, err)
		return
	}
	body := proto.VDIReply{VDI: id.VDI(), Attr: id.Index(), Copies: d.Cluster.View().Settings.Copies}
	r.Reply(proto.Response{Body: body.Body()})
}

// attrAction returns what the flags ask for.
func attrAction(f proto.Flags) vdi.AttrAction {
	switch {
	case f&proto.FlagAttrDelete != 0:
		return vdi.AttrDelete
	case f.Has(proto.FlagAttrCreate | proto.FlagAttrExcl):
		return vdi.AttrCreate
	case f&proto.FlagAttrCreate != 0:
		return vdi.AttrSet
	}
	return vdi.AttrGet
}

// vdiReply answers a lookup or creation.
func (d *Daemon) vdiReply(r *Request, v sheep.VDI, err error) {
	if err != nil {
		d.fail(r, err)
		return
	}
	copies, _ := v.Policy.Wire()
	r.Reply(proto.Response{Body: proto.VDIReply{VDI: v.ID, Copies: copies, BlockShift: v.BlockShift}.Body()})
}
