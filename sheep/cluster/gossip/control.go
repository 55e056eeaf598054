package gossip

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// What nodes ask each other for, beside what Raft and gossip do: HTTP on
// streams of the port.
const (
	pathLeader = "/1/leader" // of anybody: who leads
	pathVouch  = "/1/vouch"  // of a voter: that it knows of no newer leader
	pathEnrol  = "/1/enrol"  // of the leader: to follow the log
	pathApply  = "/1/apply"  // of the leader: to log a command, which is the body
	pathRenew  = "/1/renew"  // of the leader: the lease of a member
	pathRead   = "/1/read"   // of the leader: how far the log goes
	pathState  = "/1/state"  // of the leader: who is who
)

// maxAnswer bounds an answer.
const maxAnswer = 1 << 20

type (
	leaderAnswer struct {
		ID   string `json:"id"` // empty if nobody is known to lead
		Addr string `json:"addr"`
	}
	vouchRequest struct {
		ID   string `json:"id"` // who is asked
		Term uint64 `json:"term"`
	}
	enrolRequest struct {
		ID      string `json:"id"`
		Addr    string `json:"addr"`
		Born    int64  `json:"born"` // as in a calling
		Kingdom []byte `json:"kingdom"`
	}
	enrolAnswer struct {
		Kingdom []byte `json:"kingdom"`
	}
	renewRequest struct {
		Member sheep.Incarnation `json:"member"`
	}
	goalAnswer struct {
		Raft uint64 `json:"raft"` // Raft's index of the last command
	}
)

// errOtherCluster is what a node gets that belongs to another cluster.
var errOtherCluster = errors.New("belongs to another cluster")

// The errors that HTTP carries, and how.
var carried = []struct {
	status int
	err    error
}{
	{http.StatusMisdirectedRequest, errNotLeader},
	{http.StatusGone, errDeparted},
	{http.StatusBadRequest, errBadCommand},
	{http.StatusConflict, errOtherCluster},
}

func statusOf(err error) int {
	for _, c := range carried {
		if errors.Is(err, c.err) {
			return c.status
		}
	}
	return http.StatusServiceUnavailable
}

// newServer returns the server of the streams for control.
func (d *Driver) newServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc(pathLeader, answer(func(context.Context, struct{}) (leaderAnswer, error) { return d.leader() }))
	mux.HandleFunc(pathVouch, answer(func(_ context.Context, q vouchRequest) (struct{}, error) {
		if q.ID != d.home.id {
			return struct{}{}, fmt.Errorf("%w: this is %s", errBadCommand, d.home.id)
		}
		return struct{}{}, d.vouch(q.Term)
	}))
	mux.HandleFunc(pathEnrol, answer(d.enrol))
	mux.HandleFunc(pathRenew, func(w http.ResponseWriter, r *http.Request) {
		answer(func(ctx context.Context, q renewRequest) (goalAnswer, error) { return d.renew(ctx, q, r.RemoteAddr) })(w, r)
	})
	mux.HandleFunc(pathRead, answer(func(ctx context.Context, _ struct{}) (goalAnswer, error) { return d.read(ctx) }))
	mux.HandleFunc(pathState, answer(func(ctx context.Context, _ struct{}) ([]cluster.Peer, error) { return d.state(ctx) }))
	mux.HandleFunc(pathApply, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCommand))
		if err == nil {
			err = d.apply(r.Context(), body, r.RemoteAddr)
		}
		if err != nil {
			http.Error(w, err.Error(), statusOf(err))
		}
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
}

// answer makes a handler of a function of decoded requests.
func answer[Q, A any](f func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
		if err := dec.Decode(&q); err != nil && !errors.Is(err, io.EOF) {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a, err := f(r.Context(), q)
		if err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // who asked has gone
	}
}

// post asks the node at addr. body is sent as it is if it is bytes; the answer
// is decoded into out unless that is nil.
func (d *Driver) post(ctx context.Context, addr, path string, body, out any) error {
	raw, isRaw := body.([]byte)
	if !isRaw {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return carriedBack(addr, resp.StatusCode, strings.TrimSpace(string(b)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// carriedBack is the inverse of statusOf.
func carriedBack(addr string, status int, text string) error {
	for _, c := range carried {
		if c.status == status {
			return &remoteError{addr, text, c.err}
		}
	}
	return &remoteError{addr, fmt.Sprintf("%s (status %d)", text, status), nil}
}

// A remoteError is what another node has answered.
type remoteError struct {
	addr, text string
	err        error // nil if it is none that is known here
}

func (e *remoteError) Error() string { return e.addr + ": " + e.text }
func (e *remoteError) Unwrap() error { return e.err }

// leader returns who leads, as far as this node knows.
func (d *Driver) leader() (leaderAnswer, error) {
	addr, id := d.raft.LeaderWithID()
	if id == "" {
		return leaderAnswer{}, nil
	}
	if now := d.addressOf(string(id)); now != "" {
		return leaderAnswer{ID: string(id), Addr: now}, nil
	}
	return leaderAnswer{ID: string(id), Addr: string(addr)}, nil
}

// ask asks the leader: by local if this node leads, else at path of whoever does.
func (d *Driver) ask(ctx context.Context, path string, body, out any, local func() error) error {
	l, err := d.leader()
	if err != nil {
		return err
	}
	return d.askAt(ctx, l, path, body, out, local)
}

func (d *Driver) askAt(ctx context.Context, l leaderAnswer, path string, body, out any, local func() error) error {
	switch l.ID {
	case "":
		return errNotLeader
	case d.home.id:
		return local()
	}
	return d.post(ctx, l.Addr, path, body, out)
}
