package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"culvert/setup/spec"
)

// yamlAccess writes what a peer may do.
func yamlAccess(b *bytes.Buffer, a *Access) {
	if a == nil {
		return
	}
	b.WriteString("        access:\n")
	if a.Default == "" && len(a.Rules) == 0 && a.Limit == (AccessLimit{}) && a.Quota == nil && a.Expires.IsZero() && len(a.Schedule) == 0 {
		b.WriteString("          default: allow\n") // a mapping needs something in it
	}
	if a.Default != "" {
		fmt.Fprintf(b, "          default: %s\n", a.Default)
	}
	if len(a.Rules) > 0 {
		b.WriteString("          rules:\n")
	}
	for i := range a.Rules {
		action, m := "allow", a.Rules[i].Allow
		if m == nil {
			action, m = "deny", a.Rules[i].Deny
		}
		if len(m.To)+len(m.From)+len(m.Protocols)+len(m.Ports) == 0 {
			fmt.Fprintf(b, "            - %s: {}\n", action)
			continue
		}
		fmt.Fprintf(b, "            - %s:\n", action)
		yamlList(b, "                to", NearTexts(m.To))
		yamlList(b, "                from", NearTexts(m.From))
		if len(m.Protocols) > 0 {
			fmt.Fprintf(b, "                protocol: [%s]\n", listed(m.Protocols, protocolText))
		}
		if len(m.Ports) > 0 {
			fmt.Fprintf(b, "                ports: [%s]\n", listed(m.Ports, PortRange.String))
		}
	}
	if a.Limit != (AccessLimit{}) {
		b.WriteString("          limit:\n")
		for _, l := range []struct {
			key  string
			rate spec.BitRate
		}{{"from_peer", a.Limit.FromPeer}, {"to_peer", a.Limit.ToPeer}} {
			if l.rate != 0 {
				fmt.Fprintf(b, "            %s: %s\n", l.key, l.rate)
			}
		}
	}
	if q := a.Quota; q != nil {
		fmt.Fprintf(b, "          quota:\n            bytes: %d\n", q.Bytes)
		yamlOptional(b, "            every", q.Every)
		yamlOptional(b, "            zone", q.Zone)
	}
	if !a.Expires.IsZero() {
		fmt.Fprintf(b, "          expires: %q\n", a.Expires.Format(time.RFC3339Nano))
	}
	if len(a.Schedule) > 0 {
		b.WriteString("          schedule:\n")
	}
	for _, w := range a.Schedule {
		fmt.Fprintf(b, "            - from: %q\n", ClockText(w.From))
		yamlList(b, "              days", w.Days)
		if w.To != nil {
			fmt.Fprintf(b, "              to: %q\n", ClockText(*w.To))
		}
		yamlOptional(b, "              zone", w.Zone)
	}
}

func yamlOptional(b *bytes.Buffer, key, text string) {
	if text != "" {
		fmt.Fprintf(b, "%s: %s\n", key, yamlText(text))
	}
}

func listed[T any](list []T, text func(T) string) string {
	var b []byte
	for i, x := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, text(x)...)
	}
	return string(b)
}

// NearTexts gives networks of this end's side in the form in which they are configured.
func NearTexts(list []netip.Prefix) []string {
	var out []string
	for _, p := range list {
		if !p.IsValid() {
			out = append(out, "any")
			continue
		}
		out = append(out, p.String())
	}
	return out
}

// ProtocolTexts gives the protocols in the form in which they are configured.
func (m *AccessMatch) ProtocolTexts() (out []string) {
	for _, p := range m.Protocols {
		out = append(out, protocolText(p))
	}
	return out
}

func protocolText(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	}
	return strconv.Itoa(int(p))
}

// String gives the form in which it is configured.
func (p PortRange) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return strconv.Itoa(int(p.First)) + "-" + strconv.Itoa(int(p.Last))
}

// ClockText gives a time of day as it is configured.
func ClockText(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute)
}
