package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"culvert/crypto"
	"culvert/setup/spec"
)

// A yamlReader turns nodes into a File.
type yamlReader struct {
	report
	file *File
	// secret reads a key file, see readSecret; another one in tests.
	secret func(path string) ([]byte, *problem, error)
	// public reads a certificate, see readPublic; another one in tests.
	public func(path string) ([]byte, *problem, error)

	tunnelLinks []spec.Link // the tunnels as links of the setup layer, in file order
	setupWrong  bool        // a part of the setup layer, or a tunnel, has an error
}

// parseYAML reads the text of a YAML file. The File is good only where the report has no errors.
func parseYAML(path string, text []byte, secret func(string) ([]byte, *problem, error)) (*File, *report) {
	return parseYAMLParts(path, text, secret, partEntries)
}

// parseYAMLParts parses mappings of more than some entries, where there may be such, a part of so many at a time; 0 for the file as one.
func parseYAMLParts(path string, text []byte, secret func(string) ([]byte, *problem, error), entries int) (*File, *report) {
	src := newSource(path, text)
	y := &yamlReader{report: report{src: src, entries: entries}, secret: secret, public: readPublic}
	y.file = &File{Path: path, Format: FormatYAML, Instance: stem(path), source: src}
	root := y.yamlDocument(strings.Join(src.lines, "\n") + "\n")
	switch {
	case root != nil:
		y.root(root)
		y.relate(y.file)
		y.finishSetup()
	case len(y.errs) == 0:
		y.fail(Position{path, 1, 1}, `begin with "version: 1"`, "the file holds no configuration")
	}
	if len(y.cuts) > 0 && len(y.errs) == 0 { // in a place where no list of peers is expected
		return parseYAMLParts(path, text, secret, 0)
	}
	return y.file, &y.report
}

// stem is a path's last element without its extension.
func stem(path string) string {
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

func (y *yamlReader) root(n ast.Node) {
	top := value{node: n, pos: y.nodePos(n), of: "the file"}
	if _, scalar := n.(ast.ScalarNode); scalar {
		top.pos = y.tokenPos(n.GetToken())
	}
	version, tunnels, named := false, false, false
	ok := y.fields(top, "the file", slices.Concat([]field{
		{"version", func(e entry) {
			version = true
			if s, ok := y.number(e.value); ok && s != "1" {
				y.fail(e.value.pos, `write "version: 1"`, "this version of culvert reads version 1 of the file format, not %s", quote(s))
			}
		}},
		{"instance", func(e entry) {
			named = true
			if s, ok := y.text(e.value); ok {
				if p := instanceName(s); p != nil {
					y.failWith(e.value.pos, p, nil)
				}
				y.file.Instance = s
			}
		}},
		{"nice", func(e entry) {
			if s, ok := y.number(e.value); ok {
				y.take(e.value.pos, read(&y.file.Nice, parseNice, s))
			}
		}},
		{"confine", func(e entry) {
			if b, is := e.value.node.(*ast.BoolNode); is && !b.Value {
				y.file.Confine = ConfineNothing
			} else if s, ok := y.text(e.value); ok {
				y.take(e.value.pos, read(&y.file.Confine, parseConfine, s))
			}
		}},
		{"monitor", func(e entry) { y.monitor(e) }},
		{"on", func(e entry) { y.on(e) }},
		{"tunnels", func(e entry) {
			tunnels = true
			before := len(y.errs) + y.more
			y.tunnels(e)
			y.setupWrong = y.setupWrong || len(y.errs)+y.more > before
		}},
	}, y.setupFields())...)
	if !ok {
		return
	}
	if !version {
		y.fail(Position{y.src.path, 1, 1}, `begin the file with "version: 1"`, "the file does not say which version of the file format it is in")
	}
	if !tunnels && !y.file.declares {
		y.fail(Position{y.src.path, 1, 1}, `add "tunnels:" with at least one tunnel, or "links:"`, "the file has no tunnels")
	}
	if !named {
		if p := instanceName(y.file.Instance); p != nil {
			y.failWith(Position{y.src.path, 1, 1}, &problem{p.message + ", which it is called after the file",
				`rename the file or add "instance: NAME"`}, nil)
		}
	}
}

func (y *yamlReader) tunnels(e entry) {
	entries, ok := y.mapping(e.value)
	if !ok {
		return
	}
	if len(entries) == 0 {
		y.fail(e.pos, "add a tunnel: its name, and below it its keys", "the file has no tunnels")
	}
	for i, e := range entries {
		if i == MaxTunnels {
			y.fail(e.pos, "use several files", "the file has more than %d tunnels", MaxTunnels)
			return
		}
		if p := tunnelName(e.key); p != nil {
			y.failWith(e.pos, p, nil)
		}
		y.file.Tunnels = append(y.file.Tunnels, y.tunnel(e))
	}
}

func (y *yamlReader) tunnel(e entry) Tunnel {
	t := Tunnel{Name: e.key, Pos: e.pos, Mode: ModeTun, Wire: WireCulvert}
	keyed := false
	var of modeKeys
	link := tunnelLink(e)
	ok := y.fields(e.value, "a tunnel", slices.Concat([]field{
		{"mode", func(e entry) {
			t.Mode, t.ModePos = "", e.value.pos
			if s, ok := y.text(e.value); ok {
				y.take(e.value.pos, read(&t.Mode, parseMode, s))
			}
		}},
		{"listen", func(e entry) {
			if s, ok := y.number(e.value); ok {
				t.ListenPos = e.value.pos
				y.take(e.value.pos, read(&t.Listen, parsePort, s))
			}
		}},
		{"tcp", func(e entry) { t.TCP = y.tcp(e) }},
		{"private_key_file", func(e entry) {
			keyed = true
			t.PrivateKeyPos = e.value.pos
			if s, ok := y.keyFile(e, &t.PrivateKeyFile); ok {
				y.take(e.value.pos, inFile(read(&t.PrivateKey, parsePrivateKey, s), t.PrivateKeyFile))
			}
		}},
		{"private_key", func(e entry) {
			keyed = true
			y.fail(e.pos, "put the key into a file of mode 0600 and name it with private_key_file",
				"private keys have no place in this file, which is read, copied and shown to others too easily")
		}},
		{"addresses", func(e entry) {
			for _, v := range y.list(e.value, `[10.0.0.1/24, "fd00::1/64"]`, MaxAddresses) {
				if s, ok := y.text(v); ok {
					if a, p := parseAddress(s, false); y.take(v.pos, p) {
						t.Addresses = append(t.Addresses, Prefix{a, v.pos})
					}
				}
			}
		}},
		{"mtu", func(e entry) {
			if s, ok := y.number(e.value, "auto"); ok {
				t.MTUPos = e.value.pos
				y.take(e.value.pos, read(&t.MTU, parseMTU, s))
			}
		}},
		{"wire", func(e entry) {
			if s, ok := y.text(e.value); ok {
				t.WirePos = e.value.pos
				y.take(e.value.pos, read(&t.Wire, parseWire, s))
			}
		}},
		{"post_quantum", func(e entry) {
			if t.PostQuantum = y.postQuantum(e.value); t.PostQuantum {
				t.PostQuantumPos = e.value.pos
			}
		}},
		{"fwmark", func(e entry) {
			if s, ok := y.number(e.value, "off", "auto"); ok {
				t.FwMarkPos = e.value.pos
				y.take(e.value.pos, read(&t.FwMark, parseFwMark, s))
			}
		}},
		{"table", func(e entry) {
			of.tun = append(of.tun, entry{key: e.key, pos: e.pos})
			if s, ok := y.number(e.value, "auto", "off", "main", "default"); ok {
				t.TablePos = e.value.pos
				y.take(e.value.pos, read(&t.Table, parseTable, s))
			}
		}},
		{"dns", func(e entry) { y.dns(e, &t.DNS) }},
		{"full_tunnel", func(e entry) {
			t.FullTunnelPos = e.value.pos
			t.FullTunnel = y.fullTunnel(e.value)
		}},
		{"except", func(e entry) { t.Except = y.except(e.value) }},
		{"kill_switch", func(e entry) {
			t.KillSwitchPos = e.value.pos
			t.KillSwitch, _ = y.truth(e.value)
		}},
		{"hooks", func(e entry) { y.hooks(e, &t.Hooks) }},
		{"queues", func(e entry) {
			if s, ok := y.number(e.value, "auto"); ok {
				t.QueuesPos = e.value.pos
				y.take(e.value.pos, read(&t.Queues, parseQueues, s))
			}
		}},
		{"mac", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			if s, ok := y.text(e.value); ok {
				t.MACPos = e.value.pos
				y.take(e.value.pos, read(&t.MAC, parseMAC, s))
			}
		}},
		{"switch", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			y.switching(e, &t.Switch)
		}},
		{"carrier", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			t.KeepCarrier = y.keepCarrier(e.value)
		}},
		{"server", func(e entry) {
			t.Server = y.server(e)
		}},
		{"peers", func(e entry) { y.peers(e, &t, &of) }},
		{"alias", func(e entry) {
			y.fail(e.pos, "take it out", aliasKept)
		}},
	}, y.fieldsOf(tunnelShape, reflect.ValueOf(link).Elem(), spot{place: &link.Place}))...)
	if ok && !keyed {
		y.fail(e.pos, "make a key with: (umask 077; culvert genkey > "+shellWord(keyName(t.Name))+"), and add private_key_file",
			"the tunnel has no private_key_file")
	}
	for i := range t.Peers { // the tunnel's keys may stand behind its peers
		p := &t.Peers[i]
		if p.Wire == "" {
			p.Wire = t.Wire
		}
		p.completeTCP()
		p.PostQuantum = p.PostQuantum || t.PostQuantum
		if t.Mode == ModeTap && !t.KeepCarrier && p.KeepalivePos == (Position{}) {
			p.Keepalive = TapKeepalive
		}
	}
	y.checkMode(&t, &of)
	completeTunnel(link, &t)
	y.tunnelLinks = append(y.tunnelLinks, *link)
	return t
}

// postQuantum reads the one value that post_quantum may have.
func (y *yamlReader) postQuantum(v value) bool {
	s, ok := "", false
	if b, is := v.node.(*ast.BoolNode); is {
		s = b.GetToken().Value
	} else if s, ok = y.text(v); !ok {
		return false
	}
	if s != "required" {
		y.fail(v.pos, `write required or leave it out; a peer that cannot do it needs "wire: wireguard"`,
			"post_quantum cannot be %s: the native wire has no mode without its post-quantum key exchange", quote(s))
		return false
	}
	return true
}

// keyName is the key file's name proposed for a tunnel, whatever its name.
func keyName(tunnel string) string {
	if tunnelName(tunnel) != nil {
		return "tunnel.key"
	}
	return tunnel + ".key"
}

func (y *yamlReader) dns(e entry, dns *DNS) {
	dns.Pos = e.pos
	y.fields(e.value, "dns",
		field{"servers", func(e entry) {
			for _, v := range y.list(e.value, `[10.0.0.53]`, MaxDNS) {
				if s, ok := y.text(v); ok {
					if a, p := parseServer(s); y.take(v.pos, p) {
						dns.Servers = append(dns.Servers, a)
					}
				}
			}
		}},
		field{"domains", func(e entry) {
			for _, v := range y.list(e.value, `[corp.example, "~."]`, MaxDNS) {
				if s, ok := y.text(v); ok {
					if d, p := parseDomain(s); y.take(v.pos, p) {
						dns.Domains = append(dns.Domains, d)
					}
				}
			}
		}},
		field{"resolver", func(e entry) {
			switch b, is := e.value.node.(*ast.BoolNode); {
			case is && !b.Value: // off
				dns.Resolver = "off"
			default:
				if s, ok := y.text(e.value); ok {
					y.take(e.value.pos, read(&dns.Resolver, parseResolver, s))
				}
			}
		}},
		field{"search", func(e entry) {
			for _, v := range y.list(e.value, `[example.net]`, MaxDNS) {
				if s, ok := y.text(v); ok && y.take(v.pos, hostName(s)) {
					dns.Search = append(dns.Search, s)
				}
			}
		}},
	)
}

// on reads programs that are run at events. Which events there are only the daemon knows.
func (y *yamlReader) on(e entry) {
	const example = "[{events: [peer-lost], run: [/usr/local/bin/notify]}]"
	for _, v := range y.list(e.value, example, MaxOn) {
		on := On{Pos: v.pos}
		before := len(y.errs) + y.more
		y.fields(v, "a program for events",
			field{"events", func(e entry) {
				on.EventsPos = e.value.pos
				for _, v := range y.list(e.value, "[peer-lost]", MaxOnEvents) {
					if s, ok := y.text(v); ok {
						on.Events = append(on.Events, s)
					}
				}
			}},
			field{"run", func(e entry) {
				for i, v := range y.list(e.value, "[/usr/local/bin/notify]", MaxOnRun) {
					if s, ok := y.text(v); ok && y.take(v.pos, argument(s, i == 0)) {
						on.Run = append(on.Run, s)
					}
				}
			}})
		switch {
		case len(y.errs)+y.more > before:
		case on.EventsPos == (Position{}):
			y.fail(v.pos, `add "events: [peer-lost]", or others`, "it is not said at which events the program is run")
		case len(on.Events) == 0:
			y.fail(on.EventsPos, "name events, such as peer-lost", "there are no events")
		case len(on.Run) == 0:
			y.fail(v.pos, `add "run: [/usr/local/bin/notify]", with arguments as further elements`, "it is not said which program is run")
		}
		y.file.On = append(y.file.On, on)
	}
}

func (y *yamlReader) hooks(e entry, h *Hooks) {
	into := func(list *[]Hook) func(entry) {
		return func(e entry) {
			for _, v := range y.list(e.value, `["ip rule add ..."]`, MaxHooks) {
				if s, ok := y.text(v); ok {
					if s = strings.TrimSpace(s); y.take(v.pos, command(s)) {
						*list = append(*list, Hook{s, v.pos})
					}
				}
			}
		}
	}
	y.fields(e.value, "hooks", field{"pre_up", into(&h.PreUp)}, field{"post_up", into(&h.PostUp)},
		field{"pre_down", into(&h.PreDown)}, field{"post_down", into(&h.PostDown)})
}

func (y *yamlReader) peers(e entry, t *Tunnel, of *modeKeys) {
	for e := range y.longMapping(e.value) {
		if len(t.Peers) == MaxPeers {
			y.fail(e.pos, "use several tunnels", "the tunnel has more than %d peers", MaxPeers)
			return
		}
		if p := peerName(e.key); p != nil {
			y.failWith(e.pos, p, nil)
		}
		t.Peers = append(t.Peers, y.peer(e, of))
	}
}

func (y *yamlReader) peer(e entry, of *modeKeys) Peer {
	p := Peer{Name: e.key, Pos: e.pos}
	keyed := false
	ok := y.fields(e.value, "a peer",
		field{"public_key", func(e entry) {
			keyed = true
			p.PublicKeyPos = e.value.pos
			if s, ok := y.text(e.value); ok {
				y.take(e.value.pos, read(&p.PublicKey, parsePublicKey, s))
			}
		}},
		field{"preshared_key_file", func(e entry) {
			p.PresharedKeyPos = e.value.pos
			if s, ok := y.keyFile(e, &p.PresharedKeyFile); ok {
				prob := read(&p.PresharedKey, parsePresharedKey, s)
				if prob == nil && p.PresharedKey.IsZero() {
					prob = wrong("make one with culvert genpsk, or leave the key out", "the preshared key is all zeros")
				}
				y.take(e.value.pos, inFile(prob, p.PresharedKeyFile))
			}
		}},
		field{"preshared_key", func(e entry) {
			y.fail(e.pos, "put the key into a file of mode 0600 and name it with preshared_key_file",
				"preshared keys have no place in this file, which is read, copied and shown to others too easily")
		}},
		field{"wire", func(e entry) {
			if s, ok := y.text(e.value); ok {
				p.WirePos = e.value.pos
				y.take(e.value.pos, read(&p.Wire, parseWire, s))
			}
		}},
		field{"post_quantum", func(e entry) {
			if p.PostQuantum = y.postQuantum(e.value); p.PostQuantum {
				p.PostQuantumPos = e.value.pos
			}
		}},
		field{"endpoints", func(e entry) {
			for _, v := range y.list(e.value, `["vpn.example.net:51820"]`, MaxEndpoints) {
				if s, ok := y.text(v); ok {
					if end, prob := parseEndpoint(s); y.take(v.pos, prob) {
						end.Pos = v.pos
						p.Endpoints = append(p.Endpoints, end)
					}
				}
			}
		}},
		field{"tcp", func(e entry) { y.peerTCP(e, &p) }},
		field{"allowed_ips", func(e entry) {
			of.tun = append(of.tun, entry{key: e.key, pos: e.pos})
			for _, v := range y.list(e.value, `[10.0.0.0/24, "fd00::/64"]`, MaxAllowedIPs) {
				if s, ok := y.text(v); ok {
					a, prob := parsePrefix(s, true)
					if prob == nil && a != a.Masked() {
						prob = wrong("write "+a.Masked().String(), "%s has bits set behind its prefix length", quote(s))
					}
					if y.take(v.pos, prob) {
						p.AllowedIPs = append(p.AllowedIPs, Prefix{a, v.pos})
					}
				}
			}
		}},
		field{"keepalive", func(e entry) {
			p.KeepalivePos = e.value.pos
			if s, ok := y.numberOrText(e.value); ok { // a missing unit is told by parseDuration
				y.take(e.value.pos, read(&p.Keepalive, parseDuration, s))
			}
		}},
		field{"pull", func(e entry) {
			p.PullPos = e.value.pos
			if p.Pull, _ = y.truth(e.value); p.Pull && p.AcceptPos == (Position{}) {
				p.Accept = acceptAll
			}
		}},
		field{"accept", func(e entry) {
			p.AcceptPos = e.pos
			p.Accept = acceptAll
			y.accept(e, &p.Accept)
		}},
		field{"access", func(e entry) {
			p.Access = new(Access)
			accessShape.read(y, e.value, reflect.ValueOf(p.Access).Elem(), spot{place: &spec.Place{}})
		}},
		field{"spoke", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			p.Spoke, _ = y.truth(e.value)
		}},
		field{"macs", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			p.MACs = y.stations(e.value)
		}},
		field{"max_macs", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			if s, ok := y.number(e.value); ok {
				p.MaxMACsPos = e.value.pos
				y.take(e.value.pos, read(&p.MaxMACs, parseLearned, s))
			}
		}},
		field{"vlan", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			y.vlans(e, &p.VLANs)
		}},
		field{"limits", func(e entry) {
			of.tap = append(of.tap, entry{key: e.key, pos: e.pos})
			y.limits(e, &p.Limits)
		}},
	)
	if ok && !keyed {
		y.fail(e.pos, "add the far end's public_key", "the peer has no public_key")
	}
	return p
}

// keyFile reads the key file that e names, relative to the configuration file's folder, and keeps its name.
func (y *yamlReader) keyFile(e entry, name *string) (string, bool) {
	s, ok := y.text(e.value)
	if !ok {
		return "", false
	}
	if s == "" || strings.ContainsFunc(s, unprintable) {
		y.fail(e.value.pos, "write the path of a file that holds the key", "%s is not a file's name", quote(s))
		return "", false
	}
	if _, err := crypto.ParsePrivateKey(s); err == nil {
		y.fail(e.value.pos, "put the key into a file of mode 0600 and write the file's name here",
			"this is a key, where the name of a file that holds it was expected")
		return "", false
	}
	*name = s
	path, prob := y.located(s)
	if prob != nil {
		y.failWith(e.value.pos, prob, nil)
		return "", false
	}
	text, prob, err := y.secret(path)
	if prob != nil {
		y.failWith(e.value.pos, prob, err)
		return "", false
	}
	return strings.TrimSpace(string(text)), true
}

// besides is the path of a file that is named relative to the configuration file's folder.
func (y *yamlReader) besides(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(y.src.path), path)
}

// located is besides for what may also be a credential of systemd.
func (y *yamlReader) located(name string) (path string, p *problem) {
	if c, ok := strings.CutPrefix(name, credentialPrefix); ok {
		return credential(c, filepath.Dir(y.src.path))
	}
	return y.besides(name), nil
}

// inFile says of a key's problem which file it is in.
func inFile(p *problem, name string) *problem {
	if p == nil {
		return nil
	}
	return wrong(p.hint, "the key file %s: %s", quotePath(name), p.message)
}

// take reports p, if any, and whether there was none.
func (r *report) take(pos Position, p *problem) bool {
	if p != nil {
		r.failWith(pos, p, nil)
	}
	return p == nil
}

// read parses s into place, which stays as it is where s is wrong.
func read[T any](place *T, parse func(string) (T, *problem), s string) *problem {
	v, p := parse(s)
	if p == nil {
		*place = v
	}
	return p
}
