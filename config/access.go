package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"culvert/setup/spec"
)

// Bounds on what a file may say of one peer's access.
const (
	MaxAccessRules     = 512  // rules
	MaxAccessAddresses = 8192 // networks of all its rules
	MaxAccessPorts     = 4096 // ports and ranges of all its rules
	MaxAccessWindows   = 64   // windows of its schedule
)

// Access is what a peer may do.
type Access struct {
	spec.Place
	Default  string // "allow", "deny" or "": allow
	Rules    []AccessRule
	Limit    AccessLimit
	Quota    *AccessQuota // nil: none
	Expires  time.Time    // zero: never
	Schedule []AccessWindow
}

// An AccessRule allows or denies, by the one that is not nil.
type AccessRule struct {
	Allow, Deny *AccessMatch
}

// An AccessMatch says which packets a rule is about. With To they are from the peer, with From to the peer, with neither both.
type AccessMatch struct {
	spec.Place
	To, From  []netip.Prefix // of this end's side; the zero prefix is any
	Protocols []uint8        // none is all; 1 stands for ICMP over IPv6 as well
	Ports     []PortRange    // the packet is sent to; none is all
}

// A PortRange is several ports, both ends of it included.
type PortRange struct{ First, Last uint16 }

// AccessLimit are the rates; 0 is none.
type AccessLimit struct{ FromPeer, ToPeer spec.BitRate }

// AccessQuota is how many bytes may pass, both ways together.
type AccessQuota struct {
	Bytes uint64
	Every string // "day", "week", "month", "total" or "": total
	Zone  string // as Go's time.LoadLocation takes it; "" is UTC
}

// An AccessWindow is a part of the week.
type AccessWindow struct {
	spec.Place
	Days []string       // "mon" to "sun"; none is all
	From time.Duration  // since midnight
	To   *time.Duration // since midnight; nil is its end
	Zone string         // "" is UTC
}

// weekdays are the days of a schedule, by time.Weekday.
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

var accessShape = &shape{name: "access", where: "access", keys: []key{
	{name: "default", field: "Default", form: choice("allow", "deny"), absent: "`allow`", doc: "what holds where no rule fits, both directions"},
	{name: "rules", field: "Rules", absent: "none", doc: "the first that fits decides about what begins something",
		form: list{of: accessRuleShape, most: MaxAccessRules, example: "[{allow: {to: 10.0.0.0/8, protocol: tcp, ports: 443}}]"}},
	{name: "limit", field: "Limit", form: accessLimitShape, absent: "no limit", doc: "rates"},
	{name: "quota", field: "Quota", form: accessQuotaShape, absent: "no quota", doc: "bytes that may pass, both ways together"},
	{name: "expires", field: "Expires", form: moment, absent: "never", doc: "from then on the peer has no session"},
	{name: "schedule", field: "Schedule", absent: "always", doc: "outside all of these windows the peer has no session",
		form: list{of: accessWindowShape, most: MaxAccessWindows, example: `[{days: [mon, tue], from: "08:00", to: "18:00"}]`}},
}}

var accessRuleShape = &shape{name: "access rule", where: "a rule", one: true, keys: []key{
	{name: "allow", field: "Allow", form: accessMatchShape, absent: "-", doc: "such packets pass"},
	{name: "deny", field: "Deny", form: accessMatchShape, absent: "-", doc: "such packets do not"},
}}

var accessMatchShape = &shape{name: "access match", where: "a rule", keys: []key{
	{name: "to", field: "To", absent: "with `from` none from the peer, without any", doc: "packets from the peer to there",
		form: list{of: nearNetwork, most: 256, example: "[10.0.0.0/8]", lone: true}},
	{name: "from", field: "From", absent: "with `to` none to the peer, without any", doc: "packets to the peer from there",
		form: list{of: nearNetwork, most: 256, example: "[10.0.0.0/8]", lone: true}},
	{name: "protocol", field: "Protocols", absent: "all", doc: "of the packet; `icmp` is that of either family",
		form: list{of: ipProtocol, most: 16, example: "[tcp, udp]", lone: true}},
	{name: "ports", field: "Ports", absent: "all", doc: "the packet is sent to, of tcp and udp",
		form: list{of: portRange, most: 256, example: "[443, 8000-8100]", lone: true}},
}}

var accessLimitShape = &shape{name: "access limit", where: "limit", keys: []key{
	{name: "from_peer", field: "FromPeer", form: rate, absent: "none", doc: "of what comes from the peer, such as `20mbit`"},
	{name: "to_peer", field: "ToPeer", form: rate, absent: "none", doc: "of what goes to the peer"},
}}

var accessQuotaShape = &shape{name: "access quota", where: "quota", keys: []key{
	{name: "bytes", field: "Bytes", form: volume, doc: "how much"},
	{name: "every", field: "Every", form: choice("day", "week", "month", "total"), absent: "`total`", doc: "when it begins anew: at midnight, on Monday, on the first, never"},
	{name: "zone", field: "Zone", form: timeZone, absent: "`UTC`", doc: "by whose calendar"},
}}

var accessWindowShape = &shape{name: "access window", where: "a window of the schedule", keys: []key{
	{name: "days", field: "Days", absent: "all", doc: "on which it opens",
		form: list{of: inList("days", choice("mon", "tue", "wed", "thu", "fri", "sat", "sun")), most: 7, example: "[mon, tue]", lone: true}},
	{name: "from", field: "From", form: clock, absent: "`00:00`", doc: "when it opens"},
	{name: "to", field: "To", form: clock, absent: "`24:00`", doc: "when it closes; on the next day where that is not after `from`"},
	{name: "zone", field: "Zone", form: timeZone, absent: "`UTC`", doc: "by whose clock"},
}}

// nearNetwork is a network of this end's side, or any.
var nearNetwork = inList("networks, or `any`", written("network such as `10.0.0.0/8`, an address, or `any`",
	map[string]any{"anyOf": []any{pattern(`^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`), map[string]any{"const": "any"}}}, func(s string) (netip.Prefix, *problem) {
		if s == "any" {
			return netip.Prefix{}, nil
		}
		p, prob := parsePrefix(s, true)
		if prob == nil && p != p.Masked() {
			prob = wrong("write "+p.Masked().String(), "%s has bits set behind its prefix length", quote(s))
		}
		return p, prob
	}))

var ipProtocol = inList("protocols: `tcp`, `udp`, `icmp` or 0 to 255",
	whole(0, 255, word{"tcp", 6}, word{"udp", 17}, word{"icmp", 1}))

// portRange is a port, or the first and the last of several.
var portRange = inList("ports, such as `443` or `8000-8100`", scalar{text: "port, or range such as `8000-8100`",
	schema: map[string]any{"anyOf": []any{map[string]any{"type": "integer", "minimum": 0, "maximum": 65535}, pattern(`^[0-9]{1,5}(-[0-9]{1,5})?$`)}},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		first, last, several := strings.Cut(s, "-")
		if !several {
			last = first
		}
		a, okA := decimal(first, 65535)
		b, okB := decimal(last, 65535)
		switch {
		case !okA || !okB:
			y.fail(v.pos, "write a port from 0 to 65535, or a range such as 8000-8100", "%s is neither a port nor a range of them", quote(s))
		case a > b:
			y.fail(v.pos, "write the smaller number first", "%s is an empty range of ports", quote(s))
		default:
			return PortRange{uint16(a), uint16(b)}, true
		}
		return nil, false
	}})

// volume is a number of bytes that passes in a long time.
var volume = scalar{text: "bytes, or a number with its unit: `kB`, `MB`, `GB`, `TB` (1000 each) or `KiB`, `MiB`, `GiB`, `TiB` (1024)",
	schema: map[string]any{"anyOf": []any{map[string]any{"type": "integer", "minimum": 1}, pattern(`^[0-9]+(\.[0-9]+)?([kMGT]B|[KMGT]iB|B)?$`)}},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		n, ok := parseVolume(s)
		if !ok {
			y.fail(v.pos, "write a number of bytes with its unit, such as 50GB or 1.5TiB", "%s is not an amount of data", quote(s))
		}
		return n, ok
	}}

var volumes = []struct {
	unit   string
	factor float64
}{{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

const maxVolume = 1 << 60

func parseVolume(s string) (uint64, bool) {
	factor := 0.0
	for _, u := range volumes {
		if number, ok := strings.CutSuffix(s, u.unit); ok {
			s, factor = number, u.factor
			break
		}
	}
	if factor == 0 {
		n, ok := decimal(strings.TrimSuffix(s, "B"), maxVolume)
		return n, ok && n > 0
	}
	if s == "" || strings.Trim(s, "0123456789.") != "" || s[0] == '.' || s[len(s)-1] == '.' {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f*factor < 1 || f*factor > maxVolume {
		return 0, false
	}
	return uint64(f * factor), true
}

// moment is a point in time.
var moment = written("time with its zone (RFC 3339), such as `2027-01-01T00:00:00Z`",
	pattern(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`), func(s string) (time.Time, *problem) {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil || t.Year() < 1970 {
			return time.Time{}, wrong("write date, time and zone, such as 2027-01-01T00:00:00Z or 2027-01-01T00:00:00+01:00", "%s is not a point in time", quote(s))
		}
		return t, nil
	})

// clock is a time of day.
var clock = written("time of day, such as `\"08:00\"`", pattern(`^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$`), func(s string) (time.Duration, *problem) {
	digit := func(i int) int { return int(s[i] - '0') }
	if len(s) != 5 || s[2] != ':' || strings.Trim(s[:2]+s[3:], "0123456789") != "" ||
		digit(3) > 5 || s > "24:00" {
		return 0, wrong(`write hours and minutes, such as "08:00", up to "24:00"`, "%s is not a time of day", quote(s))
	}
	hours, minutes := 10*digit(0)+digit(1), 10*digit(3)+digit(4)
	return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute, nil
})

// timeZone is one of the zones the system knows.
var timeZone = written("time zone, such as `Europe/Berlin`", pattern(`^[A-Za-z][A-Za-z0-9_+/-]*$`), func(s string) (string, *problem) {
	const hint = "write one as timedatectl list-timezones shows them, such as Europe/Berlin, UTC, or Local for this machine's"
	letter := s != "" && (s[0]|0x20) >= 'a' && (s[0]|0x20) <= 'z'
	if !letter || len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+/-") != "" {
		return "", wrong(hint, "%s is not a time zone", quote(s))
	}
	if _, err := time.LoadLocation(s); err != nil {
		return "", wrong(hint, "the time zone %s is not known on this machine", quote(s))
	}
	return s, nil
})

// relateAccess checks what holds between the parts of a peer's access.
func (r *report) relateAccess(a *Access) {
	addresses, ports := 0, 0
	for i := range a.Rules {
		m := a.Rules[i].Allow
		if m == nil {
			m = a.Rules[i].Deny
		}
		if m == nil {
			continue // reported
		}
		pos := Position(m.Origin)
		if m.To != nil && len(m.To) == 0 || m.From != nil && len(m.From) == 0 || m.Protocols != nil && len(m.Protocols) == 0 || m.Ports != nil && len(m.Ports) == 0 {
			r.fail(pos, "leave it out where it is to fit all", "the rule has an empty list, which would fit nothing")
		}
		if len(m.To) > 0 && len(m.From) > 0 {
			r.fail(pos, "write two rules: one for packets from the peer (to), one for those to the peer (from)",
				"the rule has both \"to\" and \"from\", which are packets in different directions")
		}
		for _, list := range [][]netip.Prefix{m.To, m.From} {
			addresses += len(list)
			for _, p := range list {
				if !p.IsValid() && len(list) > 1 {
					r.fail(pos, "leave the networks out, or any", "the rule has \"any\" beside other networks")
					break
				}
			}
		}
		if ports += len(m.Ports); len(m.Ports) > 0 {
			with := len(m.Protocols) > 0
			for _, p := range m.Protocols {
				with = with && (p == 6 || p == 17)
			}
			if !with {
				r.fail(pos, `add "protocol: tcp", udp, or [tcp, udp]`, "the rule has ports, which only tcp and udp have")
			}
		}
	}
	at := Position(a.Origin)
	if addresses > MaxAccessAddresses {
		r.fail(at, "", "the rules have more than %d networks", MaxAccessAddresses)
	}
	if ports > MaxAccessPorts {
		r.fail(at, "", "the rules have more than %d ports and ranges", MaxAccessPorts)
	}
	for i := range a.Schedule {
		w := &a.Schedule[i]
		if w.From == 24*time.Hour {
			r.fail(Position(w.Origin), `write "00:00"`, "a window of the schedule opens at 24:00")
		}
		if w.Days != nil && len(w.Days) == 0 {
			r.fail(Position(w.Origin), "leave days out where it opens on all", "a window of the schedule opens on no day")
		}
	}
}

// Weekday is the day of a schedule's word.
func Weekday(word string) time.Weekday {
	for i, w := range weekdays {
		if w == word {
			return time.Weekday(i)
		}
	}
	panic(fmt.Sprintf("%q is no day", word)) // parsed
}
