package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"culvert/control"
	"culvert/setup"
)

// What shows that a tunnel carries Ethernet and not IP alone.

// ethernetSigns are what was seen of it.
type ethernetSigns struct {
	Neighbour string          `json:"neighbour_mac"`    // b's MAC address, which a asked for by ARP through the tunnel
	EtherType int             `json:"other_ether_type"` // of a frame that is not IP and crossed
	Switch    *control.Switch `json:"switch"`
}

// localExperimental is an EtherType for trials (IEEE 802, local experimental EtherType 2). Of the other one are the loop probes
// (loopguard.EtherType), which an end writes to its interface once a second.
const localExperimental = 0x88b6

// awaitCarrier waits until both ends' interfaces have their carrier, since the daemons reach each other, and the kernel sends by them. It may
// take note of a carrier a second later (net/core/link_watch.c), and drops what is sent until then.
func awaitCarrier(ctx context.Context, both ...*demoEnd) error {
	ctx, cancel := context.WithTimeout(ctx, firstPingTime)
	defer cancel()
	for _, e := range both {
		for {
			t, err := e.tunnel()
			if err != nil {
				return err
			}
			if t.Switch == nil {
				return fmt.Errorf("daemon %s has no switch in its tunnel", e.letter)
			}
			if t.Switch.Carrier {
				running, err := e.running()
				if err != nil {
					return err
				}
				if running {
					break
				}
			}
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
				if context.Cause(ctx) == context.DeadlineExceeded {
					return fmt.Errorf("daemon %s does not reach the other within %v", e.letter, firstPingTime)
				}
				return ctx.Err()
			}
		}
	}
	return nil
}

// ethernetSignsOf looks for them between a and b, whose pings have crossed.
func ethernetSignsOf(ctx context.Context, a, b *demoEnd) (*ethernetSigns, error) {
	found, err := a.resolved(b)
	if err != nil {
		return nil, err
	}
	if err := crossFrame(ctx, a, b, found); err != nil {
		return nil, err
	}
	t, err := a.tunnel()
	if err != nil {
		return nil, err
	}
	return &ethernetSigns{Neighbour: found.String(), EtherType: localExperimental, Switch: t.Switch}, nil
}

// resolved is the MAC address that the end has found for the other, which must be that one's.
func (e *demoEnd) resolved(other *demoEnd) (net.HardwareAddr, error) {
	var table []byte
	if err := e.namespace.Do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/arp")
		return err
	}); err != nil {
		return nil, err
	}
	found := neighbour(table, other.inner.String())
	own, err := other.interfaceAddress()
	if err != nil {
		return nil, err
	}
	if found != own.String() {
		return nil, fmt.Errorf("the neighbour table has %q for %s, whose MAC address is %s", found, other.inner, own)
	}
	return own, nil
}

// neighbour finds the MAC address of an IP address in /proc/net/arp (proc_pid_net(5)); "" where there is none.
func neighbour(table []byte, ip string) string {
	for line := range strings.Lines(string(table)) {
		// IP address, HW type, flags, HW address, mask, device. Flag 2: complete.
		if f := strings.Fields(line); len(f) == 6 && f[0] == ip && f[2] == "0x2" {
			return f[3]
		}
	}
	return ""
}

// interfaceAddress is the MAC address of the end's tap.
func (e *demoEnd) interfaceAddress() (mac net.HardwareAddr, err error) {
	err = e.namespace.Do(func() error {
		i, err := net.InterfaceByName("demo")
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	})
	return mac, err
}

// running reports whether the kernel sends by the end's tap (IFF_RUNNING, netdevice(7)).
func (e *demoEnd) running() (yes bool, err error) {
	err = e.namespace.Do(func() error {
		i, err := net.InterfaceByName("demo")
		if err == nil {
			yes = i.Flags&net.FlagRunning != 0
		}
		return err
	})
	return yes, err
}

// crossFrame sends a frame that is not IP from a to b, whose MAC address is to.
func crossFrame(ctx context.Context, a, b *demoEnd, to net.HardwareAddr) error {
	open := func(e *demoEnd) (f *os.File, err error) {
		err = e.namespace.Do(func() error {
			f, err = setup.OpenFrames("demo", localExperimental)
			return err
		})
		return f, err
	}
	out, err := open(a)
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := open(b)
	if err != nil {
		return err
	}
	defer in.Close()
	from, err := a.interfaceAddress()
	if err != nil {
		return err
	}
	frame := bytes.Join([][]byte{to, from, {localExperimental >> 8, localExperimental & 0xff}, bytes.Repeat([]byte("culvert "), 8)}, nil)
	defer context.AfterFunc(ctx, func() { in.Close() })()
	got := make([]byte, 2*len(frame))
	for range 10 { // on the way to b it is a datagram, which may be lost
		if _, err := out.Write(frame); err != nil {
			return err
		}
		if err := in.SetReadDeadline(time.Now().Add(pingTime / 4)); err != nil && ctx.Err() == nil {
			return err
		}
		n, err := in.Read(got)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case isTimeout(err):
			continue
		case err != nil:
			return err
		case !bytes.Equal(got[:n], frame):
			return fmt.Errorf("a frame of EtherType %#x came through the tunnel as %x, and was %x", localExperimental, got[:n], frame)
		}
		return nil
	}
	return errors.New("no frame that is not IP came through the tunnel")
}
