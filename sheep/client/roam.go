package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

const (
	// How long between two rounds of attempts to find a sheep.
	minRoamPause = 20 * time.Millisecond
	maxRoamPause = time.Second

	// dialPatience bounds connecting to a sheep.
	dialPatience = 3 * time.Second

	// restorePatience bounds what a new sheep takes for one write. It may have to
	// wait until the cluster is certain that the one before is dead.
	restorePatience = time.Minute

	// listPause is how often the nodes are asked for.
	listPause = 5 * time.Second
)

// roam keeps the Roaming with a sheep until it is closed.
func (r *Roaming) roam() {
	pause := minRoamPause
	for r.ctx.Err() == nil {
		p, err := r.find()
		if err != nil {
			r.missing(err)
			r.rest(pause)
			pause = min(2*pause, maxRoamPause)
			continue
		}
		r.enter(p)
		began := time.Now()
		r.stay(p)
		r.withdraw(p)
		r.drain(p)
		p.close()
		if time.Since(began) > maxRoamPause {
			pause = minRoamPause
			continue
		}
		r.rest(pause)
		pause = min(2*pause, maxRoamPause)
	}
}

func (r *Roaming) rest(pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}

// find returns a sheep that has what is kept, trying all that are known, once.
func (r *Roaming) find() (*post, error) {
	var errs []error
	for _, addr := range r.candidates() {
		p, err := r.try(addr)
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
		if r.ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// candidates returns where a sheep may be: the last one first, unless it did not
// serve.
func (r *Roaming) candidates() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []string{r.server}
	for _, n := range r.nodes {
		if addr := net.JoinHostPort(n.Addr.Addr().String(), strconv.Itoa(int(n.Addr.Port()))); addr != r.server {
			all = append(all, addr)
		}
	}
	if r.server == r.shunned {
		all = append(all[1:], r.server)
	}
	return all
}

// try connects to the sheep at addr and gives it what is kept.
func (r *Roaming) try(addr string) (*post, error) {
	ctx, cancel := context.WithTimeout(r.ctx, dialPatience)
	defer cancel()
	conn, err := r.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	probe, err := r.cfg.Dial(ctx, addr)
	if err != nil {
		conn.Close()
		return nil, err
	}
	p := newPost(addr, conn, probe)
	if err = r.list(p); err == nil {
		err = r.restore(p)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("sheep at %s: %w", addr, err)
	}
	return p, nil
}

// list asks p for the nodes. What p answers is not looked at unless it is a list.
func (r *Roaming) list(p *post) error {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Silence)
	defer cancel()
	h := proto.Header{Version: proto.OpGetNodeList.Version(), Op: proto.OpGetNodeList}
	room := make([]byte, proto.MaxNodes*proto.NodeSize)
	resp, data, err := p.probe.Do(ctx, h, nil, room)
	switch {
	case err != nil && r.ctx.Err() == nil && ctx.Err() != nil:
		err = fmt.Errorf("%w: no answer for %v", sheep.ErrNetwork, r.cfg.Silence)
		r.shun(p, err)
		return err
	case err != nil:
		return err
	case elsewhere(resp.Result):
		r.shun(p, resp.Result.Err())
		return resp.Result.Err()
	case resp.Result != proto.ResultSuccess:
		return nil
	}
	if n := int(proto.DecodeNodeReply(resp.Body).Nodes); n < len(data)/proto.NodeSize {
		data = data[:n*proto.NodeSize]
	}
	nodes, err := proto.DecodeNodes(data)
	if err == nil && len(nodes) > 0 {
		r.mu.Lock()
		r.nodes = nodes
		r.mu.Unlock()
	}
	return err
}

// shun notes that p is there and does not serve.
func (r *Roaming) shun(p *post, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shunned != p.addr {
		r.cfg.Log.Warn("the sheep does not serve", "node", p.addr, "err", err)
	}
	r.shunned = p.addr
}

// missing notes why there is no sheep.
func (r *Roaming) missing(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why == nil {
		r.cfg.Log.Warn("no sheep", "err", err)
	}
	r.why = err
}

// enter has requests go to p.
func (r *Roaming) enter(p *post) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != p.addr || r.why != nil {
		r.cfg.Log.Info("goes on with another connection", "node", p.addr)
	}
	r.server, r.why = p.addr, nil
	r.now.Store(p)
	close(r.arrived)
}

// withdraw has requests wait for the next sheep. What was answered by p and is not
// noted yet will be sent again.
func (r *Roaming) withdraw(p *post) {
	p.leave()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Store(nil)
	close(p.gone)
	r.arrived = make(chan struct{})
	if r.ctx.Err() == nil && !p.lives.Load() {
		r.cfg.Log.Warn("lost the sheep", "node", p.addr, "err", p.conn.Err())
	}
}

// drain waits until p, which has been withdrawn and lives, has answered what it was
// asked. Otherwise it might do that after what the next sheep is asked.
func (r *Roaming) drain(p *post) {
	if !p.lives.Load() {
		return
	}
	t := time.NewTimer(r.cfg.Silence)
	defer t.Stop()
	for p.requests.Load() > 0 {
		select {
		case <-p.idle:
		case <-p.conn.Done():
			return
		case <-t.C:
			return
		case <-r.ctx.Done():
			return
		}
	}
}

// stay returns when requests can no longer go to p.
func (r *Roaming) stay(p *post) {
	t := time.NewTicker(listPause)
	defer t.Stop()
	for {
		select {
		case <-p.conn.Done():
			return
		case <-p.left:
			return
		case <-r.ctx.Done():
			return
		case <-t.C:
			if r.list(p) != nil {
				return
			}
		}
	}
}
