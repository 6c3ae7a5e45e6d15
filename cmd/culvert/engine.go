package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/setup"
	"culvert/setup/sleep"
	"culvert/transport"
	"culvert/transport/stream"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/uapi"
)

// engine is what the daemon needs of a [tunnel.Tunnel].
type engine interface {
	Configure(tunnel.Change) error
	Push(to crypto.PublicKey, subject string, document []byte) error
	Status() tunnel.Status
	Sessions() (live, peers int)
	Check(context.Context) error
	Close() error
	Done() <-chan struct{}
	Err() error
}

// kernel is what the daemon does to the system. Tests put other functions in.
type kernel struct {
	openTun   func(namespace, name string, queues int) (device.Device, error)
	openTap   func(namespace, name string, address config.MAC, queues int) (device.Device, error) // the zero address stands for any
	newEngine func(device.Device, transport.Network, tunnel.Options) (engine, error)
	network   transport.Network
	serveWG   func(folder, name string, e engine, logf func(string, ...any)) (*wgSocket, error)
	apply     func(context.Context, setup.L3) (applied, error)
	standing  func(setup.L3) (bool, error) // whether a link has lost nothing of it
	inherit   func(ctx context.Context, c setup.L3, validMark bool) (applied, error)
	autoMTU   func(ctx context.Context, link string, mark uint32, overhead int, endpoints []netip.Addr) (int, error)
	lookup    func(ctx context.Context, name string) ([]netip.Addr, error)
	// lookupPast asks one of servers for a name, by packets with a mark.
	lookupPast func(ctx context.Context, name string, mark uint32, servers []netip.Addr) ([]netip.Addr, error)
	linkIndex  func(namespace, name string) (int, error)
}

// applied is part of a link's configuration that is in force.
type applied struct {
	mark     uint32
	warnings []error
	covered  []setup.Route // that were left out
	remove   func() error

	removeRoutes    func([]setup.Route) error
	followAddresses func() error
	validMark       bool // the namespace's src_valid_mark was switched on
}

func appliedBy(a *setup.Applied) applied {
	return applied{a.Mark, a.Warnings, a.Covered, a.Remove, a.RemoveRoutes, a.FollowAddresses, a.ValidMark}
}

// kernel is what an instance's tunnels are made with.
func (p *program) kernel() kernel {
	if p.kernelOf != nil {
		return p.kernelOf()
	}
	return linux()
}

// linux is the kernel everything really runs on.
func linux() kernel {
	return kernel{
		openTun: func(namespace, name string, queues int) (device.Device, error) {
			return openIn(namespace, name, func() (device.Device, error) {
				return device.OpenTun(device.TunOptions{Name: name, MTU: setup.DefaultMTU, Queues: queues})
			})
		},
		openTap: func(namespace, name string, address config.MAC, queues int) (device.Device, error) {
			if address.IsZero() {
				address = highMAC()
			}
			return openIn(namespace, name, func() (device.Device, error) {
				return device.OpenTap(device.TapOptions{Name: name, MTU: defaultTapMTU, Queues: queues, Address: address})
			})
		},
		newEngine: func(d device.Device, n transport.Network, o tunnel.Options) (engine, error) {
			o.Sleep = sleep.Watch
			t, err := tunnel.New(d, n, o)
			if err != nil {
				return nil, err // not a nil *Tunnel in an interface
			}
			return spare(t), nil
		},
		network: transport.UDP{},
		serveWG: func(folder, name string, e engine, logf func(string, ...any)) (*wgSocket, error) {
			l, err := uapi.Listen(folder, name)
			if err != nil {
				return nil, socketHint(err)
			}
			return serveWG(l, e, logf), nil
		},
		apply: func(ctx context.Context, c setup.L3) (applied, error) {
			a, err := setup.Apply(ctx, c)
			if err != nil {
				return applied{}, err
			}
			return appliedBy(a), nil
		},
		inherit: func(ctx context.Context, c setup.L3, validMark bool) (applied, error) {
			a, err := setup.Inherit(ctx, c, validMark)
			if err != nil {
				return applied{}, err
			}
			return appliedBy(a), nil
		},
		standing: setup.Standing,
		autoMTU: func(ctx context.Context, link string, mark uint32, overhead int, endpoints []netip.Addr) (int, error) {
			return setup.AutoMTU(ctx, "", link, mark, overhead, endpoints)
		},
		lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		},
		lookupPast: lookupPast,
		linkIndex:  setup.LinkIndex,
	}
}

// highMAC is a random locally administered MAC address of the highest there are. A bridge's own address is the lowest of its
// ports' (Linux's br_stp_recalculate_bridge_id), so that a tap with any other random one would often
// change it as it comes and goes, and with it the address that the network knows the host by.
func highMAC() (m config.MAC) {
	rand.Read(m[:]) // never fails (Go 1.24)
	m[0] = 0xfe
	return m
}

// openIn opens a device in a namespace; it may be used from everywhere.
func openIn(namespace, name string, open func() (device.Device, error)) (device.Device, error) {
	if namespace == "" {
		d, err := open()
		return d, openHint(name, err)
	}
	var d device.Device
	err := setup.In(namespace, func() (err error) {
		d, err = open()
		return err
	})
	return d, openHint(name, err)
}

// openHint adds what to do to the kernel's refusal of a device.
func openHint(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return hint(err, "run as root, or with CAP_NET_ADMIN")
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.EINVAL):
		return hint(err, "there may be an interface of this name already: look with ip link show %s", name)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return hint(err, "raise the limit of open files (ulimit -n)")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV):
		return hint(err, "the kernel's tun driver is missing: try modprobe tun (CONFIG_TUN)")
	}
	return err
}

func socketHint(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return hint(err, "another userspace WireGuard has an interface of this name; end it first")
	}
	return err
}

// wgSocket is an interface's socket for wg.
type wgSocket struct {
	removed  <-chan struct{} // somebody has deleted the socket's file
	close    func() error
	listener *uapi.Listener
}

func serveWG(l *uapi.Listener, e engine, logf func(string, ...any)) *wgSocket {
	s := uapi.NewServer(e, uapi.Options{Logf: logf})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
			logf("the socket for wg is no longer served: %v", err)
		}
	})
	return &wgSocket{l.Removed(), func() error {
		err := errors.Join(s.Close(), l.Close())
		wg.Wait()
		return err
	}, l}
}

// observedNetwork tells how the first attempt to open a port ended. The engine makes it in its own time, when it
// has seen the interface come up.
type observedNetwork struct {
	transport.Network
	once   sync.Once
	opened chan error
}

func observe(n transport.Network) *observedNetwork {
	return &observedNetwork{Network: n, opened: make(chan error, 1)}
}

// Open opens a port as the network under it does.
func (n *observedNetwork) Open(o transport.Options) (transport.Socket, error) {
	s, err := n.Network.Open(o)
	n.once.Do(func() {
		if _, ok := errors.AsType[*stream.ListenError](err); ok {
			err = tcpHint(err)
		} else if errors.Is(err, syscall.EADDRINUSE) {
			err = hint(fmt.Errorf("cannot open UDP port %d: %w", o.Port, err), "another process has it; ss -ulnp shows which")
		} else if err != nil {
			err = fmt.Errorf("cannot open UDP port %d: %w", o.Port, err)
		}
		n.opened <- err
	})
	return s, err
}

// wait returns how the opening ended.
func (n *observedNetwork) wait(ctx context.Context, ended <-chan struct{}) error {
	const most = 10 * time.Second
	select {
	case err := <-n.opened:
		return err
	case <-ended:
		return errors.New("the interface vanished")
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(most):
		return fmt.Errorf("the interface did not come up within %v", most)
	}
}
