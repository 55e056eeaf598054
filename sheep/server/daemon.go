package server

import (
	"context"
	"errors"
	"log/slog"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// MaxIO bounds the data of one request for an object, in bytes. Larger ones
// are answered with ResultInvalid: clients split what they want at objects, and
// no client of objects above 64 MiB is known to ask for more at once.
const MaxIO = 64 << 20

// maxOther bounds the payload of requests for which nothing else is said.
const maxOther = 64 << 10

// Parts is what a Daemon is made of. All but Owner, Replica, Copies, Recovery,
// Scrub, Losses and Flights are required; without these the operations that need them answer
// ResultNotSupported, or with nothing to tell.
type Parts struct {
	Guard      Guard
	Operations Operations
	Cluster    Cluster
	Store      Store
	Replica    Replica
	Copies     Copies
	Recovery   Recovery
	Scrub      Scrub
	Losses     Losses
	Flights    Flights

	// Owner returns what serves the requests that the gateway with the
	// incarnation forwards.
	Owner func(from sheep.Incarnation) Owner

	Hello       proto.Hello  // what this node says of itself; its Ctime is the cluster's, always
	Dir         string       // of the store, for people
	FixedVNodes bool         // the operator gave this node's number of vnodes
	Kill        func()       // begins the end of this daemon; required
	Level       LogLevel     // nil if it cannot be changed
	Log         *slog.Logger // required
}

// A Daemon is the meaning of the native protocol: a Handler of all operations
// of a sheep.
type Daemon struct {
	Parts
	table [256]operation // by opcode; set once
	stats stats
}

var _ Handler = (*Daemon)(nil)

// NewDaemon returns the operations over the parts.
func NewDaemon(p Parts) *Daemon {
	return &Daemon{Parts: p, table: operations()}
}

// An operation is an entry of the opcode table.
type operation struct {
	run func(*Daemon, *Request)

	min, max int  // bytes of payload; max 0 means maxOther
	room     int  // bytes of answer at most; 0 means none
	inline   bool // never waits
	lasting  bool // goes on without its client
	io       bool // a client that loses its connection asks for it again
	class    Class
	plan     func(*proto.Header, *Plan) // overrides; may be nil
}

// Plan implements Handler: version, then opcode, then length, then the state
// of the cluster.
func (d *Daemon) Plan(h *proto.Header) Plan {
	op := &d.table[h.Op]
	p := Plan{Class: op.class, Room: op.room, Inline: op.inline, Lasting: op.lasting}
	p.Result = d.admit(h, op)
	if p.Result == proto.ResultSuccess && op.plan != nil {
		op.plan(h, &p)
	}
	p.Drop = op.io && ending(p.Result)
	if p.Class.open() {
		p.Room = min(p.Room, int(h.Room()))
	}
	return p
}

func (d *Daemon) admit(h *proto.Header, op *operation) proto.Result {
	switch {
	case !h.Op.AcceptsVersion(h.Version) && (h.Op.Known() || h.Op < firstOwn):
		return proto.ResultVersion
	case !h.Op.Known() || op.run == nil:
		return proto.ResultInvalid
	}
	if r := d.serving(h.Op); r != proto.ResultSuccess {
		return r
	}
	if h.Op.NeedsData() && h.Flags&proto.FlagWrite == 0 {
		return proto.ResultInvalid
	}
	limit := op.max
	if limit == 0 {
		limit = maxOther
	}
	if n := int(h.Payload()); n > limit || n < op.min {
		return proto.ResultInvalid
	}
	return proto.ResultSuccess
}

// firstOwn is the first opcode that C does not know.
const firstOwn = 0xCE

// serving returns the result for an operation that the cluster's state forbids.
// Requests of other sheep carry an epoch and wait for it: they are refused only
// when this node is beyond help, also while the cluster shuts down, because
// others finish what was admitted before.
func (d *Daemon) serving(op proto.Opcode) proto.Result {
	err := d.Cluster.View().Serving()
	if err == nil {
		return proto.ResultSuccess
	}
	if c := op.Class(); c == proto.ClassPeer || c == proto.ClassOwner {
		if !errors.Is(err, sheep.ErrKilled) {
			return proto.ResultSuccess
		}
	} else if op.Force() && !errors.Is(err, sheep.ErrShutdown) && !errors.Is(err, sheep.ErrKilled) {
		return proto.ResultSuccess
	}
	return proto.ResultOf(err)
}

// Serve implements Handler.
func (d *Daemon) Serve(r *Request) {
	if !r.plan.Class.open() && r.Header.Op != proto.OpHello && r.Session.peer.Load() == nil {
		invalid(d, r) // a sheep says who it is first
		return
	}
	d.table[r.Header.Op].run(d, r)
}

// Epoch implements Handler.
func (d *Daemon) Epoch() sheep.Epoch { return d.Cluster.View().Epoch }

// Closed implements Handler: what a client left unflushed is flushed, and the locks
// that end with it are released.
func (d *Daemon) Closed(ctx context.Context, s *Session) {
	for _, vdi := range s.Unflushed() {
		err := d.Guard.Flush(ctx, vdi)
		if errors.Is(err, sheep.ErrLostWrites) { // it may come back on another connection
			if raised := d.Cluster.RaiseDoubt(ctx, vdi); raised == nil {
				sheep.Told(err)
			} else {
				err = errors.Join(err, raised)
			}
		}
		if err != nil {
			d.Log.Warn("flush after the client has gone", "vdi", vdi, "err", err)
		}
	}
	if session := s.locking(); session != 0 {
		if err := d.Cluster.EndSession(ctx, session); err != nil {
			d.Log.Warn("the locks of a client that has gone are not released: use dog vdi lock unlock", "err", err)
		}
	}
}

// ending reports whether a result says that this node ends. A guest would take it
// for an error of its disk, where the disk is only to be reached elsewhere, or later.
func ending(result proto.Result) bool {
	return result == proto.ResultShutdown || result == proto.ResultKilled || result == proto.ResultCluster
}

// fail answers with the result that stands for err.
func (d *Daemon) fail(r *Request, err error) {
	resp := proto.Response{Result: proto.ResultOf(err)}
	if d.table[r.Header.Op].io && ending(resp.Result) {
		d.Log.Debug("request given up", "op", r.Header.Op, "err", err)
		r.Drop()
		return
	}
	if e, ok := errors.AsType[*sheep.NotOwnerError](err); ok {
		resp.Body = proto.NotOwnerReply{VDI: e.VDI, Owner: e.Owner.Addr}.Body()
	}
	if r.plan.Class.open() {
		resp.Result = resp.Result.ForClient()
	}
	if resp.Result == proto.ResultSystemError || resp.Result == proto.ResultIO {
		d.Log.Debug("request failed", "op", r.Header.Op, "err", err)
	}
	r.Reply(resp)
}

// finish answers with nothing but the result that stands for err.
func (d *Daemon) finish(r *Request, err error) {
	if err != nil {
		d.fail(r, err)
		return
	}
	r.Reply(proto.Response{})
}

func invalid(d *Daemon, r *Request)     { d.fail(r, sheep.ErrInvalid) }
func unsupported(d *Daemon, r *Request) { d.fail(r, sheep.ErrNotSupported) }
func succeed(d *Daemon, r *Request)     { r.Reply(proto.Response{}) }
