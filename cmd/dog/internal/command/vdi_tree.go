package command

import (
	"context"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A family is VDIs and which came from which. A clone starts a family of its
// own: it has another name than its parent.
type family struct {
	roots    []*proto.InodeHeader
	children map[sheep.VDIID][]*proto.InodeHeader
}

// vdiTree draws which VDI came from which.
func vdiTree(ctx context.Context, s *session) error {
	all, err := s.headers(ctx)
	if err != nil {
		return s.listFailed(err)
	}
	byID := make(map[sheep.VDIID]*proto.InodeHeader)
	for _, h := range all {
		byID[h.VDI] = h
	}
	f := family{children: make(map[sheep.VDIID][]*proto.InodeHeader)}
	for _, h := range all {
		if p := byID[h.Parent]; p != nil && p != h && p.Name == h.Name {
			f.children[h.Parent] = append(f.children[h.Parent], h)
		} else {
			f.roots = append(f.roots, h)
		}
	}
	for _, root := range f.roots {
		s.print("%s---", root.Name)
		s.drawTree(f, root, strings.Repeat(" ", len(root.Name)+len("---")))
	}
	return nil
}

// headers returns the headers of all VDIs.
func (s *session) headers(ctx context.Context) ([]*proto.InodeHeader, error) {
	vdis, err := s.VDIs(ctx, remote.Query{})
	if err != nil {
		return nil, err
	}
	var all []*proto.InodeHeader
	for v := range vdis {
		if v.Err != nil {
			s.warn("Failed to read object %v %s", sheep.InodeObject(v.VDI), remote.Text(v.Err))
			s.warn("Failed to read inode header")
			continue
		}
		all = append(all, v.Header)
	}
	return all, nil
}

// drawTree draws h and what came from it, where a line already has the width of
// indent; indent starts the lines below.
func (s *session) drawTree(f family, h *proto.InodeHeader, indent string) {
	label := "(you are here)"
	if h.Snapshot() {
		label = "[" + s.time(h.CreateTime).Format("2006-01-02 15:04") + "]"
	}
	indent += strings.Repeat(" ", len(label))
	if !h.Snapshot() && s.app.env.StdoutWidth > 0 {
		label = "\x1b[1m" + label + "\x1b[0m"
	}
	s.print("%s", label)
	children := f.children[h.VDI]
	if len(children) == 0 {
		s.print("\n")
		return
	}
	if len(children) == 1 {
		s.print("---")
		s.drawTree(f, children[0], indent+"   ")
		return
	}
	s.print("-+-")
	s.drawTree(f, children[0], indent+" | ")
	last := len(children) - 1
	for _, child := range children[1:last] {
		s.print("%s |-", indent)
		s.drawTree(f, child, indent+" | ")
	}
	s.print("%s `-", indent)
	s.drawTree(f, children[last], indent+"   ")
}
