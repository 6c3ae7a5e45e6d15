package control

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// FuzzRequest: whatever a line is, it is a request of this version whose parts all have been understood, or refused with a reason.
func FuzzRequest(f *testing.F) {
	for _, line := range []string{
		`{"version":1,"op":"status"}`,
		`{"version":9,"op":"hello","more":{}}`,
		`{"version":1,"op":"capture","capture":{"interface":"wg0","snap":96,"packets":100,"seconds":1.5}}`,
		`{"version":1,"op":"clients","clients":{"do":"invite","name":"alice","group":"staff","expires":3600}}`,
		`{"version":1,"op":"sign-in","sign_in":{"tunnel":"wg0","code":"123456"}}`,
		`{"version":1,"op":"reload","dry":true}`,
		`{"version":1,"version":2,"op":"down"}`,
		`{"VERSION":1,"Op":"down"}`,
		`{"version":1e0,"op":"down"}`,
		`[[[[`, `null`, `"\ud800"`, "\x00", `{"op":{"op":"hello"}}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		req, err := parseRequest(line)
		if err != nil {
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Text == "" || e.Reason == "" || len(e.Text) > 1000 {
				t.Fatalf("%q: %#v", line, err)
			}
			return
		}
		if req.Version != Version {
			t.Fatalf("%q: version %d", line, req.Version)
		}
		var said any
		if json.Unmarshal(line, &said) != nil {
			t.Fatalf("%q is not JSON, and was taken for a request", line)
		}
		out, err := json.Marshal(req)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		again, err := parseRequest(out)
		if err != nil {
			t.Fatalf("%q was taken, and %s is not: %v", line, out, err)
		}
		if once, _ := json.Marshal(again); string(once) != string(out) {
			t.Fatalf("%s became %s", out, once)
		}
		if find(req.Op) == nil && req.Op != OpHello && strings.Contains(req.Op, "\n") {
			t.Fatal(req.Op) // an answer's text is one line
		}
	})
}
