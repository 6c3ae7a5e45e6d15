package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ValidName reports whether name can be a client's or a group's: 1 to MaxName bytes of letters, digits and "_ . - @ +", as peers'.
func ValidName(name string) bool {
	if name == "" || len(name) > MaxName {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_', c == '.', c == '-', c == '@', c == '+':
		default:
			return false
		}
	}
	return true
}

// validHost reports whether host is the name of a host (RFC 1123 section 2.1, with underscores) or a domain. One whose last label is a number
// is none: it would be taken for an address.
func validHost(host string) bool {
	name := strings.TrimSuffix(host, ".")
	if len(name) > MaxDomain || strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == "" {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return true
}

// checkEndpoint checks a host:port in the one form a link has it in. Configuration files take all that it takes: whoever joins has it in one.
func checkEndpoint(s string) error {
	if len(s) > MaxEndpoint {
		return fmt.Errorf("an endpoint is longer than %d bytes", MaxEndpoint)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("an endpoint is not host:port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return errors.New("the port of an endpoint is not 1 to 65535")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		switch {
		case a.Zone() != "":
			return errors.New("an endpoint's address has a zone, which means nothing on another machine")
		case a.Is4In6():
			return errors.New("an endpoint's address is an IPv4 address in IPv6 form")
		case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return errors.New("an endpoint's address is not that of one host")
		}
		host = a.String()
	} else if !validHost(host) {
		return errors.New("an endpoint's host is neither a name nor an address")
	}
	if again := net.JoinHostPort(host, strconv.Itoa(int(n))); again != s {
		return fmt.Errorf("an endpoint is to be written %s", again)
	}
	return nil
}
