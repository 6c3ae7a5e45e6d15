package oidc

import (
	"encoding/json"

	"culvert/server/terminal"
)

// Bounds of what a provider says.
const (
	MaxAnswer   = 1 << 20 // bytes of an answer's body
	MaxKeys     = 64      // of a key set
	maxToken    = 64 << 10
	maxURL      = 1024
	maxUserCode = 64
	maxText     = 255  // bytes of a subject (OpenID Connect Core section 2), an e-mail address, a group
	maxGroups   = 4096 // of one user
	maxCode     = 8 << 10
)

// An object is a JSON object whose members are looked up by their exact names, as encoding/json does not do in structs.
type object map[string]json.RawMessage

func parseObject(b []byte) (o object, ok bool) {
	if len(b) > MaxAnswer || json.Unmarshal(b, &o) != nil || o == nil {
		return nil, false
	}
	return o, true
}

// text is a member that is a text of 1 to most printable bytes; "" where it is none.
func (o object) text(name string, most int) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil || len(s) > most || !terminal.Printable(s) {
		return ""
	}
	return s
}

// number is a member that is a number.
func (o object) number(name string) (n float64, ok bool) {
	raw := o[name]
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false
	}
	return n, json.Unmarshal(raw, &n) == nil
}

// truth is a member that is true; some providers write "true".
func (o object) truth(name string) bool {
	var b bool
	if json.Unmarshal(o[name], &b) == nil {
		return b
	}
	return o.text(name, 4) == "true"
}

// texts are a member that is a text or a list of texts. Nil where one of them is neither.
func (o object) texts(name string, most int) []string {
	if s := o.text(name, maxText); s != "" {
		return []string{s}
	}
	var list []string
	if json.Unmarshal(o[name], &list) != nil || len(list) > most {
		return nil
	}
	for _, s := range list {
		if s == "" || len(s) > maxText || !terminal.Printable(s) {
			return nil
		}
	}
	return list
}
