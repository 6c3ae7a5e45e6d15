package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// lookupPast asks name servers for a name by packets with a mark, which lets them past what takes or stops all others. Without servers
// there is nobody to ask.
func lookupPast(ctx context.Context, name string, mark uint32, servers []netip.Addr) ([]netip.Addr, error) {
	if len(servers) == 0 {
		return nil, hint(errors.New("there is no name server that can be asked past the tunnel"),
			"write the endpoint's address instead of its name, or name a server that is not on this machine in /etc/resolv.conf")
	}
	const port = "53"
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if failed := c.Control(func(fd uintptr) {
			err = markSocket(int(fd), mark)
		}); failed != nil {
			return failed
		}
		return err
	}}
	var next atomic.Uint32 // each attempt asks the next
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		s := servers[int(next.Add(1)-1)%len(servers)]
		return dialer.DialContext(ctx, network, net.JoinHostPort(s.String(), port))
	}}
	return r.LookupNetIP(ctx, "ip", name)
}
