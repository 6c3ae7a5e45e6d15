package kernel

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
)

// feature is something a kernel may be built without.
type feature struct {
	what    string // as in "bond devices"
	config  string // as in CONFIG_BONDING; several separated by a space
	modules string // what to give to modprobe; "" where it cannot be a module
	advice  string // what to do beside that, or instead
}

// missing is the report that a step needs the feature, with the kernel's answer.
func (f feature) missing(step *plan.Step, answer error) apply.Missing {
	return apply.Missing{Step: *step, What: f.what, Err: answer, Config: f.config, Module: f.modules, Advice: f.advice}
}

// linkFeatures are by the type of a link.
var linkFeatures = map[string]feature{
	"tun":     {"tun devices", "CONFIG_TUN", "tun", ""},
	"tap":     {"tap devices", "CONFIG_TUN", "tun", ""},
	"veth":    {"veth devices", "CONFIG_VETH", "veth", ""},
	"bridge":  {"bridge devices", "CONFIG_BRIDGE", "bridge", ""},
	"bond":    {"bond devices", "CONFIG_BONDING", "bonding", ""},
	"team":    {"team devices", "CONFIG_NET_TEAM", "team", ""},
	"macvlan": {"macvlan devices", "CONFIG_MACVLAN", "macvlan", ""},
	"macvtap": {"macvtap devices", "CONFIG_MACVTAP", "macvtap", ""},
	"ipvlan":  {"ipvlan devices", "CONFIG_IPVLAN", "ipvlan", ""},
	"ipvtap":  {"ipvtap devices", "CONFIG_IPVTAP", "ipvtap", ""},
	"ifb":     {"ifb devices", "CONFIG_IFB", "ifb", ""},
	"vlan":    {"vlan devices", "CONFIG_VLAN_8021Q", "8021q", ""},
}

// qdiscFeatures are by the kind of a queueing discipline.
var qdiscFeatures = map[string]feature{
	"ingress":  {"the ingress queueing discipline", "CONFIG_NET_SCH_INGRESS", "sch_ingress", ""},
	"sfq":      {"the queueing discipline sfq", "CONFIG_NET_SCH_SFQ", "sch_sfq", ""},
	"htb":      {"the queueing discipline htb", "CONFIG_NET_SCH_HTB", "sch_htb", ""},
	"tbf":      {"the queueing discipline tbf", "CONFIG_NET_SCH_TBF", "sch_tbf", ""},
	"fq_codel": {"the queueing discipline fq_codel", "CONFIG_NET_SCH_FQ_CODEL", "sch_fq_codel", ""},
	"cake":     {"the queueing discipline cake", "CONFIG_NET_SCH_CAKE", "sch_cake", ""},
}

var (
	redirectFeature = feature{"redirecting a device's ingress (u32 and mirred)", "CONFIG_NET_CLS_U32 CONFIG_NET_CLS_ACT CONFIG_NET_ACT_MIRRED",
		"cls_u32 act_mirred", ""}
	filteringFeature = feature{"VLAN filtering of bridges", "CONFIG_BRIDGE_VLAN_FILTERING", "", ""}
	snoopingFeature  = feature{"multicast snooping of bridges", "CONFIG_BRIDGE_IGMP_SNOOPING", "", ""}
	l3sFeature       = feature{"mode l3s of ipvlan", "CONFIG_IPVLAN_L3S", "", ""}
	ruleFeatures     = map[string]feature{
		"4": {"policy rules for IPv4", "CONFIG_IP_MULTIPLE_TABLES", "", ""},
		"6": {"policy rules for IPv6", "CONFIG_IPV6_MULTIPLE_TABLES", "", ""},
	}
	// A route of another table would go to the main one without a word (the inline fib_get_table of Linux's include/net/ip_fib.h).
	tableFeatures = map[string]feature{
		"4": {"routing tables beside the main one for IPv4", "CONFIG_IP_MULTIPLE_TABLES", "", ""},
		"6": {"routing tables beside the main one for IPv6", "CONFIG_IPV6_MULTIPLE_TABLES", "", ""},
	}
	ipv6Feature = feature{"IPv6", "CONFIG_IPV6", "ipv6", "take ipv6.disable=1 off the kernel's command line, where it is there"}
	// Steps are tried in a namespace, so that culvert needs them whatever a file declares.
	netnsFeature = feature{"network namespaces", "CONFIG_NET_NS", "", ""}
	natFeature   = feature{"masquerading by nftables", "CONFIG_NF_TABLES CONFIG_NF_TABLES_INET CONFIG_NFT_NAT CONFIG_NFT_MASQ",
		"nf_tables nft_chain_nat nft_masq", ""}
	firewallFeature = feature{"filtering by nftables", "CONFIG_NF_TABLES CONFIG_NF_TABLES_INET CONFIG_NFT_CT CONFIG_NFT_FIB_INET",
		"nf_tables nft_ct nft_fib_inet", ""}
	connectionMarkFeature = feature{"marks of connections", "CONFIG_NF_CONNTRACK_MARK", "", ""}
)

// sysctlFeatures are what brings settings, by what their names begin with.
var sysctlFeatures = []struct {
	prefix string
	feature
}{
	{"net.ipv6.", ipv6Feature},
	{"net.bridge.", feature{"", "CONFIG_BRIDGE_NETFILTER", "br_netfilter", ""}},
	{"net.netfilter.nf_conntrack_", feature{"", "CONFIG_NF_CONNTRACK", "nf_conntrack", ""}},
	{"net.mptcp.", feature{"", "CONFIG_MPTCP", "", ""}},
}

// newer is the advice about a setting that has no option of its own.
const newer = "leave it out, or run a newer kernel"

// settingFeature is a setting that came to Linux later than the thing it is of.
func settingFeature(what string) feature { return feature{what: what, advice: newer} }

// sysctlFeature is what a setting of the kernel needs.
func sysctlFeature(name string) feature {
	for _, f := range sysctlFeatures {
		if strings.HasPrefix(name, f.prefix) {
			f.what = "the setting " + name
			return f.feature
		}
	}
	return feature{what: "the setting " + name, advice: "leave it out, or load what brings it: sysctl -a lists what there is"}
}

// needs returns the feature without which a step cannot work; false where every kernel has it.
func needs(step *plan.Step) (feature, bool) {
	var f feature
	var ok bool
	switch step.ID.Kind() {
	case model.KindLink:
		f, ok = linkFeatures[step.Type]
	case model.KindQdisc, model.KindClass:
		kind := step.Type
		if kind == "" {
			kind = string(step.Fields["kind"])
		}
		f, ok = qdiscFeatures[kind]
	case model.KindFilter:
		f, ok = redirectFeature, true
	case model.KindRule:
		f, ok = ruleFeatures[step.ID.Words()[1]]
	case model.KindNAT:
		f, ok = natFeature, true
	case model.KindFirewall:
		f, ok = firewallFeature, true
	case model.KindAddress:
		f, ok = ipv6Feature, strings.Contains(step.ID.Rest(), ":")
	case model.KindRoute:
		f, ok = ipv6Feature, strings.Contains(step.ID.Words()[2], ":")
	}
	return f, ok
}

// lacking reports whether an error is what a kernel says that lacks a feature of that kind: no such type of link (EOPNOTSUPP), of
// queueing discipline or classifier (ENOENT), no driver behind a device node (ENODEV, ENXIO), no family of addresses or rules.
func lacking(kind model.Kind, err error) bool {
	is := func(list ...unix.Errno) bool {
		for _, errno := range list {
			if errors.Is(err, errno) {
				return true
			}
		}
		return false
	}
	switch kind {
	case model.KindLink:
		return is(unix.EOPNOTSUPP, rtnl.NotSupported) || errors.Is(err, ErrNoTun)
	case model.KindQdisc, model.KindFilter, model.KindClass:
		return is(unix.ENOENT, unix.EOPNOTSUPP)
	case model.KindRule, model.KindAddress, model.KindRoute:
		return is(unix.EOPNOTSUPP, unix.EAFNOSUPPORT)
	case model.KindNAT, model.KindFirewall:
		return is(unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENOSYS, unix.EINVAL)
	}
	return false
}

// hint says what to do about a failed step; "" where there is nothing to say.
func hint(step *plan.Step, err error) string {
	if errors.Is(err, unix.EPERM) && !errors.Is(err, errRefused) || errors.Is(err, unix.EACCES) {
		if !privileged() {
			return "run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
		}
		return ""
	}
	if name := step.ID.Link().Name(); errors.Is(err, unix.EEXIST) && step.ID.Kind() == model.KindLink && linkType(step) == "ifb" &&
		(name == "ifb0" || name == "ifb1") {
		return "the driver makes ifb0 and ifb1 by itself when it is loaded: choose another name, or say external: true"
	}
	if parent := step.Fields["parent"]; step.Op == plan.Create && parent != "" && isAnswer(err, unix.EINVAL, unix.EBUSY) {
		return "what else is on " + string(parent) + " may exclude it, as a macvlan of mode passthru does: ip -d link shows that"
	}
	if step.Op == plan.Create && step.ID.Kind() == model.KindRoute && errors.Is(err, unix.ENETUNREACH) {
		return "the gateway is in no network of the device: give that an address there, or say onlink: true"
	}
	if errors.Is(err, errRefused) || step.Op != plan.Create || !lacking(step.ID.Kind(), err) {
		return ""
	}
	if f, ok := needs(step); ok {
		return f.hint()
	}
	return ""
}

// isAnswer reports whether an error is one of these answers of the kernel to the request itself, not to a part of the step.
func isAnswer(err error, list ...unix.Errno) bool {
	if refusal, ok := err.(*rtnl.Refusal); ok {
		err = errors.Unwrap(refusal)
	}
	errno, ok := err.(unix.Errno)
	return ok && slices.Contains(list, errno)
}

// errRefused is wrapped by refusals that are not the kernel's.
var errRefused = errors.New("refused")

// hint says what to do about a step that failed for want of the feature.
func (f feature) hint() string {
	m := plan.Missing{Config: f.config, Modules: strings.Fields(f.modules), Advice: f.advice}
	return m.Hint()
}

// privileged reports whether this process has the rights that configuring networks takes, so that a refusal has another reason.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return unix.Geteuid() == 0
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}
