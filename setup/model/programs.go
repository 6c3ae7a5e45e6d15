package model

import (
	"encoding/json"
	"iter"
	"maps"
	"time"

	"culvert/setup/spec"
)

func teamdName(r Ref) string { return "teamd:" + string(r) }

func mapsKeys[V any](m map[Ref]V) iter.Seq[Ref] { return maps.Keys(m) }

// ConfigArgument stands in a program's args for the path of the file that holds its config.
const ConfigArgument = "@config"

// LeaseArgument stands at the end of an argument for a path in the state directory.
const LeaseArgument = "@leases"

// teamdConfig is teamd.conf(5).
type teamdConfig struct {
	Device    string                    `json:"device"`
	Runner    map[string]any            `json:"runner"`
	LinkWatch []map[string]any          `json:"link_watch,omitempty"`
	Ports     map[string]map[string]any `json:"ports,omitempty"`
}

// teamd runs a team. It takes over the device, which is made before (-o), and leaves it when it ends (-N). Ports are attached by the
// plan; the settings of each are in the file by its name.
func (x *expansion) teamd(l *spec.Link, r Ref) {
	t := &l.Team.Runner
	runner := map[string]any{"name": t.Name}
	if len(t.TxHash) > 0 {
		runner["tx_hash"] = t.TxHash
	}
	if t.TxBalancer != "" {
		runner["tx_balancer"] = map[string]any{"name": t.TxBalancer}
	}
	put(runner, "fast_rate", t.FastRate)
	put(runner, "active", t.Active)
	put(runner, "sys_prio", t.SysPrio)
	put(runner, "min_ports", t.MinPorts)
	if t.AggSelect != "" {
		runner["agg_select_policy"] = t.AggSelect
	}
	if t.HWAddrPolicy != "" {
		runner["hwaddr_policy"] = t.HWAddrPolicy
	}
	c := teamdConfig{Device: r.Name(), Runner: runner}
	for i := range l.Team.LinkWatch {
		c.LinkWatch = append(c.LinkWatch, linkWatch(&l.Team.LinkWatch[i]))
	}
	for i := range l.Ports {
		p := &l.Ports[i]
		settings := map[string]any{}
		put(settings, "queue_id", p.QueueID)
		put(settings, "prio", p.Prio)
		put(settings, "sticky", p.Sticky)
		if p.Key != nil {
			settings["lacp_key"] = *p.Key
		}
		if len(settings) > 0 {
			if c.Ports == nil {
				c.Ports = map[string]map[string]any{}
			}
			c.Ports[x.refs[p.Link].Name()] = settings
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // nothing in it fails to encode
	}
	x.add(Item{ID: ProcessID(teamdName(r)), Place: l.Place, Label: "teamd", Needs: []ID{LinkID(r)}, Fields: Fields{
		"program": "teamd", "netns": Text(r.Netns()), "link": Link(r), "config": Value(text),
		"args": argList([]string{"-o", "-N", "-t", r.Name(), "-f", ConfigArgument}),
	}})
}

func put[T any](m map[string]any, key string, v *T) {
	if v != nil {
		m[key] = *v
	}
}

func linkWatch(w *spec.LinkWatch) map[string]any {
	m := map[string]any{"name": w.Name}
	for _, t := range []struct {
		key string
		d   time.Duration
	}{{"interval", w.Interval}, {"init_wait", w.InitWait}, {"delay_up", w.DelayUp}, {"delay_down", w.DelayDown}} {
		if t.d != 0 {
			m[t.key] = t.d.Milliseconds()
		}
	}
	if w.MissedMax != 0 {
		m["missed_max"] = w.MissedMax
	}
	if w.SourceHost.IsValid() {
		m["source_host"] = w.SourceHost.String()
	}
	if w.TargetHost.IsValid() {
		m["target_host"] = w.TargetHost.String()
	}
	put(m, "validate_active", w.ValidateActive)
	put(m, "validate_inactive", w.ValidateInactive)
	put(m, "send_always", w.SendAlways)
	return m
}

// dnsmasq runs in the foreground with a configuration of its own alone, on one interface.
func (x *expansion) dnsmasq(p spec.Place, d *spec.Dnsmasq) {
	r := x.refs[d.Interface]
	args := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--bind-interfaces", "--except-interface=lo",
		"--interface=" + r.Name(), "--pid-file="}
	if !d.DNS {
		args = append(args, "--port=0")
	}
	for _, list := range []struct {
		option string
		values []string
	}{{"dhcp-range", d.Ranges}, {"dhcp-host", d.Hosts}, {"dhcp-option", d.Options}} {
		for _, v := range list.values {
			args = append(args, "--"+list.option+"="+v)
		}
	}
	if d.Domain != "" {
		args = append(args, "--domain="+d.Domain)
	}
	for _, s := range d.Servers {
		args = append(args, "--server="+s.String())
	}
	leases := LeaseArgument
	if d.LeaseFile != "" {
		leases = d.LeaseFile
	}
	if len(d.Ranges) > 0 {
		args = append(args, "--dhcp-authoritative", "--dhcp-leasefile="+leases)
	}
	i := Item{ID: ProcessID("dnsmasq:" + string(r)), Place: p, Label: "dnsmasq", NeedsUp: []ID{LinkID(r)}, Fields: Fields{
		"program": "dnsmasq", "netns": Text(d.Netns), "link": Link(r), "args": argList(args), "config": ""}}
	i.Needs = append([]ID{LinkID(r)}, x.addresses[r]...)
	x.add(i)
}
