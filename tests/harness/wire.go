package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Weather is what frames suffer on the wire between a host and the switch. The
// zero value is fair.
type Weather struct {
	Delay, Jitter time.Duration // each way; at least Delay, and up to Jitter more
	Loss          float64       // share of frames that are lost, each way
	Deaf          bool          // nothing comes to the host
	Mute          bool          // nothing comes from the host
	Strangers     []int         // hosts that this one does not reach, nor they it
}

func (w Weather) String() string {
	switch {
	case w.Deaf:
		return "deaf"
	case w.Mute:
		return "mute"
	case len(w.Strangers) > 0:
		return fmt.Sprintf("apart from %v", w.Strangers)
	}
	return fmt.Sprintf("delay %v+%v, loss %.0f %%", w.Delay, w.Jitter, w.Loss*100)
}

func (w Weather) fair() bool {
	return w.Delay == 0 && w.Jitter == 0 && w.Loss == 0 && !w.Deaf && !w.Mute && len(w.Strangers) == 0
}

// A wire carries frames between the card of a host and the switch through this
// process, which can lose and delay them without any help of the kernel's.
type wire struct {
	weather atomic.Pointer[Weather]
	ends    []*os.File
	done    sync.WaitGroup
}

// SetWeather says what befalls the frames of host i from now on.
func (h *Hosts) SetWeather(i int, w Weather) {
	h.t.Helper()
	if h.wires[i] == nil {
		if w.fair() {
			return
		}
		h.wires[i] = h.lay(i)
	}
	h.wires[i].weather.Store(&w)
	if w.fair() {
		h.cutWire(i)
	}
}

// lay puts a wire between the card of host i and the switch that it is at.
func (h *Hosts) lay(i int) *wire {
	h.t.Helper()
	w := &wire{}
	near, far := fmt.Sprintf("near%d", i), fmt.Sprintf("far%d", i)
	h.hub.run(h.t, "ip", "link", "add", near, "type", "veth", "peer", "name", far)
	h.hub.run(h.t, "ip", "link", "set", near, "up")
	h.hub.run(h.t, "ip", "link", "set", plugOf(i), "nomaster")
	h.hub.run(h.t, "ip", "link", "set", far, "master", h.at[i], "up")
	err := h.hub.inside(func() error {
		for _, name := range []string{plugOf(i), near} {
			f, err := packets(name)
			if err != nil {
				return fmt.Errorf("packet socket on %s: %w", name, err)
			}
			w.ends = append(w.ends, f)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	w.weather.Store(&Weather{})
	w.carry(w.ends[0], w.ends[1], true)
	w.carry(w.ends[1], w.ends[0], false)
	return w
}

// cutWire plugs the card of host i into its switch again.
func (h *Hosts) cutWire(i int) {
	h.t.Helper()
	h.hub.run(h.t, "ip", "link", "del", fmt.Sprintf("near%d", i))
	h.hub.run(h.t, "ip", "link", "set", plugOf(i), "master", h.at[i])
	h.wires[i].close()
	h.wires[i] = nil
}

func (w *wire) close() {
	for _, f := range w.ends {
		f.Close()
	}
	w.done.Wait()
}

// maxOnWire bounds the frames that are under way, as the queue of a card does.
const maxOnWire = 4096

// A frame is due at the other end at some time.
type frame struct {
	due  time.Time
	data []byte
}

// carry starts one direction of the wire: from the host, or to it.
func (w *wire) carry(in, out *os.File, outward bool) {
	queue := make(chan frame, maxOnWire)
	w.done.Go(func() {
		defer close(queue)
		buf := make([]byte, maxFrame)
		last := time.Time{}
		for {
			n, err := in.Read(buf)
			if errors.Is(err, unix.ENETDOWN) {
				continue // once, when a card goes down
			}
			if err != nil {
				return
			}
			weather := w.weather.Load()
			if weather.loses(buf[:n], outward) {
				continue
			}
			f := frame{time.Now().Add(weather.Delay), append([]byte(nil), buf[:n]...)}
			if weather.Jitter > 0 {
				f.due = f.due.Add(rand.N(weather.Jitter))
			}
			if f.due.Before(last) {
				f.due = last // nothing overtakes on a wire
			}
			last = f.due
			select {
			case queue <- f:
			default: // lost
			}
		}
	})
	w.done.Go(func() {
		for f := range queue {
			time.Sleep(time.Until(f.due))
			out.Write(f.data) // what does not go is lost
		}
	})
}

func (w *Weather) loses(b []byte, outward bool) bool {
	if outward && w.Mute || !outward && w.Deaf || w.Loss > 0 && rand.Float64() < w.Loss {
		return true
	}
	if len(w.Strangers) == 0 || len(b) < virtioHeader+34 || b[virtioHeader+12] != 8 || b[virtioHeader+13] != 0 {
		return false // no IPv4
	}
	other := b[virtioHeader+29] // the last byte of the sender's address
	if outward {
		other = b[virtioHeader+33]
	}
	return slices.Contains(w.Strangers, int(other)-1)
}

// A packet socket gives and takes frames behind a header that says what the
// kernel has put off: checksums, and the cutting of long frames.
const (
	virtioHeader = 10
	maxFrame     = virtioHeader + 128<<10
)

// packets opens a packet socket on a network card.
func packets(card string) (*os.File, error) {
	const all = 0x0300 // ETH_P_ALL, as the network writes it
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), card)
	ifr, err := unix.NewIfreq(card)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err == nil {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(ifr.Uint32())}),
			unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(ifr.Uint32()), Type: unix.PACKET_MR_PROMISC}),
		)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// inside runs fn on a thread in the namespace. The thread ends with it.
func (s space) inside(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}
