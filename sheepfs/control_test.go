package sheepfs

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/remote"
)

func testTree(t *testing.T) *FS {
	t.Helper()
	tree := &FS{cfg: Config{}.withDefaults(), slots: make(chan struct{}, makers)}
	tree.log = tree.cfg.Log
	tree.ctx, tree.stop = context.WithCancelCause(t.Context())
	return tree
}

func TestALineActsWhenItEnds(t *testing.T) {
	for _, test := range []struct {
		about  string
		writes []string
		close  syscall.Errno
		lines  []string
		reason string
	}{
		{about: "one write", writes: []string{"one\n"}, lines: []string{"one"}},
		{about: "byte by byte", writes: []string{"o", "n", "e", "\n", "t", "w", "o"}, lines: []string{"one", "two"}},
		{about: "the close ends the line", writes: []string{"one"}, lines: []string{"one"}},
		{about: "nothing written", lines: nil},
		{about: "an empty line acts, too", writes: []string{"\n"}, lines: []string{""}},
		{about: "two lines at once", writes: []string{"one\ntwo\n"}, lines: []string{"one", "two"}},
		{about: "the close fails", writes: []string{"bad"}, close: syscall.EBUSY, lines: []string{"bad"}, reason: "error: it is in use\n"},
		{about: "success takes the reason away", writes: []string{"bad\n", "one\n"}, lines: []string{"bad", "one"}},
	} {
		t.Run(test.about, func(t *testing.T) {
			var lines []string
			tree := testTree(t)
			f := tree.control("a/file", control{obey: func(_ context.Context, line string) error {
				lines = append(lines, line)
				if line == "bad" {
					return refuse(syscall.EBUSY, "it is\nin use")
				}
				return nil
			}})
			fh, _, errno := f.Open(t.Context(), syscall.O_WRONLY)
			if errno != 0 {
				t.Fatal(errno)
			}
			h := fh.(*controlHandle)
			for _, w := range test.writes {
				for p := []byte(w); len(p) > 0; {
					n, errno := h.Write(t.Context(), p, 7)
					if errno != 0 {
						break
					}
					p = p[n:]
				}
			}
			if errno := h.Flush(t.Context()); errno != test.close {
				t.Errorf("the close gives %v, want %v", errno, test.close)
			}
			if !slices.Equal(lines, test.lines) {
				t.Errorf("lines %q acted, want %q", lines, test.lines)
			}
			if got := strings.ReplaceAll(tree.reasons.of("a/file"), "?", " "); got != test.reason {
				t.Errorf("the reason is %q, want %q", got, test.reason)
			}
		})
	}
}

func TestALineThatIsTooLongIsRefusedForGood(t *testing.T) {
	tree := testTree(t)
	acted := false
	f := tree.control("file", control{obey: func(context.Context, string) error { acted = true; return nil }})
	fh, _, _ := f.Open(t.Context(), syscall.O_WRONLY)
	h := fh.(*controlHandle)
	half := []byte(strings.Repeat("x", maxLine/2+1))
	if _, errno := h.Write(t.Context(), half, 0); errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range [][]byte{half, []byte("\n"), []byte("short\n")} {
		if _, errno := h.Write(t.Context(), p, 0); errno != syscall.EINVAL {
			t.Errorf("after too long a line a write gives %v, want EINVAL", errno)
		}
	}
	if errno := h.Flush(t.Context()); errno != 0 || acted {
		t.Errorf("the close gives %v, acted: %t", errno, acted)
	}
}

func TestReasonFollowsTheContent(t *testing.T) {
	tree := testTree(t)
	f := tree.control("file", control{show: func(context.Context) (content, error) { return text("1\n"), nil }})
	read := func() string {
		fh, _, errno := f.Open(t.Context(), syscall.O_RDONLY)
		if errno != 0 {
			t.Fatal(errno)
		}
		var all []byte
		for p := make([]byte, 3); ; {
			n, err := fh.(*controlHandle).content.readAt(t.Context(), p, int64(len(all)))
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				return string(all)
			}
			all = append(all, p[:n]...)
		}
	}
	if got := read(); got != "1\n" {
		t.Errorf("got %q", got)
	}
	tree.failed("file", errors.New("no \x1b[2J"))
	if got := read(); got != "1\nerror: no ?[2J\n" {
		t.Errorf("after a failure got %q", got)
	}
	tree.failed("file", nil)
	if got := read(); got != "1\n" {
		t.Errorf("after success got %q", got)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	var r reasons
	for i := range 3 * maxReasons {
		r.set(decimal(uint32(i)), errors.New("no"))
		r.set("same", errors.New("no"))
	}
	if len(r.words) > maxReasons || len(r.order) > maxReasons {
		t.Errorf("%d reasons in %d places", len(r.words), len(r.order))
	}
}

func TestWhoAsksGetsWhatWasMadeAfterwards(t *testing.T) {
	tree := testTree(t)
	var s shared
	var clock atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				asked := clock.Add(1)
				c, err := s.do(t.Context(), tree.fetch, func(context.Context) (content, error) {
					return text(strconv.FormatInt(clock.Add(1), 10)), nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				if made, err := strconv.ParseInt(string(c.(text)), 10, 64); err != nil || made < asked {
					t.Errorf("asked at %d, got what was made at %d (%v)", asked, made, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNames(t *testing.T) {
	for _, test := range []struct {
		label string
		want  remote.Version
		errno syscall.Errno
	}{
		{label: "tag", want: remote.Version{Tag: "tag"}},
		{label: "5a", want: remote.Version{Tag: "5a"}},
		{label: "5", want: remote.Version{ID: 5}},
		{label: "4294967295", want: remote.Version{ID: 1<<32 - 1}},
		{label: "0", errno: syscall.ENOENT},
		{label: "05", errno: syscall.ENOENT},
		{label: " 5", errno: syscall.ENOENT},
		{label: "-1", errno: syscall.ENOENT},
		{label: "4294967296", errno: syscall.ENOENT},
		{label: "99999999999999999999999", errno: syscall.ENOENT},
		{label: strings.Repeat("t", 256), errno: syscall.ENAMETOOLONG},
	} {
		got, err := version(test.label)
		if got != test.want || errnoOf(err) != test.errno {
			t.Errorf("version(%q) = %v, %v; want %v, %v", test.label, got, err, test.want, test.errno)
		}
	}
}

func TestWords(t *testing.T) {
	for _, test := range []struct {
		line string
		want []string
		bad  bool
	}{
		{line: "a b", want: []string{"a", "b"}},
		{line: "  a\t\tb  ", want: []string{"a", "b"}},
		{line: `a\ b c`, want: []string{"a b", "c"}},
		{line: `\\ \  x`, want: []string{`\`, " ", "x"}},
		{line: "", want: nil},
		{line: `a\`, bad: true},
	} {
		got, err := words(test.line)
		if !slices.Equal(got, test.want) || (err != nil) != test.bad {
			t.Errorf("words(%q) = %q, %v; want %q", test.line, got, err, test.want)
		}
	}
}

func TestSelections(t *testing.T) {
	for _, test := range []struct {
		volume string
		want   []selection
	}{
		{"disk", []selection{{name: "disk"}}},
		{"disk@tag", []selection{{name: "disk@tag"}, {"disk", remote.Version{Tag: "tag"}}}},
		{"disk:3", []selection{{name: "disk:3"}, {"disk", remote.Version{ID: 3}}}},
		{"disk:x", []selection{{name: "disk:x"}}},
		{"disk:0", []selection{{name: "disk:0"}}},
		{"@", []selection{{name: "@"}}},
		{"a@b:4", []selection{{name: "a@b:4"}, {"a", remote.Version{Tag: "b:4"}}, {"a@b", remote.Version{ID: 4}}}},
	} {
		if got := selections(test.volume); !slices.Equal(got, test.want) {
			t.Errorf("selections(%q) = %v, want %v", test.volume, got, test.want)
		}
	}
}

func TestErrorNumbers(t *testing.T) {
	for _, test := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{sheep.ErrNoVDI, syscall.ENOENT},
		{sheep.ErrNoTag, syscall.ENOENT},
		{&remote.SnapshotError{Err: sheep.ErrVDILocked}, syscall.EBUSY},
		{sheep.ErrVDIExists, syscall.EEXIST},
		{sheep.ErrNoSpace, syscall.ENOSPC},
		{sheep.ErrReadOnly, syscall.EROFS},
		{sheep.ErrInvalid, syscall.EINVAL},
		{errPatience, syscall.EIO},
		{sheep.ErrHalt, syscall.EIO},
		{refuse(syscall.EPERM, "no"), syscall.EPERM},
		{context.Canceled, syscall.EINTR},
		{errors.New("else"), syscall.EIO},
	} {
		if got := errnoOf(test.err); got != test.want {
			t.Errorf("errnoOf(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

func TestCatalogNamesSnapshots(t *testing.T) {
	family := []listed{
		{name: "d"},
		{name: "d", tag: "a", snapID: 1, snapshot: true},
		{name: "d", tag: "", snapID: 2, snapshot: true},
		{name: "d", tag: "7", snapID: 3, snapshot: true},
		{name: "d", tag: "x/y", snapID: 4, snapshot: true},
		{name: "d", tag: "a", snapID: 5, snapshot: true},
		{name: "d", tag: "..", snapID: 6, snapshot: true},
	}
	var got []string
	for _, l := range family[1:] {
		got = append(got, l.label(family))
	}
	if want := []string{"a", "2", "3", "4", "5", "6"}; !slices.Equal(got, want) {
		t.Errorf("the labels are %q, want %q", got, want)
	}
}

func TestShownVolumes(t *testing.T) {
	var s shown
	for _, name := range []string{"b", "a", "b"} {
		if err := s.add(name); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.list(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("shown are %q", got)
	}
	if !s.remove("a") || s.remove("a") || !slices.Equal(s.list(), []string{"b"}) {
		t.Errorf("after a was removed, shown are %q", s.list())
	}
}
