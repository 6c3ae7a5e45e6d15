package config

import "time"

// Queueing disciplines (tc(8)) and where they are put.

var shapingShape = &shape{name: "shaping", where: "an entry of shaping", keys: []key{
	{name: "source", field: "Source", form: linkRef, doc: "the link that is shaped"},
	{name: "ingress_to", field: "IngressTo", form: linkRef.called("link of type ifb"), absent: "its ingress is left alone",
		doc: "what the source receives takes its way through this one, and is queued there"},
	{name: "qdisc", field: "Qdisc", form: qdiscShape, absent: "the kernel's default", doc: "the root of `ingress_to`: how what is received is queued"},
	{name: "egress", field: "Egress", form: qdiscShape, absent: "as it is", doc: "the root of `source`: how what is sent is queued"},
}}

var qdiscShape = &shape{name: "qdisc", where: "a queueing discipline", one: true, keys: []key{
	{name: "sfq", field: "SFQ", form: sfqShape, absent: "-", doc: "flows take turns; limits nothing by itself"},
	{name: "htb", field: "HTB", form: htbShape, absent: "-", doc: "a rate, and another discipline below it"},
	{name: "tbf", field: "TBF", form: tbfShape, absent: "-", doc: "a rate, in one queue"},
	{name: "fq_codel", field: "FQCodel", form: fqCodelShape, absent: "-", doc: "flows take turns, and queues are kept short"},
	{name: "cake", field: "Cake", form: cakeShape, absent: "-", doc: "a rate, hosts and flows that take turns, short queues, in one"},
}}

func init() { // a discipline may have one below it, which the language cannot say in a variable's value
	htbShape.keys = append(htbShape.keys, key{name: "leaf", field: "Leaf", form: qdiscShape, absent: "a queue of as many packets as the link's `txqueuelen`",
		doc: "what queues below the limit"})
}

var packets = whole(1, 1<<32-1).called("packets, at least 1")

var sfqShape = &shape{name: "sfq", where: "sfq", keys: []key{
	{name: "perturb", field: "Perturb", form: span(0, time.Hour, time.Second), absent: "`0`, never", doc: "how often flows are told apart anew"},
	{name: "quantum", field: "Quantum", form: size, absent: "a packet of the link's MTU", doc: "what a flow may send at its turn"},
	{name: "limit", field: "Limit", form: whole(1, 65535).called("1 to 65535 packets"), absent: "127", doc: "what may wait in all"},
	{name: "divisor", field: "Divisor", form: whole(1, 65536).called("power of two, at most 65536"), absent: "1024", doc: "places of the table of flows"},
}}

var htbShape = &shape{name: "htb", where: "htb", keys: []key{
	{name: "rate", field: "Rate", form: rate, doc: "the limit"},
	{name: "ceil", field: "Ceil", form: rate, absent: "the rate", doc: "the most there may be"},
	{name: "burst", field: "Burst", form: size, absent: "computed from the rate", doc: "what may be sent at once"},
	{name: "cburst", field: "CBurst", form: size, absent: "computed from `ceil`", doc: "the same at the rate of `ceil`"},
}}

var tbfShape = &shape{name: "tbf", where: "tbf", keys: []key{
	{name: "rate", field: "Rate", form: rate, doc: "the limit"},
	{name: "burst", field: "Burst", form: size, doc: "what may be sent at once"},
	{name: "limit", field: "Limit", form: size, absent: "what `latency` gives", doc: "what may wait; instead of `latency`"},
	{name: "latency", field: "Latency", form: span(time.Microsecond, time.Minute, time.Microsecond), absent: "`50ms`", doc: "how long the last byte in the queue waits"},
	{name: "peak", field: "Peak", form: rate, absent: "none", doc: "the rate of a burst"},
	{name: "mtu", field: "MTU", form: size, absent: "none; `peak` needs it", doc: "what may be sent at once at the peak rate"},
}}

var fqCodelShape = &shape{name: "fq_codel", where: "fq_codel", keys: []key{
	{name: "limit", field: "Limit", form: packets, absent: "10240", doc: "what may wait in all"},
	{name: "flows", field: "Flows", form: whole(1, 65536), absent: "1024", doc: "places of the table of flows"},
	{name: "target", field: "Target", form: span(time.Microsecond, time.Minute, time.Microsecond), absent: "`5ms`", doc: "the delay that is accepted"},
	{name: "interval", field: "Interval", form: span(time.Microsecond, time.Minute, time.Microsecond), absent: "`100ms`", doc: "for how long more than that is"},
	{name: "quantum", field: "Quantum", form: size, absent: "a packet of the link's MTU", doc: "what a flow may send at its turn"},
	{name: "ecn", field: "ECN", form: truth, absent: "`true`", doc: "packets are marked where the sender knows ECN, instead of dropped"},
	{name: "memory", field: "Memory", form: size, absent: "`32m`", doc: "what may wait in all"},
}}

var cakeShape = &shape{name: "cake", where: "cake", keys: []key{
	{name: "bandwidth", field: "Bandwidth", form: rate, absent: "no limit", doc: "the limit"},
	{name: "rtt", field: "RTT", form: span(time.Microsecond, time.Hour, time.Microsecond), absent: "`100ms`", doc: "of the connections to be expected"},
	{name: "diffserv", field: "Diffserv", form: choice("besteffort", "precedence", "diffserv3", "diffserv4", "diffserv8"), absent: "`diffserv3`", doc: "classes of traffic"},
	{name: "flow_mode", field: "FlowMode", absent: "`triple-isolate`", doc: "who takes turns",
		form: choice("flowblind", "srchost", "dsthost", "hosts", "flows", "dual-srchost", "dual-dsthost", "triple-isolate")},
	{name: "nat", field: "NAT", form: truth, absent: "`false`", doc: "hosts are told apart by their addresses before NAT"},
	{name: "wash", field: "Wash", form: truth, absent: "`false`", doc: "the mark of the class of traffic is cleared"},
	{name: "ack_filter", field: "AckFilter", form: choice("no-ack-filter", "ack-filter", "ack-filter-aggressive"), absent: "`no-ack-filter`", doc: "needless TCP acknowledgements are dropped"},
	{name: "overhead", field: "Overhead", form: whole(-64, 256).called("-64 to 256 bytes"), absent: "0", doc: "what a packet grows by on the wire"},
	{name: "mpu", field: "MPU", form: whole(0, 256).called("0 to 256 bytes"), absent: "0", doc: "the least a packet takes there"},
	{name: "atm", field: "ATM", form: choice("noatm", "atm", "ptm"), absent: "`noatm`", doc: "cells of ATM, or the coding of PTM, are reckoned with"},
	{name: "memory", field: "Memory", form: size, absent: "by the bandwidth", doc: "what may wait in all"},
	{name: "ingress", field: "Ingress", form: truth, absent: "`false`", doc: "what was dropped counts as well, for a bottleneck before the device"},
	{name: "split_gso", field: "SplitGSO", form: truth, absent: "`true`", doc: "large packets are taken apart first"},
}}
