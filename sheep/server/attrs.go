package server

import "sheepdog/sheep/proto"

// getVDIAttr serves GET_VDI_ATTR: finds, sets or deletes an attribute. The
// client reads the value as an object.
func (d *Daemon) getVDIAttr(r *Request) {
	reply, err := d.Operations.Attr(r.Ctx, r.Data, r.Header.Flags)
	if err != nil {
		d.fail(r, err)
		return
	}
	r.Reply(proto.Response{Body: reply.Body()})
}
