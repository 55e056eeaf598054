package remote

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Attr looks for, makes or deletes the attribute a, as flags say, and returns
// the object that holds it.
func (c *Cluster) Attr(ctx context.Context, a *proto.Attr, flags proto.Flags) (sheep.ObjectID, error) {
	resp, _, err := c.Do(ctx, Request{
		Op:    proto.OpGetVDIAttr,
		Flags: proto.FlagWrite | flags,
		Body:  proto.VDIBody{SnapID: a.SnapID}.Body(),
		Data:  a.Append(nil),
	})
	if err != nil {
		return 0, err
	}
	reply := proto.DecodeVDIReply(resp.Body)
	return sheep.AttrObject(reply.VDI, reply.Attr), nil
}

// AttrValue returns the value of the attribute that object id holds.
func (c *Cluster) AttrValue(ctx context.Context, id sheep.ObjectID) ([]byte, error) {
	b := make([]byte, sheep.AttrSize)
	if err := c.Read(ctx, id, b, 0); err != nil {
		return nil, err
	}
	a, err := proto.DecodeAttr(b)
	if err != nil {
		return nil, fmt.Errorf("attribute %v: %w", id, err)
	}
	return a.Value, nil
}
