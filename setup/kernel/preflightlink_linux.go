package kernel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// Names on the ground that steps are tried on.
const (
	probeLink   = "probe"
	probePeer   = "probe-peer"
	probeParent = "probe-parent"
	probePort   = "probe-port"
)

// settings are the fields of a link's step that can be tried elsewhere: no names of other links, and nothing that depends on them.
func settings(fields model.Fields) model.Fields {
	list := maps.Clone(fields)
	for _, f := range []model.Field{"type", "parent", "peer", "primary", "mac", "mtu", "up", "owner", "group"} {
		delete(list, f)
	}
	return list
}

// required are those fields without which a link of the type cannot be made.
func required(fields model.Fields) model.Fields {
	list := model.Fields{}
	for _, f := range []model.Field{"vid"} {
		if v, ok := fields[f]; ok {
			list[f] = v
		}
	}
	return list
}

func (p *probing) tryLink() {
	kind := linkType(p.step)
	if _, known := linkFeatures[kind]; !known {
		return
	}
	fields := settings(probed(p.step))
	create := func(fields model.Fields) error {
		return p.do(p.linkStep(kind, fields))
	}
	defer p.clear()
	if err := create(required(fields)); err != nil {
		if f, known := needs(&plan.Step{Op: plan.Create, ID: model.LinkID(probeLink), Type: kind}); known && lacking(model.KindLink, err) {
			p.report(f, cause(err))
		}
		return
	}
	p.drop(probeLink)
	err := create(fields)
	if err == nil {
		p.checkKnown(kind, fields)
		return
	}
	// One of its settings it is.
	modeless := false
	if mode, ok := fields["mode"]; ok {
		one := required(fields)
		one["mode"] = mode
		modeless = create(one) != nil
		p.drop(probeLink)
	}
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		one := required(fields)
		one[f] = fields[f]
		if f == "macs" || f == "flag" {
			if modeless {
				continue // of a mode that is missing
			}
			one["mode"] = fields["mode"]
		}
		if err := create(one); err != nil && lacking(model.KindLink, err) {
			p.report(linkSetting(kind, f, fields[f]), cause(err))
		}
		p.drop(probeLink)
	}
}

// errUnheard says that a kernel took a setting without a word, and does not show it.
var errUnheard = errors.New("this kernel takes no notice of it")

// checkKnown reports settings of the link just made that the kernel does not show.
func (p *probing) checkKnown(kind string, fields model.Fields) {
	shown := p.ground.Look(model.LinkID(probeLink))
	if shown == nil {
		return
	}
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		v, there := shown[f]
		if info := model.Describe(model.KindLink, kind, f); info != nil && info.Form == model.FormList && v == "" && fields[f] != "" {
			there = false
		}
		if !there && f != "vlans" && f != "macs" {
			p.report(linkSetting(kind, f, fields[f]), errUnheard)
		}
	}
}

func linkSetting(kind string, f model.Field, v model.Value) feature {
	switch {
	case strings.HasPrefix(string(f), "vlan"):
		return filteringFeature
	case f == "mode" && v == "l3s":
		return l3sFeature
	case strings.HasPrefix(string(f), "mcast"):
		return snoopingFeature
	}
	setting := settingFeature(fmt.Sprintf("the setting %s of %s devices", f, kind))
	if f == "ns_targets" {
		setting.config, setting.modules = ipv6Feature.config, ipv6Feature.modules
	}
	return setting
}

func (p *probing) linkStep(kind string, fields model.Fields) plan.Step {
	fields = maps.Clone(fields)
	var peer model.Fields
	switch kind {
	case "veth":
		fields["peer"], peer = probePeer, model.Fields{}
	case "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap":
		if parent := p.parent(); parent != "" {
			fields["parent"] = model.Value(parent)
		}
	}
	return plan.Step{Op: plan.Create, ID: model.LinkID(probeLink), Type: kind, Fields: fields, Peer: peer}
}

// parent makes a device that others can be on top of, of whatever type this kernel has; "" where there is none.
func (p *probing) parent() string {
	if p.ground.Look(model.LinkID(probeParent)) != nil {
		return probeParent
	}
	for _, kind := range []string{"tap", "bridge", "veth", "ifb"} {
		step := plan.Step{Op: plan.Create, ID: model.LinkID(probeParent), Type: kind, Fields: model.Fields{}}
		if kind == "veth" {
			step.Fields["peer"], step.Peer = probePort, model.Fields{}
		}
		if p.do(step) == nil {
			return probeParent
		}
	}
	return ""
}

func (p *probing) drop(name string) {
	_ = p.do(plan.Step{Op: plan.Delete, ID: model.LinkID(model.Ref(name))})
}

// clear removes the probes, so that the next finds none.
func (p *probing) clear() {
	for _, name := range []string{probeLink, probePeer, probePort, probeParent} {
		p.drop(name)
	}
}

// tryAttachment reports settings of a port that the kernel does not have. A master it does not have is reported with that.
func (p *probing) tryAttachment() {
	defer p.clear()
	kind := p.step.Type
	if p.do(plan.Step{Op: plan.Create, ID: model.LinkID(probeLink), Type: kind, Fields: model.Fields{}}) != nil {
		return
	}
	port := p.parent()
	if port == "" {
		return
	}
	fields := maps.Clone(probed(p.step))
	delete(fields, "master")
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		id := model.AttachmentID(model.Ref(port))
		err := p.do(plan.Step{Op: plan.Create, ID: id, Type: kind, Fields: model.Fields{"master": probeLink, f: fields[f]}})
		switch shown := p.ground.Look(id); {
		case err != nil && f == "vlans" && lacking(model.KindLink, err):
			p.report(filteringFeature, cause(err))
		case err == nil && f != "vlans" && shown != nil && shown[f] == "":
			p.report(settingFeature(fmt.Sprintf("the setting %s of a %s's ports", f, kind)), errUnheard)
		}
		_ = p.do(plan.Step{Op: plan.Delete, ID: id, Fields: model.Fields{"master": probeLink}})
	}
}
