package command

import (
	"context"
	"strings"
)

// vdiGraph prints which VDI came from which in Graphviz's language.
func vdiGraph(ctx context.Context, s *session) error {
	s.print("digraph G {\n  node [shape = \"box\", fontname = \"Courier\"];\n\n  \"0\" [shape = \"ellipse\", label = \"root\"];\n\n")
	all, err := s.headers(ctx)
	if err != nil {
		if err := s.listFailed(err); err != nil {
			return err
		}
	}
	for _, h := range all {
		at, id := s.time(h.CreateTime), h.SnapID
		if !h.Snapshot() {
			id = 0
		}
		name := quote(h.Name)
		s.print("  \"%v\" -> \"%v\";\n  \"%v\" [\n    group = \"%s\",\n", h.Parent, h.VDI, h.VDI, name)
		s.print("    label = \"Name: %10s\\nTag:  %10x\\nSize: %10s\\nDate: %10s\\nTime: %10s\"",
			name, id, s.size(h.Size), at.Format("2006-01-02"), at.Format("15:04:05"))
		if !h.Snapshot() {
			s.print(",\n    color=\"red\"")
		}
		s.print("\n  ];\n\n")
	}
	s.print("}\n")
	return nil
}

// quote makes name safe between the quotes of Graphviz.
func quote(name string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name)
}
