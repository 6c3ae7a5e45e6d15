package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// WriteYAML writes f as YAML, in one Write. The private key of each tunnel, and each preshared key, must have its file
// named, since the format holds no keys; [ImportWGQuick] sees to that. Loading what was written, with the key files in
// place, gives f again but for positions.
func WriteYAML(w io.Writer, f *File) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "version: 1\ninstance: %s\ntunnels:\n", yamlText(f.Instance))
	for i := range f.Tunnels {
		if err := yamlTunnel(&b, &f.Tunnels[i]); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func yamlTunnel(b *bytes.Buffer, t *Tunnel) error {
	if t.PrivateKeyFile == "" {
		return fmt.Errorf("tunnel %s: its private key has no file, and YAML holds no keys", t.Name)
	}
	fmt.Fprintf(b, "  %s:\n    mode: %s\n", yamlText(t.Name), t.Mode)
	if t.Listen != 0 {
		fmt.Fprintf(b, "    listen: %d\n", t.Listen)
	}
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
	if len(t.DNS.Servers)+len(t.DNS.Search) > 0 {
		b.WriteString("    dns:\n")
		yamlList(b, "      servers", addrTexts(t.DNS))
		yamlList(b, "      search", t.DNS.Search)
	}
	yamlHooks(b, t.Hooks)
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
		yamlList(b, "        allowed_ips", prefixTexts(p.AllowedIPs))
		if p.Keepalive != 0 {
			fmt.Fprintf(b, "        keepalive: %ds\n", p.Keepalive/time.Second)
		}
	}
	return nil
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
	iniList(&b, "DNS", append(addrTexts(t.DNS), t.DNS.Search...))
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

// wgQuickKnows tells what of a tunnel has no place in wg-quick's world.
func wgQuickKnows(t *Tunnel) error {
	if t.Mode != ModeTun {
		return fmt.Errorf("tunnel %s: wg-quick knows only IP tunnels", t.Name)
	}
	if len(t.Peers) == 0 && t.Wire != WireWireGuard {
		return fmt.Errorf("tunnel %s: wg-quick knows only the wireguard wire", t.Name)
	}
	for i := range t.Peers {
		p := &t.Peers[i]
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
