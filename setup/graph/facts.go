package graph

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// shownAddresses is how many addresses a device's box lists; the tooltip has all.
const shownAddresses = 3

// facts are the main settings of a link and of what is on it, a line each; onlyFound leaves out what is not there.
func facts(t *thing, on []*thing, onlyFound bool) (list []string) {
	if onlyFound {
		on = slices.DeleteFunc(slices.Clone(on), func(o *thing) bool { return o.found == nil })
	}
	add := func(words ...string) {
		words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
		if len(words) > 0 {
			list = append(list, clean(strings.Join(words, ", ")))
		}
	}
	flag := func(f model.Field, word string) string {
		if t.field(f) == "yes" {
			return word
		}
		return ""
	}
	valued := func(word string, f model.Field) string {
		if v := t.field(f); v != "" {
			return word + " " + string(v)
		}
		return ""
	}
	if v := t.field("mtu"); v != "" {
		add("mtu " + string(v))
	}
	if v := t.field("mac"); v != "" {
		add(string(v))
	}
	switch spec.Type(t.field("type")) {
	case spec.TypeBridge:
		add(flag("stp", "stp"), flag("vlan_filtering", "vlan filtering"))
	case spec.TypeBond:
		add(string(t.field("mode")), valued("lacp", "lacp_rate"))
		add(valued("miimon", "miimon"), valued("arp every", "arp_interval"))
	case spec.TypeMacvlan, spec.TypeMacvtap:
		add(valued("mode", "mode"))
		if macs := t.field("macs").List(); len(macs) > 0 {
			add(macs[0] + more(len(macs)-1))
		}
	case spec.TypeIPvlan, spec.TypeIPvtap:
		add(valued("mode", "mode"), string(t.field("flag")))
	case spec.TypeVLAN:
		add(valued("vid", "vid"))
	case spec.TypeTun, spec.TypeTap:
		add(flag("multi_queue", "multi-queue"))
	}
	var addresses []string
	for _, o := range on {
		if o.id.Kind() == model.KindAddress {
			addresses = append(addresses, o.id.Words()[1])
		}
	}
	for i, a := range addresses {
		if i == shownAddresses-1 && len(addresses) > shownAddresses {
			add(a + more(len(addresses)-shownAddresses))
			break
		}
		add(a)
	}
	for _, o := range on {
		switch o.id.Kind() {
		case model.KindAttachment:
			add(portFacts(o)...)
		case model.KindHandover:
			add("vm " + string(o.field("socket")))
		}
	}
	if s := shaping(on); s != "" {
		if t.field("type") != model.Value(spec.TypeIfb) {
			s = "egress " + s
		}
		add(s)
	}
	if t.field("parent") == outside || t.field("peer") == outside {
		add("joined to elsewhere")
	}
	return list
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return " +" + string(model.Int(n))
}

// portFacts are the settings of a port that are not everybody's.
func portFacts(t *thing) (list []string) {
	if v := t.field("vlans").List(); len(v) > 0 {
		list = append(list, "vlan "+strings.Join(v, " "))
	}
	if v := t.field("cost"); v != "" && t.item != nil && t.item.Fields["cost"] != "" {
		list = append(list, "cost "+string(v))
	}
	for _, f := range []model.Field{"hairpin", "isolated", "guard", "root_block"} {
		if t.field(f) == "yes" {
			list = append(list, words(f))
		}
	}
	return list
}

// shaping says how a device queues what it sends, in a few words: htb 8mbit, sfq 10s.
func shaping(on []*thing) string {
	var list []string
	say := func(t *thing, fields ...model.Field) {
		text := string(t.field("kind"))
		for _, f := range fields {
			if v := t.field(f); v != "" {
				text += " " + string(v)
			}
		}
		list = append(list, text)
	}
	for _, kind := range []model.Kind{model.KindQdisc, model.KindClass, ""} {
		for _, t := range on {
			w := t.id.Words()
			root := t.id.Kind() == model.KindQdisc && w[1] == "root"
			leaf := t.id.Kind() == model.KindQdisc && !root && w[1] != "ingress"
			switch {
			case kind == model.KindQdisc && root:
				if t.field("kind") != "htb" { // its class has the rate
					say(t, "rate", "bandwidth", "burst", "perturb")
				}
			case kind == model.KindClass && t.id.Kind() == model.KindClass:
				say(t, "rate")
			case kind == "" && leaf:
				say(t, "rate", "bandwidth", "perturb")
			}
		}
	}
	return clean(strings.Join(list, ", "))
}

// details are everything known of a link.
func (b *builder) details(t *thing, n Node, on []*thing) (list []string) {
	head := n.Name
	if n.Type != "" {
		head += " (" + n.Type + ")"
	}
	if n.Space != "" {
		head += " in namespace " + clean(n.Space)
	}
	list = append(list, head)
	switch {
	case n.Tunnel:
		list = append(list, "a tunnel's own")
	case n.External:
		list = append(list, "external: not made by culvert")
	}
	if n.Status != Same {
		list = append(list, n.Status.String())
	}
	for _, r := range n.Reasons {
		list = append(list, "! "+r)
	}
	list = append(list, fieldLines(t.fields(), "type")...)
	for _, o := range on {
		line := o.phrase()
		if b.g.Compared {
			switch s := o.status(); s {
			case Same, Differs: // told above
			default:
				line += " (" + s.String() + ")"
			}
		}
		list = append(list, line)
	}
	if t.item != nil {
		list = append(list, declaredAt(t.item)...)
	}
	return list
}

// fieldLines are fields in their order, without some.
func fieldLines(fields model.Fields, without ...model.Field) (list []string) {
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		if v := fields[f]; v != "" && !slices.Contains(without, f) {
			list = append(list, words(f)+": "+cut(clean(string(v)), 400))
		}
	}
	return list
}

func declaredAt(i *model.Item) (list []string) {
	at := i.Place.Origin.String()
	if at == "" && i.Place.Path == "" {
		return nil
	}
	if i.Place.Path != "" {
		at = strings.TrimSpace(i.Place.Path + " " + at)
	}
	return []string{clean("declared as " + at)}
}

// givenOut is the beginning and end of dnsmasq's --dhcp-range: what is before them are tags, what is behind a mask and a time.
func givenOut(r string) string {
	var ends []string
	for _, w := range strings.Split(r, ",") {
		if _, err := netip.ParseAddr(w); err == nil && len(ends) < 2 {
			ends = append(ends, w)
		}
	}
	if len(ends) == 0 {
		return r
	}
	return strings.Join(ends, " to ")
}

// processFacts say what a process does: the addresses dnsmasq gives out, how teamd chooses among ports.
func processFacts(t *thing) (list []string) {
	var args []string
	if json.Unmarshal([]byte(t.field("args")), &args) == nil {
		for _, a := range args {
			if r, ok := strings.CutPrefix(a, "--dhcp-range="); ok {
				list = append(list, givenOut(r))
			}
		}
	}
	var config struct {
		Runner struct {
			Name string `json:"name"`
		} `json:"runner"`
		LinkWatch []struct {
			Name string `json:"name"`
		} `json:"link_watch"`
	}
	if json.Unmarshal([]byte(t.field("config")), &config) == nil {
		if n := config.Runner.Name; n != "" {
			list = append(list, "runner "+n)
		}
		for _, w := range config.LinkWatch {
			list = append(list, "watch "+w.Name)
		}
	}
	list = list[:min(len(list), 3)]
	for i := range list {
		list[i] = clean(list[i])
	}
	return list
}
