// Package rules_test holds the rules that the tree keeps about itself. Which
// package may import which is read from the arrows in docs/architecture.md, so
// that the page and the tree cannot part. Documentation is part of the form:
// each package teaches what it is for, each exported name says what it
// promises.
package rules_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

const module = "sheepdog"

// A listed is what go list says about a package.
type listed struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,GoFiles,Imports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
}

// short returns the name that docs/architecture.md uses for a package of this
// module, and "" for others. What lies below sheep/ goes without that prefix,
// and an internal package is part of the one that it is internal to.
func short(path string) string {
	path, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	path, _, _ = strings.Cut(path, "/internal/")
	return strings.TrimPrefix(path, "sheep/")
}

// Arrows are what the page allows: from a package to the packages that it may
// import. A package that is missing may import nothing but sheep.
type arrows map[string][]string

// readArrows reads the block under "Import arrows". Two columns stand side by
// side there, parted by two spaces or more; "a → b → c, d" is an arrow from a
// and one from b; words in parentheses explain.
func readArrows(t *testing.T) (allowed arrows, pure []string) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(b), "## Import arrows")
	_, block, _ = strings.Cut(block, "```\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("docs/architecture.md has no block under Import arrows")
	}
	block = regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(block, "")
	allowed = make(arrows)
	for _, item := range regexp.MustCompile(`\n|\s{2,}`).Split(block, -1) {
		if list, ok := strings.CutPrefix(strings.TrimSpace(item), "pure:"); ok {
			pure = append(pure, split(list)...)
			continue
		}
		from := ""
		for i, part := range strings.Split(item, "→") {
			names := split(part)
			if len(names) == 0 {
				continue
			}
			last := names[len(names)-1]
			if i > 0 && len(names) > 1 && strings.Count(item, "→") > i {
				names = names[:len(names)-1]
			}
			if i > 0 {
				allowed[from] = append(allowed[from], names...)
			}
			from = last
		}
	}
	if len(allowed) < 5 || len(pure) == 0 {
		t.Fatalf("found hardly any arrow in docs/architecture.md: %v, pure %v", allowed, pure)
	}
	return allowed, pure
}

func split(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (a arrows) allow(from, to string) bool {
	if to == "sheep" || to == from {
		return true
	}
	if dir, base := filepath.Split(from); base == filepath.Base(dir)+"test" && to == filepath.Clean(dir) {
		return true // the conformance suite of a package
	}
	targets := a[from]
	if dir, _ := filepath.Split(from); dir != "" { // cluster/X stands for its drivers
		targets = append(targets[:len(targets):len(targets)], a[dir+"X"]...)
	}
	return slices.Contains(targets, to) || slices.Contains(targets, "all of it")
}

func TestImportsFollowTheArrows(t *testing.T) {
	allowed, _ := readArrows(t)
	for _, p := range packages(t) {
		from := short(p.ImportPath)
		if from == "tests" || strings.HasPrefix(from, "tests/") {
			continue // tests may look at everything
		}
		for _, path := range p.Imports {
			to := short(path)
			if path == module+"/sheep" {
				to = "sheep"
			}
			if to != "" && !allowed.allow(from, to) {
				t.Errorf("%s imports %s: docs/architecture.md has no such arrow", from, to)
			}
		}
	}
}

func TestPurePackagesTouchNothing(t *testing.T) {
	_, pure := readArrows(t)
	for _, p := range packages(t) {
		if !slices.Contains(pure, short(p.ImportPath)) && p.ImportPath != module+"/sheep" {
			continue
		}
		for _, path := range p.Imports {
			switch path {
			case "net", "os", "os/exec", "syscall", "golang.org/x/sys/unix", "math/rand", "math/rand/v2":
				t.Errorf("%s is pure and imports %s", p.ImportPath, path)
			}
		}
	}
}

func TestNothingButTestsImportsTests(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range p.Imports {
			if strings.HasPrefix(path, module+"/tests") && !strings.HasPrefix(p.ImportPath, module+"/tests") {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
		}
	}
}
