package config

import (
	"slices"
	"strings"
)

// otherNames maps what people write, having other programs in mind, to culvert's keys: where there are several, to that which is known
// in the place.
var otherNames = map[string]string{
	"port": "listen", "listen_port": "listen", "listenport": "listen",
	"address": "addresses", "ip": "addresses", "ips": "addresses",
	"privatekey": "private_key_file", "key": "private_key_file", "private_key_path": "private_key_file",
	"publickey": "public_key", "pubkey": "public_key",
	"psk": "preshared_key_file", "psk_file": "preshared_key_file", "presharedkey": "preshared_key_file",
	"endpoint": "endpoints", "host": "endpoints", "remote": "endpoints",
	"allowedips": "allowed_ips", "allowed_ip": "allowed_ips", "routes": "allowed_ips",
	"persistent_keepalive": "keepalive", "persistentkeepalive": "keepalive", "persistent_keepalive_interval": "keepalive",
	"mark": "fwmark", "firewall_mark": "fwmark",
	"nameservers": "servers", "dns_servers": "servers", "domains": "search", "search_domains": "search",
	"preup": "pre_up", "postup": "post_up", "predown": "pre_down", "postdown": "post_down",
	"peer": "peers", "tunnel": "tunnels", "interface": "tunnels", "interfaces": "tunnels ports", "name": "instance",
	"type": "mode", "protocol": "wire", "kind": "type", "slaves": "ports", "members": "ports", "via": "gateway", "dst": "to", "destination": "to",
	"dev": "link parent", "lower": "parent", "base": "parent", "master": "ports", "namespace": "netns", "src": "source", "tag": "vid", "vlan_id": "vid", "id": "vid",
	"uid": "owner", "gid": "group", "path_cost": "cost", "bridge_ports": "ports", "queue_len": "txqueuelen", "qlen": "txqueuelen", "ingress": "ingress_to",
	"bandwidth": "rate", "leases": "lease_file", "ranges": "range", "dhcp_range": "range", "pref": "priority", "preference": "priority",
	"mac_address": "mac", "hwaddr": "mac", "lladdr": "mac", "mac_addresses": "macs", "pinned": "macs", "max_addresses": "max_macs",
	"vlans": "vlan", "bridge": "switch", "aging": "ageing ageing_time", "ageing_time": "ageing", "storm_control": "limits", "hub": "spoke",
}

// suggest finds the known key that was most likely meant by key, or "".
func suggest(key string, known []string) string {
	if len(key) > 64 {
		return ""
	}
	plain := strings.ToLower(strings.NewReplacer("-", "_", " ", "_", ".", "_").Replace(key))
	for other := range strings.FieldsSeq(otherNames[plain]) {
		if slices.Contains(known, other) {
			return other
		}
	}
	best, least := "", max(1, len(plain)/3)+1
	for _, k := range known {
		d := min(distance(plain, strings.ToLower(k)), distance(strings.ReplaceAll(plain, "_", ""),
			strings.ReplaceAll(strings.ToLower(k), "_", "")))
		if d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours between a and b (optimal string
// alignment).
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j+1]+1, next[j]+1, row[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
