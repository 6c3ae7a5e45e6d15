package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"culvert/config"
	"culvert/control"
	"culvert/internal/lab"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// saying is an ARP request from a station that says it has an address.
func saying(station byte, a netip.Addr) []byte {
	f := make([]byte, 60)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, station, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, station})
	copy(f[28:], a.AsSlice())
	copy(f[38:], []byte{10, 40, 0, 1})
	return f
}

// A client of a tunnel of frames has the addresses that it was given and no others, unless the file says so, at once; and what it sends as
// somebody else comes to nobody.
func TestServedFramesAreHeldToLeases(t *testing.T) {
	t.Parallel()
	const rest = `    mode: tap
    addresses: [10.40.0.1/24]
    server:
      endpoints: ["192.0.2.1:51820"]
      clients: {bridge: {any_address: true}, router: {any_address: true, group: none}}
      groups: {none: {any_address: false}}
`
	c := newCrowdOf(t, rest)
	c.tap = devicetest.NewEthernet("wg0", defaultTapMTU, 1)
	c.tap.SetUp(true)
	heard := make(chan []byte, 1000)
	c.tap.Queue(0).SetSink(func(f []byte, _ device.Offload) { heard <- slices.Clone(f) })
	c.up()
	names := []string{"tom", "bridge"}
	members := c.add(len(names))
	addresses := make([]netip.Addr, len(names))
	for i, m := range members {
		link := c.invite(names[i])
		m.tap.SetUp(true)
		c.all([]*member{m}, 1, func(ctx context.Context, _ int, m *member) error {
			d, err := m.join(ctx, c, link)
			if err == nil {
				addresses[i] = d.Addresses[0].Addr()
			}
			return err
		})
	}
	const reason = "in: IP address not the peer's"
	dropped := func() uint64 {
		status := c.live.engine.Status()
		status.PrivateKey.Zero()
		return status.Drops[reason]
	}
	// says has a client say that it has an address, and waits until the server's device hears that, or it was dropped.
	says := func(i int, a netip.Addr) (through bool) {
		t.Helper()
		before := dropped()
		members[i].tap.Queue(0).Push(saying(byte(i+1), a), device.Offload{})
		lab.Eventually(t, patience, names[i]+" says that it has "+a.String(), func() bool {
			for {
				select {
				case f := <-heard:
					if f[12] == 8 && f[13] == 6 && f[11] == byte(i+1) && netip.AddrFrom4([4]byte(f[28:])) == a {
						through = true
					}
				default:
					return through || dropped() > before
				}
			}
		})
		return through && dropped() == before
	}
	server := netip.MustParseAddr("10.40.0.1")
	for i, c := range []struct{ own, others bool }{{true, false}, {true, true}} {
		if got := says(i, addresses[i]); got != c.own {
			t.Errorf("%s says its own: %t", names[i], got)
		}
		for _, a := range []netip.Addr{server, addresses[1-i], netip.MustParseAddr("192.168.7.7")} {
			if got := says(i, a); got != c.others {
				t.Errorf("%s says that it has %v: %t", names[i], a, got)
			}
		}
	}
	var answer control.ClientsAnswer
	c.live.listClients("", &answer)
	for _, of := range answer.Clients {
		if of.AnyAddress != (of.Name == "bridge") {
			t.Errorf("%s is shown with any address %t", of.Name, of.AnyAddress)
		}
	}

	// A reload turns it round, in sessions that go on.
	path := filepath.Join(filepath.Dir(c.file.Path), "crowd.yaml")
	text := strings.NewReplacer("{any_address: true}, ", "{any_address: false}, tom: {any_address: true}, ").Replace(read(t, path))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.live.reload(t.Context(), file, file.Tunnels[0]); err != nil {
		t.Fatal(err)
	}
	if !says(0, server) || says(1, server) || !says(1, addresses[1]) {
		t.Error("a reload has not turned it round")
	}
}
