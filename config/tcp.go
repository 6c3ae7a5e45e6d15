package config

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// TCP is where a tunnel accepts TCP connections of peers that UDP does not reach. The zero value is nowhere.
type TCP struct {
	Listen netip.AddrPort // an unspecified address is all of the host's
	Pos    Position       // the zero Position where it is not given

	// Certificate is shown to those who connect; without one the tunnel makes its own.
	Certificate     *tls.Certificate
	CertificateFile string // as named in the configuration
	KeyFile         string
}

// MaxCertificateFile bounds a certificate file, in bytes: a chain of several certificates.
const MaxCertificateFile = 64 << 10

// parseTCPListen reads a port, or address:port.
func parseTCPListen(s string) (netip.AddrPort, *problem) {
	const rule = "write a TCP port from 1 to 65535, or an address and a port, such as 192.0.2.1:443 or [2001:db8::1]:443"
	if n, ok := decimal(s, 65535); ok && n > 0 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n)), nil
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil || at.Port() == 0 {
		return netip.AddrPort{}, wrong(rule, "%s is no place to listen", quote(s))
	}
	if a := at.Addr(); a.Is4In6() || a.Zone() != "" || a.IsMulticast() {
		return netip.AddrPort{}, wrong(rule, "%s is not the address of one host", quote(a.String()))
	}
	return at, nil
}

// tcp reads a tunnel's tcp: a port, an address and a port, or a mapping with a certificate.
func (y *yamlReader) tcp(e entry) TCP {
	t := TCP{Pos: e.value.pos}
	if _, ok := e.value.node.(*ast.MappingNode); !ok {
		if s, ok := y.numberOrText(e.value); ok {
			y.take(e.value.pos, read(&t.Listen, parseTCPListen, s))
		}
		return t
	}
	var certificate, key string
	var certificatePos, keyPos Position
	ok := y.fields(e.value, "tcp",
		field{"listen", func(e entry) {
			if s, ok := y.numberOrText(e.value); ok {
				y.take(e.value.pos, read(&t.Listen, parseTCPListen, s))
			}
		}},
		field{"certificate_file", func(e entry) {
			certificatePos = e.value.pos
			certificate, _ = y.certificateFile(e, &t.CertificateFile)
		}},
		field{"key_file", func(e entry) {
			keyPos = e.value.pos
			key, _ = y.keyFile(e, &t.KeyFile)
		}},
	)
	switch {
	case !ok:
	case t.Listen == netip.AddrPort{} && !y.complainedIn(e.value.pos):
		y.fail(e.pos, "add listen: 443", "tcp does not say where to listen")
	case certificatePos != Position{} && keyPos == Position{}:
		y.fail(certificatePos, "add key_file", "the certificate has no key")
	case certificatePos == Position{} && keyPos != Position{}:
		y.fail(keyPos, "add certificate_file", "the key has no certificate")
	case certificate != "" && key != "":
		c, err := tls.X509KeyPair([]byte(certificate), []byte(key))
		if err != nil {
			y.fail(certificatePos, "name files in PEM format: the certificate with its chain, and the key of its first certificate",
				"the certificate and its key cannot be used: %s", hideKeys(strings.TrimPrefix(err.Error(), "tls: ")))
			break
		}
		t.Certificate = &c
	}
	return t
}

// certificateFile reads the certificate that e names, which is no secret.
func (y *yamlReader) certificateFile(e entry, name *string) (string, bool) {
	s, ok := y.text(e.value)
	if !ok {
		return "", false
	}
	if s == "" || strings.ContainsFunc(s, unprintable) {
		y.fail(e.value.pos, "write the path of a file that holds the certificate", "%s is not a file's name", quote(s))
		return "", false
	}
	*name = s
	path, prob := y.located(s)
	if prob != nil {
		y.failWith(e.value.pos, prob, nil)
		return "", false
	}
	text, prob, err := y.public(path)
	if prob != nil {
		y.failWith(e.value.pos, prob, err)
		return "", false
	}
	return string(bytes.TrimSpace(text)), true
}

// peerTCP reads a peer's tcp: a port at the hosts of its endpoints, or host:port.
func (y *yamlReader) peerTCP(e entry, p *Peer) {
	p.TCPPos = e.value.pos
	s, ok := y.numberOrText(e.value)
	if !ok {
		return
	}
	if n, ok := decimal(s, 65535); ok {
		if n == 0 {
			y.fail(e.value.pos, "write the TCP port the peer listens on, such as 443", "there is no port 0")
			return
		}
		p.TCPText = fmt.Sprint(n)
		return
	}
	end, prob := parseEndpoint(s)
	if prob != nil {
		prob = wrong("write a port, such as 443, or host:port, such as vpn.example.net:443", "%s", strings.ReplaceAll(prob.message, "endpoint", "place"))
	}
	if y.take(e.value.pos, prob) {
		end.Pos = e.value.pos
		p.TCPText, p.TCP = end.String(), []Endpoint{end}
	}
}

// completeTCP finds the hosts of a peer whose tcp is a port alone: its endpoints' are known now.
func (p *Peer) completeTCP() {
	n, ok := decimal(p.TCPText, 65535)
	if !ok {
		return
	}
	for _, e := range p.Endpoints {
		e.Port, e.Pos = uint16(n), p.TCPPos
		if !slices.ContainsFunc(p.TCP, func(o Endpoint) bool { return o.Host == e.Host }) {
			p.TCP = append(p.TCP, e)
		}
	}
}

// relateTCP checks what tcp goes with.
func (r *report) relateTCP(t *Tunnel) {
	native := len(t.Peers) == 0 && t.Wire == WireCulvert
	for i := range t.Peers {
		p := &t.Peers[i]
		native = native || p.Wire == WireCulvert
		if p.TCPPos == (Position{}) {
			continue
		}
		switch {
		case p.Wire == WireWireGuard:
			r.fail(p.TCPPos, `take it out, or write "wire: culvert" if the peer runs culvert`, "peer %s speaks the wireguard wire, which goes over UDP alone", hideKeys(p.Name))
		case p.TCPText != "" && len(p.Endpoints) == 0:
			r.fail(p.TCPPos, "add endpoints: TCP is tried where UDP to them fails", "peer %s has no endpoints", hideKeys(p.Name))
		}
	}
	if t.TCP.Pos != (Position{}) && !native {
		r.fail(t.TCP.Pos, `take it out, or write "wire: culvert" for peers that run culvert`, "no peer of the tunnel can use TCP: the wireguard wire goes over UDP alone")
	}
}
