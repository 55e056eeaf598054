package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"syscall"
	"unicode/utf8"
)

// negotiate answers one option. It returns true if the transmission is to begin.
func (c *conn) negotiate(ctx context.Context, opt uint32, data []byte) (bool, error) {
	switch opt {
	case optExportName:
		return true, c.exportName(ctx, string(data))
	case optGo:
		return c.goOption(ctx, data), nil
	case optInfo:
		c.infoOption(ctx, data)
	case optList:
		return false, c.list(ctx, data)
	case optListMeta, optSetMeta:
		c.metaOption(ctx, opt, data)
	case optStartTLS:
		return false, c.startTLSOption(ctx, data)
	case optStructuredReply:
		if len(data) != 0 {
			c.refuse(opt, repErrInvalid, "this option has no data")
			break
		}
		c.opts.structured = true
		c.respond(opt, repACK, nil)
	case optAbort:
		c.respond(opt, repACK, nil)
		c.nc.Write(c.reply) // the client may have gone already
		return false, errAborted
	default:
		c.refuse(opt, repErrUnsup, fmt.Sprintf("option %d is not known here", opt))
	}
	return false, nil
}

// exportName answers the oldest way of choosing an export, which has no errors.
//
//	offset  size  field
//	     0     8  size of the export
//	     8     2  transmission flags
//	    10   124  zeroes, unless both sides have agreed to do without
func (c *conn) exportName(ctx context.Context, name string) error {
	if !validName(name) {
		return fmt.Errorf("%w: bad export name", errProtocol)
	}
	if err := c.open(ctx, name); err != nil {
		return fmt.Errorf("open export %q: %w", name, err)
	}
	b := binary.BigEndian.AppendUint64(c.reply, c.info.Size)
	b = binary.BigEndian.AppendUint16(b, c.flags)
	if !c.opts.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	c.reply = b
	return nil
}

// open opens the export that is called name.
func (c *conn) open(ctx context.Context, name string) error {
	name, err := c.resolve(name)
	if err != nil {
		return err
	}
	dev, err := c.srv.exports.Open(ctx, name)
	if err != nil {
		return err
	}
	c.dev, c.info = dev, c.restrict(dev.Info())
	c.flags = c.transmissionFlags(c.info)
	if c.opts.contextsOf != name {
		c.opts.contexts = 0
	}
	return nil
}

// resolve replaces the empty name by that of the default export.
func (c *conn) resolve(name string) (string, error) {
	if name == "" {
		name = c.srv.cfg.DefaultExport
	}
	if name == "" {
		return "", fmt.Errorf("there is no default export: %w", syscall.ENOENT)
	}
	return name, nil
}

func (c *conn) restrict(info Info) Info {
	info.ReadOnly = info.ReadOnly || c.srv.cfg.ReadOnly
	return info
}

func (c *conn) transmissionFlags(info Info) uint16 {
	f := hasFlags | sendFlush | sendFUA | sendCache
	if info.ReadOnly {
		f |= readOnly
	} else {
		f |= sendTrim | sendWriteZeroes | sendFastZero
	}
	if info.MultiConn {
		f |= canMultiConn
	}
	if c.opts.structured {
		f |= sendDF
	}
	return f
}

// An ask is the data of GO and INFO.
//
//	size  field
//	   4  length of the name
//	   …  name
//	   2  number of requests
//	 2 ×  what to tell about the export
type ask struct {
	name  string
	wants map[uint16]bool
}

// decodeAsk returns false if data is not exactly an ask.
func decodeAsk(data []byte) (ask, bool) {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 2 {
		return ask{}, false
	}
	n := int(binary.BigEndian.Uint16(rest))
	if rest = rest[2:]; len(rest) != 2*n {
		return ask{}, false
	}
	a := ask{name: name, wants: map[uint16]bool{}}
	for ; n > 0; n-- {
		a.wants[binary.BigEndian.Uint16(rest)] = true
		rest = rest[2:]
	}
	return a, true
}

// cutString returns the string at the start of data, which has its length in
// front, and what is behind it.
func cutString(data []byte) (s string, rest []byte, ok bool) {
	if len(data) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	if data = data[4:]; uint64(n) > uint64(len(data)) {
		return "", nil, false
	}
	return string(data[:n]), data[n:], true
}

func validName(name string) bool {
	return len(name) <= maxString && utf8.ValidString(name) && !strings.ContainsRune(name, 0)
}

// askOf decodes the data of GO and INFO, and refuses it if it is bad.
func (c *conn) askOf(opt uint32, data []byte) (ask, bool) {
	a, ok := decodeAsk(data)
	switch {
	case !ok:
		c.refuse(opt, repErrInvalid, "the lengths do not add up")
	case len(a.name) > maxString:
		c.refuse(opt, repErrTooBig, "the name is too long")
		ok = false
	case !validName(a.name):
		c.refuse(opt, repErrInvalid, "the name is not UTF-8")
		ok = false
	}
	return a, ok
}

// goOption opens the export. It returns false if it is refused; then nothing
// of it remains.
func (c *conn) goOption(ctx context.Context, data []byte) bool {
	a, ok := c.askOf(optGo, data)
	if !ok {
		return false
	}
	chosen := c.opts.contexts
	if err := c.open(ctx, a.name); err != nil {
		c.opts.contexts = chosen
		c.refuse(optGo, optionError(err), err.Error())
		return false
	}
	c.describe(optGo, a, c.info)
	return true
}

// infoOption describes an export without opening it.
func (c *conn) infoOption(ctx context.Context, data []byte) {
	a, ok := c.askOf(optInfo, data)
	if !ok {
		return
	}
	info, err := c.stat(ctx, a.name)
	if err != nil {
		c.refuse(optInfo, optionError(err), err.Error())
		return
	}
	c.describe(optInfo, a, info)
}

func (c *conn) stat(ctx context.Context, name string) (Info, error) {
	name, err := c.resolve(name)
	if err != nil {
		return Info{}, err
	}
	info, err := c.srv.exports.Stat(ctx, name)
	return c.restrict(info), err
}

// describe appends what was asked for, each in a reply that starts with its
// type, and the end.
func (c *conn) describe(opt uint32, a ask, info Info) {
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, info.Size)
	b = binary.BigEndian.AppendUint16(b, c.transmissionFlags(info))
	c.respond(opt, repInfo, b)
	if a.wants[infoName] {
		name, _ := c.resolve(a.name)
		c.respond(opt, repInfo, append(binary.BigEndian.AppendUint16(nil, infoName), name...))
	}
	if a.wants[infoDescription] && info.Description != "" {
		c.respond(opt, repInfo, append(binary.BigEndian.AppendUint16(nil, infoDescription), short(info.Description)...))
	}
	if a.wants[infoBlockSize] {
		b := binary.BigEndian.AppendUint16(nil, infoBlockSize)
		b = binary.BigEndian.AppendUint32(b, 1)
		b = binary.BigEndian.AppendUint32(b, c.preferred(info))
		b = binary.BigEndian.AppendUint32(b, c.srv.cfg.MaxRequest)
		c.respond(opt, repInfo, b)
	}
	c.respond(opt, repACK, nil)
}

// preferred returns a preferred block size that the protocol allows.
func (c *conn) preferred(info Info) uint32 {
	p := info.Preferred
	if bits.OnesCount32(p) != 1 || p < 512 || p > c.srv.cfg.MaxRequest {
		return 4096
	}
	return p
}

// short cuts a description to what the protocol allows, between characters.
func short(s string) string {
	if len(s) <= maxString {
		return s
	}
	return strings.ToValidUTF8(s[:maxString], "")
}

// list appends one reply per export: the length of its name, the name, and the
// description up to the end.
func (c *conn) list(ctx context.Context, data []byte) error {
	if len(data) != 0 {
		c.refuse(optList, repErrInvalid, "this option has no data")
		return nil
	}
	all, err := c.srv.exports.List(ctx)
	if err != nil {
		c.refuse(optList, optionError(err), err.Error())
		return nil
	}
	for _, e := range all {
		if !validName(e.Name) {
			continue // no client could ask for it
		}
		b := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		b = append(append(b, e.Name...), short(e.Description)...)
		c.respond(optList, repServer, b)
		if len(c.reply) > maxOption {
			if _, err := c.nc.Write(c.reply); err != nil {
				return err
			}
			c.reply = c.reply[:0]
		}
	}
	c.respond(optList, repACK, nil)
	return nil
}
