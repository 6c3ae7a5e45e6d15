package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"culvert/setup/spec"
)

// WriteYAML writes f as YAML, in one Write. The private key of each tunnel, and each preshared key, must have its file
// named, since the format holds no keys; [ImportWGQuick] sees to that. Loading what was written, with the key files in
// place, gives f again but for positions. A file that declares a network around its tunnels is refused.
func WriteYAML(w io.Writer, f *File) error {
	if f.declares {
		return errors.New("the file declares a network around its tunnels, which is not written")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "version: 1\ninstance: %s\n", yamlText(f.Instance))
	if f.Nice != nil {
		fmt.Fprintf(&b, "nice: %d\n", *f.Nice)
	}
	if f.Confine != ConfineByItself {
		fmt.Fprintf(&b, "confine: %s\n", f.Confine)
	}
	yamlMonitor(&b, &f.Monitor)
	b.WriteString("tunnels:\n")
	for i := range f.Tunnels {
		if err := yamlTunnel(&b, &f.Tunnels[i]); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func yamlMonitor(b *bytes.Buffer, m *Monitor) {
	if !m.On() {
		return
	}
	b.WriteString("monitor:\n")
	if l := m.Metrics.String(); l != "" {
		fmt.Fprintf(b, "  metrics: %s\n", yamlText(l))
	}
	if m.Peers != nil {
		fmt.Fprintf(b, "  peers: %t\n", *m.Peers)
	}
	if l := m.Page.String(); l != "" {
		fmt.Fprintf(b, "  page: %s\n", yamlText(l))
	}
	if m.Group != nil {
		fmt.Fprintf(b, "  group: %d\n", *m.Group)
	}
}

func yamlTunnel(b *bytes.Buffer, t *Tunnel) error {
	if t.PrivateKeyFile == "" {
		return fmt.Errorf("tunnel %s: its private key has no file, and YAML holds no keys", t.Name)
	}
	if t.serves() {
		return fmt.Errorf("tunnel %s is a server or the client of one, which is not written", t.Name)
	}
	fmt.Fprintf(b, "  %s:\n    mode: %s\n", yamlText(t.Name), t.Mode)
	if t.Listen != 0 {
		fmt.Fprintf(b, "    listen: %d\n", t.Listen)
	}
	yamlTCP(b, t.TCP)
	fmt.Fprintf(b, "    private_key_file: %s\n", yamlText(t.PrivateKeyFile))
	yamlList(b, "    addresses", prefixTexts(t.Addresses))
	if t.MTU != 0 {
		fmt.Fprintf(b, "    mtu: %d\n", t.MTU)
	}
	fmt.Fprintf(b, "    wire: %s\n", t.Wire)
	if t.PostQuantum {
		b.WriteString("    post_quantum: required\n")
	}
	if t.FwMark.Set {
		fmt.Fprintf(b, "    fwmark: %s\n", t.FwMark)
	}
	if !t.Table.Auto() {
		fmt.Fprintf(b, "    table: %s\n", t.Table)
	}
	if len(t.DNS.Servers)+len(t.DNS.Search)+len(t.DNS.Domains) > 0 || t.DNS.Resolver != "" {
		b.WriteString("    dns:\n")
		yamlList(b, "      servers", addrTexts(t.DNS))
		yamlList(b, "      domains", t.DNS.Domains)
		if t.DNS.Resolver != "" {
			fmt.Fprintf(b, "      resolver: %s\n", t.DNS.Resolver)
		}
		yamlList(b, "      search", t.DNS.Search)
	}
	switch f := t.FullTunnel; f {
	case Families{}:
	case Families{true, true}:
		b.WriteString("    full_tunnel: true\n")
	default:
		fmt.Fprintf(b, "    full_tunnel: [ipv%d]\n", f.list()[0])
	}
	yamlList(b, "    except", prefixTexts(t.Except))
	if t.KillSwitch {
		b.WriteString("    kill_switch: true\n")
	}
	yamlHooks(b, t.Hooks)
	if t.Queues != 0 {
		fmt.Fprintf(b, "    queues: %d\n", t.Queues)
	}
	yamlEthernet(b, t)
	if len(t.Peers) > 0 {
		b.WriteString("    peers:\n")
	}
	for i := range t.Peers {
		p := &t.Peers[i]
		fmt.Fprintf(b, "      %s:\n        public_key: \"%s\"\n", yamlText(p.Name), p.PublicKey.Base64())
		if p.Wire != "" && p.Wire != t.Wire {
			fmt.Fprintf(b, "        wire: %s\n", p.Wire)
		}
		if p.PostQuantum && !t.PostQuantum {
			b.WriteString("        post_quantum: required\n")
		}
		switch {
		case p.PresharedKeyFile != "":
			fmt.Fprintf(b, "        preshared_key_file: %s\n", yamlText(p.PresharedKeyFile))
		case !p.PresharedKey.IsZero():
			return fmt.Errorf("tunnel %s, peer %s: the preshared key has no file, and YAML holds no keys", t.Name, p.Name)
		}
		yamlList(b, "        endpoints", endpointTexts(p.Endpoints))
		if p.TCPText != "" {
			fmt.Fprintf(b, "        tcp: %s\n", yamlText(p.TCPText))
		}
		yamlList(b, "        allowed_ips", prefixTexts(p.AllowedIPs))
		switch {
		case p.Keepalive != 0:
			fmt.Fprintf(b, "        keepalive: %ds\n", p.Keepalive/time.Second)
		case t.Mode == ModeTap && !t.KeepCarrier: // which have one unless they say so
			b.WriteString("        keepalive: off\n")
		}
		yamlPort(b, p)
		yamlAccess(b, p.Access)
	}
	return nil
}

// yamlTCP writes where a tunnel accepts TCP connections.
func yamlTCP(b *bytes.Buffer, t TCP) {
	if t.Listen.Port() == 0 {
		return
	}
	at := yamlText(t.Listen.String())
	if t.Listen.Addr() == netip.IPv6Unspecified() {
		at = strconv.Itoa(int(t.Listen.Port()))
	}
	if t.CertificateFile == "" {
		fmt.Fprintf(b, "    tcp: %s\n", at)
		return
	}
	fmt.Fprintf(b, "    tcp:\n      listen: %s\n      certificate_file: %s\n      key_file: %s\n", at, yamlText(t.CertificateFile), yamlText(t.KeyFile))
}

// yamlEthernet writes what a tap tunnel has besides.
func yamlEthernet(b *bytes.Buffer, t *Tunnel) {
	if !t.MAC.IsZero() {
		fmt.Fprintf(b, "    mac: %s\n", yamlText(t.MAC.String()))
	}
	if s := t.Switch; s != (Switch{}) {
		b.WriteString("    switch:\n")
		if s.Ageing != 0 {
			fmt.Fprintf(b, "      ageing: %ds\n", s.Ageing/time.Second)
		}
		for _, f := range []struct {
			given bool
			text  string
		}{{s.LinkLocal, "link_local: true"}, {s.Proxy, "proxy: true"}, {s.KeepLoops, "loop_detection: false"}} {
			if f.given {
				fmt.Fprintf(b, "      %s\n", f.text)
			}
		}
	}
	if t.KeepCarrier {
		b.WriteString("    carrier: on\n")
	}
}

// yamlPort writes what a peer of a tap tunnel has besides.
func yamlPort(b *bytes.Buffer, p *Peer) {
	if p.Spoke {
		b.WriteString("        spoke: true\n")
	}
	macs := make([]string, len(p.MACs))
	for i, m := range p.MACs {
		macs[i] = m.String()
	}
	yamlList(b, "        macs", macs)
	if p.MaxMACs != 0 {
		fmt.Fprintf(b, "        max_macs: %d\n", p.MaxMACs)
	}
	if p.VLANs.PVID != 0 || len(p.VLANs.Tagged) > 0 {
		b.WriteString("        vlan:\n")
		if p.VLANs.PVID != 0 {
			fmt.Fprintf(b, "          pvid: %d\n", p.VLANs.PVID)
		}
		yamlList(b, "          tagged", Ranges(p.VLANs.Tagged))
	}
	if p.Limits != (Limits{}) {
		b.WriteString("        limits:\n")
		for _, l := range []struct {
			key string
			n   int
		}{{"broadcast", p.Limits.Broadcast}, {"multicast", p.Limits.Multicast}, {"unknown_unicast", p.Limits.UnknownUnicast}} {
			switch l.n {
			case 0:
			case NoLimit:
				fmt.Fprintf(b, "          %s: off\n", l.key)
			default:
				fmt.Fprintf(b, "          %s: %d\n", l.key, l.n)
			}
		}
	}
}

func yamlHooks(b *bytes.Buffer, h Hooks) {
	title := "    hooks:\n"
	for _, kind := range []struct {
		key   string
		hooks []Hook
	}{{"pre_up", h.PreUp}, {"post_up", h.PostUp}, {"pre_down", h.PreDown}, {"post_down", h.PostDown}} {
		if len(kind.hooks) == 0 {
			continue
		}
		b.WriteString(title)
		title = ""
		fmt.Fprintf(b, "      %s:\n", kind.key)
		for _, hook := range kind.hooks {
			fmt.Fprintf(b, "        - %s\n", yamlText(hook.Command))
		}
	}
}

// yamlList writes a list in brackets, which needs no lines of its own; an empty one is left out.
func yamlList(b *bytes.Buffer, key string, texts []string) {
	if len(texts) == 0 {
		return
	}
	quoted := make([]string, len(texts))
	for i, s := range texts {
		quoted[i] = yamlText(s)
	}
	fmt.Fprintf(b, "%s: [%s]\n", key, strings.Join(quoted, ", "))
}

// yamlText writes text as a scalar that no YAML reader takes for anything else.
func yamlText(s string) string {
	const first = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if s != "" && strings.ContainsRune(first, rune(s[0])) && strings.Trim(s, first+"0123456789_.-/") == "" {
		switch strings.ToLower(s) {
		case "true", "false", "yes", "no", "on", "off", "y", "n", "null":
		default:
			return s
		}
	}
	if !strings.ContainsAny(s, "\"\\\t") {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// WriteWGQuick writes t as a wg-quick file, private key included, in one Write, and returns what that format cannot
// carry. A peer on another wire than wireguard is an error, and so is a hook with a #: wg-quick would run the part
// before it.
func WriteWGQuick(w io.Writer, t *Tunnel) (warnings []string, err error) {
	if err := wgQuickKnows(t); err != nil {
		return nil, err
	}
	if t.PrivateKey.IsZero() {
		return nil, fmt.Errorf("tunnel %s has no private key", t.Name)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\n", t.PrivateKey.Base64())
	if t.Listen != 0 {
		fmt.Fprintf(&b, "ListenPort = %d\n", t.Listen)
	}
	if t.FwMark.Set {
		fmt.Fprintf(&b, "FwMark = %s\n", t.FwMark)
	}
	iniList(&b, "Address", prefixTexts(t.Addresses))
	names, left := t.DNS.wgQuick()
	iniList(&b, "DNS", append(addrTexts(t.DNS), names...))
	warnings = append(warnings, left...)
	if !t.FullTunnel.None() {
		warnings = append(warnings, "wg-quick lets more specific routes lead past the tunnel, which full_tunnel does not")
	}
	if t.KillSwitch || len(t.Except) > 0 {
		warnings = append(warnings, "wg-quick knows neither kill_switch nor except; they are left out")
	}
	if t.MTU != 0 {
		fmt.Fprintf(&b, "MTU = %d\n", t.MTU)
	}
	if !t.Table.Auto() {
		fmt.Fprintf(&b, "Table = %s\n", t.Table)
	}
	for _, kind := range []struct {
		key   string
		hooks []Hook
	}{{"PreUp", t.Hooks.PreUp}, {"PostUp", t.Hooks.PostUp}, {"PreDown", t.Hooks.PreDown}, {"PostDown", t.Hooks.PostDown}} {
		for _, hook := range kind.hooks {
			if strings.Contains(hook.Command, "#") {
				return nil, errors.New(hook.Pos.String() + ": wg-quick takes what follows a # for a comment; put the command into a script")
			}
			fmt.Fprintf(&b, "%s = %s\n", kind.key, hook.Command)
		}
	}
	if t.SaveConfig {
		b.WriteString("SaveConfig = true\n")
	}
	if t.Queues > 1 {
		warnings = append(warnings, fmt.Sprintf("wg-quick knows no queues; %d are left out", t.Queues))
	}
	for i := range t.Peers {
		p := &t.Peers[i]
		fmt.Fprintf(&b, "\n# %s\n[Peer]\nPublicKey = %s\n", p.Name, p.PublicKey.Base64())
		if !p.PresharedKey.IsZero() {
			fmt.Fprintf(&b, "PresharedKey = %s\n", p.PresharedKey.Base64())
		}
		iniList(&b, "AllowedIPs", prefixTexts(p.AllowedIPs))
		if len(p.Endpoints) > 0 {
			fmt.Fprintf(&b, "Endpoint = %s\n", p.Endpoints[0])
		}
		if n := len(p.Endpoints); n > 1 {
			warnings = append(warnings, fmt.Sprintf("peer %s: wg-quick knows one endpoint per peer; %d more are left out", p.Name, n-1))
		}
		if p.Keepalive != 0 {
			fmt.Fprintf(&b, "PersistentKeepalive = %d\n", p.Keepalive/time.Second)
		}
	}
	_, err = w.Write(b.Bytes())
	return warnings, err
}

// wgQuick are the domains as wg-quick takes them, which has all names asked of the servers, and what it cannot be told.
func (d *DNS) wgQuick() (names, left []string) {
	all := len(d.Domains) == 0
	for _, n := range d.Domains {
		all = all || n == spec.All
		if !strings.HasPrefix(n, "~") {
			names = append(names, n)
		}
	}
	if !all {
		left = append(left, "wg-quick has all names asked of the servers, not those of their domains alone")
	}
	if d.Resolver != "" && d.Resolver != "auto" {
		left = append(left, "wg-quick knows no resolver but resolvconf; "+d.Resolver+" is left out")
	}
	return append(names, d.Search...), left
}

// wgQuickKnows tells what of a tunnel has no place in wg-quick's world.
func wgQuickKnows(t *Tunnel) error {
	if t.Mode != ModeTun {
		return fmt.Errorf("tunnel %s carries Ethernet frames (mode: tap), and wg-quick knows only IP tunnels", t.Name)
	}
	if len(t.Peers) == 0 && t.Wire != WireWireGuard {
		return fmt.Errorf("tunnel %s: wg-quick knows only the wireguard wire", t.Name)
	}
	for i := range t.Peers {
		p := &t.Peers[i]
		if p.Access != nil {
			return fmt.Errorf("tunnel %s: peer %s has access rules or limits, which wg-quick knows nothing of: there it could do everything", t.Name, p.Name)
		}
		if wire := cmp.Or(p.Wire, t.Wire); wire != WireWireGuard {
			return fmt.Errorf("tunnel %s: peer %s is on the %s wire, and wg-quick knows only wireguard", t.Name, p.Name, wire)
		}
	}
	return nil
}

func iniList(b *bytes.Buffer, key string, texts []string) {
	if len(texts) > 0 {
		fmt.Fprintf(b, "%s = %s\n", key, strings.Join(texts, ", "))
	}
}

func prefixTexts(ps []Prefix) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return out
}

func addrTexts(d DNS) []string {
	out := make([]string, len(d.Servers))
	for i, a := range d.Servers {
		out[i] = a.String()
	}
	return out
}

func endpointTexts(es []Endpoint) []string {
	out := make([]string, len(es))
	for i, e := range es {
		out[i] = e.String()
	}
	return out
}

// String gives the form both file formats share: auto, off or a hexadecimal number.
func (m FwMark) String() string {
	switch {
	case !m.Set:
		return "auto"
	case m.Value == 0:
		return "off"
	}
	return "0x" + strconv.FormatUint(uint64(m.Value), 16)
}

// String gives the form both file formats share: auto, off or a decimal number.
func (t Table) String() string {
	switch {
	case t.Off:
		return "off"
	case t.Number == 0:
		return "auto"
	}
	return strconv.FormatUint(uint64(t.Number), 10)
}
