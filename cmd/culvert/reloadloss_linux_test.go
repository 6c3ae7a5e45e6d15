package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/lab"
)

// numberedStream sends numbered UDP packets between two hosts, each way one a millisecond, until it is ended; then lost says how many of them
// did not arrive, and sent how many there were each way. No more are under way than any queue holds, however slow the machine is.
func numberedStream(t *testing.T, a, b *lab.Host, addrA, addrB string) (end func() (lost, sent int)) {
	t.Helper()
	open := func(h *lab.Host, at string) (c *net.UDPConn) {
		h.Must(func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(at), 7777)))
			return err
		})
		c.SetReadBuffer(4 << 20)
		t.Cleanup(func() { c.Close() })
		return c
	}
	ca, cb := open(a, addrA), open(b, addrB)
	var receiving, sending sync.WaitGroup
	type arrivals struct {
		numbers        map[uint32]bool
		latest, number atomic.Uint32
	}
	count := func(c *net.UDPConn) *arrivals {
		seen := &arrivals{numbers: make(map[uint32]bool)}
		receiving.Go(func() {
			buf := make([]byte, 2048)
			for {
				n, err := c.Read(buf)
				if err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
						return
					}
					continue // what ICMP has told of, such as that there was no route
				}
				if n == 64 {
					number := binary.BigEndian.Uint32(buf)
					seen.numbers[number] = true
					seen.number.Store(uint32(len(seen.numbers)))
					seen.latest.Store(number)
				}
			}
		})
		return seen
	}
	seenA, seenB := count(ca), count(cb)
	const underWay = 100
	done := make(chan struct{})
	n, failures := uint32(0), make(map[string]int)
	sending.Go(func() {
		p := make([]byte, 64)
		toA, toB := netip.AddrPortFrom(netip.MustParseAddr(addrA), 7777), netip.AddrPortFrom(netip.MustParseAddr(addrB), 7777)
		for ; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			binary.BigEndian.PutUint32(p, n)
			for c, to := range map[*net.UDPConn]netip.AddrPort{ca: toB, cb: toA} {
				if _, err := c.WriteToUDPAddrPort(p, to); err != nil {
					failures[err.Error()]++
				}
			}
			time.Sleep(time.Millisecond)
			for range 3000 { // what is lost for good does not hold the rest up
				if n < underWay+min(seenA.latest.Load(), seenB.latest.Load()) {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	})
	return func() (lost, sent int) {
		close(done)
		sending.Wait()
		for range 3000 { // what is lost does not come, however long it is waited for
			if seenA.number.Load() == n && seenB.number.Load() == n {
				break
			}
			time.Sleep(time.Millisecond)
		}
		for _, c := range []*net.UDPConn{ca, cb} {
			c.SetReadDeadline(time.Unix(1, 0))
		}
		receiving.Wait()
		for text, times := range failures {
			t.Logf("sending failed %d times: %s", times, text)
		}
		return 2*int(n) - len(seenA.numbers) - len(seenB.numbers), int(n)
	}
}

// Real devices and routes: what reloads do not touch loses no packet.
func TestReloadLosesNothingOnTheWire(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	for _, s := range []*site{a, b} {
		s.env = []string{stateDirEnv + "=" + filepath.Join(s.dir, "state")}
	}
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	a.reaches("fd20::2")
	plain := bodyA(b, "")
	other := func(ips string) string {
		return fmt.Sprintf("      c: {public_key: %q, allowed_ips: [%s], endpoints: [\"192.0.2.3:1\"]}\n", testPeer, ips)
	}
	with := func(old, new string) string { return strings.Replace(plain, old, new, 1) }
	steps := []string{
		bodyA(b, other("10.40.0.0/16")),
		bodyA(b, other("10.41.0.0/16, 10.42.0.0/16, 10.20.0.64/26")),
		bodyA(b, other("0.0.0.0/1, \"fd41::/64\"")),
		with("addresses: [", "addresses: [10.21.0.1/24, "),
		with("addresses: [10.20.0.1/24", "addresses: [10.20.0.1/32"), // b's own route is needed now
		with("addresses: [10.20.0.1/24", "addresses: [10.20.0.1/16"),
		"    mtu: 1380\n" + plain,
		plain + "links:\n  br0: {type: bridge}\nshaping:\n  - {source: br0, egress: {tbf: {rate: 8mbit, burst: 10k, latency: 50ms}}}\n",
		plain + "links:\n  br0: {type: bridge}\nshaping:\n  - {source: br0, egress: {tbf: {rate: 9mbit, burst: 10k, latency: 50ms}}}\n",
		plain + "  wg1:\n    private_key_file: key\n    addresses: [10.77.0.1/24]\n",
		plain,
	}
	for _, way := range []struct{ name, a, b string }{{"IPv4", "10.20.0.1", "10.20.0.2"}, {"IPv6", "fd20::1", "fd20::2"}} {
		end := numberedStream(t, a.host, b.host, way.a, way.b)
		for _, body := range steps {
			a.write(body)
			before := a.surroundings()
			shown := a.must("reload", "--dry-run", "site")
			if strings.Contains(shown, "nothing to do") {
				t.Errorf("the dry run sees nothing in\n%s", body)
			}
			a.same(before)
			a.must("reload", "site")
			if out := a.must("reload", "--dry-run", "site"); !strings.Contains(out, "nothing to do") {
				t.Errorf("after the reload there is still to do:\n%s", out)
			}
		}
		if lost, sent := end(); lost != 0 || sent < 100 {
			t.Errorf("%s: %d of twice %d packets were lost", way.name, lost, sent)
		}
	}
}
