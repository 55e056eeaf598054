package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var (
	errAborted  = errors.New("the client has left in order")
	errProtocol = errors.New("not as the protocol says")
)

// options is what a client has negotiated so far. STARTTLS resets it.
type options struct {
	fixed      bool // the client speaks the fixed newstyle
	noZeroes   bool
	tls        bool
	structured bool
	contexts   contexts
	contextsOf string // the export they were chosen for
}

// handshake negotiates until the client has chosen an export: then c.dev is
// open. An error means that the connection has to be closed.
func (c *conn) handshake(ctx context.Context) error {
	hello := binary.BigEndian.AppendUint64(nil, magicOldstyle)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := c.nc.Write(hello); err != nil {
		return err
	}
	p, err := c.in.next(4)
	if err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(p)
	if flags&^uint32(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("%w: client flags %#x", errProtocol, flags)
	}
	c.opts.fixed = flags&uint32(flagFixedNewstyle) != 0
	c.opts.noZeroes = flags&uint32(flagNoZeroes) != 0
	for range maxOptions {
		done, err := c.option(ctx)
		if err == nil && done && !c.srv.chosen(c) { // before the client can know
			err = errShutdown
		}
		if err == nil && len(c.reply) > 0 {
			_, err = c.nc.Write(c.reply)
			c.reply = c.reply[:0]
		}
		if err != nil {
			c.abandon()
			return err
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("%w: more than %d options", errProtocol, maxOptions)
}

// abandon closes a device that was opened in vain.
func (c *conn) abandon() {
	if c.dev == nil {
		return
	}
	if err := c.dev.Close(); err != nil {
		c.log.Error("nbd export not closed", "err", err)
	}
	c.dev = nil
}

// option reads one option and appends its replies. It returns true if the
// transmission is to begin.
//
//	offset  size  field
//	     0     8  magic
//	     8     4  option
//	    12     4  length of the data that follows
func (c *conn) option(ctx context.Context) (done bool, err error) {
	p, err := c.in.next(optionHeaderSize)
	if err != nil {
		return false, err
	}
	if magic := binary.BigEndian.Uint64(p); magic != magicOption {
		return false, fmt.Errorf("%w: option magic %#x", errProtocol, magic)
	}
	opt, n := binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint32(p[12:])
	if !c.opts.fixed && opt != optExportName {
		return false, fmt.Errorf("%w: option %d from a client that knows only the first", errProtocol, opt)
	}
	if n > maxOption {
		if n > skipOption || opt == optExportName {
			return false, fmt.Errorf("%w: %d bytes of data with option %d", errProtocol, n, opt)
		}
		if err := c.in.skip(int64(n)); err != nil {
			return false, err
		}
		c.refuse(opt, repErrTooBig, "too much data")
		return false, nil
	}
	data := make([]byte, n)
	if err := c.in.payload(data); err != nil {
		return false, err
	}
	if c.srv.ending() {
		if opt != optExportName {
			c.refuse(opt, repErrShutdown, errShutdown.Error())
			c.nc.Write(c.reply)
		}
		return false, errShutdown
	}
	if c.srv.cfg.TLSRequire && !c.opts.tls && opt != optStartTLS && opt != optAbort {
		if opt == optExportName {
			return false, fmt.Errorf("%w: no TLS", errProtocol)
		}
		c.refuse(opt, repErrTLSReqd, "TLS comes first here")
		return false, nil
	}
	return c.negotiate(ctx, opt, data)
}

// respond appends one reply to an option.
//
//	offset  size  field
//	     0     8  magic
//	     8     4  the option
//	    12     4  type; errors have the highest bit set
//	    16     4  length of the data that follows
func (c *conn) respond(opt, typ uint32, data []byte) {
	b := binary.BigEndian.AppendUint64(c.reply, magicOptReply)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	c.reply = append(b, data...)
}

// refuse appends an error with words for a person.
func (c *conn) refuse(opt, typ uint32, why string) {
	c.respond(opt, typ, []byte(why[:min(len(why), maxString)]))
}

// startTLSOption answers STARTTLS and puts TLS over the connection. What the
// client had negotiated before could have been anybody's, and is forgotten.
func (c *conn) startTLSOption(ctx context.Context, data []byte) error {
	switch {
	case len(data) != 0:
		c.refuse(optStartTLS, repErrInvalid, "this option has no data")
		return nil
	case c.opts.tls:
		c.refuse(optStartTLS, repErrInvalid, "TLS is up already")
		return nil
	case c.srv.cfg.TLS == nil:
		c.refuse(optStartTLS, repErrPolicy, "there is no TLS here")
		return nil
	case c.in.buffered() > 0:
		return fmt.Errorf("%w: options sent behind STARTTLS without waiting", errProtocol)
	}
	c.respond(optStartTLS, repACK, nil)
	if _, err := c.nc.Write(c.reply); err != nil {
		return err
	}
	c.reply = c.reply[:0]
	if err := c.startTLS(ctx); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("start TLS: %w", err)
	}
	c.opts = options{fixed: true, noZeroes: c.opts.noZeroes, tls: true}
	return nil
}
