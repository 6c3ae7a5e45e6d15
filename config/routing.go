package config

import (
	"slices"
	"strings"

	"culvert/setup/spec"
)

// Routes, policy rules, masquerading and settings of the kernel.

// tableNumber is a routing table's.
var tableNumber = whole(1, 1<<32-1, word{"main", 254}, word{"default", 253}).called("number of a table from 1, `main` or `default`")

var (
	routeNetnsKey = key{name: "netns", field: "Netns", form: netnsRef, absent: "the one culvert runs in", doc: "where the route is, and its link"}
	routeLinkKey  = key{name: "link", field: "Link", form: linkRef, absent: "the one that leads to the gateway", doc: "where its packets leave"}
	routeKeys     = []key{
		{name: "to", field: "Prefix", form: network("default"), doc: "the destination"},
		{name: "gateway", field: "Gateway", form: host(0), absent: "none: the destination is on the link", doc: "the next router"},
		{name: "source", field: "Source", form: host(0), absent: "the kernel's choice", doc: "the address packets have that were given none"},
		{name: "table", field: "Table", form: tableNumber, absent: "`main`", doc: "the routing table"},
		{name: "metric", field: "Metric", form: whole(0, 1<<32-1), absent: "0; 1024 of IPv6", doc: "the least is preferred"},
		{name: "mtu", field: "MTU", form: whole(minLinkMTU, maxLinkMTU).called("68 to 65535 bytes"), absent: "the link's", doc: "the longest packet"},
		{name: "type", field: "Type", form: choice("unicast", "blackhole", "unreachable", "prohibit"), absent: "`unicast`", doc: "what is done with packets: the others drop them, the last two with an ICMP error"},
		{name: "onlink", field: "OnLink", form: truth, absent: "`false`", doc: "the gateway is on the link, whatever the addresses say"},
	}
)

var (
	linkRouteShape = &shape{name: "link route", where: "a link's route", short: "to", keys: routeKeys}
	routeShape     = &shape{name: "route", where: "a route", keys: slices.Concat([]key{routeNetnsKey, routeLinkKey}, routeKeys)}
)

var ruleShape = &shape{name: "rule", where: "a rule", keys: []key{
	{name: "netns", field: "Netns", form: netnsRef, absent: "the one culvert runs in", doc: "where the rule is"},
	{name: "family", field: "Family", form: family, absent: "that of `from` or `to`, otherwise both", doc: "of the packets"},
	{name: "priority", field: "Priority", form: whole(1, 32765), doc: "rules are tried from the least on; 0, 32766 and 32767 are the kernel's own"},
	{name: "not", field: "Not", form: truth, absent: "`false`", doc: "takes the packets that do not match"},
	{name: "from", field: "From", form: network(), absent: "any", doc: "source of the packets"},
	{name: "to", field: "To", form: network(), absent: "any", doc: "destination of the packets"},
	{name: "iif", field: "IIf", form: linkRef, absent: "any", doc: "where they came in; `lo`, declared as external, for the machine's own"},
	{name: "oif", field: "OIf", form: linkRef, absent: "any", doc: "where they are bound to leave"},
	{name: "mark", field: "Mark", form: mark, absent: "any", doc: "the firewall mark they carry"},
	{name: "mask", field: "Mask", form: mark, absent: "all bits", doc: "the bits of the mark that are looked at"},
	{name: "table", field: "Table", form: tableNumber, absent: "`main`", doc: "the routing table they are looked up in"},
	{name: "suppress_prefixlength", field: "SuppressPrefixLen", form: whole(0, 128), absent: "none", doc: "routes of at most this length are passed over: 0 passes over the default routes"},
	{name: "action", field: "Action", form: choice("lookup", "blackhole", "unreachable", "prohibit"), absent: "`lookup`", doc: "what is done with the packets"},
}}

var natShape = &shape{name: "nat", where: "an entry of nat", keys: []key{
	{name: "netns", field: "Netns", form: netnsRef, absent: "the one culvert runs in", doc: "where it is done"},
	{name: "out", field: "Out", form: linkRef, doc: "what leaves by it gets its address (masquerade)"},
	{name: "sources", field: "Sources", absent: "all, of `family`", doc: "the networks it is done for",
		form: list{of: network(), most: MaxNAT, example: "[10.0.0.0/24]", lone: true}},
	{name: "family", field: "Family", form: family, absent: "that of the sources, otherwise `ipv4`", doc: "of the packets"},
}}

// settingName is that of a setting of a network namespace.
var settingName = written("name such as `net.ipv4.ip_forward`", pattern(`^net\.[^./\s]+\.`), func(s string) (string, *problem) {
	if !spec.IsSysctlName(s) {
		return "", wrong("write it with dots, as sysctl -a shows it: net.ipv4.ip_forward", "%s is no setting of a network namespace", quote(s))
	}
	return s, nil
})

// settingValue is a number, or a text with one or more words.
var settingValue = scalar{text: "number or text", schema: map[string]any{"anyOf": []any{map[string]any{"type": "integer"},
	map[string]any{"type": "string", "minLength": 1, "maxLength": maxArgument}}},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		if s = strings.Join(strings.Fields(s), " "); !spec.IsSysctlValue(s) {
			y.fail(v.pos, "write what sysctl shows, such as 1", "%s is not the value of a setting", quote(s))
			return nil, false
		}
		return s, true
	}}

var sysctlShape = &shape{name: "sysctl", where: "an entry of sysctl", keys: []key{
	{name: "netns", field: "Netns", form: netnsRef, absent: "the one culvert runs in", doc: "where it is set"},
	{name: "name", field: "Name", form: settingName, doc: "the setting, as `sysctl -a` shows it"},
	{name: "value", field: "Value", form: settingValue, doc: "what it is to be, as `sysctl` shows it"},
}}
