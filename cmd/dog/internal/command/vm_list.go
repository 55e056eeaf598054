package command

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// A vmRow is one virtual machine's disk; its JSON form is fixed.
type vmRow struct {
	Name      string   `json:"name"`
	Size      uint64   `json:"size"`
	Allocated uint64   `json:"allocated"`
	Shared    uint64   `json:"shared"`
	Running   bool     `json:"running"`
	Nodes     []string `json:"nodes"` // host:port of the daemons it is open at
}

// vmList lists the working VDIs and who has them open. Only a cluster that was
// formatted with locking knows that.
func vmList(ctx context.Context, s *session) error {
	if !s.opts.raw && !s.opts.json {
		s.print("Name            |Vdi size |Allocated| Shared  | Status\n")
		s.print("----------------+---------+---------+---------+------------\n")
	}
	vdis, err := s.VDIs(ctx, remote.Query{Map: true, Want: func(h *proto.InodeHeader) bool {
		return !h.Snapshot() && (s.arg(0) == "" || h.Name == s.arg(0))
	}})
	if err != nil {
		return s.listFailed(err)
	}
	states, err := s.States(ctx)
	if err != nil {
		return failed(err, "Failed to get VDI state")
	}
	running := make(map[sheep.VDIID][]sheep.Node)
	for _, state := range states {
		if locked(state) {
			running[state.VDI] = holders(state.Lock)
		}
	}
	rows := []vmRow{}
	for v := range vdis {
		if v.Err != nil {
			s.warn("Failed to read object %v %s", sheep.InodeObject(v.VDI), remote.Text(v.Err))
			continue
		}
		if v.Header.Snapshot() || s.arg(0) != "" && v.Header.Name != s.arg(0) {
			continue
		}
		row := listing.NewVDI(v)
		vm := vmRow{Name: row.Name, Size: row.Size, Allocated: row.Used, Shared: row.Shared, Nodes: []string{}}
		for _, n := range running[v.VDI] {
			vm.Running = true
			vm.Nodes = append(vm.Nodes, n.String())
		}
		rows = append(rows, vm)
		if !s.opts.json {
			s.printVM(vm, running[v.VDI])
		}
	}
	if s.opts.json {
		return s.writeJSON(rows)
	}
	return nil
}

func (s *session) printVM(vm vmRow, at []sheep.Node) {
	status := "not running"
	if vm.Running {
		status = "running on"
		for _, n := range at {
			status = join(status, n.Addr.Addr().String())
		}
	}
	if s.opts.raw {
		s.print("%s %d %d %d %s\n", escape(vm.Name), vm.Size, vm.Allocated, vm.Shared, status)
		return
	}
	if vm.Running && s.app.env.StdoutWidth > 0 {
		status = "\x1b[1m" + status + "\x1b[0m"
	}
	s.print("%-16s|%9s|%9s|%9s| %s\n", vm.Name, size.Human(vm.Size), size.Human(vm.Allocated), size.Human(vm.Shared), status)
}
