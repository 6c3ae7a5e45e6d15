package model

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// aliasPrefix starts the alias of every link of the setup layer; instance, ID without its kind, and hash follow, each behind a colon.
// A device name has no colon, an instance's neither.
const aliasPrefix = "culvert:"

// Alias returns the text of the mark for a link's alias, at most 255 bytes (IFALIASZ).
func (m Mark) Alias() string {
	return aliasPrefix + m.Instance + ":" + string(m.ID) + ":" + m.Hash
}

// ParseMark reads an alias; false where it is no mark.
func ParseMark(alias string) (Mark, bool) {
	rest, ok := strings.CutPrefix(alias, aliasPrefix)
	if !ok {
		return Mark{}, false
	}
	instance, rest, ok := strings.Cut(rest, ":")
	last := strings.LastIndexByte(rest, ':')
	if !ok || last < 0 || instance == "" {
		return Mark{}, false
	}
	id, hash := ID(rest[:last]), rest[last+1:]
	if k := id.Kind(); k != KindLink && k != KindNetns || id.Rest() == "" || len(hash) != hashDigits {
		return Mark{}, false
	}
	return Mark{instance, id, hash}, true
}

const hashDigits = 16

// Hash is the same for the same ID with the same fields, whatever the process and the order they were declared in: the first 8 bytes
// of the SHA-256 of the ID and each field's name and value, each ended by a zero byte, the names in order.
func (i *Item) Hash() string {
	h := sha256.New()
	put := func(s string) { h.Write([]byte(s)); h.Write([]byte{0}) }
	put(string(i.ID))
	for _, f := range slices.Sorted(maps.Keys(i.Fields)) {
		put(string(f))
		put(string(i.Fields[f]))
	}
	return hex.EncodeToString(h.Sum(nil))[:hashDigits]
}

// KernelMade reports whether a device of that name comes with a namespace: the loopback device and the fallback tunnels of
// drivers that are loaded.
func KernelMade(name string) bool {
	switch name {
	case "lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0":
		return true
	}
	return false
}
