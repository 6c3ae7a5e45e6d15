package access

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func compile(t testing.TB, s Spec) *Policy {
	t.Helper()
	p, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// slow is the reference: the first rule that fits, one after another.
func slow(s *Spec, d Direction, near netip.Addr, protocol uint8, port uint16) Action {
	for _, r := range s.Rules {
		if r.Direction == d &&
			(len(r.Addresses) == 0 || lengthOf(r.Addresses, near) > lengthOf(r.Except, near)) &&
			(len(r.Protocols) == 0 || slices.Contains(r.Protocols, protocol)) &&
			(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p Ports) bool { return p.First <= port && port <= p.Last })) {
			return r.Action
		}
	}
	return s.Default
}

// lengthOf is the length of the longest network that holds an address, -1 where none does.
func lengthOf(list []netip.Prefix, a netip.Addr) int {
	n := -1
	for _, p := range list {
		if p.Contains(a) {
			n = max(n, p.Bits())
		}
	}
	return n
}

func TestRules(t *testing.T) {
	spec := Spec{Rules: []Rule{
		{Action: Deny, Addresses: prefixes("10.0.0.13/32")},
		{Action: Allow, Addresses: prefixes("10.0.0.0/8"), Protocols: []uint8{TCP}, Ports: []Ports{{443, 443}, {8000, 8100}}},
		{Action: Deny, Addresses: prefixes("10.1.0.0/16"), Protocols: []uint8{UDP}},
		{Action: Allow, Addresses: prefixes("10.0.0.0/8"), Protocols: []uint8{UDP}},
		{Action: Allow, Protocols: []uint8{ICMP}},
		{Action: Allow, Direction: ToPeer, Addresses: prefixes("192.0.2.0/24", "2001:db8::/32"), Protocols: []uint8{TCP}, Ports: []Ports{{0, 0}, {22, 22}, {65535, 65535}}},
		{Action: Allow, Addresses: prefixes("2001:db8:1::/48"), Protocols: []uint8{50}},
		{Action: Deny, Addresses: prefixes("172.16.0.0/12", "172.16.5.0/24"), Except: prefixes("172.16.0.0/16", "172.16.5.9/32")},
		{Action: Allow, Addresses: prefixes("172.16.0.0/12")},
	}}
	for _, otherwise := range []Action{Deny, Allow} {
		spec.Default = otherwise
		p := compile(t, spec)
		for _, c := range []struct {
			d     Direction
			near  string
			proto uint8
			port  uint16
			want  Action
		}{
			{FromPeer, "10.0.0.13", TCP, 443, Deny}, {FromPeer, "10.0.0.14", TCP, 443, Allow}, {FromPeer, "10.9.9.9", TCP, 8000, Allow},
			{FromPeer, "10.9.9.9", TCP, 8100, Allow}, {FromPeer, "10.9.9.9", TCP, 8101, otherwise}, {FromPeer, "10.9.9.9", TCP, 7999, otherwise},
			{FromPeer, "10.9.9.9", TCP, 442, otherwise}, {FromPeer, "10.9.9.9", TCP, 444, otherwise}, {FromPeer, "11.0.0.1", TCP, 443, otherwise},
			{FromPeer, "10.1.2.3", UDP, 53, Deny}, {FromPeer, "10.2.2.3", UDP, 53, Allow}, {FromPeer, "10.2.2.3", sctp, 53, otherwise},
			{FromPeer, "203.0.113.1", ICMP, 0, Allow}, {FromPeer, "10.0.0.13", ICMP, 0, Deny}, {FromPeer, "2001:db8::1", ICMP, 0, Allow},
			{ToPeer, "192.0.2.77", TCP, 22, Allow}, {ToPeer, "192.0.2.77", TCP, 0, Allow}, {ToPeer, "192.0.2.77", TCP, 65535, Allow},
			{ToPeer, "192.0.2.77", TCP, 1, otherwise}, {ToPeer, "192.0.3.77", TCP, 22, otherwise}, {ToPeer, "2001:db8:ffff::", TCP, 22, Allow},
			{ToPeer, "192.0.2.77", ICMP, 0, otherwise}, {FromPeer, "192.0.2.77", TCP, 22, otherwise},
			{FromPeer, "172.17.0.1", TCP, 1, Deny}, {FromPeer, "172.16.0.1", TCP, 1, Allow}, {FromPeer, "172.16.5.8", TCP, 1, Deny}, {FromPeer, "172.16.5.9", TCP, 1, Allow},
			{FromPeer, "2001:db8:1::5", 50, 0, Allow}, {FromPeer, "2001:db8:2::5", 50, 0, otherwise}, {FromPeer, "2001:db8:1::5", 51, 0, otherwise},
			{FromPeer, "::ffff:10.0.0.14", TCP, 443, otherwise}, // not the IPv4 address it looks like
		} {
			a := netip.MustParseAddr(c.near)
			got := Allow
			if p.rules[c.d] != nil {
				got = p.rules[c.d].decide(a, c.proto, c.port)
			}
			if got != c.want || got != slow(&spec, c.d, a, c.proto, c.port) {
				t.Errorf("default %v: direction %v, %s, protocol %d, port %d: %v, want %v", otherwise, c.d, c.near, c.proto, c.port, got, c.want)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	many := make([]netip.Prefix, MaxPrefixes+1)
	for i := range many {
		many[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	for want, s := range map[string]Spec{
		"exceptions from all":       {Rules: []Rule{{Except: prefixes("10.0.0.0/8")}}},
		"10.0.0.1/16 is no network": {Rules: []Rule{{Addresses: prefixes("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}}}},
		"no network":                {Rules: []Rule{{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}}},
		"range of ports":            {Rules: []Rule{{Protocols: []uint8{TCP}, Ports: []Ports{{2, 1}}}}},
		"without a protocol":        {Rules: []Rule{{Ports: []Ports{{1, 2}}}}},
		"protocol 1 has no":         {Rules: []Rule{{Protocols: []uint8{ICMP}, Ports: []Ports{{1, 2}}}}},
		"1025 rules":                {Rules: make([]Rule, MaxRules+1)},
		"16385 addresses":           {Rules: []Rule{{Addresses: many}}},
		"8193 ranges":               {Rules: []Rule{{Protocols: []uint8{TCP}, Ports: make([]Ports, MaxPorts+1)}}},
		"no such default":           {Default: 7},
		"no such action":            {Rules: []Rule{{Action: 2}}},
		"bits a second":             {FromPeer: MaxRate + 1},
		"65 windows":                {Schedule: make([]Window, MaxWindows+1)},
		"no day":                    {Schedule: []Window{{}}},
		"window from":               {Schedule: []Window{{Days: [7]bool{true}, From: day}}},
		"period":                    {Quota: Quota{Every: periods}},
	} {
		if _, err := Compile(s); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestLargestPolicy holds the memory of a policy at its bounds to what is stated.
func TestLargestPolicy(t *testing.T) {
	var s Spec
	for i := range MaxRules {
		r := Rule{Action: Allow, Protocols: []uint8{TCP, UDP}}
		for j := range MaxPrefixes / MaxRules {
			r.Addresses = append(r.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 32))
		}
		for j := range MaxPorts / MaxRules {
			r.Ports = append(r.Ports, Ports{uint16(64*i%65000 + 7*j), uint16(64*i%65000 + 7*j + 3)})
		}
		s.Rules = append(s.Rules, r)
	}
	p := compile(t, s)
	if size := p.rules[FromPeer].size(); size < 1<<20 || size > 10<<20 {
		t.Errorf("%d bytes", size)
	}
}

// randomSpec makes a policy of bytes; it uses few values, so that rules and packets meet.
func randomSpec(b *[]byte) Spec {
	take := func() byte {
		if len(*b) == 0 {
			return 0
		}
		x := (*b)[0]
		*b = (*b)[1:]
		return x
	}
	s := Spec{Default: Action(take() & 1)}
	for range take() % 9 {
		r := Rule{Action: Action(take() & 1), Direction: Direction(take() & 1)}
		for range take() % 3 {
			r.Addresses = append(r.Addresses, netip.PrefixFrom(randomAddress(take()), int(take())%33).Masked())
		}
		switch take() % 4 {
		case 0:
			r.Protocols = []uint8{TCP}
		case 1:
			r.Protocols = []uint8{TCP, UDP}
		case 2:
			r.Protocols = []uint8{ICMP, 50}
		}
		if len(r.Protocols) > 0 && r.Protocols[0] == TCP {
			for range take() % 3 {
				first := uint16(take()) & 7
				r.Ports = append(r.Ports, Ports{first, first + uint16(take()&3)})
			}
		}
		s.Rules = append(s.Rules, r)
	}
	return s
}

func randomAddress(x byte) netip.Addr {
	if x&0x80 != 0 {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[3], a[15] = x>>4&3, x&7
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, x >> 5 & 3, x >> 3 & 3, x & 7})
}

// FuzzRules holds the arranged rules against going through them one by one.
func FuzzRules(f *testing.F) {
	f.Add([]byte{0, 3, 1, 0, 1, 5, 24, 0, 1, 3, 2, 0, 0, 2, 9, 30, 130, 31, 1, 2, 1, 1, 4, 2, 1, 1, 0, 3}, byte(5), byte(6), uint16(4))
	f.Add([]byte{1, 8, 0, 0, 2, 9, 32, 9, 8, 3}, byte(9), byte(17), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, address, protocol byte, port uint16) {
		s := randomSpec(&b)
		p, err := Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		for d := range directions {
			for _, a := range []netip.Addr{randomAddress(address), randomAddress(address ^ 0x80), randomAddress(address + 1)} {
				for _, port := range []uint16{port, port & 7, 65535} {
					got, want := Allow, slow(&s, d, a, protocol, port)
					if p.rules[d] != nil {
						got = p.rules[d].decide(a, protocol, port)
					}
					if got != want {
						t.Fatalf("%+v: direction %v, %v, protocol %d, port %d: %v, want %v", s, d, a, protocol, port, got, want)
					}
				}
			}
		}
	})
}

// BenchmarkDecide is what a packet costs that is in no flow, such as each of a flood that is denied.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		for name, rule := range map[string]func(i int) Rule{
			"addresses": func(i int) Rule {
				return Rule{Action: Allow, Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
					Protocols: []uint8{TCP}, Ports: []Ports{{443, 443}}}
			},
			"ports": func(i int) Rule {
				return Rule{Action: Allow, Addresses: prefixes("192.0.0.0/8"), Protocols: []uint8{TCP}, Ports: []Ports{{uint16(10 * i), uint16(10*i + 3)}}}
			},
		} {
			b.Run(fmt.Sprintf("%s/%d rules", name, n), func(b *testing.B) {
				var s Spec
				for i := range n {
					s.Rules = append(s.Rules, rule(i))
				}
				p := compile(b, s)
				near := [2]uint64{0, 192<<24 | 2<<8 | 10}
				for b.Loop() {
					if p.decide(FromPeer, near, false, TCP, 9999) != Deny {
						b.Fatal("allowed")
					}
				}
			})
		}
	}
}
