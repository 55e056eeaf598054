package command

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sheepdog/sheep/remote"
)

// completeTime bounds how long a user waits for names after pressing a key.
const completeTime = 2 * time.Second

// complete returns what the next argument may be: the third word of the
// command, or the name of a VDI.
func (s *session) complete(leaf *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(s.cmd.words) > 0 {
		w, rest, ok := s.pick(args)
		if !ok || len(args) == 0 {
			var names []string
			for _, w := range s.cmd.words {
				names = append(names, w.name+"\t"+w.about)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		}
		if w.file {
			return nil, cobra.ShellCompDirectiveDefault
		}
		args = rest
	}
	if s.cmd.local {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if s.cmd.guess != nil && len(args) == 0 {
		s.app.env.Stderr = io.Discard // a prompt is no place for complaints
		ctx, cancel := context.WithTimeout(leaf.Context(), completeTime)
		defer cancel()
		return s.cmd.guess(ctx, s), cobra.ShellCompDirectiveNoFileComp
	}
	if !s.group.names || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.names(leaf.Context()), cobra.ShellCompDirectiveNoFileComp
}

// names returns the names of the VDIs; none if the cluster cannot be asked.
func (s *session) names(ctx context.Context) []string {
	s.app.env.Stderr = io.Discard // a prompt is no place for complaints
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	if err := s.environment(); err != nil {
		return nil
	}
	s.connect()
	defer s.Close()
	vdis, err := s.VDIs(ctx, remote.Query{})
	if err != nil {
		return nil
	}
	var names []string
	for v := range vdis {
		if v.Err == nil && !v.Header.Snapshot() {
			names = append(names, v.Header.Name)
		}
	}
	return names
}
