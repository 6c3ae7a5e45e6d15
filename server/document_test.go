package server

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/crypto"
)

func full() Document {
	return Document{
		Addresses: prefixes("10.20.0.7/24", "fd20::7/64"), Routes: prefixes("10.30.0.0/16", "fd30::/48"), DNS: addrs("10.20.0.1", "fd20::1"),
		Domains: []string{"~corp.example"}, Search: []string{"example.net"}, MTU: 1400, Keepalive: 25 * time.Second, FullTunnel: true,
	}
}

// TestDocumentVectors fixes the form on the wire, which docs/protocol.md describes.
func TestDocumentVectors(t *testing.T) {
	f := full()
	for want, d := range map[string]*Document{
		"a10101": {},
		"a901010282450a1400071851fd20000000000000000000000000000740" + "0382450a1e00001051fd30000000000000000000000000000030" +
			"0482440a14000150fd200000000000000000000000000001" + "05816b6578616d706c652e6e6574" + "06190578" + "071819" + "08f5" + "09816d7e636f72702e6578616d706c65": &f,
	} {
		b, err := d.Encode()
		if err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%x, %v, want %s", b, err, want)
		}
		got, err := DecodeDocument(b)
		if err != nil || !got.Equal(d) {
			t.Errorf("%+v is read back as %+v, %v", d, got, err)
		}
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	many := func(n int) (out []netip.Prefix) {
		for i := range n {
			out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
		}
		return out
	}
	for name, d := range map[string]Document{
		"loopback":            {Addresses: prefixes("127.0.0.1/8")},
		"multicast":           {Addresses: prefixes("224.0.0.1/24")},
		"no address":          {Addresses: prefixes("0.0.0.0/24")},
		"link-local":          {Addresses: prefixes("fe80::1/64")},
		"mapped":              {Addresses: prefixes("::ffff:10.0.0.1/120")},
		"twice":               {Addresses: prefixes("10.0.0.1/24", "10.0.0.1/25")},
		"default route":       {Routes: prefixes("0.0.0.0/0")},
		"route with host":     {Routes: prefixes("10.0.0.1/24")},
		"loopback route":      {Routes: prefixes("127.0.0.0/16")},
		"route twice":         {Routes: prefixes("10.0.0.0/8", "10.0.0.0/8")},
		"link-local server":   {DNS: addrs("fe80::1")},
		"server with zone":    {DNS: addrs("fd00::1%eth0")},
		"domain":              {Search: []string{"exa mple"}},
		"option as domain":    {Search: []string{"-x"}},
		"newline in domain":   {Search: []string{"a\nnameserver 1.2.3.4"}},
		"all as search":       {Search: []string{"~."}},
		"domain asked":        {DNS: addrs("10.0.0.1"), Domains: []string{"~-x"}},
		"newline in asked":    {DNS: addrs("10.0.0.1"), Domains: []string{"a\nnameserver 1.2.3.4"}},
		"domains, no server":  {Domains: []string{"example.net"}},
		"small MTU":           {MTU: 575},
		"small MTU for IPv6":  {MTU: 1279, Addresses: prefixes("fd00::1/64")},
		"large MTU":           {MTU: 65536},
		"keepalive":           {Keepalive: 65536 * time.Second},
		"negative keepalive":  {Keepalive: -time.Second},
		"parts of a second":   {Keepalive: time.Millisecond},
		"too many routes":     {Routes: many(MaxRoutes + 1)},
		"too many addresses":  {Addresses: many(MaxAddresses + 1)},
		"too many searched":   {Search: slices.Repeat([]string{"a"}, MaxDomains+1)},
		"too many domains":    {DNS: addrs("10.0.0.1"), Domains: slices.Repeat([]string{"a"}, MaxDomains+1)},
		"too many servers":    {DNS: slices.Repeat(addrs("10.0.0.1"), MaxServers+1)},
		"invalid address":     {Addresses: []netip.Prefix{{}}},
		"invalid name server": {DNS: []netip.Addr{{}}},
	} {
		if b, err := d.Encode(); err == nil {
			t.Errorf("%s: encoded as %x", name, b)
		}
	}
	// The largest that each bound allows still fits.
	d := Document{Domains: slices.Repeat([]string{strings.Repeat(strings.Repeat("a", 62)+".", 4)[:MaxDomain-1]}, MaxDomains), DNS: slices.Repeat(addrs("fd00::1"), MaxServers)}
	for i := range MaxRoutes {
		d.Routes = append(d.Routes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i), byte(i >> 8)}), 64))
	}
	for i := range MaxAddresses {
		d.Addresses = append(d.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfc, 15: byte(i + 1)}), 64))
	}
	if b, err := d.Encode(); err != nil {
		t.Errorf("the largest: %v", err)
	} else if got, err := DecodeDocument(b); err != nil || !got.Equal(&d) {
		t.Errorf("the largest of %d bytes: %v", len(b), err)
	}
}

func TestMalformedDocuments(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		want error
	}{
		"nothing":               {"", ErrMalformed},
		"no map":                {"80", ErrMalformed},
		"no version":            {"a0", ErrMalformed},
		"another version":       {"a10102", ErrVersion},
		"version as text":       {"a1016131", ErrMalformed},
		"longer than needed":    {"a1011801", ErrMalformed},
		"trailing":              {"a1010100", ErrMalformed},
		"unknown key":           {"a201010901", ErrMalformed},
		"key twice":             {"a201010101", ErrMalformed},
		"out of order":          {"a206190578" + "0101", ErrMalformed},
		"empty list":            {"a201010280", ErrMalformed},
		"indefinite":            {"bf0101ff", ErrMalformed},
		"tag":                   {"a10101c0", ErrMalformed},
		"address of 3 bytes":    {"a20101028143010203", ErrMalformed},
		"numbers for bytes":     {"a2010102818501020304181"[:23] + "8", ErrMalformed},
		"prefix too long":       {"a20101028145" + "0a000001" + "21", ErrMalformed},
		"mapped address":        {"a20101048150" + "00000000000000000000ffff0a000001", ErrMalformed},
		"false said":            {"a2010108f4", ErrMalformed},
		"null":                  {"a2010102f6", ErrMalformed},
		"MTU of 2^32 and more":  {"a20101061b0000000100000578", ErrMalformed},
		"negative keepalive":    {"a201010720", ErrMalformed},
		"floating point":        {"a2010106fa44af0000", ErrMalformed},
		"text that is no UTF-8": {"a20101058161ff", ErrMalformed},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d, err := DecodeDocument(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	if _, err := DecodeDocument(make([]byte, MaxDocument+1)); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func FuzzDecodeDocument(f *testing.F) {
	d := full()
	for _, d := range []*Document{{}, &d} {
		b, err := d.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDocument(b)
		if err != nil {
			return
		}
		again, err := d.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is read, and written as %x, %v", b, again, err)
		}
		everything := Policy{AnyRoute: true, DNS: true, FullTunnel: true}
		if got, refused, err := everything.Accept(d, nil); err != nil || len(refused) > 0 || !got.Equal(&d) {
			t.Errorf("of %+v are refused %v, %v", d, refused, err)
		}
		for _, n := range d.Networks() {
			if n != n.Masked() {
				t.Errorf("network %v", n)
			}
		}
	})
}

func FuzzDecodeEnrolRequest(f *testing.F) {
	b, err := (&EnrolRequest{crypto.PublicKey{1}, "laptop"}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeEnrolRequest(b); err == nil {
			if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%x is read, and written as %x, %v", b, again, err)
			}
		}
	})
}

func FuzzDecodeEnrolAnswer(f *testing.F) {
	for _, a := range []EnrolAnswer{{Accepted: true}, {Accepted: true, Frames: true}, {Reason: "no"},
		{Accepted: true, Others: []OtherServer{{crypto.PublicKey{9}, []string{"h:1", "[2001:db8::1]:2"}}, {crypto.PublicKey{8}, []string{"192.0.2.1:3"}}}}} {
		b, err := a.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeEnrolAnswer(b); err == nil {
			if again, err := a.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%x is read, and written as %x, %v", b, again, err)
			}
		}
	})
}

func TestEnrolDocuments(t *testing.T) {
	for _, name := range []string{strings.Repeat("x", MaxName+1), "a\nb", "\u202e", "\xff"} {
		if _, err := (&EnrolRequest{Name: name}).Encode(); err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
	for _, a := range []EnrolAnswer{{}, {Accepted: true, Reason: "why"}, {Reason: "a\nb"}, {Reason: strings.Repeat("x", MaxReason+1)}, {Frames: true, Reason: "no"},
		{Reason: "no", Others: []OtherServer{{crypto.PublicKey{9}, []string{"h:1"}}}}, {Accepted: true, Others: []OtherServer{{crypto.PublicKey{9}, nil}}},
		{Accepted: true, Others: []OtherServer{{crypto.PublicKey{9}, []string{"h"}}}}, {Accepted: true, Others: []OtherServer{{crypto.PublicKey{1}, []string{"h:1"}}}},
		{Accepted: true, Others: []OtherServer{{crypto.PublicKey{9}, []string{"h:1"}}, {crypto.PublicKey{9}, []string{"g:1"}}}}} {
		if _, err := a.Encode(); err == nil {
			t.Errorf("%+v is taken", a)
		}
	}
	for _, b := range []string{"a1" + "0101", "a2" + "0101" + "0241" + "00", "a30101025820" + strings.Repeat("00", 32) + "03610a"} {
		raw, err := hex.DecodeString(b)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := DecodeEnrolRequest(raw); err == nil {
			t.Errorf("%s is read as %+v", b, r)
		}
	}
}

func TestAccept(t *testing.T) {
	d := full()
	endpoint := addrs("203.0.113.5")
	for name, c := range map[string]struct {
		policy  Policy
		change  func(*Document)
		at      []netip.Addr
		want    string
		refused int
	}{
		"everything": {Policy{AnyRoute: true, DNS: true, FullTunnel: true}, nil, endpoint, "[10.30.0.0/16 fd30::/48] [10.20.0.1 fd20::1] [~corp.example] [example.net] true", 0},
		"nothing":    {Policy{}, nil, endpoint, "[] [] [] [] false", 6},
		"some routes": {Policy{Routes: prefixes("10.0.0.0/8", "fd30:0:0:1::/64"), DNS: true, FullTunnel: true}, nil, endpoint,
			"[10.30.0.0/16] [10.20.0.1 fd20::1] [~corp.example] [example.net] true", 2},
		"excepted networks": {Policy{AnyRoute: true, Except: prefixes("10.30.7.0/24", "fd20::/16"), DNS: true, FullTunnel: true}, nil, endpoint,
			"[fd30::/48] [10.20.0.1 fd20::1] [~corp.example] [example.net] true", 2},
		"a route over the endpoint": {Policy{AnyRoute: true, DNS: true, FullTunnel: true}, func(d *Document) { d.Routes = append(d.Routes, prefixes("203.0.0.0/8")...) },
			endpoint, "[10.30.0.0/16 fd30::/48] [10.20.0.1 fd20::1] [~corp.example] [example.net] true", 1},
	} {
		d := d
		d.Routes = slices.Clone(d.Routes)
		if c.change != nil {
			c.change(&d)
		}
		got, refused, err := c.policy.Accept(d, c.at)
		text := fmt.Sprint(got.Routes, got.DNS, got.Domains, got.Search, got.FullTunnel)
		if err != nil || text != c.want || len(refused) != c.refused || got.MTU != 1400 ||
			!slices.EqualFunc(got.Addresses, d.Addresses, func(a, b netip.Prefix) bool { return a.Addr() == b.Addr() }) {
			t.Errorf("%s: %s, refused %q, %v", name, text, refused, err)
		}
	}
	if got, _, err := (&Policy{AnyRoute: true}).Accept(d, addrs("10.20.0.200")); !errors.Is(err, ErrLoop) || !got.Equal(&Document{}) {
		t.Errorf("the endpoint in the address's network: %+v, %v", got, err)
	}
	for at, p := range map[string]Policy{"10.20.0.7": {AnyRoute: true}, "fd20::7": {}} {
		if got, _, err := p.Accept(d, addrs(at)); !errors.Is(err, ErrLoop) || !got.Equal(&Document{}) {
			t.Errorf("the endpoint as address: %+v, %v", got, err)
		}
	}
	for want, p := range map[string]Policy{
		"[10.20.0.7/24 fd20::7/64]":  {AnyRoute: true},
		"[10.20.0.7/32 fd20::7/128]": {},
		"[10.20.0.7/24 fd20::7/128]": {Routes: prefixes("10.0.0.0/8")},
		"[10.20.0.7/32 fd20::7/64]":  {AnyRoute: true, Except: prefixes("10.20.0.128/25")},
	} {
		if got, _, err := p.Accept(d, nil); err != nil || fmt.Sprint(got.Addresses) != want {
			t.Errorf("%v, %v, want %s", got.Addresses, err, want)
		}
	}
	if got := fmt.Sprint(d.Networks()); got != "[10.20.0.0/24 fd20::/64 10.30.0.0/16 fd30::/48 0.0.0.0/0 ::/0]" {
		t.Error(got)
	}
}
