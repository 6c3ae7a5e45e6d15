package plan

import (
	"strings"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// Missing is something that a step needs and the machine has not.
type Missing struct {
	ID      model.ID    `json:"id"`                // the first thing that needs it
	What    string      `json:"what"`              // as in "bond devices", "the program teamd"
	Error   string      `json:"error,omitempty"`   // the kernel's answer
	Config  string      `json:"config,omitempty"`  // the kernel's option, as in CONFIG_BONDING, several separated by a space
	Modules []string    `json:"modules,omitempty"` // that may bring it, for modprobe
	Advice  string      `json:"advice,omitempty"`  // what to do beside that, or instead
	Origin  spec.Origin `json:"origin,omitzero"`   // of the thing
}

// Message says what needs what, and why it is not there.
func (m *Missing) Message() string {
	text := m.ID.Text() + " needs " + m.What
	if !strings.HasPrefix(m.What, "the program ") {
		text += ", which the kernel lacks"
	}
	if m.Error != "" {
		text += ": " + m.Error
	}
	return text
}

// Hint says what to do about it; "" where there is nothing to say.
func (m *Missing) Hint() string {
	var hints []string
	switch {
	case len(m.Modules) > 1:
		hints = append(hints, "try modprobe -a "+strings.Join(m.Modules, " "))
	case len(m.Modules) == 1:
		hints = append(hints, "try modprobe "+m.Modules[0])
	}
	if m.Advice != "" {
		hints = append(hints, m.Advice)
	}
	options := strings.Fields(m.Config)
	switch last := len(options) - 1; {
	case last < 0:
	case len(m.Modules) == 0: // none of them can be loaded later
		hints = append(hints, "the kernel has to be built with "+listed(options))
	default:
		hints = append(hints, "the kernel needs "+listed(options))
	}
	return strings.Join(hints, "; ")
}

// listed is "A, B and C".
func listed(words []string) string {
	if last := len(words) - 1; last > 0 {
		return strings.Join(words[:last], ", ") + " and " + words[last]
	}
	return words[0]
}

// String returns the line of a plan: the message, what to do, and where it is declared.
func (m *Missing) String() string {
	text := "! " + m.Message()
	if hint := m.Hint(); hint != "" {
		text += "; " + hint
	}
	if o := m.Origin.String(); o != "" {
		text += " (" + o + ")"
	}
	return text
}
