package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// restoreWidth is how many objects are restored at the same time.
const restoreWidth = 16

// restore gives p the locks and the writes that are kept. It fails if p is no
// good. The caller sees to it that nothing else is noted meanwhile.
func (r *Roaming) restore(p *post) error {
	if err := r.relock(p); err != nil {
		return err
	}
	r.mu.Lock()
	var all [][]keptWrite
	for _, v := range r.kept {
		if v.excess != 0 {
			v.lost = errors.Join(v.lost, fmt.Errorf("%w: more was written without a flush than is kept for another sheep", sheep.ErrIO))
			v.excess = 0
		}
		all = append(all, byObject(v.writes)...)
	}
	r.mu.Unlock()
	if len(all) > 0 {
		r.cfg.Log.Info("repeats writes that were not flushed", "node", p.addr, "objects", len(all))
	}
	return r.repeatAll(p, all)
}

// byObject returns the writes to each object, in order.
func byObject(writes []keptWrite) [][]keptWrite {
	objects := make(map[sheep.ObjectID][]keptWrite)
	for _, w := range writes {
		objects[w.id] = append(objects[w.id], w)
	}
	all := make([][]keptWrite, 0, len(objects))
	for _, writes := range objects {
		all = append(all, writes)
	}
	return all
}

// repeatAll sends writes, those to one object in their order.
func (r *Roaming) repeatAll(p *post, all [][]keptWrite) error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	work := make(chan []keptWrite)
	var wg sync.WaitGroup
	for range min(restoreWidth, len(all)) {
		wg.Go(func() {
			for writes := range work {
				if err := r.repeat(ctx, p, writes); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, writes := range all {
		work <- writes
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

// repeat sends the writes to one object. One that is refused is lost.
func (r *Roaming) repeat(ctx context.Context, p *post, writes []keptWrite) error {
	for _, w := range writes {
		h := proto.Header{
			Version: proto.OpWriteObj.Version(), Op: proto.OpWriteObj, Flags: proto.FlagWrite | proto.FlagCache,
			Body: proto.ObjectBody{ID: w.id, Off: w.off}.Body(),
		}
		ctx, cancel := context.WithTimeout(ctx, restorePatience)
		resp, _, err := p.conn.Do(ctx, h, *w.data, nil)
		cancel()
		switch {
		case err != nil:
			return err
		case elsewhere(resp.Result):
			return resp.Result.Err()
		case resp.Result != proto.ResultSuccess:
			r.refused(w, resp.Result.Err())
			return nil
		}
	}
	return nil
}

// refused notes that a write, and what followed it, cannot be repeated.
func (r *Roaming) refused(w keptWrite, err error) {
	r.cfg.Log.Warn("an unflushed write cannot be repeated", "oid", w.id, "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.kept[w.id.VDI()]; v != nil {
		v.lost = errors.Join(v.lost, fmt.Errorf("%w: repeat a write to object %v: %w", sheep.ErrIO, w.id, err))
		r.forget(v, func(id sheep.ObjectID) bool { return id == w.id })
	}
}
