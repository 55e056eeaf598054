package command_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"sheepdog/cmd/dog/internal/command"
	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep/proto"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// A result is what a run of dog did.
type result struct {
	stdout, stderr string
	status         int
}

// run runs dog against c.
func run(t *testing.T, c *fakesheep.Cluster, stdin string, args ...string) result {
	t.Helper()
	return runEnv(t, c, command.Env{Stdin: strings.NewReader(stdin), Args: args})
}

// runEnv runs dog against c in env, of which it fills in the rest.
func runEnv(t *testing.T, c *fakesheep.Cluster, env command.Env) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env.Program, env.Version = "dog", "1.2"
	env.Stdout, env.Stderr, env.Dial, env.Now = &stdout, &stderr, c.Dial, fakesheep.Start
	if env.Stdin == nil {
		env.Stdin = strings.NewReader("")
	}
	status := command.Run(t.Context(), env)
	return result{stdout.String(), stderr.String(), status}
}

// prefixed puts a prefix before each line of s, and says so if the last line
// has no end.
func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }) {
		return prefix + strconv.Quote(s) + "\n"
	}
	s, ended := strings.CutSuffix(s, "\n")
	s = prefix + strings.ReplaceAll(s, "\n", "\n"+prefix) + "\n"
	if !ended {
		s += prefix + "(no newline)\n"
	}
	return s
}

// TestTranscripts replays the command lines in testdata and compares what dog
// prints. A transcript starts with the cluster that it is played against; a
// line of it that starts with a dollar is a command line, with words in Go's
// quotes where necessary and standard input after a "<".
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// replay returns the transcript with the answers as they are now.
func replay(t *testing.T, transcript string) string {
	t.Helper()
	var b strings.Builder
	var c *fakesheep.Cluster
	for line := range strings.Lines(transcript) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "cluster: "):
			c = clusterOf(t, strings.TrimPrefix(line, "cluster: "))
		case strings.HasPrefix(line, "$ "):
			args, stdin := split(t, strings.TrimPrefix(line, "$ dog"))
			r := run(t, c, stdin, args...)
			fmt.Fprintf(&b, "%s\n%s%s", line, prefixed("E: ", r.stderr), prefixed("O: ", r.stdout))
			if r.status != 0 {
				fmt.Fprintf(&b, "[%d]\n", r.status)
			}
			continue
		case strings.HasPrefix(line, "#"), line == "":
		default:
			continue // an answer, which is made anew
		}
		fmt.Fprintln(&b, line)
	}
	return b.String()
}

// clusterOf returns the cluster that a transcript asks for.
func clusterOf(t *testing.T, what string) *fakesheep.Cluster {
	t.Helper()
	switch what {
	case "three nodes, two copies":
		return fakesheep.Formatted(3, 2, 0)
	case "three nodes, two copies, locking":
		return fakesheep.Formatted(3, 2, proto.ClusterLock)
	case "three nodes, not formatted":
		return fakesheep.New(3)
	case "nobody":
		return fakesheep.New(0)
	}
	t.Fatalf("unknown cluster %q", what)
	return nil
}

// split cuts a command line into words.
func split(t *testing.T, line string) (args []string, stdin string) {
	t.Helper()
	input := false
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		var word string
		if quoted, err := strconv.QuotedPrefix(line); err == nil {
			line = line[len(quoted):]
			if word, err = strconv.Unquote(quoted); err != nil {
				t.Fatal(err)
			}
		} else {
			word, line, _ = strings.Cut(line, " ")
			if word == "<" {
				input = true
				continue
			}
		}
		if input {
			stdin += word
		} else {
			args = append(args, word)
		}
	}
	return args, stdin
}
