package model

import (
	"strings"
)

// Kind is what an item or object is.
type Kind string

// The kinds, in the order in which they come to be where no edge says otherwise.
const (
	KindNetns      Kind = "netns"
	KindFirewall   Kind = "firewall" // before all that could let a packet out, and deleted after it
	KindLink       Kind = "link"
	KindProcess    Kind = "process"
	KindAttachment Kind = "attachment" // of a link to its master, with the settings of a port
	KindAddress    Kind = "address"
	KindQdisc      Kind = "qdisc"
	KindClass      Kind = "class"
	KindFilter     Kind = "filter"
	KindRoute      Kind = "route"
	KindRule       Kind = "rule"
	KindNAT        Kind = "nat"
	KindHandover   Kind = "handover"
	KindSysctl     Kind = "sysctl"
	KindDNS        Kind = "dns"
)

// Kinds are all of them, in that order.
var Kinds = []Kind{KindNetns, KindFirewall, KindLink, KindProcess, KindAttachment, KindAddress, KindQdisc, KindClass, KindFilter, KindSysctl,
	KindRoute, KindRule, KindNAT, KindHandover, KindDNS}

// Ref names a link on the machine: NETNS/NAME, or NAME in the namespace culvert runs in. Neither part can contain a slash.
type Ref string

// NewRef returns the reference of a device in a namespace; "" is that culvert runs in.
func NewRef(netns, name string) Ref {
	if netns == "" {
		return Ref(name)
	}
	return Ref(netns + "/" + name)
}

// Netns returns the namespace, "" for that culvert runs in.
func (r Ref) Netns() string {
	netns, _, ok := strings.Cut(string(r), "/")
	if !ok {
		return ""
	}
	return netns
}

// Name returns the device's name.
func (r Ref) Name() string { return string(r[strings.IndexByte(string(r), '/')+1:]) }

// ID names a thing on the machine, the same whether it is declared or found: its kind and what the kernel tells it from others
// of its kind by, separated by spaces. Each kind has a function that makes its IDs.
//
//	netns NAME
//	link REF
//	attachment REF                     the port; it has at most one master
//	address REF PREFIX                 host part included
//	qdisc REF PARENT                   root, ingress, or the handle of a class
//	class REF HANDLE
//	filter REF PARENT PRIORITY         PARENT is ingress, or the handle of a qdisc
//	route NETNS TABLE PREFIX METRIC    NETNS is - for that culvert runs in; METRIC as the kernel has it, 0 included
//	rule NETNS FAMILY PRIORITY         FAMILY is 4 or 6
//	nat NETNS NAME                     the name of the nftables table
//	process NAME
//	handover REF
//	firewall NETNS NAME                the name of the nftables table
//	sysctl NETNS NAME                  with dots, as sysctl(8) has it
//	dns REF                            the tunnel whose name servers they are
type ID string

// Kind returns the ID's first word.
func (id ID) Kind() Kind {
	kind, _, _ := strings.Cut(string(id), " ")
	return Kind(kind)
}

// Rest returns what follows the kind.
func (id ID) Rest() string {
	_, rest, _ := strings.Cut(string(id), " ")
	return rest
}

// Words returns what follows the kind, word by word.
func (id ID) Words() []string { return strings.Split(id.Rest(), " ") }

func join(kind Kind, words ...string) ID { return ID(string(kind) + " " + strings.Join(words, " ")) }

func NetnsID(name string) ID            { return join(KindNetns, name) }
func LinkID(r Ref) ID                   { return join(KindLink, string(r)) }
func AttachmentID(port Ref) ID          { return join(KindAttachment, string(port)) }
func AddressID(r Ref, prefix string) ID { return join(KindAddress, string(r), prefix) }
func QdiscID(r Ref, parent string) ID   { return join(KindQdisc, string(r), parent) }
func ClassID(r Ref, handle string) ID   { return join(KindClass, string(r), handle) }
func FilterID(r Ref, parent, priority string) ID {
	return join(KindFilter, string(r), parent, priority)
}
func RouteID(netns, table, prefix, metric string) ID {
	return join(KindRoute, dash(netns), table, prefix, metric)
}
func RuleID(netns, family, priority string) ID { return join(KindRule, dash(netns), family, priority) }
func NATID(netns, name string) ID              { return join(KindNAT, dash(netns), name) }
func ProcessID(name string) ID                 { return join(KindProcess, name) }
func HandoverID(r Ref) ID                      { return join(KindHandover, string(r)) }
func FirewallID(netns, name string) ID         { return join(KindFirewall, dash(netns), name) }
func SysctlID(netns, name string) ID           { return join(KindSysctl, dash(netns), name) }
func DNSID(r Ref) ID                           { return join(KindDNS, string(r)) }

func dash(netns string) string {
	if netns == "" {
		return "-"
	}
	return netns
}

// Netns returns the namespace the thing is in, "" for that culvert runs in and for what is in none.
func (id ID) Netns() string {
	words := id.Words()
	switch id.Kind() {
	case KindRoute, KindRule, KindNAT, KindFirewall, KindSysctl:
		if words[0] == "-" {
			return ""
		}
		return words[0]
	case KindProcess, KindNetns:
		return ""
	}
	return Ref(words[0]).Netns()
}

// Link returns the link the thing is, or is on; "" where there is none.
func (id ID) Link() Ref {
	switch id.Kind() {
	case KindLink, KindAttachment, KindAddress, KindQdisc, KindClass, KindFilter, KindHandover, KindDNS:
		return Ref(id.Words()[0])
	}
	return ""
}
