package uapi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
)

// maxTransaction bounds the bytes of one transaction, and with it the memory that one connection can take: about 250,000
// peers with an endpoint, a preshared key and two allowed IPs.
const maxTransaction = 64 << 20

// zoneIndex returns the index of the interface with that name.
type zoneIndex func(name string) (int, error)

// readChange reads the lines of a transaction behind "set=1", up to and with the empty line at its end. A [RequestError]
// means that all was read, so the client can be answered; any other error that the conversation is over.
func readChange(in *lines, zone zoneIndex) (tunnel.Change, error) {
	t := transaction{zone: zone}
	var failure *RequestError
	size := 0
	for number := 2; ; number++ {
		line, err := in.next()
		if err != nil && err != errLineTooLong {
			t.erase()
			return tunnel.Change{}, fmt.Errorf("reading a transaction: %w", err)
		}
		if err == nil && len(line) == 0 {
			break
		}
		if size += len(line) + 1; err != nil {
			size += maxLine
		}
		switch {
		case size > 2*in.limit:
			// Reading on serves to answer a client that stops by itself; this one doesn't.
			t.erase()
			return tunnel.Change{}, failure.Errno
		case failure != nil:
			continue
		case err != nil:
			failure = &RequestError{Reason: err.Error(), Errno: syscall.EINVAL}
		case size > in.limit:
			failure = &RequestError{Reason: "transaction too large", Errno: syscall.E2BIG}
		default:
			failure = t.line(line)
		}
		if failure != nil {
			failure.Line = number
			t.erase()
			t.change = tunnel.Change{} // may be large
		}
	}
	if failure != nil {
		return tunnel.Change{}, failure
	}
	t.endPeer()
	return t.change, nil
}

// transaction is a change while its lines come in.
type transaction struct {
	zone   zoneIndex
	change tunnel.Change
}

// erase forgets the change's secrets.
func (t *transaction) erase() { eraseKeys(&t.change) }

func eraseKeys(c *tunnel.Change) {
	if c.PrivateKey != nil {
		c.PrivateKey.Zero()
	}
	for i := range c.Peers {
		if k := c.Peers[i].PresharedKey; k != nil {
			k.Zero()
		}
	}
}

// line takes one line in. The errors it returns lack the line's number.
func (t *transaction) line(line []byte) *RequestError {
	key, value, ok := bytes.Cut(line, []byte{'='})
	if !ok {
		return &RequestError{Reason: "not key=value", Errno: syscall.EINVAL}
	}
	parse := t.deviceLine
	if string(key) == "public_key" {
		parse = t.beginPeer
	} else if len(t.change.Peers) > 0 {
		parse = t.peerLine
	}
	switch reason := parse(key, value); reason {
	case "":
		return nil
	case unknownKey:
		return &RequestError{Reason: reason, Errno: syscall.EINVAL}
	default:
		return &RequestError{Key: string(key), Reason: reason, Errno: syscall.EINVAL}
	}
}

// Reasons for refusing a line.
const (
	unknownKey   = "no such key here"
	notTrue      = "not true"
	notHexKey    = "not 64 hexadecimal digits"
	notInRange   = "not a decimal number in range"
	notPrefix    = "not an address with a prefix length"
	notEndpoint  = "not an IP address and port"
	zeroPort     = "port 0"
	unknownZone  = "no such interface for the zone"
	unknownProto = "no such protocol version"
)

// deviceLine and its like return the reason why the line is refused, or "".
func (t *transaction) deviceLine(key, value []byte) string {
	switch c := &t.change; string(key) {
	case "private_key":
		if c.PrivateKey == nil {
			c.PrivateKey = new(crypto.PrivateKey)
		}
		return parseKey(c.PrivateKey[:], value)
	case "listen_port":
		n, ok := parseDecimal(value, 1<<16-1)
		if !ok {
			return notInRange
		}
		c.ListenPort = new(uint16(n))
	case "fwmark":
		n, ok := parseDecimal(value, 1<<32-1)
		if !ok {
			return notInRange
		}
		c.Mark = new(uint32(n))
	case "replace_peers":
		return parseTrue(&c.ReplacePeers, value)
	default:
		return unknownKey
	}
	return ""
}

func (t *transaction) beginPeer(_, value []byte) string {
	t.endPeer()
	t.change.Peers = append(t.change.Peers, tunnel.PeerChange{})
	return parseKey(t.change.Peers[len(t.change.Peers)-1].PublicKey[:], value)
}

// endPeer closes the section of the current peer, if there is one: of a peer to remove only its name counts.
func (t *transaction) endPeer() {
	if len(t.change.Peers) == 0 {
		return
	}
	p := &t.change.Peers[len(t.change.Peers)-1]
	if !p.Remove {
		return
	}
	if p.PresharedKey != nil {
		p.PresharedKey.Zero()
	}
	*p = tunnel.PeerChange{PublicKey: p.PublicKey, Remove: true, UpdateOnly: p.UpdateOnly}
}

func (t *transaction) peerLine(key, value []byte) string {
	switch p := &t.change.Peers[len(t.change.Peers)-1]; string(key) {
	case "remove":
		return parseTrue(&p.Remove, value)
	case "update_only":
		return parseTrue(&p.UpdateOnly, value)
	case "preshared_key":
		if p.PresharedKey == nil {
			p.PresharedKey = new(crypto.PresharedKey)
		}
		return parseKey(p.PresharedKey[:], value)
	case "endpoint":
		endpoint, reason := parseEndpoint(string(value), t.zone)
		if reason != "" {
			return reason
		}
		p.Endpoint = &endpoint
	case "persistent_keepalive_interval":
		n, ok := parseDecimal(value, 1<<16-1)
		if !ok {
			return notInRange
		}
		p.Keepalive = new(time.Duration(n) * time.Second)
	case "replace_allowed_ips":
		// It replaces by those that follow, so what came before it in this section is void.
		p.AllowedIPs = nil
		return parseTrue(&p.ReplaceAllowedIPs, value)
	case "allowed_ip":
		text, remove := bytes.CutPrefix(value, []byte{'-'})
		prefix, err := netip.ParsePrefix(string(text))
		if err != nil {
			return notPrefix
		}
		p.AllowedIPs = append(p.AllowedIPs, tunnel.AllowedIPChange{Prefix: prefix.Masked(), Remove: remove})
	case "protocol_version":
		if string(value) != "1" {
			return unknownProto
		}
	default:
		return unknownKey
	}
	return ""
}

func parseTrue(b *bool, value []byte) string {
	if string(value) != "true" {
		return notTrue
	}
	*b = true
	return ""
}

// parseKey decodes straight into the key: no copy of a secret is left behind in a string.
func parseKey(key, value []byte) string {
	if len(value) != hex.EncodedLen(len(key)) {
		return notHexKey
	}
	if _, err := hex.Decode(key, value); err != nil {
		return notHexKey
	}
	return ""
}

// parseDecimal parses digits and nothing else.
func parseDecimal(value []byte, largest uint64) (n uint64, ok bool) {
	if len(value) == 0 || len(value) > len("4294967295") {
		return 0, false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, n <= largest
}

// parseEndpoint parses a numeric address with a port. The zone of a link-local address may be an interface's name, which is
// what wg sends, or its index; it comes out as the index. Elsewhere a zone means nothing and is dropped.
func parseEndpoint(text string, zone zoneIndex) (e transport.Endpoint, reason string) {
	remote, err := netip.ParseAddrPort(text)
	if err != nil {
		return e, notEndpoint
	}
	if remote.Port() == 0 {
		return e, zeroPort
	}
	addr := remote.Addr().Unmap()
	if name := addr.Zone(); name != "" {
		index := 0
		if addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast() {
			n, err := strconv.ParseUint(name, 10, 31)
			if index = int(n); err != nil {
				index, err = zone(name)
			}
			if err != nil || index <= 0 {
				return e, unknownZone
			}
		}
		addr = addr.WithZone("")
		if index > 0 {
			addr = addr.WithZone(strconv.Itoa(index))
		}
	}
	return transport.Endpoint{Remote: netip.AddrPortFrom(addr, remote.Port())}, ""
}
