package config

import (
	"time"

	"culvert/setup/spec"
)

// Bonds (the kernel's Documentation/networking/bonding.rst) and teams (teamd.conf(5)).

var (
	bonds = []spec.Type{spec.TypeBond}
	teams = []spec.Type{spec.TypeTeam}
)

// monitorTime is that of a monitor of links; 0 switches it off.
var monitorTime = span(0, time.Hour, time.Millisecond)

var bondKeys = []key{
	{name: "mode", types: bonds, field: "Bond.Mode", doc: "how ports share the traffic; `802.3ad` is LACP",
		form: choice("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")},
	{name: "miimon", types: bonds, field: "Bond.MIIMon", form: monitorTime, absent: "`0`; `100ms` in the modes `802.3ad`, `balance-tlb`, `balance-alb`",
		doc: "how often the ports' carriers are looked at; 0 is never"},
	{name: "updelay", types: bonds, field: "Bond.UpDelay", form: monitorTime, absent: "`0`", doc: "for how long a port is not used after its carrier is back"},
	{name: "downdelay", types: bonds, field: "Bond.DownDelay", form: monitorTime, absent: "`0`", doc: "for how long it is used still after its carrier is gone"},
	{name: "arp_interval", types: bonds, field: "Bond.ARPInterval", form: monitorTime, absent: "`0`", doc: "how often the targets are asked for; 0 is never"},
	{name: "arp_targets", types: bonds, field: "Bond.ARPTargets", absent: "none", doc: "who is asked for by ARP",
		form: list{of: host(4), most: MaxTargets, example: "[10.0.0.254]"}},
	{name: "ns_targets", types: bonds, field: "Bond.NSTargets", absent: "none", doc: "who is asked for by neighbour solicitations",
		form: list{of: host(6), most: MaxTargets, example: `["fe80::1"]`}},
	{name: "arp_validate", types: bonds, field: "Bond.ARPValidate", absent: "`none`", doc: "of which ports it is checked that answers are from the targets",
		form: choice("none", "active", "backup", "all", "filter", "filter_active", "filter_backup")},
	{name: "arp_all_targets", types: bonds, field: "Bond.ARPAllTargets", form: choice("any", "all"), absent: "`any`", doc: "how many targets must answer"},
	{name: "missed_max", types: bonds, field: "Bond.MissedMax", form: whole(1, 255), absent: "2", doc: "intervals without an answer after which a port is down"},
	{name: "lacp_rate", types: bonds, field: "Bond.LACPRate", form: choice("slow", "fast"), absent: "`slow`", doc: "messages of the other end every 30 s or every second"},
	{name: "lacp_active", types: bonds, field: "Bond.LACPActive", form: truth, absent: "`true`", doc: "messages are sent without being asked"},
	{name: "ad_select", types: bonds, field: "Bond.ADSelect", form: choice("stable", "bandwidth", "count"), absent: "`stable`", doc: "which aggregator is used"},
	{name: "xmit_hash_policy", types: bonds, field: "Bond.XmitHashPolicy", absent: "`layer2`", doc: "what tells flows apart",
		form: choice("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac")},
	{name: "primary", types: bonds, field: "Bond.Primary", form: linkRef.called("a port"), absent: "none", doc: "the port used whenever it works"},
	{name: "primary_reselect", types: bonds, field: "Bond.PrimaryReselect", form: choice("always", "better", "failure"), absent: "`always`",
		doc: "when the primary is gone back to"},
	{name: "fail_over_mac", types: bonds, field: "Bond.FailOverMAC", form: choice("none", "active", "follow"), absent: "`none`",
		doc: "whether the bond's address is the ports', the active port's, or wanders with it"},
	{name: "min_links", types: bonds, field: "Bond.MinLinks", form: whole(0, 65535), absent: "0", doc: "ports that must work for the bond to have a carrier"},
	{name: "all_ports_active", types: bonds, field: "Bond.AllPortsActive", form: truth, absent: "`false`", doc: "frames that come in by inactive ports are taken"},
	{name: "packets_per_port", types: bonds, field: "Bond.PacketsPerPort", form: whole(0, 65535), absent: "1",
		doc: "of mode `balance-rr`: packets that leave by a port before the next is used; 0 is at random"},
	{name: "resend_igmp", types: bonds, field: "Bond.ResendIGMP", form: whole(0, 255), absent: "1", doc: "IGMP reports sent after a fail-over"},
	{name: "num_peer_notify", types: bonds, field: "Bond.NumPeerNotify", form: whole(0, 255), absent: "1", doc: "gratuitous ARP and ND messages sent after a fail-over"},
}

var teamKeys = []key{
	{name: "runner", types: teams, field: "Team.Runner", form: runnerShape, doc: "how ports share the traffic: a name, or a mapping"},
	{name: "link_watch", types: teams, field: "Team.LinkWatch", absent: "`ethtool`", doc: "how it is found out whether a port works, each a name or a mapping; all must say so",
		form: list{of: linkWatchShape, most: MaxTargets, example: "[ethtool]", lone: true}},
}

var runnerShape = &shape{name: "team runner", where: "a team's runner", short: "name", keys: []key{
	{name: "name", field: "Name", form: choice("roundrobin", "activebackup", "loadbalance", "lacp", "broadcast", "random"), doc: "the runner"},
	{name: "tx_hash", field: "TxHash", absent: "teamd's", doc: "of `loadbalance` and `lacp`: what tells flows apart",
		form: list{of: choice("eth", "vlan", "ipv4", "ipv6", "ip", "l3", "tcp", "udp", "sctp", "l4"), most: 10, example: "[eth, ipv4, ipv6]"}},
	{name: "tx_balancer", field: "TxBalancer", form: choice("basic"), absent: "none", doc: "flows are moved between ports by their load"},
	{name: "fast_rate", field: "FastRate", form: truth, absent: "`false`", doc: "of `lacp`: messages of the other end every second, not every 30 s"},
	{name: "active", field: "Active", form: truth, absent: "`true`", doc: "of `lacp`: messages are sent without being asked"},
	{name: "sys_prio", field: "SysPrio", form: whole(0, 65535), absent: "65535", doc: "of `lacp`: the system's priority"},
	{name: "min_ports", field: "MinPorts", form: whole(1, 255), absent: "1", doc: "of `lacp`: ports that must work for the team to have a carrier"},
	{name: "agg_select_policy", field: "AggSelect", absent: "`lacp_prio`", doc: "of `lacp`: which aggregator is used",
		form: choice("lacp_prio", "lacp_prio_stable", "bandwidth", "count", "port_config")},
	{name: "hwaddr_policy", field: "HWAddrPolicy", form: choice("same_all", "by_active", "only_active"), absent: "`same_all`",
		doc: "of `activebackup`: who has which address"},
}}

var linkWatchShape = &shape{name: "team link watch", where: "a link watch", short: "name", keys: []key{
	{name: "name", field: "Name", form: choice("ethtool", "arp_ping", "nsna_ping"), doc: "by the carrier, by ARP, or by neighbour solicitations"},
	{name: "interval", field: "Interval", form: span(time.Millisecond, time.Hour, time.Millisecond), absent: "`1s`", doc: "of the pings: the time between two"},
	{name: "init_wait", field: "InitWait", form: monitorTime, absent: "`0`", doc: "of the pings: the time before the first"},
	{name: "missed_max", field: "MissedMax", form: whole(1, 1000), absent: "3", doc: "of the pings: unanswered ones after which the port is down"},
	{name: "source_host", field: "SourceHost", form: host(4), absent: "none", doc: "of `arp_ping`: the address asked from"},
	{name: "target_host", field: "TargetHost", form: host(0), absent: "none, which the pings refuse", doc: "of the pings: who is asked for, by IPv4 for `arp_ping`, by IPv6 for `nsna_ping`"},
	{name: "validate_active", field: "ValidateActive", form: truth, absent: "`false`", doc: "of `arp_ping`: answers are checked on active ports"},
	{name: "validate_inactive", field: "ValidateInactive", form: truth, absent: "`false`", doc: "the same on inactive ones"},
	{name: "send_always", field: "SendAlways", form: truth, absent: "`false`", doc: "of `arp_ping`: inactive ports ask as well"},
	{name: "delay_up", field: "DelayUp", form: monitorTime, absent: "`0`", doc: "of `ethtool`: as the bond's `updelay`"},
	{name: "delay_down", field: "DelayDown", form: monitorTime, absent: "`0`", doc: "of `ethtool`: as the bond's `downdelay`"},
}}
