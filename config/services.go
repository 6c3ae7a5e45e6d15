package config

// Programs run for the network, and cross-connections.

var serviceShape = &shape{name: "service", where: "a service", one: true, keys: []key{
	{name: "dnsmasq", field: "Dnsmasq", form: dnsmasqShape, absent: "-", doc: "gives out addresses by DHCP, and answers names (dnsmasq(8))"},
}}

// arguments are texts, each handed on as one argument of the program.
func arguments(example string) list {
	return list{of: line, most: MaxArguments, example: example, lone: true}
}

var dnsmasqShape = &shape{name: "dnsmasq", where: "dnsmasq", keys: []key{
	{name: "netns", field: "Netns", form: netnsRef, absent: "the one culvert runs in", doc: "the namespace it runs in"},
	{name: "interface", field: "Interface", form: linkRef, doc: "the only link it serves"},
	{name: "range", field: "Ranges", form: arguments(`["10.0.0.10,10.0.0.50,255.255.255.0"]`), absent: "no addresses are given out",
		doc: "addresses given out, as `--dhcp-range` takes them"},
	{name: "host", field: "Hosts", form: arguments(`["02:00:00:00:00:01,10.0.0.11"]`), absent: "none", doc: "addresses of single machines, as `--dhcp-host` takes them"},
	{name: "option", field: "Options", form: arguments(`["option:router,10.0.0.1"]`), absent: "dnsmasq's", doc: "what else clients are told, as `--dhcp-option` takes it"},
	{name: "domain", field: "Domain", form: written("domain", map[string]any{"type": "string", "maxLength": 253}, domain), absent: "none", doc: "of the clients"},
	{name: "servers", field: "Servers", absent: "no names outside are answered", doc: "name servers that are asked in turn",
		form: list{of: host(0), most: MaxDNS, example: "[10.0.0.53]"}},
	{name: "dns", field: "DNS", form: truth, absent: "`false`", doc: "names are answered on port 53"},
	{name: "lease_file", field: "LeaseFile", form: absolutePath(4095), absent: "one in culvert's own folder", doc: "where leases are kept"},
}}

func domain(s string) (string, *problem) { return s, hostName(s) }

var xconnectShape = &shape{name: "xconnect", where: "a cross-connection", keys: []key{
	{name: "a", field: "A", form: linkRef, doc: "one link"},
	{name: "b", field: "B", form: linkRef, doc: "the other"},
}}
