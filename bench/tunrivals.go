package main

import (
	"fmt"
	"slices"
	"strings"

	"culvert/internal/lab"
)

// What -rivals can add to the tunnels of IP packets, by the names it takes, in the order they are measured in: other projects', and the
// ceiling where super-packets pass as they are.
//
// All their devices have the MTU of the WireGuards', which fits one datagram of an underlay of 1500 in each: Nebula adds 32 bytes to
// a packet, fastd and OpenVPN 24, tinc at most 38. A trial in which a datagram was cut fails.
var tunRivals = []struct {
	word string
	*rival
}{
	{"relay-whole", &relayOfWhole},
	{"tailscale", &tailscale},
	{"nebula", &nebula},
	{"fastd", &fastdTun},
	{"openvpn", &openVPNTun},
	{"tinc", &tincTun},
}

// tailscale is Tailscale's fork of wireguard-go, which is configured as that is and so has no files.
var tailscale = rival{name: "Tailscale's fork", build: func(s *stage) (string, error) {
	return lab.BuildAt(s, tailscaleVersion, "github.com/tailscale/wireguard-go")
}}

// The versions that are built: the newest which the module proxy has and the toolchain of go.mod builds.
const (
	tailscaleVersion = "v0.0.0-20260928213032-417aef361226"
	nebulaVersion    = "v1.11.1"
)

// parseRivals reads -rivals: all, or names parted by commas.
func parseRivals(text string) (list []*rival, err error) {
	var words []string
	for _, r := range tunRivals {
		words = append(words, r.word)
	}
	chosen := strings.Split(text, ",")
	for _, word := range chosen {
		if text != "" && text != "all" && !slices.Contains(words, word) {
			return nil, fmt.Errorf("-rivals: %q is neither all nor one of %s", word, strings.Join(words, ", "))
		}
	}
	for _, r := range tunRivals {
		if text == "all" || slices.Contains(chosen, r.word) {
			list = append(list, r.rival)
		}
	}
	return list, nil
}

// tunRivalImplementations returns the rivals of a list that are here or can be built, and a line on each that is missing.
func tunRivalImplementations(s *stage, m Machine, list []*rival) (found []Implementation, missing []string, err error) {
	for _, r := range list {
		impl, err := r.tunImplementation(s)
		if s.Context().Err() != nil {
			return nil, nil, s.Context().Err()
		}
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		if r == &relayOfSegments || r == &relayOfWhole {
			impl.builtHere(m)
		}
		found = append(found, impl)
	}
	return found, missing, nil
}

func (f *rival) tunImplementation(s *stage) (impl Implementation, err error) {
	impl = Implementation{Name: f.name, MTU: tunnelMTU, Settings: f.settings, rival: f}
	var path string
	if f.build == nil {
		if path, err = f.find(); err == nil {
			impl.Command = []string{path}
			impl.Version, err = f.version(path)
		}
		return impl, err
	}
	if path, err = f.build(s); err != nil {
		return impl, fmt.Errorf("%s cannot be built: %w", f.name, err)
	}
	if impl.Command = []string{path}; f.configure == nil { // as wireguard-go is
		impl.Command = append(impl.Command, "-f")
		impl.rival, impl.MTU = nil, 0
	}
	return impl, impl.identify()
}
