package command

import (
	"context"
	"io"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// vdiSetattr sets or deletes an attribute.
func vdiSetattr(ctx context.Context, s *session) error {
	a, err := s.attr()
	if err != nil {
		return err
	}
	flags := proto.FlagAttrCreate
	switch {
	case s.opts.delete:
		flags = proto.FlagAttrDelete
	case s.opts.exclusive:
		flags |= proto.FlagAttrExcl
	}
	if !s.opts.delete {
		if a.Value, err = s.attrValue(); err != nil {
			return err
		}
		a.ValueLen = uint32(len(a.Value))
	}
	_, err = s.Attr(ctx, a, flags)
	switch remote.Result(err) {
	case proto.ResultVDIExists:
		return fail(ExitExists, "The attribute '%s' already exists", s.args[1])
	case proto.ResultNoObject:
		return fail(ExitMissing, "Attribute '%s' not found", s.args[1])
	case proto.ResultNoVDI:
		return fail(ExitMissing, "VDI not found")
	}
	if err != nil {
		return failed(err, "Failed to set attribute: %s", remote.Text(err))
	}
	return nil
}

// attr returns the attribute that the arguments name.
func (s *session) attr() (*proto.Attr, error) {
	if len(s.args) < 2 {
		return nil, badUsage("Please specify the attribute key")
	}
	if len(s.args[1]) > maxName {
		return nil, badUsage("The attribute key is longer than %d bytes", maxName)
	}
	var a proto.Attr
	a.Name, a.Key = proto.Label(s.name()), proto.Label(s.args[1])
	return &a, nil
}

// attrValue returns the value from the arguments or from standard input.
func (s *session) attrValue() ([]byte, error) {
	value := []byte(s.arg(2))
	if len(s.args) < 3 {
		var err error
		if value, err = io.ReadAll(io.LimitReader(s.app.env.Stdin, proto.AttrValueSize)); err != nil {
			return nil, fail(ExitSystem, "Failed to read the attribute's value: %v", err)
		}
	}
	if len(value) > proto.AttrValueSize {
		return nil, badUsage("The attribute's value is longer than %d bytes", proto.AttrValueSize)
	}
	return value, nil
}

// vdiGetattr prints the value of an attribute.
func vdiGetattr(ctx context.Context, s *session) error {
	a, err := s.attr()
	if err != nil {
		return err
	}
	id, err := s.Attr(ctx, a, 0)
	switch remote.Result(err) {
	case proto.ResultNoObject:
		return fail(ExitMissing, "Attribute '%s' not found", s.args[1])
	case proto.ResultNoVDI:
		return fail(ExitMissing, "VDI not found")
	}
	if err != nil {
		f := failed(err, "Failed to find attribute oid: %s", remote.Text(err))
		if f.status == ExitFailure {
			f.status = ExitMissing
		}
		return f
	}
	value, err := s.AttrValue(ctx, id)
	if err != nil {
		return failed(err, "Failed to read object %v %s", id, remote.Text(err))
	}
	_, err = s.out.Write(value)
	return err
}
