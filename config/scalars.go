package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"culvert/setup/spec"
)

// A scalar is a single value. It fills a field of the type that parse returns, or one its values can be converted to, or a pointer to
// one.
type scalar struct {
	parse   func(y *yamlReader, v value) (x any, ok bool)
	text    string         // in the reference
	several string         // the same of several; "" is as one
	schema  map[string]any // JSON Schema
	// store puts a value where it is not simply set.
	store func(part reflect.Value, x any)
}

func (s scalar) words() string { return s.text }

func (s scalar) read(y *yamlReader, v value, place reflect.Value, _ spot) {
	x, ok := s.parse(y, v)
	switch {
	case !ok:
	case s.store != nil:
		s.store(target(place), x)
	default:
		place = target(place)
		place.Set(reflect.ValueOf(x).Convert(place.Type()))
	}
}

// called gives a form another text for the reference.
func (s scalar) called(text string) scalar {
	s.text = text
	return s
}

// inList gives a form a text for several of it.
func inList(several string, s scalar) scalar {
	s.several = several
	return s
}

// written makes a form of a text.
func written[T any](text string, schema map[string]any, parse func(string) (T, *problem)) scalar {
	return scalar{text: text, schema: schema, parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.text(v)
		if !ok {
			return nil, false
		}
		x, p := parse(s)
		return x, y.take(v.pos, p)
	}}
}

func pattern(p string) map[string]any { return map[string]any{"type": "string", "pattern": p} }

// truth is true or false.
var truth = scalar{text: "`true` or `false`", schema: map[string]any{"type": "boolean"},
	parse: func(y *yamlReader, v value) (any, bool) { b, ok := y.truth(v); return b, ok }}

// whole is a number from least to most, or one of the words, which stand for numbers.
func whole(least, most int64, words ...word) scalar { return wholeBut(least, most, "", words...) }

// wholeBut is whole with an exception that the advice tells of: who checks relations refuses it.
func wholeBut(least, most int64, exception string, words ...word) scalar {
	span := strconv.FormatInt(least, 10) + " to " + strconv.FormatInt(most, 10)
	schema := map[string]any{"type": "integer", "minimum": least, "maximum": most}
	text := span
	var said []string
	for _, w := range words {
		said = append(said, w.text)
		text += ", `" + w.text + "`"
	}
	if said != nil {
		schema = map[string]any{"anyOf": []any{schema, map[string]any{"enum": anys(said)}}}
	}
	return scalar{text: text, schema: schema, parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.number(v, said...)
		if !ok {
			return nil, false
		}
		if i := slices.Index(said, s); i >= 0 {
			return words[i].number, true
		}
		digits, negative := strings.CutPrefix(s, "-")
		u, ok := decimal(digits, 1<<62)
		n := int64(u)
		if negative {
			n = -n
		}
		if !ok || n < least || n > most {
			y.fail(v.pos, "write a whole number from "+span+exception, "%s cannot be %s", v.of, quote(s))
			return nil, false
		}
		return n, true
	}}
}

// A word stands for a number.
type word struct {
	text   string
	number int64
}

// mark is a 32-bit number that may be written in hexadecimal.
var mark = scalar{text: "32-bit number, such as `51820` or `0xca6c`", schema: map[string]any{"type": "integer", "minimum": 0, "maximum": 1<<32 - 1},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.number(v)
		if !ok {
			return nil, false
		}
		n, ok := number32(s)
		if !ok {
			y.fail(v.pos, "write a 32-bit number, such as 51820 or 0xca6c", "%s is not a firewall mark", quote(s))
		}
		return n, ok
	}}

// account is a user or a group, by number: names would have to be looked up on a machine.
func account(what, option string) scalar {
	s := whole(0, 1<<32-2).called("number of a " + what)
	number := s.parse
	s.parse = func(y *yamlReader, v value) (any, bool) {
		if _, is := v.node.(*ast.StringNode); is {
			y.fail(v.pos, "write the number that id "+option+" NAME prints", "%s must be a whole number, but is %s", v.of, spell(v.node))
			return nil, false
		}
		return number(y, v)
	}
	return s
}

// permissions are those of a file, in octal.
var permissions = scalar{text: "permissions in octal, such as `0660`", schema: map[string]any{"anyOf": []any{
	map[string]any{"type": "integer", "minimum": 0, "maximum": 777}, pattern("^(0|0o)?[0-7]{3}$")}},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		digits := strings.TrimPrefix(strings.TrimPrefix(s, "0"), "o")
		n, err := strconv.ParseUint(digits, 8, 32)
		if err != nil || len(digits) != 3 {
			y.fail(v.pos, "write three octal digits, such as 0660", "%s are no permissions", quote(s))
			return nil, false
		}
		return n, true
	}}

// choice is one of several words.
func choice(words ...string) scalar {
	return written("`"+strings.Join(words, "`, `")+"`", map[string]any{"enum": anys(words)}, func(s string) (string, *problem) {
		if slices.Contains(words, s) {
			return s, nil
		}
		hint := "write " + alternatives(words)
		if near := suggest(s, words); near != "" {
			hint = fmt.Sprintf("did you mean %q? It is one of %s", near, strings.Join(words, ", "))
		}
		return "", wrong(hint, "%s is not known here", quote(s))
	})
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, x := range list {
		out[i] = x
	}
	return out
}

// family is that of addresses.
var family = scalar{text: "`ipv4` or `ipv6`", schema: map[string]any{"enum": []any{"ipv4", "ipv6"}},
	parse: func(y *yamlReader, v value) (any, bool) {
		switch s, ok := y.text(v); {
		case !ok:
			return nil, false
		case s == "ipv4":
			return 4, true
		case s == "ipv6":
			return 6, true
		default:
			y.fail(v.pos, "write ipv4 or ipv6", "%s is not a family of addresses", quote(s))
			return nil, false
		}
	}}

const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`

// span is a time from least to most, a multiple of step.
func span(least, most, step time.Duration) scalar {
	text := fmt.Sprintf("%s to %s", short(least), short(most))
	if step > time.Millisecond {
		text += " in steps of " + short(step)
	}
	return scalar{text: "time, " + text, schema: map[string]any{"anyOf": []any{pattern(durationPattern), map[string]any{"const": 0}}},
		parse: func(y *yamlReader, v value) (any, bool) {
			s, ok := y.numberOrText(v)
			if !ok {
				return nil, false
			}
			hint := "write a number with its unit, from " + text
			if _, bare := decimal(s, 1<<62); bare && s != "0" {
				y.fail(v.pos, hint, "%s has no unit; a duration was expected", quote(s))
				return nil, false
			}
			d, err := time.ParseDuration(s)
			switch {
			case err != nil:
				y.fail(v.pos, hint, "%s is not a duration", quote(s))
			case d < least || d > most:
				y.fail(v.pos, hint, "%s cannot be %s", v.of, quote(s))
			case d%step != 0:
				y.fail(v.pos, hint, "%s cannot be %s, which is no multiple of %s", v.of, quote(s), short(step))
			default:
				return d, true
			}
			return nil, false
		}}
}

// short writes a duration without the zeros that [time.Duration.String] ends in.
func short(d time.Duration) string {
	s := d.String()
	if d == 0 {
		return "0"
	}
	for _, zeros := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zeros) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// rate is one of bits per second.
var rate = scalar{text: "rate",
	schema: pattern(`^[0-9]+(\.[0-9]+)?([tgmkTGMK][iI]?)?([bB][iI][tT]|[bB][pP][sS])$`),
	parse: func(y *yamlReader, v value) (any, bool) {
		const hint = "write a number with its unit, such as 8mbit or 500kbit"
		if n, is := v.node.(*ast.IntegerNode); is {
			y.fail(v.pos, hint, "%s has no unit; a rate was expected", quote(n.GetToken().Value))
			return nil, false
		}
		s, ok := y.text(v)
		if !ok {
			return nil, false
		}
		r, err := spec.ParseBitRate(s)
		switch {
		case err != nil || r == 0:
			y.fail(v.pos, hint, "%s is not a rate", quote(s))
		case r > maxBitRate:
			y.fail(v.pos, "write at most "+maxBitRate.String(), "the rate %s is too large", quote(s))
		default:
			return r, true
		}
		return nil, false
	}}

const maxBitRate = 10_000_000_000_000 * spec.BitRate(1)

// size is a number of bytes.
var size = scalar{text: "size", schema: map[string]any{"anyOf": []any{
	map[string]any{"type": "integer", "minimum": 1, "maximum": 1<<32 - 1}, pattern(`^[0-9]+(\.[0-9]+)?[kmgKMG]?[bB]?$`)}},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		n, err := spec.ParseSize(s)
		switch {
		case err != nil || n == 0:
			y.fail(v.pos, "write a number of bytes, such as 1600, 10k or 2m", "%s is not a size", quote(s))
		case n > 1<<32-1:
			y.fail(v.pos, "write at most 4294967295 bytes", "the size %s is too large", quote(s))
		default:
			return n, true
		}
		return nil, false
	}}

const macPattern = `^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}$`

// station is the MAC address of one interface.
var station = inList("MAC addresses", written("MAC address, such as `\"02:00:00:00:00:01\"`", pattern(macPattern), func(s string) (spec.MAC, *problem) {
	m, p := parseMAC(s)
	return spec.MAC(m), p
}))

// hostPrefix is an address of an interface with its network's length.
var hostPrefix = written("address with prefix length, such as `10.0.0.1/24`", pattern(`^[0-9A-Fa-f:.]+/[0-9]{1,3}$`),
	func(s string) (netip.Prefix, *problem) {
		p, prob := parsePrefix(s, false)
		if prob == nil && (p.Addr().IsUnspecified() || p.Addr().IsMulticast()) {
			prob = wrong("write the address of the interface", "%s is no address of a host", quote(s))
		}
		return p, prob
	})

// network is a prefix without host part, or a single address.
func network(words ...string) scalar {
	schema := pattern(`^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`)
	text := "network such as `10.0.0.0/8`, or an address"
	if words != nil {
		schema = map[string]any{"anyOf": []any{schema, map[string]any{"enum": anys(words)}}}
		text += "; `default` is `0.0.0.0/0`"
	}
	out := written(text, schema, func(s string) (netip.Prefix, *problem) {
		if slices.Contains(words, s) { // only "default"
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
		}
		p, prob := parsePrefix(s, true)
		if prob == nil && p != p.Masked() {
			prob = wrong("write "+p.Masked().String(), "%s has bits set behind its prefix length", quote(s))
		}
		return p, prob
	})
	return inList("networks", out)
}

// host is an address of the family, 4 or 6; 0 takes both.
func host(family int) scalar {
	what, example, schema := "IP", "10.0.0.1 or fe80::1", `^[0-9A-Fa-f:.]+$`
	switch family {
	case 4:
		what, example, schema = "IPv4", "10.0.0.1", `^[0-9]+(\.[0-9]+){3}$`
	case 6:
		what, example, schema = "IPv6", "fe80::1", `^[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*$`
	}
	s := written(what+" address", pattern(schema), func(s string) (netip.Addr, *problem) {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil || family == 4 && !a.Is4() || family == 6 && !a.Is6():
			return netip.Addr{}, wrong("write one such as "+example, "%s is not an %s address", quote(s), what)
		case a.Zone() != "":
			return netip.Addr{}, wrong("leave out %"+a.Zone(), "%s has a zone, which has no meaning here", quote(s))
		case a.Is4In6():
			return netip.Addr{}, wrong("write "+a.Unmap().String(), "%s is an IPv4 address in IPv6 form", quote(s))
		case a.IsUnspecified() || a.IsMulticast():
			return netip.Addr{}, wrong("write one such as "+example, "%s is not the address of one host", quote(s))
		}
		return a, nil
	})
	return inList(what+" addresses", s)
}

// named is the name of a link, a namespace or a device.
func named(text string, check func(string) *problem, longest int) scalar {
	s := written(text, map[string]any{"type": "string", "pattern": namePattern, "minLength": 1, "maxLength": longest},
		func(s string) (string, *problem) { return s, check(s) })
	return s
}

const namePattern = `^[A-Za-z0-9_=+.-]+$`

// Longest names in bytes. What a device is called is bounded by the kernel besides (15).
const (
	maxLinkKey   = 64
	maxNetnsName = 128
)

// linkKey checks what a link is called in the file. Whether a device can have that name is found out where it is used as one.
func linkKey(s string) *problem { return plainName("link", s, maxLinkKey) }

// netnsName checks the name of a namespace, which is that of a file in /run/netns.
func netnsName(s string) *problem { return plainName("namespace", s, maxNetnsName) }

func plainName(what, s string, longest int) *problem {
	rule := fmt.Sprintf("use 1 to %d of the characters A-Z a-z 0-9 _ = + . -", longest)
	switch {
	case s == "" || len(s) > longest:
		return wrong(rule, "%s cannot be the name of a %s", quote(s), what)
	case s == "." || s == "..":
		return wrong("choose another name", "%s cannot be the name of a %s", quote(s), what)
	case s[0] == '-':
		return wrong("let it begin with another character", "the name %s begins with '-' and would be taken for an option", quote(s))
	}
	for _, r := range s {
		if !nameRune(r) {
			return wrong(rule, "the name %s contains %q", quote(s), r)
		}
	}
	return nil
}

var (
	linkRef  = named("link", linkKey, maxLinkKey)
	netnsRef = named("name of a declared namespace", netnsName, maxNetnsName)
)

// line is text that is handed on as one argument.
var line = inList("texts", written("text", map[string]any{"type": "string", "minLength": 1, "maxLength": maxArgument}, func(s string) (string, *problem) {
	switch {
	case s == "" || len(s) > maxArgument:
		return "", wrong(fmt.Sprintf("write 1 to %d bytes", maxArgument), "the text is %d bytes long", len(s))
	case strings.ContainsFunc(s, unprintable):
		return "", wrong("write it without tabs and line breaks", "the text %s holds characters that cannot be printed", quote(s))
	}
	return s, nil
}))

const maxArgument = 255 // bytes of one argument of a program

// absolutePath is a file's.
func absolutePath(longest int) scalar {
	return written(fmt.Sprintf("absolute path, at most %d bytes", longest), map[string]any{"type": "string", "pattern": "^/", "maxLength": longest},
		func(s string) (string, *problem) { return s, absolute(s, longest) })
}

// absolute checks the path of a file.
func absolute(s string, longest int) *problem {
	switch {
	case !strings.HasPrefix(s, "/"):
		return wrong("begin it with a /", "%s is not an absolute path", quote(s))
	case len(s) > longest:
		return wrong(fmt.Sprintf("choose one of at most %d bytes", longest), "the path %s is %d bytes long", quote(s), len(s))
	case strings.ContainsFunc(s, unprintable) || slices.Contains(strings.Split(s, "/"), ".."):
		return wrong("write it without .. and without characters that cannot be printed", "%s is not a path that culvert uses", quote(s))
	case strings.HasSuffix(s, "/"):
		return wrong("name a file", "%s is a folder", quote(s))
	}
	return nil
}
