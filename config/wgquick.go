package config

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The format is that of wg(8) "CONFIGURATION FILE FORMAT" with wg-quick(8)'s additions to [Interface]: lines of
// key = value below [Interface] and [Peer], keys and sections in any case, # beginning a comment anywhere.

var (
	interfaceKeys = []string{"PrivateKey", "ListenPort", "FwMark", "Address", "DNS", "MTU", "Table",
		"PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"}
	peerKeys = []string{"PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"}
)

// A wgQuickReader turns lines into a File with one tunnel.
type wgQuickReader struct {
	report
	file   *File
	tunnel *Tunnel
	peer   *Peer // of the section being read; nil in [Interface]

	section  string         // "", "[Interface]" or "[Peer]", or "?" for one that was refused
	at       Position       // of the section's line
	seen     map[string]int // line of each key that may come once in a section
	opened   bool           // there was an [Interface]
	secrets  bool           // the file holds a private or preshared key
	unkeyed  bool           // the peer has no PublicKey yet
	position Position       // of the value being read
}

// parseWGQuick reads the text of a wg-quick file; secrets tells whether it holds key text. The File is good only where
// the report has no errors.
func parseWGQuick(path string, text []byte) (f *File, r *report, secrets bool) {
	src := newSource(path, text)
	w := &wgQuickReader{report: report{src: src}, seen: map[string]int{}}
	name := stem(path)
	w.file = &File{Path: path, Format: FormatWGQuick, Instance: name, source: src,
		Tunnels: []Tunnel{{Name: name, Mode: ModeTun, Wire: WireWireGuard}}}
	w.tunnel = &w.file.Tunnels[0]
	for _, check := range []func(string) *problem{tunnelName, instanceName} {
		if p := check(name); p != nil {
			w.failWith(Position{File: path}, &problem{p.message + " (the tunnel is called after the file)", "rename the file: " + p.hint}, nil)
			break
		}
	}
	if w.printable(strings.Join(src.lines, "\n")) {
		for i, line := range src.lines {
			w.line(i+1, line)
		}
		w.endSection()
		if !w.opened {
			w.fail(Position{path, 1, 1}, "begin with [Interface]", "the file has no [Interface] section")
		}
		w.relate(w.file)
	}
	return w.file, &w.report, w.secrets
}

// column is the place of the character at byte i of a line.
func (w *wgQuickReader) column(line int, text string, i int) Position {
	return Position{w.src.path, line, utf8.RuneCountInString(text[:i]) + 1}
}

const blanks = " \t"

func (w *wgQuickReader) line(number int, text string) {
	body, comment, commented := strings.Cut(text, "#")
	start := len(body) - len(strings.TrimLeft(body, blanks))
	body = strings.TrimRight(body, blanks)
	if commented && strings.Trim(comment, blanks+"#") != "" {
		w.file.comments = append(w.file.comments, w.column(number, text, len(text)-len(comment)-1))
	}
	if start >= len(body) {
		return
	}
	pos := w.column(number, text, start)
	if body[start] == '[' {
		w.begin(body[start:], pos)
		return
	}
	key, raw, ok := strings.Cut(body[start:], "=")
	key = strings.TrimRight(key, blanks)
	if !ok || key == "" {
		w.fail(pos, "write Key = value, a section such as [Peer], or begin the line with # for a comment", "this line is neither a key with its value nor a section")
		return
	}
	value := strings.TrimLeft(raw, blanks)
	w.position = w.column(number, text, len(body)-len(value))
	w.entry(key, value, pos)
	if commented && strings.Trim(comment, blanks) != "" && isHook(key) {
		w.warn(w.column(number, text, len(text)-len(comment)-1), "put a command with a # into a script", "what follows the # is a comment and no part of the command")
	}
}

func isHook(key string) bool {
	switch strings.ToLower(key) {
	case "preup", "postup", "predown", "postdown":
		return true
	}
	return false
}

// begin opens a section.
func (w *wgQuickReader) begin(name string, pos Position) {
	w.endSection()
	w.at = pos
	clear(w.seen)
	switch strings.ToLower(name) {
	case "[interface]":
		w.section = "[Interface]"
		if w.opened {
			w.fail(pos, "merge it with the first", "the file has a second [Interface] section (first in line %d)", w.tunnel.Pos.Line)
			w.section = "?"
			return
		}
		w.opened = true
		w.tunnel.Pos = pos
	case "[peer]":
		w.section = "[Peer]"
		if len(w.tunnel.Peers) == MaxPeers {
			w.fail(pos, "use several tunnels", "the tunnel has more than %d peers", MaxPeers)
		}
		if len(w.tunnel.Peers) >= MaxPeers {
			w.section = "?"
			return
		}
		w.tunnel.Peers = append(w.tunnel.Peers, Peer{Name: "peer" + strconv.Itoa(len(w.tunnel.Peers)+1), Pos: pos, Wire: WireWireGuard})
		w.peer = &w.tunnel.Peers[len(w.tunnel.Peers)-1]
		w.unkeyed = true
	default:
		w.section = "?"
		w.fail(pos, "write [Interface] or [Peer]", "unknown section %s", quote(name))
	}
}

// endSection checks that what a section needs was there.
func (w *wgQuickReader) endSection() {
	switch {
	case w.section == "[Interface]" && w.seen["PrivateKey"] == 0:
		w.fail(w.at, "add PrivateKey = ..., made with culvert genkey", "the [Interface] section has no PrivateKey")
	case w.section == "[Peer]" && w.unkeyed:
		w.fail(w.at, "add the far end's PublicKey", "the [Peer] section has no PublicKey")
	}
	w.section, w.peer = "", nil
}

func (w *wgQuickReader) entry(key, value string, pos Position) {
	known, others, other := interfaceKeys, peerKeys, "[Peer]"
	switch w.section {
	case "?":
		return // the section was reported
	case "":
		w.fail(pos, "begin with [Interface]", "the key %s stands before any section", quote(key))
		return
	case "[Peer]":
		known, others, other = peerKeys, interfaceKeys, "[Interface]"
	}
	name := canonical(key, known)
	if name == "" {
		hint := "known keys: " + strings.Join(known, ", ")
		if canonical(key, others) != "" {
			hint = "it belongs below " + other
		} else if s := suggest(key, known); s != "" {
			hint = "did you mean " + s + "?"
		}
		w.fail(pos, hint, "unknown key %s in %s", quote(key), w.section)
		return
	}
	switch name {
	case "Address", "DNS", "AllowedIPs", "PreUp", "PostUp", "PreDown", "PostDown": // these add up
	default:
		if first := w.seen[name]; first != 0 {
			w.fail(pos, "remove one of the two", "%s is given twice in one section (first in line %d)", name, first)
			return
		}
		w.seen[name] = pos.Line
	}
	if w.peer != nil {
		w.peerEntry(name, value)
	} else {
		w.interfaceEntry(name, value)
	}
}

func canonical(key string, known []string) string {
	for _, k := range known {
		if strings.EqualFold(k, key) {
			return k
		}
	}
	return ""
}

func (w *wgQuickReader) interfaceEntry(name, value string) {
	t, pos := w.tunnel, w.position
	switch name {
	case "PrivateKey":
		w.secrets = true
		t.PrivateKeyPos = pos
		w.take(pos, read(&t.PrivateKey, parsePrivateKey, value))
	case "ListenPort":
		t.ListenPos = pos
		w.take(pos, read(&t.Listen, parsePort, value))
	case "FwMark":
		t.FwMarkPos = pos
		w.take(pos, read(&t.FwMark, parseFwMark, value))
	case "Address":
		for _, e := range w.elements(value, true, MaxAddresses-len(t.Addresses), MaxAddresses) {
			if a, p := parseAddress(e.text, true); w.take(e.pos, p) {
				t.Addresses = append(t.Addresses, Prefix{a, e.pos})
			}
		}
	case "DNS":
		w.dns(value)
	case "MTU":
		t.MTUPos = pos
		w.take(pos, read(&t.MTU, parseMTU, value))
	case "Table":
		t.TablePos = pos
		w.take(pos, read(&t.Table, parseTable, value))
	case "PreUp":
		w.hook(&t.Hooks.PreUp, value)
	case "PostUp":
		w.hook(&t.Hooks.PostUp, value)
	case "PreDown":
		w.hook(&t.Hooks.PreDown, value)
	case "PostDown":
		w.hook(&t.Hooks.PostDown, value)
	case "SaveConfig":
		t.SaveConfigPos = pos
		if value != "true" && value != "false" {
			w.fail(pos, "write true or false", "SaveConfig cannot be %s", quote(value))
		}
		t.SaveConfig = value == "true"
	}
}

func (w *wgQuickReader) dns(value string) {
	dns := &w.tunnel.DNS
	if dns.Pos == (Position{}) {
		dns.Pos = w.position
	}
	for _, e := range w.elements(value, true, 2*MaxDNS-len(dns.Servers)-len(dns.Search), 2*MaxDNS) {
		if a, p := parseServer(e.text); p == nil {
			dns.Servers = append(dns.Servers, a)
		} else if strings.Contains(e.text, ":") { // no name, for wg-quick
			w.failWith(e.pos, p, nil)
		} else if w.take(e.pos, hostName(e.text)) {
			dns.Search = append(dns.Search, e.text)
		}
	}
	if len(dns.Servers) > MaxDNS || len(dns.Search) > MaxDNS {
		w.fail(w.position, "", "there are more than %d name servers or search domains", MaxDNS)
	}
}

func (w *wgQuickReader) hook(list *[]Hook, value string) {
	if len(*list) == MaxHooks {
		w.fail(w.position, "put the commands into a script", "there are more than %d commands of this kind", MaxHooks)
		return
	}
	if w.take(w.position, command(value)) {
		*list = append(*list, Hook{value, w.position})
	}
}

func (w *wgQuickReader) peerEntry(name, value string) {
	p, pos := w.peer, w.position
	switch name {
	case "PublicKey":
		w.unkeyed = false
		p.PublicKeyPos = pos
		w.take(pos, read(&p.PublicKey, parsePublicKey, value))
	case "PresharedKey":
		w.secrets = true
		p.PresharedKeyPos = pos
		w.take(pos, read(&p.PresharedKey, parsePresharedKey, value))
	case "AllowedIPs":
		if value == "" {
			return // wg takes it for none
		}
		for _, e := range w.elements(value, false, MaxAllowedIPs-len(p.AllowedIPs), MaxAllowedIPs) {
			if strings.HasPrefix(e.text, "+") || strings.HasPrefix(e.text, "-") {
				w.fail(e.pos, "write the network alone", "%s: a file states the whole set, so there is nothing to add to or to remove from", quote(e.text))
				continue
			}
			a, prob := parsePrefix(e.text, true)
			if !w.take(e.pos, prob) {
				continue
			}
			if a != a.Masked() { // wg takes it without a word
				w.warn(e.pos, "write "+a.Masked().String(), "%s has bits set behind its prefix length, which mean nothing", quote(e.text))
			}
			p.AllowedIPs = append(p.AllowedIPs, Prefix{a.Masked(), e.pos})
		}
	case "Endpoint":
		if end, prob := parseEndpoint(value); w.take(pos, prob) {
			end.Pos = pos
			p.Endpoints = []Endpoint{end}
		}
	case "PersistentKeepalive":
		p.KeepalivePos = pos
		w.take(pos, read[time.Duration](&p.Keepalive, parseSeconds, value))
	}
}

type element struct {
	text string
	pos  Position
}

// elements splits a list at commas, and at blanks too where wg-quick does so. More than room elements are refused.
func (w *wgQuickReader) elements(value string, atBlanks bool, room, most int) []element {
	var out []element
	column := w.position.Column
	for part := range strings.SplitSeq(value, ",") {
		text := strings.TrimLeft(part, blanks)
		pos := w.position
		pos.Column = column + len(part) - len(text) // blanks are one byte each
		column += utf8.RuneCountInString(part) + 1
		text = strings.TrimRight(text, blanks)
		if text == "" {
			w.fail(pos, "write values with commas between them", "a value is missing here")
			continue
		}
		for text != "" {
			word, rest := text, ""
			if i := strings.IndexAny(text, blanks); atBlanks && i > 0 {
				word, rest = text[:i], strings.TrimLeft(text[i:], blanks)
			}
			if len(out) == room {
				w.fail(pos, "", "there are more than %d values", most)
				return out
			}
			out = append(out, element{word, pos})
			pos.Column += utf8.RuneCountInString(text[:len(text)-len(rest)])
			text = rest
		}
	}
	return out
}
