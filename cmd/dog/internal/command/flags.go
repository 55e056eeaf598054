package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// A flagValue hands the argument of an option to its parser.
type flagValue struct {
	opts *options
	opt  option
}

func (v flagValue) String() string { return "" }

func (v flagValue) Type() string { return "string" }

func (v flagValue) Set(s string) error { return v.opt.value(v.opts, s) }

// addFlags declares the options of s.
func (s *session) addFlags(flags *pflag.FlagSet) {
	var names []string
	for _, o := range s.known {
		names = append(names, o.name)
		switch {
		case o.value != nil:
			flags.VarP(flagValue{opts: &s.opts, opt: o}, o.name, o.letter, strings.Join(o.text, " "))
		case o.set == nil:
			flags.BoolP(o.name, o.letter, false, strings.Join(o.text, " "))
		default:
			flags.BoolVarP(o.set(&s.opts), o.name, o.letter, false, strings.Join(o.text, " "))
		}
	}
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(completeName(names, name))
	})
}

// completeName returns the only name that starts with s, or s if there are
// several or none.
func completeName(names []string, s string) string {
	found := s
	for _, name := range names {
		if name == s {
			return s
		}
		if strings.HasPrefix(name, s) && s != "" {
			if found != s {
				return s
			}
			found = name
		}
	}
	return found
}

// flagFailure turns an error of the option parser into the words of getopt.
func flagFailure(program string, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	complain := func(format string, args ...any) error {
		return fail(ExitUsage, "%s: %s", program, fmt.Sprintf(format, args...)).
			and("Try '%s --help' for more information.", program)
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if e.GetSpecifiedShortnames() != "" {
			return complain("invalid option -- '%s'", e.GetSpecifiedName())
		}
		return complain("unrecognized option '--%s'", e.GetSpecifiedName())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		if e.GetSpecifiedShortnames() != "" {
			return complain("option requires an argument -- '%s'", e.GetSpecifiedName())
		}
		return complain("option '--%s' requires an argument", e.GetSpecifiedName())
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return complain("option '--%s' doesn't allow an argument", e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return complain("unrecognized option '%s'", e.GetSpecifiedFlag())
	}
	return complain("%v", err)
}
