package getopt_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sheepdog/cmd/sheep/internal/getopt"
)

func TestParse(t *testing.T) {
	options := []getopt.Option{
		{Letter: "f", Name: "foreground"},
		{Letter: "g", Name: "gateway"},
		{Letter: "p", Name: "port", Argument: true},
		{Letter: "P", Name: "pidfile", Argument: true},
		{Letter: "j", Name: "journal", Argument: true},
		{Name: "journal-size", Argument: true, Whole: true},
		{Letter: "w", Name: "wq-threads", Alias: "cache", Argument: true},
	}
	tests := []struct {
		name string
		args string
		set  string // in order
		rest string
		err  string
	}{
		{"nothing", "", "", "", ""},
		{"letters", "-f -p 1", "foreground= port=1", "", ""},
		{"joined letters", "-fgp1", "foreground= gateway= port=1", "", ""},
		{"an argument that looks like an option", "-p -f", "port=-f", "", ""},
		{"long names", "--foreground --port 1 --pidfile=x=y", "foreground= port=1 pidfile=x=y", "", ""},
		{"shortened names", "--fore --po 1 --pi=x", "foreground= port=1 pidfile=x", "", ""},
		{"a name that starts another", "--journal 1 --journal-size 2", "journal=1 journal-size=2", "", ""},
		{"a name that must be whole does not shorten", "--jour 1", "journal=1", "", ""},
		{"a name that must be whole is not found shortened", "--journal-s 1", "", "", "unrecognized option '--journal-s'"},
		{"an alias", "--cache 1", "wq-threads=1", "", ""},
		{"an alias must be whole", "--cach 1", "", "", "unrecognized option '--cach'"},
		{"other arguments in between", "a -f b -p 1 c", "foreground= port=1", "a b c", ""},
		{"the end of options", "-f -- -g --port", "foreground=", "-g --port", ""},
		{"a single dash is no option", "- -f", "foreground=", "-", ""},
		{"an unknown letter", "-f -Q", "foreground=", "", "invalid option -- 'Q'"},
		{"an unknown letter among others", "-fQg", "foreground=", "", "invalid option -- 'Q'"},
		{"an unknown name", "--foo", "", "", "unrecognized option '--foo'"},
		{"an ambiguous name", "--p 3", "", "", "option '--p' is ambiguous; possibilities: '--port' '--pidfile'"},
		{"no argument for a letter", "-f -p", "foreground=", "", "option requires an argument -- 'p'"},
		{"no argument for a name", "--port", "", "", "option '--port' requires an argument"},
		{"an argument that is not wanted", "--foreground=1", "", "", "option '--foreground' doesn't allow an argument"},
		{"an error of the caller", "-p bad -Q", "port=bad", "", "no good"},
		{"an option of Go's tests", "-test.v", "", "", "invalid option -- 't'"},
		{"three dashes", "---foo", "", "", "unrecognized option '---foo'"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			rest, err := getopt.Parse(strings.Fields(test.args), options, func(name, value string) error {
				got = append(got, name+"="+value)
				if value == "bad" {
					return errors.New("no good")
				}
				return nil
			})
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != test.err {
				t.Errorf("error %q, want %q", text, test.err)
			}
			if want := strings.Fields(test.set); !slices.Equal(got, want) {
				t.Errorf("options %q, want %q", got, want)
			}
			if want := strings.Fields(test.rest); !slices.Equal(rest, want) {
				t.Errorf("rest %q, want %q", rest, want)
			}
		})
	}
}

func TestAnOptionWithoutItsArgumentIsNamed(t *testing.T) {
	_, err := getopt.Parse([]string{"-p"}, []getopt.Option{{Letter: "p", Name: "port", Argument: true}}, nil)
	e, ok := errors.AsType[*getopt.Error](err)
	if !ok || e.Option != "port" {
		t.Errorf("got %#v, want an *Error for port", err)
	}
}

func TestAnArgumentMayHoldAnyBytes(t *testing.T) {
	var got []string
	_, err := getopt.Parse([]string{"-p", "", "--port=", "-p ", "-p\n"}, []getopt.Option{{Letter: "p", Name: "port", Argument: true}},
		func(_, value string) error { got = append(got, value); return nil })
	if want := []string{"", "", " ", "\n"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
