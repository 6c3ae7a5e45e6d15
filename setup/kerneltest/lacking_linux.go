package kerneltest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	linux "culvert/setup/kernel"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
	"culvert/setup/spec"
)

// Lacking is a kernel that was built without some options, or is too old for some settings. It answers what Linux 6.12 answers then, which
// is read from its source: the function behind each answer is named beside it.
type Lacking struct {
	*Kernel
	Options []string // it was built without, as in CONFIG_BONDING
	// Deaf says which settings it has never heard of: it takes them without a word, and shows none of them.
	Deaf func(kind model.Kind, typ string, f model.Field) bool
}

var (
	_ linux.Ground    = (*Lacking)(nil)
	_ apply.Preflight = (*Lacking)(nil)
)

// Options are all that a [Lacking] kernel can have been built without.
func Options() (list []string) {
	for _, a := range answers {
		list = append(list, a.option)
	}
	for _, s := range sysctlOptions {
		list = append(list, s.option)
	}
	list = append(list, withoutWord...)
	slices.Sort(list)
	return slices.Compact(list)
}

// Try tries steps on a ground of this kernel's.
func (l *Lacking) Try(ctx context.Context, steps []plan.Step) ([]apply.Missing, error) {
	ground := *l
	ground.Kernel = New()
	return linux.TryOn(ctx, &ground, steps)
}

// answer is what the kernel says to a step that needs an option.
type answer struct {
	option string
	asked  func(s *plan.Step) bool
	err    error
}

func refusal(errno unix.Errno, text string) error { return &rtnl.Refusal{Errno: errno, Text: text} }

func linkOf(types ...string) func(*plan.Step) bool {
	return func(s *plan.Step) bool { return s.ID.Kind() == model.KindLink && slices.Contains(types, s.Type) }
}

func linkWith(typ string, f model.Field, want ...model.Value) func(*plan.Step) bool {
	return func(s *plan.Step) bool {
		v, ok := s.Fields[f]
		return s.ID.Kind() == model.KindLink && s.Type == typ && ok && (want == nil || slices.Contains(want, v))
	}
}

func qdiscOf(kind model.Value) func(*plan.Step) bool {
	return func(s *plan.Step) bool { return s.ID.Kind() == model.KindQdisc && s.Fields["kind"] == kind }
}

func of(kind model.Kind) func(*plan.Step) bool {
	return func(s *plan.Step) bool { return s.ID.Kind() == kind }
}

func ruleOf(family string) func(*plan.Step) bool {
	return func(s *plan.Step) bool { return s.ID.Kind() == model.KindRule && s.ID.Words()[1] == family }
}

func with(kind model.Kind, f model.Field) func(*plan.Step) bool {
	return func(s *plan.Step) bool { return s.ID.Kind() == kind && s.Fields[f] != "" }
}

var (
	noType          = refusal(unix.EOPNOTSUPP, "Unknown device type")                      // __rtnl_newlink
	noQdisc         = refusal(unix.ENOENT, "Specified qdisc kind is unknown")              // qdisc_create
	noClassifier    = refusal(unix.ENOENT, "TC classifier not found")                      // tcf_proto_lookup_ops
	noAction        = refusal(unix.ENOENT, "Failed to load TC action module")              // tc_action_load_ops
	noFamily        = refusal(unix.EAFNOSUPPORT, "Rule family not supported")              // fib_nl_newrule
	unsupported     = refusal(unix.EOPNOTSUPP, "")                                         // rtnetlink_rcv_msg, and stubs of headers
	errNoNetfilter  = fmt.Errorf("open a netfilter socket: %w", unix.EPROTONOSUPPORT)      // netlink_create
	errNoExpression = fmt.Errorf("nftables: %w", unix.ENOENT)                              // nft_expr_type_get
	errNoSubsystem  = fmt.Errorf("nftables: %w", unix.EOPNOTSUPP)                          // nfnetlink_rcv_batch
	errNoKey        = fmt.Errorf("nftables: %w", unix.EOPNOTSUPP)                          // nft_ct_get_init
	errNoTun        = fmt.Errorf("open /dev/net/tun: %w: %w", linux.ErrNoTun, unix.ENOENT) // without the driver there is no such file
)

// answers are asked in turn: what an option depends on comes first.
var answers = []answer{
	{"CONFIG_TUN", linkOf("tun", "tap"), errNoTun},
	{"CONFIG_VETH", linkOf("veth"), noType},
	{"CONFIG_BRIDGE", linkOf("bridge"), noType},
	{"CONFIG_BONDING", linkOf("bond"), noType},
	{"CONFIG_NET_TEAM", linkOf("team"), noType},
	{"CONFIG_MACVLAN", linkOf("macvlan", "macvtap"), noType}, // MACVTAP depends on it
	{"CONFIG_MACVTAP", linkOf("macvtap"), noType},
	{"CONFIG_IPVLAN", linkOf("ipvlan", "ipvtap"), noType}, // IPVTAP depends on it
	{"CONFIG_IPVTAP", linkOf("ipvtap"), noType},
	{"CONFIG_IFB", linkOf("ifb"), noType},
	{"CONFIG_VLAN_8021Q", linkOf("vlan"), noType},
	{"CONFIG_IPVLAN_L3S", linkWith("ipvlan", "mode", "l3s"), refusal(rtnl.NotSupported, "")}, // ipvlan_l3s_register
	{"CONFIG_IPVLAN_L3S", linkWith("ipvtap", "mode", "l3s"), refusal(rtnl.NotSupported, "")},
	{"CONFIG_BRIDGE_VLAN_FILTERING", linkWith("bridge", "vlan_filtering"), unsupported}, // br_vlan_filter_toggle
	{"CONFIG_BRIDGE_VLAN_FILTERING", linkWith("bridge", "vlans"), unsupported},          // br_vlan_add
	{"CONFIG_BRIDGE_VLAN_FILTERING", with(model.KindAttachment, "vlans"), unsupported},  // nbp_vlan_add
	{"CONFIG_NET_SCH_INGRESS", qdiscOf("ingress"), noQdisc},
	{"CONFIG_NET_SCH_SFQ", qdiscOf("sfq"), noQdisc},
	{"CONFIG_NET_SCH_HTB", qdiscOf("htb"), noQdisc},
	{"CONFIG_NET_SCH_TBF", qdiscOf("tbf"), noQdisc},
	{"CONFIG_NET_SCH_FQ_CODEL", qdiscOf("fq_codel"), noQdisc},
	{"CONFIG_NET_SCH_CAKE", qdiscOf("cake"), noQdisc},
	{"CONFIG_NET_CLS_U32", of(model.KindFilter), noClassifier},
	{"CONFIG_NET_ACT_MIRRED", of(model.KindFilter), noAction},
	{"CONFIG_NET_CLS_ACT", qdiscOf("ingress"), noQdisc}, // NET_SCH_INGRESS depends on it
	{"CONFIG_IPV6", func(s *plan.Step) bool {
		return s.ID.Kind() == model.KindAddress && strings.Contains(s.ID.Rest(), ":")
	}, unsupported},
	{"CONFIG_IPV6", ruleOf("6"), noFamily},
	{"CONFIG_IP_MULTIPLE_TABLES", ruleOf("4"), noFamily},
	{"CONFIG_IPV6_MULTIPLE_TABLES", ruleOf("6"), noFamily},
	{"CONFIG_NETFILTER", of(model.KindNAT), errNoNetfilter},
	{"CONFIG_NETFILTER", of(model.KindFirewall), errNoNetfilter},
	{"CONFIG_NF_TABLES", of(model.KindNAT), errNoSubsystem},
	{"CONFIG_NF_TABLES", of(model.KindFirewall), errNoSubsystem},
	{"CONFIG_NFT_MASQ", of(model.KindNAT), errNoExpression},
	{"CONFIG_NFT_CT", of(model.KindFirewall), errNoExpression},
	{"CONFIG_NFT_FIB_INET", of(model.KindFirewall), errNoExpression},
	{"CONFIG_NF_CONNTRACK_MARK", with(model.KindFirewall, "marks"), errNoKey},
}

// withoutWord are options whose lack is not told by a refusal, but by what the kernel does not show ([Lacking.unheard]).
var withoutWord = []string{"CONFIG_BRIDGE_IGMP_SNOOPING"}

// sysctlOptions are those behind settings, by the beginning of their names.
var sysctlOptions = []struct{ option, prefix string }{
	{"CONFIG_IPV6", "net.ipv6."},
	{"CONFIG_BRIDGE_NETFILTER", "net.bridge."},
	{"CONFIG_NF_CONNTRACK", "net.netfilter.nf_conntrack_"},
	{"CONFIG_MPTCP", "net.mptcp."},
}

func (l *Lacking) lacks(option string) bool { return slices.Contains(l.Options, option) }

// unheard reports whether the kernel neither takes nor shows a setting.
func (l *Lacking) unheard(kind model.Kind, typ string, f model.Field) bool {
	switch {
	case l.Deaf != nil && l.Deaf(kind, typ, f):
		return true
	case kind == model.KindLink && typ == "bridge": // br_changelink, br_fill_info
		return l.lacks("CONFIG_BRIDGE_IGMP_SNOOPING") && strings.HasPrefix(string(f), "mcast_") ||
			l.lacks("CONFIG_BRIDGE_VLAN_FILTERING") && strings.HasPrefix(string(f), "vlan_")
	case kind == model.KindLink && typ == "bond": // bond_changelink
		return l.lacks("CONFIG_IPV6") && f == "ns_targets"
	}
	return false
}

// Do refuses what the kernel lacks, and carries the rest out.
func (l *Lacking) Do(ctx context.Context, step *plan.Step) (apply.Done, error) {
	if step.Op != plan.Create {
		done, err := l.Kernel.Do(ctx, step)
		if port := l.Objects[model.LinkID(step.ID.Link())]; step.ID.Kind() == model.KindAttachment && port != nil {
			port.Fields["up"] = "no" // a bond leaves it down
		}
		return done, err
	}
	for _, a := range answers {
		if l.lacks(a.option) && a.asked(step) {
			return apply.Done{}, a.err
		}
	}
	s := *step
	s.Fields = make(model.Fields, len(step.Fields)+1)
	for f, v := range step.Fields {
		if !l.unheard(s.ID.Kind(), l.typeOf(&s), f) {
			s.Fields[f] = v
		}
	}
	if s.ID.Kind() == model.KindLink {
		s.Fields["type"] = model.Text(s.Type)
	}
	return l.Kernel.Do(ctx, &s)
}

// typeOf is what a step's fields depend on: its type, or the kind of a queueing discipline.
func (l *Lacking) typeOf(s *plan.Step) string {
	if s.Type == "" {
		return string(s.Fields["kind"])
	}
	return s.Type
}

// Look returns what the kernel shows of a thing.
func (l *Lacking) Look(id model.ID) model.Fields {
	if id.Kind() == model.KindSysctl {
		return l.setting(id.Words()[1])
	}
	o := l.Objects[id]
	if o == nil {
		return nil
	}
	typ := o.Variant(&model.System{Objects: l.Objects})
	fields := model.Fields{}
	for f, v := range o.Fields {
		if !l.unheard(id.Kind(), typ, f) {
			fields[f] = v
		}
	}
	return fields
}

// setting is a sysctl of a namespace whose only device is the loopback device; nil where there is none.
func (l *Lacking) setting(name string) model.Fields {
	if device := spec.SysctlDevice(name); device != "" && device != "lo" {
		return nil
	}
	for _, s := range sysctlOptions {
		if l.lacks(s.option) && strings.HasPrefix(name, s.prefix) {
			return nil
		}
	}
	if l.Deaf != nil && l.Deaf(model.KindSysctl, name, "value") {
		return nil
	}
	return model.Fields{"value": ""}
}
