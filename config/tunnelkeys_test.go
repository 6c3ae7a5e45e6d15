package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What the JSON Schema says of the part of a file that is not read by the table: the file's own keys, tunnels and peers. The names
// are held against the parser's below.

// only makes a form that is described and not read.
func only(schema object) scalar { return scalar{schema: schema} }

func text() object                    { return object{"type": "string"} }
func texts(most int) object           { return object{"type": "array", "items": text(), "maxItems": most} }
func enum(words ...string) object     { return object{"enum": anys(words)} }
func either(several ...object) object { return object{"anyOf": anys(several)} }
func integer(least, most int64) object {
	return object{"type": "integer", "minimum": least, "maximum": most}
}

var fileKeys = []key{
	{name: "version", form: only(object{"const": 1}), doc: "version of the file format"},
	{name: "instance", form: only(object{"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_=+.-]{0,63}$"}), absent: "the file's name", doc: "name of the instance"},
	{name: "nice", form: only(integer(MinNice, MaxNice)), absent: "-10", doc: "nice value of the daemon"},
	{name: "confine", form: only(object{"enum": []any{"auto", "files", false}}), absent: "auto", doc: "what the daemon gives up once it is up"},
	{name: "monitor", form: monitorShape, absent: "nowhere", doc: "where metrics, health and a status page are read over HTTP"},
	{name: "on", absent: "none are run", doc: "programs that are run at events", form: list{most: MaxOn, of: &shape{name: "on", where: "a program for events", keys: []key{
		{name: "events", form: only(texts(MaxOnEvents)), doc: "kinds of events, or groups of them"},
		{name: "run", form: only(texts(MaxOnRun)), doc: "the program's full path, and its arguments"},
	}}}},
	{name: "tunnels", form: table{of: tunnelShapeKeys, most: MaxTunnels, long: maxDeviceName}, absent: "none", doc: "tunnels by name"},
}

var tunnelShapeKeys = &shape{name: "tunnel", where: "a tunnel", keys: slices.Concat([]key{
	{name: "mode", form: only(enum("tun", "tap")), absent: "tun", doc: "IP packets (tun) or Ethernet frames (tap)"},
	{name: "listen", form: only(integer(0, 65535)), absent: "a port the kernel picks", doc: "UDP port"},
	{name: "tcp", absent: "UDP alone", doc: "where TCP connections are accepted of peers that UDP does not reach: a port, an address and a port, or with a certificate",
		form: only(either(integer(1, 65535), text(), object{"type": "object", "additionalProperties": false, "required": []any{"listen"}, "properties": object{
			"listen":           either(integer(1, 65535), text()),
			"certificate_file": text(),
			"key_file":         text(),
		}}))},
	{name: "private_key_file", form: only(text()), doc: "path of the key file, relative to the file's folder, or credential:NAME"},
	{name: "addresses", form: only(texts(MaxAddresses)), absent: "none", doc: "addresses with prefix lengths"},
	{name: "mtu", form: only(either(enum("auto"), integer(minMTU, maxMTU))), absent: "auto", doc: "bytes of an inner packet"},
	{name: "wire", form: only(enum("culvert", "wireguard")), absent: "culvert", doc: "protocol spoken with the peers"},
	{name: "post_quantum", form: only(enum("required")), absent: "nothing is required", doc: "no peer may be on the wireguard wire"},
	{name: "fwmark", form: only(either(enum("off", "auto"), integer(0, 1<<32-1))), absent: "auto", doc: "mark of outgoing datagrams"},
	{name: "table", form: only(either(enum("auto", "off", "main", "default"), integer(1, 1<<32-1))), absent: "auto", doc: "where routes to allowed IPs go"},
	{name: "dns", absent: "none", doc: "what to resolve names with", form: &shape{name: "dns", where: "dns", keys: []key{
		{name: "servers", form: only(texts(MaxDNS)), absent: "none", doc: "addresses of name servers"},
		{name: "domains", form: only(texts(MaxDNS)), absent: "all names", doc: "domains whose names are asked of them; ~. is all"},
		{name: "search", form: only(texts(MaxDNS)), absent: "none", doc: "search domains"},
		{name: "resolver", form: only(object{"enum": []any{"auto", "resolved", "resolvconf", "file", "off", false}}), absent: "auto", doc: "who is told"},
	}}},
	{name: "full_tunnel", form: only(either(object{"type": "boolean"}, object{"type": "array", "items": enum("ipv4", "ipv6"), "maxItems": 2})), absent: "false",
		doc: "all packets of both families, or of these, go into the tunnel"},
	{name: "except", form: only(texts(MaxExcept)), absent: "none", doc: "networks that are reached without the tunnel"},
	{name: "kill_switch", form: truth, absent: "false", doc: "nothing leaves the machine but by the tunnel"},
	{name: "hooks", absent: "none", doc: "shell commands", form: &shape{name: "hooks", where: "hooks", keys: []key{
		{name: "pre_up", form: only(texts(MaxHooks)), absent: "none", doc: "before the tunnel is up"},
		{name: "post_up", form: only(texts(MaxHooks)), absent: "none", doc: "when it is up"},
		{name: "pre_down", form: only(texts(MaxHooks)), absent: "none", doc: "before it is taken down"},
		{name: "post_down", form: only(texts(MaxHooks)), absent: "none", doc: "when it is down"},
	}}},
	{name: "queues", form: only(either(enum("auto"), integer(1, MaxQueues))), absent: "auto", doc: "queues of the device, and workers each way"},
	{name: "mac", form: only(pattern(macPattern)), absent: "the kernel's choice", doc: "MAC address of a tap"},
	{name: "switch", absent: "the defaults", doc: "how frames are forwarded", form: &shape{name: "switch", where: "switch", keys: []key{
		{name: "ageing", form: only(pattern(durationPattern)), absent: "300s", doc: "after which a silent address is forgotten"},
		{name: "link_local", form: truth, absent: "false", doc: "frames to link-local groups are forwarded"},
		{name: "proxy", form: truth, absent: "false", doc: "ARP and ND are answered for known stations"},
		{name: "loop_detection", form: truth, absent: "true", doc: "loops are looked for"},
	}}},
	{name: "carrier", form: only(enum("follow", "on")), absent: "follow", doc: "whether a tap's carrier follows the peers"},
	{name: "server", form: serverShape, absent: "nobody can join", doc: "makes the tunnel one that clients join"},
	{name: "peers", form: table{of: peerShapeKeys, most: MaxPeers, long: 64}, absent: "none", doc: "peers by name"},
}, tunnelShape.keys)}

var peerShapeKeys = &shape{name: "tunnel peer", where: "a peer", keys: []key{
	{name: "public_key", form: only(pattern("^[A-Za-z0-9+/]{43}=$")), doc: "the far end's key"},
	{name: "preshared_key_file", form: only(text()), absent: "no preshared key", doc: "path of a key file"},
	{name: "wire", form: only(enum("culvert", "wireguard")), absent: "the tunnel's", doc: "protocol spoken with the peer"},
	{name: "post_quantum", form: only(enum("required")), absent: "the tunnel's", doc: "the peer may not be on the wireguard wire"},
	{name: "endpoints", form: only(texts(MaxEndpoints)), absent: "the peer has to call", doc: "host:port, tried in this order"},
	{name: "tcp", form: only(either(integer(1, 65535), text())), absent: "UDP alone", doc: "port, or host:port, where TCP is tried when UDP does not get through"},
	{name: "allowed_ips", form: only(texts(MaxAllowedIPs)), absent: "none", doc: "networks behind the peer"},
	{name: "keepalive", form: only(either(enum("off"), object{"const": 0}, pattern(durationPattern))), absent: "off; 10s in a tap tunnel", doc: "how often a silent line is kept alive"},
	{name: "pull", form: truth, absent: "false", doc: "the peer is a server, which says what to set up here"},
	{name: "accept", form: acceptShape, absent: "everything", doc: "what of it is accepted"},
	{name: "access", form: accessShape, absent: "everything", doc: "what the peer may do: rules, rates, quota, times"},
	{name: "spoke", form: truth, absent: "false", doc: "frames from it are sent on to the other peers"},
	{name: "macs", form: list{of: station, most: MaxMACs}, absent: "any", doc: "the only source addresses accepted from it"},
	{name: "max_macs", form: only(integer(1, MaxLearned)), absent: "the default", doc: "addresses learned of it"},
	{name: "vlan", absent: "all cross as they are", doc: "VLANs whose frames cross", form: &shape{name: "peer vlan", where: "vlan", keys: []key{
		{name: "pvid", form: only(integer(1, maxVLAN)), absent: "none", doc: "VLAN of untagged frames"},
		{name: "tagged", form: list{of: vlanIDs, most: maxVLAN}, absent: "none", doc: "VLANs and ranges of them"},
	}}},
	{name: "limits", absent: "the defaults", doc: "frames a second taken from it", form: &shape{name: "peer limits", where: "limits", keys: []key{
		{name: "broadcast", form: only(either(enum("off"), integer(1, maxRate))), absent: "the default", doc: "of broadcasts"},
		{name: "multicast", form: only(either(enum("off"), integer(1, maxRate))), absent: "the default", doc: "of multicasts"},
		{name: "unknown_unicast", form: only(either(enum("off"), integer(1, maxRate))), absent: "the default", doc: "to unknown addresses"},
	}}},
}}

// TestTunnelKeys asks the parser which keys it knows, by one it does not, and compares.
func TestTunnelKeys(t *testing.T) {
	const tunnel = "version: 1\ntunnels: {a: {mode: tap, private_key_file: k, "
	nested := func(keys []key, name string) []key {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		return keys[i].form.(*shape).keys
	}
	for where, c := range map[string]struct {
		text string
		keys []key
	}{
		"file":   {"version: 1\nlinks: {}\n%s: 1\n", wholeFile().keys},
		"tunnel": {tunnel + "%s: 1}}\n", tunnelShapeKeys.keys},
		"dns":    {tunnel + "dns: {%s: 1}}}\n", nested(tunnelShapeKeys.keys, "dns")},
		"hooks":  {tunnel + "hooks: {%s: 1}}}\n", nested(tunnelShapeKeys.keys, "hooks")},
		"switch": {tunnel + "switch: {%s: 1}}}\n", nested(tunnelShapeKeys.keys, "switch")},
		"peer":   {tunnel + "peers: {b: {%s: 1}}}}\n", peerShapeKeys.keys},
		"access": {tunnel + "peers: {b: {access: {%s: 1}}}}}\n", accessShape.keys},
		"vlan":   {tunnel + "peers: {b: {vlan: {%s: 1}}}}}\n", nested(peerShapeKeys.keys, "vlan")},
		"limits": {tunnel + "peers: {b: {limits: {%s: 1}}}}}\n", nested(peerShapeKeys.keys, "limits")},
	} {
		_, r := parseYAML("x.yaml", fmt.Appendf(nil, c.text, "qqqqqqqqqqqqqqqq"), fakeSecret)
		errs, _ := r.finish()
		var known []string
		for _, e := range errs {
			if rest, ok := strings.CutPrefix(e.Hint, "known keys: "); ok {
				known = strings.Split(rest, ", ")
			}
		}
		for _, refused := range []string{"private_key", "preshared_key", "alias"} { // known to be refused with a reason of their own
			known = slices.DeleteFunc(known, func(s string) bool { return s == refused })
		}
		var listed []string
		for _, k := range c.keys {
			listed = append(listed, k.name)
		}
		slices.Sort(known)
		slices.Sort(listed)
		if len(known) == 0 || !slices.Equal(known, listed) {
			t.Errorf("%s: the parser knows\n%v, the schema\n%v", where, known, listed)
		}
	}
}
