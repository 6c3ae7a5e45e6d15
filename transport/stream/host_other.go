//go:build !linux

package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// errNoMarks refuses what only Linux has.
var errNoMarks = fmt.Errorf("this system has no marks on packets (fwmark): %w", errors.ErrUnsupported)

// host is the system's TCP.
type host struct{}

func kernelHost() (Host, error) { return host{}, nil }

// keepAlive finds a far end that has vanished: within about a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}

func (host) Listen(at netip.AddrPort, mark uint32) (net.Listener, error) {
	if mark != 0 {
		return nil, errNoMarks
	}
	c := net.ListenConfig{KeepAliveConfig: keepAlive}
	address := at.String()
	if at.Addr().IsUnspecified() && at.Addr().Is6() {
		address = fmt.Sprintf(":%d", at.Port()) // of both families
	}
	return c.Listen(context.Background(), "tcp", address)
}

func (host) Dial(ctx context.Context, to netip.AddrPort, mark uint32) (net.Conn, error) {
	if mark != 0 {
		return nil, errNoMarks
	}
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", to.String())
}

func (host) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

func (host) SetMark(_ any, mark uint32) error {
	if mark != 0 {
		return errNoMarks
	}
	return nil
}
