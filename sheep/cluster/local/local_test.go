package local_test

import (
	"context"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/local"
)

type machine struct {
	entries chan cluster.Entry
}

func (m *machine) Restore(uint64, []byte) error { return nil }
func (m *machine) Apply(e cluster.Entry)        { m.entries <- e }
func (m *machine) Snapshot() []byte             { return nil }

func BenchmarkPropose(b *testing.B) {
	d := local.New(b.TempDir()+"/c", local.Config{})
	m := &machine{make(chan cluster.Entry, 10)}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, cluster.Self{Incarnation: 1, Hello: []byte("x")}, m) }()
	<-m.entries
	data := make([]byte, 100)
	for b.Loop() {
		if err := d.Propose(ctx, data); err != nil {
			b.Fatal(err)
		}
		<-m.entries
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkProposeToOther measures until another member has applied it.
func BenchmarkProposeToOther(b *testing.B) {
	dir := b.TempDir() + "/c"
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 2)
	var ds []*local.Driver
	var ms []*machine
	for i := range 2 {
		d := local.New(dir, local.Config{})
		m := &machine{make(chan cluster.Entry, 1<<10)}
		ds, ms = append(ds, d), append(ms, m)
		go func() { done <- d.Run(ctx, cluster.Self{Incarnation: sheep.Incarnation(i + 1), Hello: []byte("x")}, m) }()
		for e := range m.entries {
			if e.Kind == cluster.EntryJoin && e.Member == sheep.Incarnation(i+1) {
				break
			}
		}
	}
	go func() {
		for range ms[0].entries {
		}
	}()
	data := make([]byte, 100)
	for b.Loop() {
		if err := ds[0].Propose(ctx, data); err != nil {
			b.Fatal(err)
		}
		<-ms[1].entries
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLease(b *testing.B) {
	d := local.New(b.TempDir()+"/c", local.Config{})
	m := &machine{make(chan cluster.Entry, 10)}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, cluster.Self{Incarnation: 1, Hello: []byte("x")}, m) }()
	<-m.entries
	for b.Loop() {
		if d.Lease() != nil {
			b.Fatal("no lease")
		}
	}
	cancel()
	<-done
}

var _ = time.Second
