package recovery

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/replica"
)

func TestJudge(t *testing.T) {
	exists := func(written, current sheep.Epoch) candidate {
		return candidate{State: replica.State{Exists: true, Written: written, Current: current}}
	}
	absent := func(current sheep.Epoch) candidate { return candidate{State: replica.State{Current: current}} }
	trusted := func(c candidate) candidate { c.Trusted = true; return c }
	hot := func(c candidate) candidate { c.Hot = true; return c }
	bad := func(written sheep.Epoch) candidate {
		return candidate{State: replica.State{Exists: true, Bad: true, Written: written}}
	}
	joined := func(index uint64, c candidate) candidate { c.joined = index; return c }

	tests := []struct {
		name   string
		copies []candidate
		self   int
		now    sheep.Epoch
		gone   []sheep.Epoch // epochs with an absent member
		want   verdict
		err    error
	}{
		{
			name:   "a trusted copy is the truth, however old its last write",
			copies: []candidate{exists(9, 9), trusted(exists(2, 10))},
			now:    10, want: verdict{source: 1},
		},
		{
			name:   "the first trusted copy in placement order is asked",
			copies: []candidate{exists(1, 1), trusted(exists(3, 4)), trusted(exists(3, 4))},
			now:    4, want: verdict{source: 1},
		},
		{
			name:   "who has lost its copy, and does not know, is not believed",
			copies: []candidate{trusted(absent(4)), exists(3, 3), trusted(exists(3, 4))},
			self:   1, now: 4, want: verdict{source: 2, same: true},
		},
		{
			name:   "an equal and quiet copy needs no transfer",
			copies: []candidate{trusted(exists(3, 5)), exists(3, 4)},
			self:   1, now: 5, want: verdict{source: 0, same: true},
		},
		{
			name:   "an equal copy that the truth's intent log names is compared",
			copies: []candidate{hot(trusted(exists(3, 5))), exists(3, 4)},
			self:   1, now: 5, want: verdict{source: 0, compare: true, stamp: true},
		},
		{
			name:   "an equal copy that its own intent log names is compared",
			copies: []candidate{trusted(exists(3, 5)), hot(exists(3, 4))},
			self:   1, now: 5, want: verdict{source: 0, compare: true, stamp: true},
		},
		{
			name:   "an object that a trusted holder does not have does not exist",
			copies: []candidate{trusted(absent(5)), exists(3, 4)},
			self:   1, now: 5, want: verdict{source: -1},
		},
		{
			name:   "without a trusted copy the one that was current last decides",
			copies: []candidate{exists(3, 4), exists(2, 5), exists(2, 3)},
			self:   2, now: 6, want: verdict{source: 1, compare: false, same: true},
		},
		{
			name:   "among copies current in the same epoch an existing one is preferred",
			copies: []candidate{absent(5), exists(2, 5)},
			self:   0, now: 5, want: verdict{source: 1},
		},
		{
			name:   "among those the one written later is preferred",
			copies: []candidate{exists(4, 5), exists(5, 5)},
			self:   0, now: 5, want: verdict{source: 1},
		},
		{
			name:   "ties go to the first in placement order, on every node alike",
			copies: []candidate{hot(exists(5, 5)), hot(exists(5, 5))},
			self:   1, now: 5, want: verdict{source: 0, compare: true, stamp: true},
		},
		{
			name:   "a later removal wins over an older copy",
			copies: []candidate{exists(2, 3), absent(5)},
			self:   0, now: 6, want: verdict{source: -1},
		},
		{
			name:   "an absent member of a later epoch may hold something newer",
			copies: []candidate{exists(1, 1), exists(1, 1)},
			now:    5, gone: []sheep.Epoch{3}, err: sheep.ErrAgain,
		},
		{
			name:   "absent members of the epochs before do not matter",
			copies: []candidate{exists(1, 4), exists(1, 1)},
			self:   0, now: 5, gone: []sheep.Epoch{2, 3, 4}, want: verdict{source: 0, same: true},
		},
		{
			name:   "with a trusted copy absent members do not matter at all",
			copies: []candidate{exists(1, 1), trusted(exists(1, 5))},
			self:   0, now: 5, gone: []sheep.Epoch{2, 3, 4}, want: verdict{source: 1, same: true},
		},
		{
			name:   "a copy that cannot be read is fetched, though it was written as late",
			copies: []candidate{trusted(exists(3, 5)), bad(3)},
			self:   1, now: 5, want: verdict{source: 0},
		},
		{
			name:   "the only copy is not removed because it cannot be read",
			copies: []candidate{bad(3), absent(0)},
			self:   0, now: 5, err: sheep.ErrIO,
		},
		{
			name:   "an older copy does not take the place of a newer one that cannot be read",
			copies: []candidate{bad(5), exists(3, 4)},
			self:   1, now: 6, err: sheep.ErrIO,
		},
		{
			name:   "a copy that was current at the last write of the one that cannot be read does",
			copies: []candidate{bad(4), exists(3, 4)},
			self:   0, now: 6, want: verdict{source: 1},
		},
		{
			name:   "a node that has lived on has what one that has started again may have lost",
			copies: []candidate{joined(7, hot(exists(5, 5))), joined(3, hot(exists(5, 5)))},
			self:   0, now: 7, want: verdict{source: 1, compare: true, stamp: true},
		},
		{
			name:   "even if a write that was not answered has reached that one only",
			copies: []candidate{joined(7, hot(exists(5, 5))), joined(3, hot(exists(4, 5)))},
			self:   0, now: 7, want: verdict{source: 1, compare: true, stamp: true},
		},
		{
			name:   "a copy that was current later wins, however late its node has joined",
			copies: []candidate{joined(3, exists(4, 4)), joined(7, exists(5, 5))},
			self:   0, now: 7, want: verdict{source: 1},
		},
		{
			name:   "an object that nobody has does not exist",
			copies: []candidate{absent(5), absent(5)},
			now:    5, want: verdict{source: -1, same: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := judge(tt.copies, tt.self, tt.now, func(e sheep.Epoch) string {
				if slices.Contains(tt.gone, e) {
					return "10.0.0.9:7000"
				}
				return ""
			})
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			if err == nil && got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestAccounted(t *testing.T) {
	node := func(port uint16) sheep.Node {
		return sheep.Node{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), VNodes: 128, Zone: sheep.ZoneID(port)}
	}
	nodes := func(ports ...uint16) (all []sheep.Node) {
		for _, p := range ports {
			all = append(all, node(p))
		}
		return all
	}
	tests := []struct {
		name    string
		epochs  [][]sheep.Node
		present []sheep.Node
		copies  int
		want    error
	}{
		{"nobody is absent", [][]sheep.Node{nodes(1, 2, 3), nodes(1, 2)}, nodes(1, 2, 3), 1, nil},
		{"fewer are absent than there are copies", [][]sheep.Node{nodes(1, 2, 3)}, nodes(1, 2), 2, nil},
		{"as many are absent as there are copies", [][]sheep.Node{nodes(1, 2, 3)}, nodes(1), 2, sheep.ErrAgain},
		{"a single copy may be on the one that is absent", [][]sheep.Node{nodes(1, 2, 3)}, nodes(1, 2), 1, sheep.ErrAgain},
		{"an epoch with one node had one copy", [][]sheep.Node{nodes(1, 2, 3), nodes(3)}, nodes(1, 2), 3, sheep.ErrAgain},
		{"those absent in different epochs add up", [][]sheep.Node{nodes(1, 2, 3, 4), nodes(1, 2, 3), nodes(1, 2)}, nodes(1, 2), 2, sheep.ErrAgain},
		{"nothing has happened since all was current", nil, nodes(1), 3, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := accounted(tt.epochs, tt.present, tt.copies); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
