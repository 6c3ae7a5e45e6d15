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

// validHost reports whether host is the name of a host (RFC 1123 section 2.1, with underscores) or a domain.
func validHost(host string) bool {
	if host == "" || len(host) > MaxDomain {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
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

// checkEndpoint checks a host:port in the one form a link has it in.
func checkEndpoint(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("an endpoint is not host:port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return errors.New("the port of an endpoint is not 1 to 65535")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return errors.New("an endpoint's address has a zone, which means nothing on another machine")
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
