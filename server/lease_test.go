package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/crypto"
)

func TestAddressesAreTheLowestFree(t *testing.T) {
	w := newWorld(t)
	for i, want := range []string{"[10.20.0.2 fd20::2]", "[10.20.0.3 fd20::3]", "[10.20.0.4 fd20::4]", "[10.20.0.5 fd20::5]", "[10.20.0.6 fd20::6]"} {
		if got := w.add(fmt.Sprint("c", i)); got != want {
			t.Errorf("client %d has %s, want %s", i, got, want)
		}
	}
	if _, err := w.server.Add("more", "", newKey(t), false, w.now); !errors.Is(err, ErrPoolEmpty) { // .7 is broadcast
		t.Errorf("one too many: %v", err)
	}
	if got := w.addresses("more"); got != "no client" {
		t.Errorf("who was refused has %s", got)
	}
}

func TestAddressesAreKept(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	b := w.add("b")
	w.add("c")
	if err := w.server.Revoke("a", w.now); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Hour)
	if err := w.server.Revoke("b", w.now); err != nil {
		t.Fatal(err)
	}
	w.open() // a restart
	if got := w.add("d"); got != "[10.20.0.5 fd20::5]" {
		t.Errorf("a new client has %s, which somebody had, while there are others", got)
	}
	if got := w.add("b"); got != b {
		t.Errorf("b had %s, and has %s", b, got)
	}
	w.add("e") // the last that nobody had
	if got := w.add("f"); !strings.HasPrefix(got, "[10.20.0.2 ") {
		t.Errorf("with no fresh addresses left, f has %s and not a's", got)
	}
	if got := w.addresses("c"); got != "[10.20.0.4 fd20::4]" {
		t.Errorf("c has %s now", got)
	}
}

// TestLongestGoneFirst: of former clients' addresses that of who has been gone for longest is given away first.
func TestLongestGoneFirst(t *testing.T) {
	w := newWorld(t)
	w.config.Addresses = prefixes("10.20.0.1/29")
	w.open()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		w.add(name)
	}
	for _, name := range []string{"c", "a", "e"} {
		w.now = w.now.Add(time.Minute)
		if err := w.server.Revoke(name, w.now); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"[10.20.0.4]", "[10.20.0.2]", "[10.20.0.6]"} {
		if got := w.add("new" + want[9:10]); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestPins(t *testing.T) {
	w := newWorld(t)
	w.config.Clients = map[string]ClientConfig{"boss": {Addresses: addrs("10.20.0.2")}}
	w.open()
	if got := w.add("a"); got != "[10.20.0.3 fd20::2]" {
		t.Errorf("a has %s", got)
	}
	if got := w.add("boss"); got != "[10.20.0.2 fd20::3]" {
		t.Errorf("boss has %s", got)
	}
	w.config.Clients = map[string]ClientConfig{"boss": {Addresses: addrs("10.20.0.3")}} // which is a's
	w.open()
	if got := w.addresses("boss"); got != "[10.20.0.3 fd20::3]" {
		t.Errorf("boss has %s", got)
	}
	if got := w.addresses("a"); got != "[10.20.0.4 fd20::2]" {
		t.Errorf("a has %s", got)
	}
	if e := w.last(); e.Event != EventReadress {
		t.Errorf("last event %+v", e)
	}
	for name, list := range map[string][]netip.Addr{
		"server": addrs("10.20.0.1"), "broadcast": addrs("10.20.0.7"), "network": addrs("10.20.0.0"), "anycast": addrs("fd20::"), "elsewhere": addrs("10.21.0.1"),
	} {
		c := w.config
		c.Clients = map[string]ClientConfig{"boss": {Addresses: list}}
		if err := w.server.Configure(c, w.now); err == nil {
			t.Errorf("the address of %s can be pinned", name)
		}
	}
	if got := w.addresses("boss"); got != "[10.20.0.3 fd20::3]" {
		t.Errorf("a refused configuration gave boss %s", got)
	}
}

func TestExcludedNetworksAreSkipped(t *testing.T) {
	w := newWorld(t)
	w.config.Addresses = prefixes("10.20.0.1/16", "fd20::1/64")
	w.config.Excluded = prefixes("10.20.0.0/17", "fd20::/66", "10.20.128.1/32")
	w.open()
	if got := w.add("a"); got != "[10.20.128.0 fd20::4000:0:0:0]" {
		t.Errorf("a has %s", got)
	}
	if got := w.add("b"); got != "[10.20.128.2 fd20::4000:0:0:1]" {
		t.Errorf("b has %s", got)
	}
	w.config.Excluded = prefixes("fd20::/64")
	if err := w.server.Configure(w.config, w.now); !errors.Is(err, ErrPoolEmpty) {
		t.Errorf("all IPv6 is excluded: %v", err)
	}
	if got := w.addresses("b"); got != "[10.20.128.2 fd20::4000:0:0:1]" {
		t.Errorf("what was refused has given b %s", got)
	}
}

func TestAnotherPool(t *testing.T) {
	w := newWorld(t)
	w.add("a")
	w.config.Pool = prefixes("10.20.0.4/30")
	w.open()
	if got := w.addresses("a"); got != "[10.20.0.5]" {
		t.Errorf("a has %s", got)
	}
	d, _ := w.server.DocumentOf("a")
	if want := prefixes("10.20.0.5/29"); !slices.Equal(d.Addresses, want) {
		t.Errorf("a is told %v, want %v: the length of the tunnel's network", d.Addresses, want)
	}
	w.config.Pool = prefixes("10.99.0.0/24")
	w.open()
	if d, _ := w.server.DocumentOf("a"); !slices.Equal(d.Addresses, prefixes("10.99.0.1/24")) {
		t.Errorf("a is told %v", d.Addresses)
	}
}

// TestManyClients: a restart keeps the addresses of all, and new ones take what lies between.
func TestManyClients(t *testing.T) {
	w := newWorld(t)
	w.config.Addresses = prefixes("10.20.0.1/16", "fd20::1/64")
	w.open()
	w.store = &Memory{}
	for i := range 201 {
		name := fmt.Sprintf("c%04d", i)
		c := Client{Name: name, Key: crypto.PublicKey{1, byte(i), byte(i >> 8), 7}, Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 20, 1 + byte(i>>8), byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd20::%x", i+16))}}
		_ = w.store.Update(func(tx Tx) error {
			for _, a := range c.Addresses {
				if err := put(tx, leaseTable, a.String(), lease{Name: name}); err != nil {
					return err
				}
			}
			return put(tx, clientTable, name, c)
		})
	}
	w.open()
	if got := w.add("new"); got != "[10.20.0.2 fd20::2]" || len(w.server.Clients()) != 202 || len(w.events) != 1 {
		t.Errorf("%s, %d clients, events %v", got, len(w.server.Clients()), w.events)
	}
}
