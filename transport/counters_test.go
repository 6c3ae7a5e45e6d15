package transport

import (
	"reflect"
	"testing"
)

// Plus leaves no counter out, of streams neither.
func TestCountersPlus(t *testing.T) {
	var a, b Counters
	next := uint64(1)
	var fill func(x, y reflect.Value)
	fill = func(x, y reflect.Value) {
		for i := range x.NumField() {
			switch f := x.Field(i); f.Kind() {
			case reflect.Struct:
				fill(f, y.Field(i))
			case reflect.Uint64:
				f.SetUint(next)
				y.Field(i).SetUint(1000 * next)
				next++
			case reflect.Bool:
				f.SetBool(i%2 == 0)
				y.Field(i).SetBool(i%2 != 0)
			}
		}
	}
	fill(reflect.ValueOf(&a).Elem(), reflect.ValueOf(&b).Elem())
	sum := reflect.ValueOf(a.Plus(b))
	want := uint64(1)
	var check func(s reflect.Value)
	check = func(s reflect.Value) {
		for i := range s.NumField() {
			switch f, name := s.Field(i), s.Type().Field(i).Name; f.Kind() {
			case reflect.Struct:
				check(f)
			case reflect.Uint64:
				if f.Uint() != 1001*want {
					t.Errorf("%s is %d, want %d", name, f.Uint(), 1001*want)
				}
				want++
			case reflect.Bool:
				if !f.Bool() {
					t.Errorf("%s is false", name)
				}
			}
		}
	}
	check(sum)
}
