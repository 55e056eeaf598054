package store_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/store"
)

// epochTime is that of the example of the format's description.
var epochTime = time.Unix(0x6b00e1bf, 0)

func sleep(d time.Duration) { time.Sleep(d + time.Second) } // in a bubble with a fake clock

var nodes = []sheep.Node{{
	Addr: netip.MustParseAddrPort("127.0.0.1:7700"), VNodes: 128, Zone: 1, Space: 1 << 30,
}}

const (
	configBytes = "8877665544332211" + "0100" + "03" + "706c61696e0000000000000000000000" + "01" + "21" + "16" +
		"0600" + "0000001000000000"
	epochBytes = "000000000000000000000000000000000000000000000000" + "0000000000000000000000007f000001" + "141e" +
		"00000000000000000000000000000000" + "0000" + "00000000" + "8000" + "0000" + "01000000" + "0000004000000000" +
		"bfe1006b00000000"
)

var config = proto.StoreConfig{
	Ctime: 0x1122334455667788, Flags: 1, Copies: 3, Store: "plain", Clean: true, CopyPolicy: 0x21, BlockShift: 22,
	Version: 6, Space: 1 << 28,
}

func wantFile(t *testing.T, name, want string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("%s:\ngot  %s\nwant %s", filepath.Base(name), got, want)
	}
}

func TestFilesHaveTheBytesOfC(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openStore(t, dir, small)
	if err := s.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	if err := s.LogEpoch(12, nodes, epochTime); err != nil {
		t.Fatal(err)
	}
	// While the store is open C refuses its version.
	wantFile(t, filepath.Join(dir, "config"), strings.Replace(configBytes, "0600", "0601", 1))
	wantFile(t, filepath.Join(dir, "epoch/00000012"), epochBytes)
	write(t, s, sheep.InodeObject(0xabcdef), 1, sheep.Write{Create: true})
	closeStore(t, s, true)
	wantFile(t, filepath.Join(dir, "config"), configBytes)
	if info, err := os.Stat(filepath.Join(dir, "obj/80abcdef00000000")); err != nil || info.Size() != objectSize {
		t.Errorf("got %v, %v, want an object of %d bytes", info, err, objectSize)
	}
	for name, mode := range map[string]os.FileMode{
		"": 0o750, "epoch": 0o750, "obj": 0o750, "obj/.stale": 0o750,
		"config": 0o640, "epoch/00000012": 0o640, "obj/80abcdef00000000": 0o640, "lock": 0o640,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != mode&^umask() {
			t.Errorf("%q: got mode %o, want %o", name, got, mode&^umask())
		}
	}
}

func umask() os.FileMode {
	m := unix.Umask(0)
	unix.Umask(m)
	return os.FileMode(m)
}

// cStore makes a store directory as C leaves it.
func cStore(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	for _, name := range []string{"obj/.stale", "epoch"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, content string) {
		b, err := hex.DecodeString(content)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("config", configBytes)
	put("config.tmp", "00")
	for _, e := range []string{"00000001", "00000002"} {
		put("epoch/"+e, epochBytes)
	}
	put("obj/0000000100000002", "010203")
	if err := os.Truncate(filepath.Join(dir, "obj/0000000100000002"), objectSize); err != nil { // C makes objects in their whole size
		t.Fatal(err)
	}
	put("obj/8000000100000000", "04")
	put("obj/0000000100000003.tmp", "05")
	put("obj/0000000100000004_1", "06") // a strip
	put("obj/.stale/0000000100000002.1", "07")
	return dir
}

func TestStoreOfCIsAdopted(t *testing.T) {
	dir := cStore(t)
	s := openStore(t, dir, small)
	if got := s.Config(); got != config {
		t.Errorf("got config %+v, want %+v", got, config)
	}
	if s.LatestEpoch() != 2 || s.Complete() != 2 {
		t.Errorf("got latest epoch %d, complete %d, want 2, 2", s.LatestEpoch(), s.Complete())
	}
	got, began, err := s.Epoch(1)
	if err != nil || !reflect.DeepEqual(got, nodes) || !began.Equal(epochTime) {
		t.Errorf("got epoch %v, %v, %v, want %v, %v", got, began, err, nodes, epochTime)
	}
	if _, _, err := s.Epoch(3); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v of an unknown epoch, want %v", err, os.ErrNotExist)
	}
	ids := []sheep.ObjectID{sheep.DataObject(1, 2), sheep.InodeObject(1)}
	for from, want := range map[sheep.ObjectID][]sheep.ObjectID{0: ids, ids[0] + 1: ids[1:]} {
		if got, err := s.IDs(from); err != nil || !slices.Equal(got, want) {
			t.Errorf("got objects %v, %v, want %v", got, err, want)
		}
	}
	for _, id := range ids {
		if info, err := s.Stat(id); err != nil || info.WriteEpoch != 0 || info.Size == 0 {
			t.Errorf("%v: got %+v, %v, want a size and no write epoch", id, info, err)
		}
	}
	wantBytes(t, s, ids[0], 0, []byte{1, 2, 3, 0, 0})
	write(t, s, ids[0], 2, sheep.Write{Off: 1, Data: []byte{9}})
	if err := s.SetComplete(1); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s, true)
	for name, want := range map[string]bool{
		"config.tmp": false, "obj/0000000100000003.tmp": false,
		"obj/0000000100000004_1": true, "obj/.stale/0000000100000002.1": true,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: got %v, want it there: %t", name, err, want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "obj/0000000100000002")); err != nil || len(b) != objectSize || !bytes.HasPrefix(b, []byte{1, 9, 3, 0}) {
		t.Errorf("got an object of %d bytes, %v; want what was written", len(b), err)
	}

	s = openStore(t, dir, small)
	if s.Complete() != 1 {
		t.Errorf("got complete %d after reopening, want 1", s.Complete())
	}
	closeStore(t, s, true)
	if err := os.WriteFile(filepath.Join(dir, "epoch/00000003"), make([]byte, 8), 0o640); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, small)
	if s.Complete() != 3 {
		t.Errorf("got complete %d after C made epoch 3, want 3", s.Complete())
	}
	closeStore(t, s, true)
}

func TestWhatCannotBeHandledIsRefused(t *testing.T) {
	set := func(name, content string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	withConfig := func(change func(*proto.StoreConfig)) func(t *testing.T, dir string) {
		c := config
		change(&c)
		return set("config", string(c.Append(nil)))
	}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string
	}{
		"an older format":        {withConfig(func(c *proto.StoreConfig) { c.Version = 5 }), "version 5"},
		"the tree layout":        {withConfig(func(c *proto.StoreConfig) { c.Store = "tree" }), "not supported yet"},
		"an unknown layout":      {withConfig(func(c *proto.StoreConfig) { c.Store = "bush" }), "unknown layout"},
		"a torn config":          {set("config", "torn"), "config"},
		"a journal of C":         {set("journal_file1", "x"), "journal_file1"},
		"a damaged complete":     {set("complete", "x"), "complete is damaged"},
		"a damaged list":         {set("damaged.list", "x\n"), "damaged.list"},
		"a journal that is lost": {withConfig(func(c *proto.StoreConfig) { c.Version = 0x0106 }), "journal is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := cStore(t)
			test.prepare(t, dir)
			before, err := os.ReadFile(filepath.Join(dir, "config"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(dir, small)
			if err == nil {
				closeStore(t, s, true)
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error %q does not say %q", err, test.want)
			}
			if after, err := os.ReadFile(filepath.Join(dir, "config")); err != nil || !bytes.Equal(after, before) {
				t.Errorf("the config was changed: %x, %v", after, err)
			}
		})
	}
}

// TestLockHolder is no test: TestLockedStoreIsRefused runs it as another
// process, which locks a file as C does until its input ends.
func TestLockHolder(t *testing.T) {
	name := os.Getenv("SHEEP_TEST_LOCK")
	if name == "" {
		t.Skip("it serves another test")
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Len: 1}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
		os.Stdout.WriteString("busy\n")
		return
	}
	os.Stdout.WriteString("locked\n")
	io.Copy(io.Discard, os.Stdin)
}

// lockHolder starts the other process and returns what it says, and a function
// that ends it.
func lockHolder(t *testing.T, name string) (says string, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestLockHolder$")
	cmd.Env = append(os.Environ(), "SHEEP_TEST_LOCK="+name)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(out, b); err != nil {
		t.Fatal(err)
	}
	return string(b), func() {
		in.Close()
		io.Copy(io.Discard, out)
		cmd.Wait()
	}
}

func TestLockedStoreIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openStore(t, dir, small)
	if _, err := store.Open(dir, small); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("got error %v from a second store, want one about the lock", err)
	}
	if says, end := lockHolder(t, filepath.Join(dir, "lock")); says != "busy" {
		t.Errorf("another process could lock the store as C does")
		end()
	} else {
		end()
	}
	closeStore(t, s, true)
	says, end := lockHolder(t, filepath.Join(dir, "lock"))
	if says != "lock" {
		t.Fatalf("the other process says %q", says)
	}
	if _, err := store.Open(dir, small); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("got error %v while C has the lock, want one about it", err)
	}
	end()
	closeStore(t, openStore(t, dir, small), true)
}

func TestFilesAreSparse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openStore(t, dir, small)
	id := sheep.DataObject(1, 0)
	name := filepath.Join(dir, "obj", id.String())
	used := func() int64 {
		t.Helper()
		if err := s.FlushAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	data := make([]byte, objectSize)
	data[2<<20] = 1
	write(t, s, id, 1, sheep.Write{Create: true, Data: data})
	if got := used(); got > 64<<10 {
		t.Errorf("an object with one byte takes %d bytes", got)
	}
	write(t, s, id, 1, sheep.Write{Data: bytes.Repeat([]byte{1}, objectSize)})
	full := used()
	write(t, s, id, 1, sheep.Write{Zero: objectSize})
	if got := used(); full < objectSize || got > 64<<10 {
		t.Errorf("got %d bytes in use, and %d after zeroing all, want %d and next to nothing", full, got, objectSize)
	}
	wantBytes(t, s, id, 0, make([]byte, objectSize))
	if sum, err := s.Digest(id); err != nil || sum != sha1.Sum(make([]byte, objectSize)) {
		t.Errorf("got digest %x, %v, want that of zeroes", sum, err)
	}
	closeStore(t, s, true)
}
