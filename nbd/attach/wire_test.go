package attach

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// A script is a server that says what it has been told to and hears everything.
type script struct {
	says  *bytes.Reader
	heard bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)  { return s.says.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.heard.Write(p) }

const hello = "NBDMAGICIHAVEOPT\x00\x03"

func answer(option, kind uint32, data string) string {
	b := binary.BigEndian.AppendUint64(nil, magicReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return string(b) + data
}

const (
	sizeInfo  = "\x00\x00" + "\x00\x00\x00\x00\x40\x00\x00\x00" + "\x01\x0d" // 1 GiB; flush, FUA, several connections
	blockInfo = "\x00\x03" + "\x00\x00\x02\x00" + "\x00\x00\x10\x00" + "\x02\x00\x00\x00"
)

func TestHandshake(t *testing.T) {
	s := &script{says: bytes.NewReader([]byte(hello +
		answer(7, 3, "\x00\x02a description") + answer(7, 3, sizeInfo) + answer(7, 3, blockInfo) + answer(7, 1, "") + "more"))}
	c := talk{s}
	if err := c.greet(); err != nil {
		t.Fatal(err)
	}
	info, err := c.ask(optGo, "disk")
	if want := (Info{Size: 1 << 30, Flags: 0x10d, MinBlock: 512}); err != nil || info != want {
		t.Errorf("got %+v, %v, want %+v", info, err, want)
	}
	want := "\x00\x00\x00\x03" + "IHAVEOPT" + "\x00\x00\x00\x07" + "\x00\x00\x00\x0c" + "\x00\x00\x00\x04disk" + "\x00\x01" + "\x00\x03"
	if got := s.heard.String(); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if s.says.Len() != len("more") {
		t.Errorf("%d bytes are left for the kernel, want %d", s.says.Len(), len("more"))
	}
}

func TestBadServers(t *testing.T) {
	for _, test := range []struct {
		name, says string
		want       error
	}{
		{"no answer", "", ErrServer},
		{"half a greeting", hello[:17], io.ErrUnexpectedEOF},
		{"another protocol", "SSH-2.0-OpenSSH_9.2p1 Debian", ErrServer},
		{"the old style", "NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00", ErrServer},
		{"newstyle that is not fixed", "NBDMAGICIHAVEOPT\x00\x02", ErrServer},
		{"silence after the greeting", hello, ErrServer},
		{"no magic", hello + strings.Repeat("x", replySize), ErrServer},
		{"the answer to another option", hello + answer(6, 1, ""), ErrServer},
		{"an answer that claims much", hello + answer(7, 3, "")[:16] + "\xff\xff\xff\xff", ErrServer},
		{"an answer that ends early", hello + answer(7, 3, sizeInfo)[:25], io.ErrUnexpectedEOF},
		{"success without a size", hello + answer(7, 1, ""), ErrServer},
		{"information of no type", hello + answer(7, 3, "\x00"), ErrServer},
		{"half a size", hello + answer(7, 3, sizeInfo[:8]), ErrServer},
		{"flags without the first", hello + answer(7, 3, sizeInfo[:11]+"\x04"), ErrServer},
		{"more bytes than offsets", hello + answer(7, 3, "\x00\x00"+strings.Repeat("\xff", 8)+"\x00\x01"), ErrServer},
		{"a block size of no power of two", hello + answer(7, 3, "\x00\x03\x00\x00\x02\x01"+blockInfo[6:]), ErrServer},
		{"a block size of zero", hello + answer(7, 3, "\x00\x03\x00\x00\x00\x00"+blockInfo[6:]), ErrServer},
		{"half a block size", hello + answer(7, 3, blockInfo[:6]), ErrServer},
		{"a reply of an unknown type", hello + answer(7, 99, ""), ErrServer},
		{"information without end", hello + strings.Repeat(answer(7, 3, sizeInfo), maxInfos+1), ErrServer},
		{"no such export", hello + answer(7, 1<<31|6, "gone"), ErrNoExport},
		{"TLS", hello + answer(7, 1<<31|5, "TLS first"), ErrNeedsTLS},
		{"an option that it does not know", hello + answer(7, 1<<31|1, ""), ErrRefused},
		{"a policy", hello + answer(7, 1<<31|2, "not you\x1b[2J"), ErrRefused},
		{"an error that nobody knows", hello + answer(7, 1<<31|77, ""), ErrRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := talk{&script{says: bytes.NewReader([]byte(test.says))}}
			err := c.greet()
			if err == nil {
				_, err = c.ask(optGo, "disk")
			}
			if !errors.Is(err, test.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestList(t *testing.T) {
	for _, test := range []struct {
		name, says string
		want       []Export
		err        error
	}{
		{"no export", answer(3, 1, ""), nil, nil},
		{"two exports", answer(3, 2, "\x00\x00\x00\x01aone") + answer(3, 2, "\x00\x00\x00\x02bb") + answer(3, 1, ""),
			[]Export{{Name: "a", Description: "one"}, {Name: "bb"}}, nil},
		{"a name that does not end", answer(3, 2, "\x00\x00\x00\x05abcd"), nil, ErrServer},
		{"no name", answer(3, 2, "\x00"), nil, ErrServer},
		{"a name that is too long", answer(3, 2, "\x00\x00\x10\x01"+strings.Repeat("x", 4097)), nil, ErrServer},
		{"a name that is no text", answer(3, 2, "\x00\x00\x00\x01\xff"), nil, ErrServer},
		{"a refusal", answer(3, 1<<31|2, ""), nil, ErrRefused},
		{"a reply of another type", answer(3, 3, sizeInfo), nil, ErrServer},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := talk{&script{says: bytes.NewReader([]byte(test.says))}}.list()
			if !errors.Is(err, test.err) || len(got) != len(test.want) {
				t.Fatalf("got %+v, %v, want %+v, %v", got, err, test.want, test.err)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("got %+v, want %+v", got[i], test.want[i])
				}
			}
		})
	}
}

// FuzzHandshake has servers say anything. Whatever is believed must be usable,
// and the memory is bounded by what the server really sends.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte(hello + answer(7, 3, sizeInfo) + answer(7, 3, blockInfo) + answer(7, 1, "")))
	f.Add([]byte(hello + answer(7, 1<<31|6, "gone")))
	f.Add([]byte(hello + answer(3, 2, "\x00\x00\x00\x01aone") + answer(3, 1, "")))
	f.Fuzz(func(t *testing.T, says []byte) {
		c := talk{&script{says: bytes.NewReader(says)}}
		if c.greet() != nil {
			return
		}
		if info, err := c.ask(optGo, "disk"); err == nil {
			if info.Flags&HasFlags == 0 || info.Size > maxSize || info.MinBlock&(info.MinBlock-1) != 0 {
				t.Errorf("believed %+v", info)
			}
		}
		c = talk{&script{says: bytes.NewReader(says[helloSize:])}}
		list, err := c.list()
		if err == nil && len(list)*replySize > len(says) {
			t.Errorf("%d exports in %d bytes", len(list), len(says))
		}
	})
}

// TestAttributes compares a message with the bytes that the kernel expects, of
// which each attribute is a length, a type and a value, padded to four bytes.
func TestAttributes(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes below are those of little-endian machines")
	}
	got, err := Connection{
		Index: 3, HasIndex: true, Size: 1 << 20, BlockSize: 512, Timeout: 5 * time.Second, DeadTime: time.Minute,
		Flags: 0x10d, Sockets: []int{7, 8}, Backend: "nbd",
	}.encode()
	want := "0800" + "0100" + "03000000" + // NBD_ATTR_INDEX
		"0c00" + "0200" + "0000100000000000" + // NBD_ATTR_SIZE_BYTES
		"0c00" + "0300" + "0002000000000000" + // NBD_ATTR_BLOCK_SIZE_BYTES
		"0c00" + "0400" + "0500000000000000" + // NBD_ATTR_TIMEOUT
		"0c00" + "0800" + "3c00000000000000" + // NBD_ATTR_DEAD_CONN_TIMEOUT
		"0c00" + "0500" + "0d01000000000000" + // NBD_ATTR_SERVER_FLAGS
		"0800" + "0a00" + "6e626400" + // NBD_ATTR_BACKEND_IDENTIFIER
		"1c00" + "0780" + // NBD_ATTR_SOCKETS, nested
		"0c00" + "0180" + "0800" + "0100" + "07000000" + // NBD_SOCK_ITEM, nested, NBD_SOCK_FD
		"0c00" + "0180" + "0800" + "0100" + "08000000"
	if err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got  %x, %v\nwant %s", got, err, want)
	}
	if index, err := decodeIndex(got); err != nil || index != 3 {
		t.Errorf("the device is %d, %v", index, err)
	}
	for _, bad := range []string{"", "0400", "08000200" + "00000000", "06000100" + "00000000", "ff000100"} {
		b, err := hex.DecodeString(bad)
		if err != nil {
			t.Fatal(err)
		}
		if index, err := decodeIndex(b); err == nil {
			t.Errorf("%s names the device %d", bad, index)
		}
	}
}
