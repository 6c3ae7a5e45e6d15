// Package hidden makes a type print as "(hidden)", whatever it is printed with. Types that hold keys embed [Value], or
// call [Format] from a method of their own.
//
// fmt reaches unexported fields by reflection and calls no methods on them, so a key type's own methods do not protect a
// struct that holds a key in an unexported field. Such a struct must itself be hidden.
package hidden

import (
	"fmt"
	"io"
	"log/slog"
)

// Text is what stands for a secret.
const Text = "(hidden)"

// Value hides the struct it is embedded in from fmt (every verb and flag), encoding/json, encoding.TextMarshaler users and
// log/slog. It has no size when it is not the last field.
type Value struct{}

func (Value) String() string { return Text }

func (Value) GoString() string { return Text }

func (Value) Format(f fmt.State, _ rune) { Format(f) }

func (Value) LogValue() slog.Value { return slog.StringValue(Text) }

func (Value) MarshalText() ([]byte, error) { return []byte(Text), nil }

func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Text + `"`), nil }

// Format writes [Text] for a fmt.Formatter, ignoring verb, width and flags.
func Format(f fmt.State) { _, _ = io.WriteString(f, Text) }
