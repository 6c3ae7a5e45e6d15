package resolver

import (
	"fmt"
	"net/netip"
	"strings"

	"culvert/setup/spec"
)

const (
	// maxFile bounds what is read of a resolv.conf and of a record, in bytes.
	maxFile = 64 << 10
	// header begins each resolv.conf written here.
	header = "# Written by culvert for "
)

// compose is the text of a resolv.conf: servers in order, the domains that complete short names, and the options of the text before.
// The format knows no routing by name: all names are asked of the servers.
func compose(instance, link string, servers, domains []string, before string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s (tunnel %s). What was here before comes back when it is taken down.\n", header, instance, link)
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if s := searched(domains); len(s) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s, " "))
	}
	for line := range strings.Lines(before) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "options" {
			continue
		}
		keep := words[:1]
		for _, w := range words[1:] {
			if w != "trust-ad" { // which was said of other servers
				keep = append(keep, w)
			}
		}
		if len(keep) > 1 {
			b.WriteString(strings.Join(keep, " ") + "\n")
		}
	}
	return b.String()
}

// searched are the domains that complete short names.
func searched(domains []string) (list []string) {
	for _, d := range domains {
		if !strings.HasPrefix(d, "~") {
			list = append(list, d)
		}
	}
	return list
}

// routed are the domains below which names are asked of the servers; all says that all are.
func routed(domains []string) (list []string, all bool) {
	for _, d := range domains {
		if d == spec.All {
			all = true
			continue
		}
		list = append(list, strings.TrimPrefix(d, "~"))
	}
	return list, all
}

// servers are those that a resolv.conf names (resolv.conf(5)), in order; what is no address is passed over.
func servers(text string) (list []netip.Addr) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// writtenFor is the instance that a text was written for; "" where culvert did not write it.
func writtenFor(text string) string {
	rest, ok := strings.CutPrefix(text, header)
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, " ")
	return name
}
