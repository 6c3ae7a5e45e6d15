// Package reloadplan tells what a changed file changes of the instance and the tunnels that run, and what that interrupts. It compares
// configurations and does nothing: `culvert reload --dry-run` shows what it says.
//
// It walks the configuration's own types, so that a setting that is added to them is compared without being named here. Keys are never
// shown, only that they are others.
package reloadplan

import (
	"crypto/tls"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"culvert/config"
	"culvert/control"
	"culvert/setup/spec"
)

// Verdicts, as those of a plan.
const (
	Create = "create"
	Change = "change"
	Delete = "delete"
)

// interrupts is what a change of a setting interrupts, by the names of the file.
var interrupts = map[string]string{
	"private_key": "all its sessions end and are made anew",
	"listen":      "datagrams under way to the old port are lost",
	"hooks":       "counts from the next start and stop on",
	"fwmark":      "the rules of its default routes are made anew",
}

// peerInterrupts is that of a peer's settings.
var peerInterrupts = map[string]string{
	"wire":          "its session ends and is made anew",
	"preshared_key": "counts from the next handshake on",
	"public_key":    "its session ends, another begins",
	"access":        "what is not allowed any more ends",
	"vlans":         "addresses learned behind it are learned anew",
}

// whole are the settings of an instance that a reload applies, beside its tunnels and the network around them. nice and confine count from
// the next start on.
type whole struct {
	Monitor config.Monitor
	On      []config.On
}

// Of lists what becomes of an instance and its tunnels by the change of one file to another.
func Of(from, to *config.File) (list []control.ReloadChange) {
	for _, c := range settings(reflect.ValueOf(whole{from.Monitor, from.On}), reflect.ValueOf(whole{to.Monitor, to.On})) {
		if c.Old != "" && (c.Setting == "monitor.metrics" || c.Setting == "monitor.page") {
			c.Interrupts = "connections to the old place end"
		}
		list = append(list, c)
	}
	for i := range from.Tunnels {
		if to.Tunnel(from.Tunnels[i].Name) == nil {
			list = append(list, control.ReloadChange{Verdict: Delete, Tunnel: from.Tunnels[i].Name, Interrupts: "all its sessions end"})
		}
	}
	for i := range to.Tunnels {
		t := &to.Tunnels[i]
		old := from.Tunnel(t.Name)
		if old == nil {
			list = append(list, control.ReloadChange{Verdict: Create, Tunnel: t.Name})
			continue
		}
		list = append(list, tunnel(old, t)...)
	}
	return list
}

func tunnel(from, to *config.Tunnel) (list []control.ReloadChange) {
	a, b := *from, *to
	a.Peers, b.Peers = nil, nil
	for _, c := range settings(reflect.ValueOf(a), reflect.ValueOf(b)) {
		c.Tunnel, c.Interrupts = to.Name, interrupts[first(c.Setting)]
		list = append(list, c)
	}
	peer := func(verdict string, p *config.Peer) control.ReloadChange {
		return control.ReloadChange{Verdict: verdict, Tunnel: to.Name, Peer: p.Name, PublicKey: p.PublicKey.Base64()}
	}
	// A peer is who it is by its key; where the key of a name has changed, it is another one.
	keyed := func(peers []config.Peer, key string) *config.Peer {
		if i := slices.IndexFunc(peers, func(p config.Peer) bool { return p.PublicKey.Base64() == key }); i >= 0 {
			return &peers[i]
		}
		return nil
	}
	for i := range from.Peers {
		if p := &from.Peers[i]; keyed(to.Peers, p.PublicKey.Base64()) == nil {
			c := peer(Delete, p)
			c.Interrupts = "its session ends"
			list = append(list, c)
		}
	}
	for i := range to.Peers {
		p := &to.Peers[i]
		old := keyed(from.Peers, p.PublicKey.Base64())
		if old == nil {
			list = append(list, peer(Create, p))
			continue
		}
		for _, c := range settings(reflect.ValueOf(*old), reflect.ValueOf(*p)) {
			s := peer(Change, p)
			s.Setting, s.Old, s.New, s.Interrupts = c.Setting, c.Old, c.New, peerInterrupts[first(c.Setting)]
			list = append(list, s)
		}
	}
	return list
}

func first(setting string) string {
	s, _, _ := strings.Cut(setting, ".")
	return s
}

// settings lists the settings in which two configurations differ, by name.
func settings(a, b reflect.Value) (list []control.ReloadChange) {
	before, after := make(map[string]text), make(map[string]text)
	flatten("", a, before)
	flatten("", b, after)
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		was, is := before[name], after[name]
		if was.compared == is.compared {
			continue
		}
		list = append(list, control.ReloadChange{Verdict: Change, Setting: name, Old: was.shown, New: is.shown})
	}
	return list
}

// text is a setting's value: as it is compared, and as it is shown.
type text struct{ compared, shown string }

// left are fields that are no settings of their own: where something stands, or what follows from others.
var left = map[string]bool{"Pos": true, "Place": true, "PrivateKeyFile": true, "PresharedKeyFile": true, "TCPText": true, "Mark": true, "SaveConfig": true, "Invited": true}

// secret are fields that are compared and never shown.
var secret = map[string]bool{"PrivateKey": true, "PresharedKey": true, "Certificate": true, "ClientSecret": true, "Secret": true}

// written are the names of the file that do not follow from those of the fields.
var written = map[string]string{"FwMark": "fwmark", "Listen": "listen"}

// flatten writes the texts of all settings in a value.
func flatten(name string, v reflect.Value, into map[string]text) {
	if s, ok := plain(v); ok {
		if s != "" {
			into[name] = text{s, s}
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			into[name] = text{"set", ""} // that it is there at all
			if _, ok := plain(v.Elem()); ok && v.Elem().IsZero() {
				s := fmt.Sprint(v.Elem().Interface()) // false and 0 are something else than not said
				into[name] = text{s, s}
			}
			flatten(name, v.Elem(), into)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if left[f.Name] || strings.HasSuffix(f.Name, "Pos") || f.Type == reflect.TypeFor[config.Position]() || !f.IsExported() {
				continue
			}
			if secret[f.Name] {
				if !v.Field(i).IsZero() {
					into[join(name, snake(f.Name))] = text{fmt.Sprint(v.Field(i).Interface()) + raw(v.Field(i)), "(a key)"}
				}
				continue
			}
			under := join(name, snake(f.Name))
			if f.Anonymous {
				under = name
			}
			flatten(under, v.Field(i), into)
		}
	case reflect.Slice, reflect.Array:
		var plains []string
		for i := range v.Len() {
			e := v.Index(i)
			if s, ok := plain(e); ok {
				plains = append(plains, s)
				continue
			}
			key := fmt.Sprint(i + 1)
			if e.Kind() == reflect.Struct {
				if n := e.FieldByName("Name"); n.IsValid() && n.Kind() == reflect.String && n.String() != "" {
					key = n.String()
				}
			}
			into[join(name, key)] = text{"set", ""}
			flatten(join(name, key), e, into)
		}
		if plains != nil || v.Kind() == reflect.Slice && !v.IsNil() && v.Len() == 0 {
			s := "[" + strings.Join(plains, ", ") + "]"
			into[name] = text{s, s}
		}
	case reflect.Map, reflect.Interface, reflect.Func, reflect.Chan:
		// There are none in a configuration; a test says so.
	}
}

// raw is what a key is compared by, whose String says nothing.
func raw(v reflect.Value) string {
	if v.Kind() == reflect.Array {
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		return string(b)
	}
	if c, ok := v.Interface().(*tls.Certificate); ok && c != nil {
		return fmt.Sprintf("%x", c.Certificate)
	}
	return fmt.Sprintf("%+v", v.Interface())
}

// plain is the text of what is one value in a file; "" for what is not said.
func plain(v reflect.Value) (string, bool) {
	if !v.CanInterface() {
		return "", true
	}
	switch x := v.Interface().(type) {
	case config.Prefix:
		return x.Prefix.String(), true
	case config.Hook:
		return x.Command, true
	case config.FwMark:
		if !x.Set {
			return "", true
		}
		return fmt.Sprintf("%#x", x.Value), true
	case config.Table:
		switch {
		case x.Off:
			return "off", true
		case x.Number == 0:
			return "", true
		}
		return fmt.Sprint(x.Number), true
	case spec.Place, config.Position:
		return "", true
	}
	if s, ok := v.Interface().(fmt.Stringer); ok && v.Kind() != reflect.Pointer {
		if v.IsZero() {
			return "", true
		}
		return s.String(), true
	}
	switch v.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32,
		reflect.Uint64, reflect.Float64, reflect.String:
		if v.IsZero() {
			return "", true
		}
		return fmt.Sprint(v.Interface()), true
	}
	return "", false
}

func join(under, name string) string {
	if under == "" {
		return name
	}
	return under + "." + name
}

// snake is a field's name as files write it.
func snake(field string) string {
	if w, ok := written[field]; ok {
		return w
	}
	var b strings.Builder
	lower := false
	for _, r := range field {
		if unicode.IsUpper(r) && lower {
			b.WriteByte('_')
		}
		lower = unicode.IsLower(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// signs begin the lines, as those of a plan do.
var signs = map[string]string{Create: "+", Change: "~", Delete: "-"}

// Line is a change as a line of text.
func Line(c *control.ReloadChange) string {
	s := signs[c.Verdict] + " "
	about := c.Tunnel != ""
	if about {
		s += "tunnel " + c.Tunnel
	}
	if c.Peer != "" || c.PublicKey != "" {
		s += ", peer " + c.Peer
		if c.Peer == "" {
			s += c.PublicKey
		}
	}
	if c.Setting != "" {
		if about {
			s += ": "
		}
		s += c.Setting
		switch was, is := c.Old, c.New; {
		case was == is && was != "":
			s += " is another" // a key
		case was != "" || is != "":
			s += fmt.Sprintf(" %s -> %s", or(was), or(is))
		}
	}
	if c.Interrupts != "" {
		s += " (" + c.Interrupts + ")"
	}
	return s
}

func or(s string) string {
	if s == "" {
		return "not set"
	}
	return s
}
