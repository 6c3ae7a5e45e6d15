package vmlink

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"culvert/internal/lab"
)

func v4(e lab.End) netip.Addr { return e.V4.Addr() }
func v6(e lab.End) netip.Addr { return e.V6.Addr() }

// TestVMLink joins two guests whose hosts share nothing but an underlay, in every way and over underlays that take a frame of the
// guests' whole and that do not.
func TestVMLink(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b  way
		mtu   int
		outer func(lab.End) netip.Addr
	}{
		{bridge, bridge, 1500, v4},
		{bridge, macvtap, 1280, v6},
		{macvtap, second, 1500, v6},
		{second, macvtap, 1280, v4},
	} {
		t.Run(fmt.Sprintf("%s to %s over %d", test.a.name, test.b.name, test.mtu), func(t *testing.T) {
			t.Parallel()
			siteA, siteB := newSites(t, test.mtu, test.outer)
			beforeA, beforeB := siteA.devices(), siteB.devices()
			l := startGuests(t, siteA, siteB, test.a, test.b)
			l.pings()
			l.vlans()
			l.lease()
			l.transfers("10.1.0")
			l.transfers("10.10.0")
			l.end()
			for _, s := range []struct {
				*site
				way
				before string
			}{{siteA, test.a, beforeA}, {siteB, test.b, beforeB}} {
				if s.vm == nil {
					s.host.Shell("sh", "-e", "-c", documented(t, s.way.name+" end"))
				}
				if after := s.devices(); after != s.before {
					t.Errorf("%s: before:\n%s\nafter:\n%s", s.host.Name, s.before, after)
				}
				s.must("down", "office")
			}
		})
	}
}

// TestVMLinkRestart starts a tunnel again under a running guest. A second tap gets its link back by itself.
func TestVMLinkRestart(t *testing.T) {
	t.Parallel()
	a, b := newSites(t, 1500, v4)
	l := startGuests(t, a, b, second, second)
	l.both(func(from, to *end) { from.Must("ping -q -n -c 1 -W 60 10.1.0." + to.number) })
	a.restart()
	l.both(func(from, to *end) {
		from.Must("for i in 1 2 3 4 5 6; do ping -q -n -c 1 -W 10 10.1.0." + to.number + " && exit; done; exit 1")
	})
	l.end()
}

// link is two guests on one network.
type link struct {
	t    *testing.T
	a, b *end
}

// end is a guest with its number, the last part of its addresses.
type end struct {
	*lab.Guest
	number    string
	linkLocal string
	sent      string // hash of the file it offers
}

// addresses gives a guest its addresses: on eth0, and in two VLANs that both guests have and one that only it has.
const addresses = `
ip addr add 10.1.0.N/24 dev eth0
ip addr add fd10:1::N/64 dev eth0 nodad
for vlan in 10 20 3N; do
	ip link add link eth0 name eth0.$vlan type vlan id $vlan
	ip addr add fd10:$vlan::N/64 dev eth0.$vlan nodad
	ip link set eth0.$vlan up
done
ip addr add 10.10.0.N/24 dev eth0.10
ip addr add 10.20.0.N/24 dev eth0.20
ip addr add 10.30.0.N/24 dev eth0.3N
until ip -6 -o addr show dev eth0 scope link -tentative | grep -q fe80; do sleep 0.1; done
ip -6 -o addr show dev eth0 scope link | grep -o 'fe80[^/]*'
`

func startGuests(t *testing.T, siteA, siteB *site, wayA, wayB way) *link {
	t.Helper()
	mac := func(w way, n int) string {
		if w.vm != nil {
			return "{mac}"
		}
		return fmt.Sprintf("52:54:00:c0:01:%02x", n)
	}
	l := &link{t, &end{Guest: siteA.startGuest(wayA, mac(wayA, 1)), number: "1"},
		&end{Guest: siteB.startGuest(wayB, mac(wayB, 2)), number: "2"}}
	l.both(func(e, _ *end) { e.linkLocal = strings.TrimSpace(e.Must(strings.ReplaceAll(addresses, "N", e.number))) })
	return l
}

// both runs f for either guest at once.
func (l *link) both(f func(from, to *end)) {
	l.t.Helper()
	var all sync.WaitGroup
	all.Go(func() { f(l.a, l.b) })
	all.Go(func() { f(l.b, l.a) })
	all.Wait()
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// pings sends over IPv4 and IPv6 in all sizes up to the MTU, unfragmented. A first reply may have to wait for the tunnel's handshake and its
// search for the path's MTU.
func (l *link) pings() {
	l.t.Helper()
	l.both(func(from, to *end) {
		from.Must(fmt.Sprintf(`
ping -q -n -c 1 -W 60 10.1.0.%[1]s
ping -q -n -c 1 -W 10 -s 1472 -M do 10.1.0.%[1]s
! ping -q -n -c 1 -W 1 -s 1473 -M do 10.1.0.%[1]s # more than the MTU
ping -q -n -c 1 -W 10 %[2]s%%eth0
ping -q -n -c 1 -W 10 -s 1452 -M do %[2]s%%eth0
ping -q -n -c 1 -W 10 fd10:1::%[1]s
ping -q -n -c 1 -W 10 -s 1452 -M do fd10:1::%[1]s
ping -q -n -c 1 -W 10 -s 20000 10.1.0.%[1]s # in fragments of the guest's own
ping -q -n -c 2 -i 0.2 -W 10 ff02::1%%eth0 | grep -q '2 received'
ip neigh show dev eth0 | grep -q '^%[2]s .*lladdr'
`, to.number, to.linkLocal))
	})
}

// vlans sends in two VLANs, a frame of which is four bytes longer than one without, and finds that a third goes nowhere else.
func (l *link) vlans() {
	l.t.Helper()
	l.both(func(from, to *end) {
		from.Must(fmt.Sprintf(`
for vlan in 10 20; do
	ping -q -n -c 1 -W 10 10.$vlan.0.%[1]s
	ping -q -n -c 1 -W 10 -s 1472 -M do 10.$vlan.0.%[1]s
	ping -q -n -c 1 -W 10 -s 1452 -M do fd10:$vlan::%[1]s
done
! ping -q -n -c 1 -W 1 10.30.0.%[1]s # another VLAN than the far end's
`, to.number))
	})
}

// lease has the first guest ask for an address, which a server in the second one gives.
func (l *link) lease() {
	l.t.Helper()
	mac := strings.TrimSpace(l.a.Must("cat /sys/class/net/eth0/address"))
	l.b.Must(`mkdir -p /var/lib/misc
dnsmasq --user=root --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces --dhcp-range=10.1.0.100,10.1.0.150,255.255.255.0,1h \
	--dhcp-leasefile=/tmp/leases --no-ping --pid-file=/tmp/dnsmasq.pid
`)
	got := l.a.Must(`cat >/tmp/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] && echo "bound $ip $subnet" >/tmp/bound
exit 0
END
chmod +x /tmp/dhcp
udhcpc -i eth0 -n -q -f -t 10 -T 2 -s /tmp/dhcp >/dev/null 2>&1
cat /tmp/bound
`)
	address, mask, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(got), "bound "), " ")
	ip, err := netip.ParseAddr(address)
	if err != nil || !netip.MustParsePrefix("10.1.0.0/24").Contains(ip) || ip.As4()[3] < 100 || ip.As4()[3] > 150 || mask != "255.255.255.0" {
		l.t.Errorf("the lease: %q", got)
	}
	if leases := l.b.Must("cat /tmp/leases"); !strings.Contains(leases, mac+" "+address+" ") {
		l.t.Errorf("the server gave no %s to %s:\n%s", address, mac, leases)
	}
	l.b.Must("kill $(cat /tmp/dnsmasq.pid)")
}

// transfers sends a file over TCP each way, both at once, and compares what arrived.
func (l *link) transfers(network string) {
	l.t.Helper()
	l.both(func(e, _ *end) {
		e.sent = e.Must(`mkdir -p /tmp/www
dd if=/dev/urandom of=/tmp/www/file bs=64k count=24 2>/dev/null
pidof httpd >/dev/null || httpd -p 8080 -h /tmp/www
sha256sum </tmp/www/file`)
	})
	l.both(func(from, to *end) {
		got := from.Must("timeout 100 wget -q -O /tmp/received http://" + network + "." + to.number + ":8080/file\nsha256sum </tmp/received")
		if got != to.sent {
			l.t.Errorf("from guest %s to %s: sent %s, received %s", to.number, from.number, to.sent, got)
		}
	})
}

// end powers both guests off.
func (l *link) end() {
	l.t.Helper()
	l.both(func(e, _ *end) {
		if err := e.End(); err != nil {
			l.t.Errorf("guest %s: %v", e.number, err)
		}
	})
}
