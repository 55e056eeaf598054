package gossip

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestLogStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s, err := openLogStore(path)
	if err != nil {
		t.Fatal(err)
	}
	if first, err := s.FirstIndex(); first != 0 || err != nil {
		t.Errorf("an empty log begins with %d (%v)", first, err)
	}
	var logs []*raft.Log
	for i := range uint64(1000) {
		logs = append(logs, &raft.Log{
			Index: i + 1, Term: i/100 + 1, Type: raft.LogType(i % 3),
			Data: bytes.Repeat([]byte{byte(i)}, int(i%300)), AppendedAt: time.Unix(int64(i)+1, 5),
		})
	}
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(1, 700); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(951, 1000); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte("term"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openLogStore(path); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if first != 701 || last != 950 {
		t.Errorf("the log has the entries %d to %d, want 701 to 950", first, last)
	}
	for i := first; i <= last; i++ {
		var got raft.Log
		if err := s.GetLog(i, &got); err != nil {
			t.Fatal(err)
		}
		want := *logs[i-1]
		if !got.AppendedAt.Equal(want.AppendedAt) || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
			t.Fatalf("entry %d is %+v, was %+v", i, got, want)
		}
	}
	if err := s.GetLog(700, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("a deleted entry: %v", err)
	}
	if n, err := s.GetUint64([]byte("term")); n != 1<<40 || err != nil {
		t.Errorf("term %d (%v)", n, err)
	}
	if _, err := openLogStore(path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one opens: %v", err)
	}
}

func TestRottenLogEntryIsRefused(t *testing.T) {
	b := appendLog(nil, &raft.Log{Term: 3, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext")})
	var l raft.Log
	if err := decodeLog(b, &l); err != nil || string(l.Data) != "data" || string(l.Extensions) != "ext" {
		t.Fatalf("decoded %+v (%v)", l, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if err := decodeLog(bad, &l); !errors.Is(err, errRot) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
}

// TestStreamsNeedTheKey connects both ends with several keys and looks at what
// goes over the wire.
func TestStreamsNeedTheKey(t *testing.T) {
	tests := []struct {
		name           string
		client, server string
		ok             bool
	}{
		{"the same key", "0123456789abcdef", "0123456789abcdef", true},
		{"another key", "0123456789abcdef", "0123456789abcdeF", false},
		{"a client without a key", "", "0123456789abcdef", false},
		{"a server without a key", "0123456789abcdef", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			a, b := net.Pipe()
			defer a.Close()
			wire := &tapped{Conn: b}
			sa, err := newSecrets([]byte(test.client))
			if err != nil {
				t.Fatal(err)
			}
			sb, err := newSecrets([]byte(test.server))
			if err != nil {
				t.Fatal(err)
			}
			const text = "a very secret sentence"
			go func() {
				defer a.Close()
				if conn, err := sa.client(ctx, a); err == nil {
					io.WriteString(conn, text)
				}
			}()
			got := make([]byte, len(text))
			conn, err := sb.server(ctx, wire)
			if err == nil {
				_, err = io.ReadFull(conn, got)
			}
			if ok := err == nil && string(got) == text; ok != test.ok {
				t.Errorf("read %q (%v)", got, err)
			}
			if test.client != "" && bytes.Contains(wire.seen.Bytes(), []byte(text)) {
				t.Error("the text can be read on the wire")
			}
		})
	}
}

// tapped is a connection whose bytes are seen.
type tapped struct {
	net.Conn
	seen bytes.Buffer
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.seen.Write(p[:n])
	return n, err
}
