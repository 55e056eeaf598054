package command

import (
	"fmt"
	"strings"
)

// printUsage prints how the command is used.
func (s *session) printUsage() {
	fmt.Fprintln(s.out, s.usageLine())
	if len(s.cmd.words) > 0 && s.word == "" {
		fmt.Fprintln(s.out, "Available subcommands:")
		for _, w := range s.cmd.words {
			fmt.Fprintf(s.out, "  %-24s%s\n", w.name, w.about)
		}
	}
	fmt.Fprintln(s.out, "Options:")
	for _, o := range s.known {
		label := "-" + o.letter + ", --" + o.name
		if o.letter == "" {
			label = "--" + o.name
		}
		fmt.Fprintf(s.out, "  %-23s %s\n", label, o.text[0])
		for _, line := range o.text[1:] {
			fmt.Fprintf(s.out, "%26s%s\n", "", line)
		}
	}
}

// usageLine returns the first line of the usage.
func (s *session) usageLine() string {
	words := []string{"Usage:", s.app.env.Program, s.fullName()}
	if len(s.cmd.words) > 0 && s.word == "" {
		var names []string
		for _, w := range s.cmd.words {
			names = append(names, w.name)
		}
		alternatives := strings.Join(names, "|")
		if len(names) > 1 {
			alternatives = "{" + alternatives + "}"
		}
		words = append(words, alternatives)
	}
	for _, o := range s.known {
		switch {
		case o.letter == "":
			words = append(words, "[--"+o.name+"]")
		case o.value != nil:
			words = append(words, "[-"+o.letter+" "+o.name+"]")
		default:
			words = append(words, "[-"+o.letter+"]")
		}
	}
	if s.cmd.args != "" {
		words = append(words, s.cmd.args)
	}
	return join(words...)
}

// fullName returns the words of the command.
func (s *session) fullName() string {
	if s.word == "" {
		return join(s.group.name, s.cmd.name)
	}
	return join(s.group.name, s.cmd.name, s.word)
}
