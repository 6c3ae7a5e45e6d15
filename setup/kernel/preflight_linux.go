package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
	"culvert/setup/spec"
)

// Try carries out, in a namespace without a name that goes afterwards, one step of each sort that steps have, and returns what this kernel
// cannot do: a type of device, a queueing discipline, or a setting of either that it has never heard of. Values are not judged.
// Modules the kernel loads by itself are loaded by that.
func (k *Kernel) Try(ctx context.Context, steps []plan.Step) ([]apply.Missing, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ground, err := newScratch()
	if err != nil {
		return groundless(steps, err)
	}
	defer ground.release()
	return TryOn(ctx, ground, steps)
}

// TryOn is [Kernel.Try] on a ground of the caller's. What it makes there it takes away.
func TryOn(ctx context.Context, ground Ground, steps []plan.Step) ([]apply.Missing, error) {
	p := &probing{ctx: ctx, ground: ground, reported: make(map[string]bool)}
	tried := make(map[string]bool)
	// Settings of the kernel come last: modules that the others have it load bring some of them.
	for _, settings := range []bool{false, true} {
		for i := range steps {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			step := &steps[i]
			if step.Op == plan.Delete || settings != (step.ID.Kind() == model.KindSysctl) || tried[sortOf(step)] {
				continue
			}
			tried[sortOf(step)] = true
			p.step = step
			p.try()
		}
	}
	return p.missing, nil
}

// probing tries steps on a ground.
type probing struct {
	ctx      context.Context
	ground   Ground
	step     *plan.Step
	missing  []apply.Missing
	reported map[string]bool
}

// probed are the fields a step sets.
func probed(step *plan.Step) model.Fields {
	if step.Op == plan.Change {
		return changed(step.Changes)
	}
	return step.Fields
}

// sortOf is the same for steps that need the same of the kernel: their kind and type, the fields they set, and those values that are words.
func sortOf(step *plan.Step) string {
	var b strings.Builder
	fmt.Fprint(&b, step.Op, " ", step.ID.Kind(), " ", step.Type)
	fields := probed(step)
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprint(&b, " ", f)
		info := model.Describe(step.ID.Kind(), step.Type, f)
		if info != nil && (info.Form == model.FormText || info.Form == model.FormBool) && f != "gateway" && f != "source" {
			fmt.Fprint(&b, "=", fields[f])
		}
	}
	switch step.ID.Kind() {
	case model.KindRule:
		fmt.Fprint(&b, " family ", step.ID.Words()[1])
	case model.KindAddress:
		fmt.Fprint(&b, " v6 ", isIPv6(step.ID))
	case model.KindRoute:
		fmt.Fprint(&b, " v6 ", isIPv6(step.ID), " own ", hasOwnTable(step.ID))
	case model.KindSysctl:
		fmt.Fprint(&b, " ", step.ID.Words()[1])
	}
	return b.String()
}

func (p *probing) report(f feature, err error) {
	if p.reported[f.what] {
		return
	}
	p.reported[f.what] = true
	p.missing = append(p.missing, f.missing(p.step, err))
}

// do carries a step out; what it made stays until it is cleared.
func (p *probing) do(step plan.Step) error {
	_, err := p.ground.Do(p.ctx, &step)
	return err
}

func (p *probing) try() {
	id := p.step.ID
	switch id.Kind() {
	case model.KindLink:
		p.tryLink()
	case model.KindAttachment:
		p.tryAttachment()
	case model.KindQdisc:
		p.tryQdisc(string(p.step.Type))
	case model.KindClass:
		p.tryQdisc("htb")
	case model.KindFilter:
		p.tryFilter()
	case model.KindRule:
		family := id.Words()[1]
		if family != "6" || p.tryIPv6() {
			p.tryPlain(model.RuleID("", family, "1"), probed(p.step))
		}
	case model.KindNAT:
		p.tryPlain(model.NATID("", ours+"-probe"), probed(p.step))
	case model.KindFirewall:
		p.tryFirewall()
	case model.KindAddress:
		if isIPv6(id) {
			p.tryIPv6()
		}
	case model.KindRoute:
		if isIPv6(id) && !p.tryIPv6() {
			return
		}
		if hasOwnTable(id) {
			p.tryTable()
		}
	case model.KindSysctl:
		p.trySysctl()
	}
}

// tryPlain creates a thing, and reports the feature behind it where that is missing; ok says that it worked.
func (p *probing) tryPlain(id model.ID, fields model.Fields) (ok bool) {
	step := plan.Step{Op: plan.Create, ID: id, Fields: maps.Clone(fields)}
	delete(step.Fields, "link")
	ok = p.try1(step)
	step.Op = plan.Delete
	_ = p.do(step)
	return ok
}

// try1 carries out a step, and reports what it needs where the kernel lacks that; ok says that it worked.
func (p *probing) try1(step plan.Step) (ok bool) {
	err := p.do(step)
	if err == nil {
		return true
	}
	if f, known := needs(&step); known && lacking(step.ID.Kind(), err) {
		p.report(f, cause(err))
	}
	return false
}

// cause is the kernel's own answer.
func cause(err error) error {
	if refusal, ok := errors.AsType[*rtnl.Refusal](err); ok {
		return refusal
	}
	return opCause(err)
}

// tryQdisc makes a queueing discipline of that kind on the loopback device.
func (p *probing) tryQdisc(kind string) {
	if kind == "" {
		kind = string(probed(p.step)["kind"])
	}
	parent := "root"
	fields := maps.Clone(probed(p.step))
	if p.step.ID.Kind() == model.KindClass {
		fields = model.Fields{"default": "1"}
	}
	if kind == "ingress" {
		parent = "ingress"
	}
	if fields["handle"] == "" && kind != "ingress" {
		fields["handle"] = model.Text(model.QdiscHandle.String())
	}
	fields["kind"] = model.Text(kind)
	if p.step.Op == plan.Change && kind == "tbf" {
		fields = model.Fields{"kind": "tbf", "handle": fields["handle"], "rate": "1mbit", "burst": "10k", "limit": "10k"}
	}
	step := plan.Step{Op: plan.Create, ID: model.QdiscID("lo", parent), Type: kind, Fields: fields}
	if p.try1(step) {
		if have := p.ground.Look(step.ID); have != nil {
			for _, f := range slices.Sorted(maps.Keys(fields)) {
				if _, there := have[f]; !there {
					p.report(settingFeature(fmt.Sprintf("the setting %s of the queueing discipline %s", f, kind)), errUnheard)
				}
			}
		}
	}
	_ = p.do(plan.Step{Op: plan.Delete, ID: step.ID})
}

// tryFilter redirects what the loopback device receives to itself.
func (p *probing) tryFilter() {
	ingress := plan.Step{Op: plan.Create, ID: model.QdiscID("lo", "ingress"), Type: "ingress", Fields: model.Fields{"kind": "ingress"}}
	if p.try1(ingress) {
		p.try1(plan.Step{Op: plan.Create, ID: model.FilterID("lo", "ingress", model.FilterPriority),
			Fields: model.Fields{"kind": "u32", "redirect": "lo", "handle": model.FilterHandle}})
	}
	_ = p.do(plan.Step{Op: plan.Delete, ID: ingress.ID})
}

// tryFirewall tries the whole table, and without the marks of connections where that fails.
func (p *probing) tryFirewall() {
	id, fields := model.FirewallID("", firewallPrefix+"probe"), probed(p.step)
	if _, ok := fields["marks"]; ok {
		step := plan.Step{Op: plan.Create, ID: id, Fields: fields}
		err := p.do(step)
		step.Op = plan.Delete
		_ = p.do(step)
		if err == nil {
			return
		}
		fields = maps.Clone(fields)
		delete(fields, "marks")
		if p.tryPlain(id, fields) && lacking(model.KindFirewall, err) {
			p.report(connectionMarkFeature, cause(err))
		}
		return
	}
	p.tryPlain(id, fields)
}

// isIPv6 reports whether an address or route is one of IPv6.
func isIPv6(id model.ID) bool { return strings.Contains(id.Rest(), ":") }

// tryIPv6 reports IPv6 where that is missing; ok says that it is there.
func (p *probing) tryIPv6() (ok bool) {
	return p.tryPlain(model.AddressID("lo", "2001:db8::1/128"), nil)
}

// hasOwnTable reports whether a route is in a table that a kernel without policy routing does not have.
func hasOwnTable(id model.ID) bool {
	table := id.Words()[1]
	return table != strconv.Itoa(unix.RT_TABLE_MAIN) && table != strconv.Itoa(unix.RT_TABLE_LOCAL)
}

// tryTable makes a rule that leads to a table of its own, as only a kernel takes that has such tables.
func (p *probing) tryTable() {
	family := "4"
	if isIPv6(p.step.ID) {
		family = "6"
	}
	step := plan.Step{Op: plan.Create, ID: model.RuleID("", family, "1"), Fields: model.Fields{"table": model.Text(p.step.ID.Words()[1])}}
	if err := p.do(step); err != nil && lacking(model.KindRule, err) {
		p.report(tableFeatures[family], cause(err))
	}
	step.Op = plan.Delete
	_ = p.do(step)
}

// trySysctl looks a setting up that is yet to come with a namespace or device: the same of the loopback device stands for a device's. One of
// what is there is looked up by the plan.
func (p *probing) trySysctl() {
	if p.step.Op != plan.Create {
		return
	}
	name := p.step.ID.Words()[1]
	here := name
	if device := spec.SysctlDevice(name); device != "" {
		here = spec.SysctlOf(name, "lo")
	}
	if p.ground.Look(model.SysctlID("", here)) == nil {
		p.report(sysctlFeature(name), unix.ENOENT)
	}
}
