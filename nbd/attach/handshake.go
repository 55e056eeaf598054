package attach

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// An Export is one disk in the list of a server.
type Export struct {
	Name, Description string
	Info              Info
	Err               error // the server lists the export but does not tell about it
}

// handshakeTime bounds the whole conversation before the first request.
const handshakeTime = 15 * time.Second

// Exports returns what the server at a exports, in its order.
func Exports(ctx context.Context, a Address) ([]Export, error) {
	var list []Export
	nc, err := converse(ctx, a, func(t talk) (err error) {
		if list, err = t.list(); err != nil {
			return err
		}
		for i := range list {
			e := &list[i]
			if e.Info, err = t.ask(optInfo, e.Name); errors.Is(err, ErrRefused) {
				e.Err, err = err, nil
			}
			if err != nil {
				return err
			}
		}
		return t.send(optAbort, nil)
	})
	if err != nil {
		return nil, err
	}
	return list, nc.Close()
}

// choose connects to the server at a and chooses the export. The next bytes on
// the connection are requests, which are for the kernel to send.
func choose(ctx context.Context, a Address, export string) (net.Conn, Info, error) {
	var info Info
	nc, err := converse(ctx, a, func(t talk) (err error) {
		info, err = t.ask(optGo, export)
		return err
	})
	if err != nil {
		return nil, Info{}, fmt.Errorf("nbd export %q: %w", export, err)
	}
	return nc, info, nil
}

// converse connects, greets and lets fn talk to the server. The connection is
// the caller's if there is no error.
func converse(ctx context.Context, a Address, fn func(talk) error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	nc, err := d.DialContext(ctx, a.network, a.where)
	if err != nil {
		return nil, fmt.Errorf("connect to nbd server %v: %w", a, reason(err))
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	t := talk{nc}
	if err = t.greet(); err == nil {
		err = fn(t)
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("nbd server %v: %w", a, err)
	}
	return nc, nil
}

// reason strips the repetition of the address from an error of net.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// A talk is the negotiation over one connection. It reads no byte more than the
// server has to send: what follows is the kernel's.
type talk struct{ io.ReadWriter }

// greet reads the server's hello and answers it.
//
//	offset  size  field, big-endian
//	     0     8  "NBDMAGIC"
//	     8     8  "IHAVEOPT"
//	    16     2  handshake flags
func (t talk) greet() error {
	var b [helloSize]byte
	if _, err := io.ReadFull(t, b[:]); err != nil {
		return fmt.Errorf("%w: no greeting: %w", ErrServer, err)
	}
	flags := binary.BigEndian.Uint16(b[16:])
	switch {
	case binary.BigEndian.Uint64(b[:]) != magicServer:
		return fmt.Errorf("%w: it does not speak NBD", ErrServer)
	case binary.BigEndian.Uint64(b[8:]) == magicOldstyle:
		return fmt.Errorf("%w: it is too old to choose an export", ErrServer)
	case binary.BigEndian.Uint64(b[8:]) != magicOption || flags&flagFixedNewstyle == 0:
		return fmt.Errorf("%w: its greeting is not that of NBD", ErrServer)
	}
	answer := uint32(flags & (flagFixedNewstyle | flagNoZeroes))
	_, err := t.Write(binary.BigEndian.AppendUint32(nil, answer))
	return err
}

func (t talk) send(option uint32, data []byte) error {
	_, err := t.Write(appendOption(nil, option, data))
	return err
}

// receive returns the next reply to option. A refusal is an error that matches
// ErrRefused.
func (t talk) receive(option uint32) (reply, []byte, error) {
	var b [replySize]byte
	if _, err := io.ReadFull(t, b[:]); err != nil {
		return reply{}, nil, fmt.Errorf("%w: no answer: %w", ErrServer, err)
	}
	r, err := decodeReply(b[:])
	if err == nil && r.option != option {
		err = fmt.Errorf("%w: it answers option %d, not %d", ErrServer, r.option, option)
	}
	if err != nil {
		return reply{}, nil, err
	}
	data := make([]byte, r.length)
	if _, err := io.ReadFull(t, data); err != nil {
		return reply{}, nil, fmt.Errorf("%w: half an answer: %w", ErrServer, err)
	}
	if r.kind&repError != 0 {
		return reply{}, nil, refusal(r.kind, data)
	}
	return r, data, nil
}

// refusal returns the error that a reply of an error type stands for.
func refusal(kind uint32, text []byte) error {
	var err error
	switch kind {
	case repErrTLSReqd:
		err = ErrNeedsTLS
	case repErrUnknown:
		return fmt.Errorf("%w: %w", ErrRefused, ErrNoExport)
	case repErrUnsup:
		err = errors.New("the server does not know the option")
	case repErrPolicy:
		err = errors.New("the server does not allow it")
	default:
		err = fmt.Errorf("error %d", kind&^repError)
	}
	if len(text) > 0 && kind != repErrTLSReqd {
		return fmt.Errorf("%w: %w: %.200q", ErrRefused, err, text)
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// list asks for the names of all exports.
func (t talk) list() ([]Export, error) {
	if err := t.send(optList, nil); err != nil {
		return nil, err
	}
	var list []Export
	for len(list) <= maxExports {
		r, data, err := t.receive(optList)
		if err != nil {
			return nil, err
		}
		switch r.kind {
		case repACK:
			return list, nil
		case repServer:
		default:
			return nil, fmt.Errorf("%w: reply %d to a list", ErrServer, r.kind)
		}
		e := Export{}
		if e.Name, e.Description, err = decodeServer(data); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return nil, fmt.Errorf("%w: the list of exports has no end", ErrServer)
}

// ask sends INFO or GO and returns what the server says about the export.
func (t talk) ask(option uint32, export string) (Info, error) {
	if len(export) > maxString {
		return Info{}, fmt.Errorf("%w: %w: the name has %d bytes", ErrRefused, ErrNoExport, len(export))
	}
	if err := t.send(option, appendAsk(nil, export)); err != nil {
		return Info{}, err
	}
	var info Info
	for range maxInfos {
		r, data, err := t.receive(option)
		if err != nil {
			return Info{}, err
		}
		switch r.kind {
		case repACK:
			if info.Flags&HasFlags == 0 {
				return Info{}, fmt.Errorf("%w: it does not tell the size of the export", ErrServer)
			}
			return info, nil
		case repInfo:
			if err := info.decode(data); err != nil {
				return Info{}, err
			}
		default:
			return Info{}, fmt.Errorf("%w: reply %d about an export", ErrServer, r.kind)
		}
	}
	return Info{}, fmt.Errorf("%w: it tells about the export without end", ErrServer)
}
