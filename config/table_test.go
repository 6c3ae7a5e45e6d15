package config

import (
	"iter"
	"reflect"
	"strings"
	"testing"

	"culvert/setup/spec"
)

// A keyAt is a key of the table with the shape it is in and its path of names.
type keyAt struct {
	shape *shape
	key   *key
	path  string
	part  reflect.Type // the struct that the shape fills
}

// everyKey walks the table. A shape in a shape of its own kind is entered once.
func everyKey() iter.Seq[keyAt] {
	return func(yield func(keyAt) bool) {
		seen := map[*shape]bool{}
		var walk func(s *shape, part reflect.Type, path string) bool
		walk = func(s *shape, part reflect.Type, path string) bool {
			if seen[s] {
				return true
			}
			seen[s] = true
			for i := range s.keys {
				k := &s.keys[i]
				if !yield(keyAt{s, k, path + k.name, part}) {
					return false
				}
				place := follow(reflect.New(part).Elem(), k.field).Type()
				next, ok := k.form.(*shape)
				switch f := k.form.(type) {
				case list:
					next, ok = f.of.(*shape)
					place = place.Elem()
				case table:
					next, ok = f.of, true
					place = place.Elem()
				}
				for place.Kind() == reflect.Pointer {
					place = place.Elem()
				}
				if ok && !walk(next, place, path+k.name+".") {
					return false
				}
			}
			return true
		}
		_ = walk(setupShape, reflect.TypeFor[spec.Spec](), "") && walk(tunnelShape, reflect.TypeFor[spec.Link](), "tunnels.") &&
			walk(accessShape, reflect.TypeFor[Access](), "tunnels.peers.access.") &&
			walk(monitorShape, reflect.TypeFor[Monitor](), "monitor.")
	}
}

// TestTableFits: every value a form can give goes into its field, whose type holds all of its range.
func TestTableFits(t *testing.T) {
	n := 0
	for k := range everyKey() {
		n++
		if k.key.doc == "" || strings.HasSuffix(k.key.doc, ".") || k.key.form.words() == "" {
			t.Errorf("%s is not described", k.path)
		}
		s, ok := k.key.form.(scalar)
		place := follow(reflect.New(k.part).Elem(), k.key.field).Type()
		if l, is := k.key.form.(list); is {
			if place.Kind() != reflect.Slice {
				t.Fatalf("%s fills a %v", k.path, place)
			}
			s, ok = l.of.(scalar)
			place = place.Elem()
			if l.most == 0 || l.example == "" {
				t.Errorf("%s has no bound or no example", k.path)
			}
		}
		if f, is := k.key.form.(table); is && (f.most == 0 || f.what == "" || f.check == nil) {
			t.Errorf("%s has no bound, name or check", k.path)
		}
		if !ok || s.store != nil {
			continue
		}
		for place.Kind() == reflect.Pointer {
			place = place.Elem()
		}
		zero := reflect.New(place).Elem()
		var least, most any = s.schema["minimum"], s.schema["maximum"]
		if any, is := s.schema["anyOf"].([]any); is && least == nil && s.schema["type"] == nil {
			least, most = any[0].(object)["minimum"], any[0].(object)["maximum"]
		}
		l, isL := least.(int64)
		m, isM := most.(int64)
		switch place.Kind() {
		case reflect.Int, reflect.Int32, reflect.Int64:
			if isL && isM && (zero.OverflowInt(l) || zero.OverflowInt(m)) {
				t.Errorf("%s: %d to %d does not fit into %v", k.path, l, m, place)
			}
		case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			if isL && isM && (l < 0 || zero.OverflowUint(uint64(m))) {
				t.Errorf("%s: %d to %d does not fit into %v", k.path, l, m, place)
			}
		}
	}
	if n < 200 {
		t.Errorf("%d keys", n)
	}
}

// filledElsewhere are the fields of package spec that no key names: they come from the place or the key of what they are part of.
var filledElsewhere = map[string]bool{
	"Spec.Instance": true, "Link.Key": true, "Netns.Name": true, "Port.Link": true, "Link.Client": true, "Link.Serves": true, "Tun.Mode": true, "PortVLAN.VID": true, "PortVLAN.To": true,
}

// TestTableComplete: every setting that package spec has can be said.
func TestTableComplete(t *testing.T) {
	named := map[string]bool{}
	structs := map[reflect.Type]bool{}
	for k := range everyKey() {
		part := k.part
		structs[part] = true
		for name := range strings.SplitSeq(k.key.field, ".") {
			if name == "" {
				continue
			}
			for part.Kind() == reflect.Pointer {
				part = part.Elem()
			}
			structs[part] = true
			named[part.Name()+"."+name] = true
			f, _ := part.FieldByName(name)
			part = f.Type
		}
	}
	if len(structs) < 25 {
		t.Errorf("%d structs", len(structs))
	}
	for s := range structs {
		for i := range s.NumField() {
			f := s.Field(i)
			if name := s.Name() + "." + f.Name; f.Type != placeType && !named[name] && !filledElsewhere[name] {
				t.Errorf("no key fills %s", name)
			}
		}
	}
}
