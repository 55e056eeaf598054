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
// streams of the mux.
const (
	pathLeader    = "/1/leader"     // of anybody: who leads
	pathTerm      = "/1/term"       // of a voter: that it knows of no newer leader
	pathAddServer = "/1/add-server" // of the leader: to follow the log
	pathApply     = "/1/apply"      // of the leader: to log a command, which is the body
	pathRenew     = "/1/renew"      // of the leader: the lease of a member
	pathReadIndex = "/1/read-index" // of the leader: how far the log goes
	pathStatus    = "/1/status"     // of anybody: what it knows while there may be no leader
	pathRecover   = "/1/recover"    // of a node without a majority: to begin a timeline
	pathPeers     = "/1/peers"      // of the leader: the nodes and how they are
)

// maxAnswer bounds an answer.
const maxAnswer = 1 << 20

type (
	leaderAnswer struct {
		ID   string `json:"id"` // empty if nobody is known to lead
		Addr string `json:"addr"`
	}
	termRequest struct {
		ID   string `json:"id"` // who is asked
		Term uint64 `json:"term"`
	}
	addServerRequest struct {
		ID      string `json:"id"`
		Addr    string `json:"addr"`
		Started int64  `json:"started"` // see nodeMeta
		Cluster []byte `json:"cluster"`
	}
	addServerAnswer struct {
		Cluster []byte `json:"cluster"`
	}
	recoverRequest struct {
		ID      string `json:"id"` // who is asked
		Cluster []byte `json:"cluster"`
	}
	renewRequest struct {
		Member sheep.Incarnation `json:"member"`
		Unfit  bool              `json:"unfit,omitempty"` // it only asks whether it still is one
	}
	indexAnswer struct {
		Index uint64 `json:"index"` // Raft's, of the last command
	}
)

// errOtherCluster is what a node gets that belongs to another cluster.
var errOtherCluster = errors.New("belongs to another cluster")

// The errors that HTTP carries, and how.
var statuses = []struct {
	status int
	err    error
}{
	{http.StatusMisdirectedRequest, errNotLeader},
	{http.StatusGone, errDeparted},
	{http.StatusBadRequest, errBadCommand},
	{http.StatusConflict, errOtherCluster},
}

func statusOf(err error) int {
	for _, c := range statuses {
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
	mux.HandleFunc(pathTerm, answer(func(_ context.Context, q termRequest) (struct{}, error) {
		if q.ID != d.data.id {
			return struct{}{}, fmt.Errorf("%w: this is %s", errBadCommand, d.data.id)
		}
		return struct{}{}, d.checkTerm(q.Term)
	}))
	mux.HandleFunc(pathAddServer, answer(d.addServer))
	mux.HandleFunc(pathRenew, func(w http.ResponseWriter, r *http.Request) {
		answer(func(ctx context.Context, q renewRequest) (indexAnswer, error) { return d.renew(ctx, q, r.RemoteAddr) })(w, r)
	})
	mux.HandleFunc(pathReadIndex, answer(func(ctx context.Context, _ struct{}) (indexAnswer, error) { return d.readIndex(ctx) }))
	mux.HandleFunc(pathPeers, answer(func(ctx context.Context, _ struct{}) ([]cluster.Peer, error) { return d.peers(ctx) }))
	mux.HandleFunc(pathStatus, answer(func(context.Context, struct{}) (nodeStatus, error) { return d.status(), nil }))
	mux.HandleFunc(pathRecover, d.serveRecover)
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

// serveRecover has this node begin a timeline, after it has said so.
func (d *Driver) serveRecover(w http.ResponseWriter, r *http.Request) {
	var restart func()
	answer(func(_ context.Context, q recoverRequest) (struct{}, error) {
		id, err := decodeClusterID(q.Cluster)
		switch {
		case err != nil:
			return struct{}{}, err
		case q.ID != d.data.id:
			return struct{}{}, fmt.Errorf("%w: this is %s", errBadCommand, d.data.id)
		}
		restart, err = d.beginTimeline(id)
		return struct{}{}, err
	})(w, r)
	if restart == nil {
		return
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		d.log.Debug("answer a request to recover", "err", err)
	}
	restart()
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
		return errorOf(addr, resp.StatusCode, strings.TrimSpace(string(b)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// errorOf is the inverse of statusOf.
func errorOf(addr string, status int, text string) error {
	for _, c := range statuses {
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

// askLeader asks the leader: by local if this node leads, else at path of whoever does.
func (d *Driver) askLeader(ctx context.Context, path string, body, out any, local func() error) error {
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
	case d.data.id:
		return local()
	}
	return d.post(ctx, l.Addr, path, body, out)
}
