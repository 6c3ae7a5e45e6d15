package config

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"culvert/crypto"
)

// The values both formats share. Each parser takes a trimmed text and returns the value, or what is wrong with it.

// tunnelName checks a device name: what the kernel takes (15 bytes, no '/', no ':', no white space), narrowed to the
// characters that wg-quick takes, since %i puts the name into shell commands.
func tunnelName(s string) *problem {
	const rule = "use 1 to 15 of the characters A-Z a-z 0-9 _ = + . -"
	switch {
	case s == "":
		return wrong(rule, "the tunnel has an empty name")
	case len(s) > 15:
		return wrong(rule, "the tunnel's name %s is %d bytes long; Linux takes at most 15", quote(s), len(s))
	case strings.ContainsRune(s, '/'):
		return wrong(rule, "the tunnel's name %s contains a '/'", quote(s))
	case strings.ContainsFunc(s, unicode.IsSpace):
		return wrong(rule, "the tunnel's name %s contains white space", quote(s))
	case s == "." || s == ".." || s == "all" || s == "default":
		return wrong("choose another name", "the tunnel's name %s is reserved by the kernel", quote(s))
	case s[0] == '-':
		return wrong("let it begin with another character", "the tunnel's name %s begins with '-' and would be taken for an option", quote(s))
	}
	for _, r := range s {
		if !nameRune(r) {
			return wrong(rule, "the tunnel's name %s contains %q", quote(s), r)
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_=+.-", r)
}

// parseNice reads a nice value.
func parseNice(s string) (*int, *problem) {
	n, err := strconv.Atoi(s)
	if err != nil || n < MinNice || n > MaxNice {
		return nil, wrong("use a number from -20, the most of the processor, to 19", "%s is no nice value", quote(s))
	}
	return &n, nil
}

// parseConfine reads what a daemon gives up. "confine: false" is no text, and read elsewhere.
func parseConfine(s string) (Confine, *problem) {
	switch s {
	case "auto":
		return ConfineByItself, nil
	case "files":
		return ConfineFiles, nil
	}
	return "", wrong("use auto, files or false", "%s is not what a daemon can give up", quote(s))
}

// instanceName checks an instance's name, which becomes part of paths below /run/culvert and /var/lib/culvert.
func instanceName(s string) *problem {
	const rule = "use 1 to 64 of the characters A-Z a-z 0-9 _ = + . -, beginning with a letter, a digit or _"
	if s == "" || len(s) > 64 || strings.ContainsRune("=+.-", rune(s[0])) {
		return wrong(rule, "%s cannot be an instance's name", quote(s))
	}
	for _, r := range s {
		if !nameRune(r) {
			return wrong(rule, "the instance's name %s contains %q", quote(s), r)
		}
	}
	return nil
}

// peerName checks a peer's name, which only people read.
func peerName(s string) *problem {
	const rule = "use 1 to 64 bytes of letters, digits and _ . - @ +"
	if s == "" || len(s) > 64 || !utf8.ValidString(s) {
		return wrong(rule, "%s cannot be a peer's name", quote(s))
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_.-@+", r) {
			return wrong(rule, "the peer's name %s contains %q", quote(s), r)
		}
	}
	return nil
}

// decimal reads an unsigned decimal number without signs, spaces or leading zeros.
func decimal(s string, most uint64) (uint64, bool) {
	if s == "" || len(s) > 1 && s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= most
}

// number32 reads a decimal or 0x-hexadecimal 32-bit number.
func number32(s string) (uint32, bool) {
	if hex, ok := cutHex(s); ok {
		n, err := strconv.ParseUint(hex, 16, 32)
		return uint32(n), err == nil && strings.Trim(hex, "0123456789abcdefABCDEF") == ""
	}
	n, ok := decimal(s, 1<<32-1)
	return uint32(n), ok
}

func cutHex(s string) (string, bool) {
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		return hex, true
	}
	return strings.CutPrefix(s, "0X")
}

func parsePort(s string) (uint16, *problem) {
	n, ok := decimal(s, 65535)
	if !ok {
		return 0, wrong("write a UDP port from 1 to 65535, or 0 to let the kernel pick one", "%s is not a port", quote(s))
	}
	return uint16(n), nil
}

func parseFwMark(s string) (FwMark, *problem) {
	switch s {
	case "auto":
		return FwMark{}, nil
	case "off":
		return FwMark{Set: true}, nil
	}
	n, ok := number32(s)
	if !ok {
		return FwMark{}, wrong("write a 32-bit number (51820, 0xca6c), off or auto", "%s is not a firewall mark", quote(s))
	}
	return FwMark{Set: true, Value: n}, nil
}

func parseTable(s string) (Table, *problem) {
	switch s {
	case "auto":
		return Table{}, nil
	case "off":
		return Table{Off: true}, nil
	case "main":
		return Table{Number: 254}, nil
	case "default":
		return Table{Number: 253}, nil
	}
	n, ok := number32(s)
	if !ok || n == 0 {
		return Table{}, wrong("write a table number from 1 to 4294967295, main, off or auto", "%s is not a routing table", quote(s))
	}
	return Table{Number: n}, nil
}

func parseMode(s string) (Mode, *problem) {
	switch m := Mode(s); m {
	case ModeTun, ModeTap:
		return m, nil
	}
	return "", wrong("write tun (IP packets) or tap (Ethernet frames)", "%s is not a tunnel's mode", quote(s))
}

func parseWire(s string) (Wire, *problem) {
	switch w := Wire(s); w {
	case WireCulvert, WireWireGuard:
		return w, nil
	}
	return "", wrong("write culvert for peers that run culvert, wireguard for others", "%s is not a wire", quote(s))
}

const minMTU, maxMTU = 576, 65535

func parseMTU(s string) (int, *problem) {
	if s == "auto" {
		return 0, nil
	}
	n, ok := decimal(s, maxMTU)
	if !ok || n < minMTU {
		return 0, wrong("write auto, or bytes from 576 (the least every IPv4 host takes; IPv6 needs 1280) to 65535, with mode: tap to 65513",
			"%s is not an MTU for a tunnel", quote(s))
	}
	return int(n), nil
}

// maxKeepalive is what WireGuard's 16-bit count of seconds holds.
const maxKeepalive = 65535 * time.Second

// parseSeconds reads wg's form of the keepalive: whole seconds without a unit.
func parseSeconds(s string) (time.Duration, *problem) {
	if s == "off" {
		return 0, nil
	}
	n, ok := decimal(s, 65535)
	if !ok {
		return 0, wrong("write seconds from 1 to 65535, or off", "%s is not a keepalive interval", quote(s))
	}
	return time.Duration(n) * time.Second, nil
}

// parseDuration reads YAML's form of the keepalive: a number with a unit.
func parseDuration(s string) (time.Duration, *problem) {
	const rule = "write whole seconds with their unit, such as 25s, up to 65535s, or off"
	if s == "off" || s == "0" {
		return 0, nil
	}
	if _, ok := decimal(s, 65535); ok {
		return 0, wrong("write "+s+"s", "%s has no unit; a duration was expected", quote(s))
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, wrong(rule, "%s is not a duration", quote(s))
	case d < 0 || d > maxKeepalive || d%time.Second != 0:
		return 0, wrong(rule, "a keepalive interval of %s is not possible", quote(s))
	}
	return d, nil
}

// parseAddress reads a tunnel's own address with its prefix length; bare makes a missing length that of a single host.
func parseAddress(s string, bare bool) (netip.Prefix, *problem) {
	p, prob := parsePrefix(s, bare)
	if prob != nil {
		return netip.Prefix{}, prob
	}
	switch a := p.Addr(); {
	case a.IsUnspecified():
		return netip.Prefix{}, wrong("write the address this end has in the tunnel", "%s is no address of a host", quote(s))
	case a.IsMulticast():
		return netip.Prefix{}, wrong("write the address this end has in the tunnel", "%s is a multicast address", quote(s))
	case a.IsLoopback():
		return netip.Prefix{}, wrong("write the address this end has in the tunnel", "%s is a loopback address", quote(s))
	}
	return p, nil
}

func parsePrefix(s string, bare bool) (netip.Prefix, *problem) {
	host, bits, slash := strings.Cut(s, "/")
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, wrong("write an IPv4 or IPv6 address with a prefix length, such as 10.0.0.1/24 or fd00::1/64",
			"%s is not an IP address", quote(s))
	}
	if a.Zone() != "" {
		return netip.Prefix{}, wrong("leave out %"+a.Zone(), "%s has a zone, which has no meaning here", quote(s))
	}
	if a.Is4In6() {
		return netip.Prefix{}, wrong("write "+a.Unmap().String(), "%s is an IPv4 address in IPv6 form", quote(s))
	}
	if !slash {
		if !bare {
			return netip.Prefix{}, wrong("add the network's prefix length, or "+netip.PrefixFrom(a, a.BitLen()).String()+" for the address alone",
				"%s has no prefix length", quote(s))
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, ok := decimal(bits, uint64(a.BitLen()))
	if !ok {
		return netip.Prefix{}, wrong("write 0 to "+strconv.Itoa(a.BitLen())+" behind the slash", "%s has no valid prefix length", quote(s))
	}
	return netip.PrefixFrom(a, int(n)), nil
}

func parseServer(s string) (netip.Addr, *problem) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
		return netip.Addr{}, wrong("write the IP address of a name server", "%s is not a name server's address", quote(s))
	}
	return a, nil
}

// hostName checks a DNS name's form (RFC 1123 section 2.1, with the underscore that is found in practice).
func hostName(s string) *problem {
	const rule = "write a name of letters, digits, - and . (RFC 1123), at most 253 bytes; international names in their xn-- form"
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 253 {
		return wrong(rule, "%s is not a host name", quote(s))
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return wrong(rule, "%s is not a host name", quote(s))
		}
		for _, r := range label {
			if r != '-' && r != '_' && !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
				return wrong(rule, "%s is not a host name: it contains %q", quote(s), r)
			}
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return wrong("write four numbers from 0 to 255, or a name", "%s is not an IPv4 address", quote(s))
	}
	return nil
}

// parseEndpoint reads host:port or [address]:port without resolving anything.
func parseEndpoint(s string) (Endpoint, *problem) {
	const rule = "write host:port, such as vpn.example.net:51820, 192.0.2.1:51820 or [2001:db8::1]:51820"
	var host, port string
	if rest, ok := strings.CutPrefix(s, "["); ok {
		h, p, ok := strings.Cut(rest, "]:")
		if !ok {
			return Endpoint{}, wrong(rule, "%s is not an endpoint", quote(s))
		}
		a, err := netip.ParseAddr(h)
		if err != nil || !a.Is6() {
			return Endpoint{}, wrong(rule, "the endpoint %s holds no IPv6 address within the brackets", quote(s))
		}
		host, port = h, p
	} else {
		i := strings.LastIndexByte(s, ':')
		switch {
		case i < 0:
			return Endpoint{}, wrong(rule, "the endpoint %s has no port", quote(s))
		case strings.Contains(s[:i], ":"):
			return Endpoint{}, wrong(rule, "the endpoint %s looks like an IPv6 address without brackets", quote(s))
		}
		host, port = s[:i], s[i+1:]
	}
	n, ok := decimal(port, 65535)
	if !ok || n == 0 {
		return Endpoint{}, wrong("write a UDP port from 1 to 65535 behind the colon", "the endpoint %s has no valid port", quote(s))
	}
	if a, err := netip.ParseAddr(host); err == nil {
		switch {
		case a.Is4In6():
			return Endpoint{}, wrong("write "+a.Unmap().String(), "the endpoint %s is an IPv4 address in IPv6 form", quote(s))
		case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return Endpoint{}, wrong("write the peer's own address", "the endpoint %s is not the address of one host", quote(s))
		}
		host = a.String()
	} else if prob := hostName(host); prob != nil {
		return Endpoint{}, prob
	}
	return Endpoint{Host: host, Port: uint16(n)}, nil
}

// command checks a hook's text.
// argument is the path of a program, or one of its arguments.
func argument(s string, program bool) *problem {
	switch {
	case program && !strings.HasPrefix(s, "/"):
		return wrong("write its full path: nothing is looked for in PATH, and no shell takes a command line apart", "a program is named by its path")
	case len(s) > MaxHookSize:
		return wrong("put it into a file", "the argument is longer than %d bytes", MaxHookSize)
	case strings.Contains(s, "\x00"):
		return wrong("", "the argument has a zero byte in it")
	}
	return nil
}

func command(s string) *problem {
	switch {
	case s == "":
		return wrong("write a shell command, or leave the line out", "the command is empty")
	case len(s) > MaxHookSize:
		return wrong("put it into a script", "the command is longer than %d bytes", MaxHookSize)
	case strings.ContainsAny(s, "\n\r\x00"):
		return wrong("write one line per command, or put it into a script", "the command has several lines")
	}
	return nil
}

const keyForm = "write 44 characters of base64, as culvert genkey, pubkey and genpsk print them"

// notKey says what is wrong with a key without quoting it.
func notKey(what, s string) *problem {
	if n := utf8.RuneCountInString(s); n != 44 {
		return wrong(keyForm, "this is not a %s: it has %d characters where a key has 44", what, n)
	}
	return wrong(keyForm, "this is not a %s: it is not the base64 form of 32 bytes", what)
}

func parsePublicKey(s string) (crypto.PublicKey, *problem) {
	k, err := crypto.ParsePublicKey(s)
	if err != nil {
		return k, notKey("public key", s)
	}
	if k.IsZero() {
		return k, wrong("put the peer's public key here", "the public key is all zeros")
	}
	return k, nil
}

func parsePrivateKey(s string) (crypto.PrivateKey, *problem) {
	k, err := crypto.ParsePrivateKey(s)
	if err != nil {
		return k, notKey("private key", s)
	}
	if k.IsZero() {
		return k, wrong("make one with culvert genkey", "the private key is all zeros")
	}
	return k, nil
}

// parsePresharedKey takes the zero key as wg does: it stands for none.
func parsePresharedKey(s string) (crypto.PresharedKey, *problem) {
	k, err := crypto.ParsePresharedKey(s)
	if err != nil {
		return k, notKey("preshared key", s)
	}
	return k, nil
}
