package vdi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Operations make and delete VDIs and attributes, and look them up.
//
// Create, Delete and Attr may be called on any node. They log a plan, and Execute
// of some node, usually the same, does the work.
type Operations struct {
	guard   *Guard
	next    Next
	dir     Directory
	planner Planner
	cfg     OperationsConfig
}

// OperationsConfig is what Operations can do without.
type OperationsConfig struct {
	// Self is the address of this node as locks have it.
	Self sheep.Node

	// DeleteLocked says which locks of a VDI do not protect it.
	DeleteLocked LockPolicy

	Now func() time.Time // nil: the clock
	Log *slog.Logger     // nil discards
}

// A LockPolicy says whether a locked VDI may be deleted, in clusters that lock.
type LockPolicy uint8

const (
	// DeleteOwnLocked lets a VDI be deleted through the gateway that locked
	// it, and no other. QEMU locks a snapshot before it deletes it.
	DeleteOwnLocked LockPolicy = iota

	// DeleteAnyLocked ignores locks, as C Sheepdog does.
	DeleteAnyLocked
)

// NewOperations returns the operations of a node. guard and next are those that
// its clients' requests go through.
func NewOperations(guard *Guard, next Next, dir Directory, planner Planner, cfg OperationsConfig) *Operations {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Operations{guard: guard, next: next, dir: dir, planner: planner, cfg: cfg}
}

// Create makes a VDI and returns it.
//
//	b.SnapID  b.Base       makes
//	0         0            an empty VDI
//	0         a snapshot   a clone of it, or a new head of its own name
//	not 0     the head     a snapshot: the head is frozen and gets a successor
//	not 0     another, 0   a rebase: the head is frozen, its successor is made
//	                       from Base
//
// The VDI returned is the new head, also of a snapshot. What shares objects with
// a base has the base's policy and block size, whatever b says.
func (o *Operations) Create(ctx context.Context, name string, b proto.VDIBody) (sheep.VDI, error) {
	plan := newPlan{
		Name: name, Size: b.Size, Base: b.Base, Copies: b.Copies, CopyPolicy: b.CopyPolicy,
		StorePolicy: b.StorePolicy, BlockShift: b.BlockShift, Snapshot: b.SnapID != 0,
		Time: proto.WireTime(o.cfg.Now()),
	}
	if err := plan.check(); err != nil {
		return sheep.VDI{}, err
	}
	result, err := o.planner.Plan(ctx, PlanNew, plan.encode())
	if err != nil {
		return sheep.VDI{}, err
	}
	return o.made(result)
}

// made returns the VDI that is the result of a plan.
func (o *Operations) made(result []byte) (sheep.VDI, error) {
	m, err := decodeMade(result)
	if err != nil {
		return sheep.VDI{}, err
	}
	v, ok := o.dir.VDI(m.VDI)
	if !ok {
		return sheep.VDI{ID: m.VDI}, fmt.Errorf("VDI %v is gone again: %w", m.VDI, sheep.ErrNoVDI)
	}
	return v, nil
}

// check refuses what can be seen to be wrong without knowing the cluster.
func (p newPlan) check() error {
	switch {
	case p.Name == "" || len(p.Name) > maxName:
		return fmt.Errorf("%w: a name has 1 to %d bytes, not %d", sheep.ErrInvalid, maxName, len(p.Name))
	case p.Base >= sheep.MaxVDIs:
		return fmt.Errorf("%w: base VDI %v", sheep.ErrInvalid, p.Base)
	case p.StorePolicy != proto.StorePlain && p.StorePolicy != proto.StoreHyper:
		return fmt.Errorf("%w: store policy %d", sheep.ErrNotSupported, p.StorePolicy)
	case p.StorePolicy == proto.StoreHyper && (p.Base != 0 || p.Snapshot):
		return fmt.Errorf("%w: a hyper volume shares nothing", sheep.ErrInvalid)
	case p.StorePolicy == proto.StoreHyper && p.BlockShift != 0 && p.BlockShift != sheep.DefaultBlockShift:
		return fmt.Errorf("%w: a hyper volume has objects of 4 MiB", sheep.ErrInvalid)
	case p.BlockShift != 0 && (p.BlockShift < sheep.MinBlockShift || p.BlockShift > sheep.MaxBlockShift):
		return fmt.Errorf("%w: block size shift %d", sheep.ErrInvalid, p.BlockShift)
	}
	return nil
}

// Delete deletes the VDI that Lookup finds, gives back its space and returns what
// is left of it. It fails as Lookup does, and with sheep.ErrVDILocked.
func (o *Operations) Delete(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error) {
	if len(name) > maxName || len(tag) > proto.LabelSize {
		return sheep.VDI{}, fmt.Errorf("%w: name %q", sheep.ErrInvalid, name)
	}
	plan := deletePlan{query: query{name, tag, snapID}, Requester: o.cfg.Self.Addr.String()}
	result, err := o.planner.Plan(ctx, PlanDelete, plan.encode())
	if err != nil {
		return sheep.VDI{}, err
	}
	v, err := o.made(result)
	if errors.Is(err, sheep.ErrNoVDI) {
		err = nil // the number is free again
	}
	return v, err
}

// Execute runs a plan from its start to its end; see the package comment for
// what it finds when another node has run a part of it.
func (o *Operations) Execute(ctx context.Context, t Task) (result []byte, changes []Change, err error) {
	m, changes, err := o.execute(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	return m.encode(), changes, nil
}

func (o *Operations) execute(ctx context.Context, t Task) (made, []Change, error) {
	switch t.Kind {
	case PlanNew:
		plan, err := decodeNewPlan(t.Payload)
		if err != nil {
			return made{}, nil, err
		}
		return o.executeNew(ctx, t, plan)
	case PlanDelete:
		plan, err := decodeDeletePlan(t.Payload)
		if err != nil {
			return made{}, nil, err
		}
		return o.executeDelete(ctx, t, plan)
	case PlanAttr:
		plan, err := decodeAttrPlan(t.Payload)
		if err != nil {
			return made{}, nil, err
		}
		plan.retry = t.Retry
		m, err := o.executeAttr(ctx, plan)
		return m, nil, err
	case PlanLookup:
		plan, err := decodeDeletePlan(t.Payload)
		if err != nil {
			return made{}, nil, err
		}
		v, err := o.find(ctx, plan.query, 0)
		return made{VDI: v.ID}, nil, err
	}
	return made{}, nil, fmt.Errorf("%w: plan of kind %d", sheep.ErrNotSupported, t.Kind)
}

// as makes what a failed step of a plan means to the client out of err: meaning,
// unless err says that it is not about the object.
func as(meaning, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, sheep.ErrStaleOwner) || errors.Is(err, sheep.ErrNotOwner) {
		return err
	}
	return fmt.Errorf("%w: %w", meaning, err)
}
