// Package getopt reads command lines as GNU getopt_long does, with pflag
// doing the walking.
//
// Options and other arguments may come in any order, "--" ends the options,
// letters may be joined (-fg), a long name may be cut short as long as it stays
// unique, and the complaints are worded as getopt's, because scripts and people
// know them. Each option is handed to the caller in the order of the command
// line, so that the first mistake is the one that is reported.
package getopt

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// An Option is one option that a program knows.
type Option struct {
	Letter   string // one letter, or empty
	Name     string
	Alias    string // another long name, which must be given in full, or empty
	Argument bool
	Whole    bool // the name must be given in full
}

// An Error says that a command line does not fit the options.
type Error struct {
	Text   string // without the program's name
	Option string // the name of the option that lacks its argument, or empty
}

func (e *Error) Error() string { return e.Text }

// A handed error was returned by the caller's function: it is not ours to word.
type handed struct{ error }

// noArgument is the value by which pflag shows that an option without argument
// was given none. No command line can contain it.
const noArgument = "\x00"

// Parse reads args, without the program's name. It calls set for each option in
// turn and returns the arguments that are not options. It stops at the first
// error: an *Error, or what set returned.
func Parse(args []string, options []Option, set func(name, value string) error) ([]string, error) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, o := range options {
		f := flags.VarPF(ignored{}, o.Name, o.Letter, "")
		if !o.Argument {
			f.NoOptDefVal = noArgument
		}
	}
	for _, arg := range args {
		if arg == "--" {
			break
		}
		if strings.HasPrefix(arg, "-test.") { // pflag would skip it silently
			return nil, &Error{Text: "invalid option -- 't'"}
		}
	}
	var ambiguous error
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		full, err := complete(options, name)
		if err != nil {
			ambiguous = err
		}
		return pflag.NormalizedName(full)
	})
	err := flags.ParseAll(args, func(f *pflag.Flag, value string) error {
		if err := give(f, value, set); err != nil {
			return handed{err}
		}
		return nil
	})
	if h, ok := errors.AsType[handed](err); ok {
		return nil, h.error
	}
	if err != nil && ambiguous != nil {
		return nil, ambiguous
	}
	if err != nil {
		return nil, worded(err)
	}
	return flags.Args(), nil
}

// give calls set for an option, unless it has an argument that it must not have.
func give(f *pflag.Flag, value string, set func(name, value string) error) error {
	if f.NoOptDefVal == "" {
		return set(f.Name, value)
	}
	if value != noArgument {
		return &Error{Text: fmt.Sprintf("option '--%s' doesn't allow an argument", f.Name)}
	}
	return set(f.Name, "")
}

// complete returns the full name of the option that s means. If there is none
// it returns s, and with the error a name that no option has.
func complete(options []Option, s string) (string, error) {
	var found []string
	for _, o := range options {
		if s == o.Name || s == o.Alias && s != "" {
			return o.Name, nil
		}
		if strings.HasPrefix(o.Name, s) && !o.Whole {
			found = append(found, o.Name)
		}
	}
	switch len(found) {
	case 0:
		return s, nil
	case 1:
		return found[0], nil
	}
	return noArgument, &Error{Text: fmt.Sprintf("option '--%s' is ambiguous; possibilities: '--%s'", s, strings.Join(found, "' '--"))}
}

// worded turns an error of pflag into one in the words of getopt.
func worded(err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if e.GetSpecifiedShortnames() != "" {
			return &Error{Text: fmt.Sprintf("invalid option -- '%s'", e.GetSpecifiedName())}
		}
		return &Error{Text: fmt.Sprintf("unrecognized option '--%s'", e.GetSpecifiedName())}
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		text := fmt.Sprintf("option '--%s' requires an argument", e.GetFlag().Name)
		if e.GetSpecifiedShortnames() != "" {
			text = fmt.Sprintf("option requires an argument -- '%s'", e.GetSpecifiedName())
		}
		return &Error{Text: text, Option: e.GetFlag().Name}
	}
	if e, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return &Error{Text: fmt.Sprintf("unrecognized option '%s'", e.GetSpecifiedFlag())}
	}
	return &Error{Text: err.Error()}
}

// An ignored value stands where pflag wants to store the argument.
type ignored struct{}

func (ignored) String() string   { return "" }
func (ignored) Set(string) error { return nil }
func (ignored) Type() string     { return "string" }
