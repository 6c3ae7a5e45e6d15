package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Operations. What else a daemon has it says itself: see [Client.Hello].
const (
	OpHello   = "hello"
	OpStatus  = "status"
	OpReload  = "reload"
	OpDown    = "down"
	OpPreview = "preview"
	OpConfirm = "confirm"
	OpCapture = "capture"
	OpClients = "clients"
	OpSignIn  = "sign-in"
	OpUpgrade = "upgrade"
)

// request is what a client sends: one line.
type request struct {
	Version int    `json:"version"` // of the API: 1
	Op      string `json:"op"`      // the operation

	Capture *CaptureOptions `json:"capture,omitempty"` // of "capture"
	Events  *EventOptions   `json:"events,omitempty"`  // of "events"; absent: all of them
	Log     *LogRequest     `json:"log,omitempty"`     // of "log"; absent: as with nothing in it
	Clients *ClientsRequest `json:"clients,omitempty"` // of "clients"
	SignIn  *SignInRequest  `json:"sign_in,omitempty"` // of "sign-in"
	Upgrade *UpgradeRequest `json:"upgrade,omitempty"` // of "upgrade"; absent: as with nothing in it
}

// response is what the daemon answers: one line.
type response struct {
	Version int      `json:"version"`           // of the API: 1
	Error   string   `json:"error,omitempty"`   // why it failed, for people; absent where it did not
	Code    int      `json:"code,omitempty"`    // of a failure: the exit code meant for it, 1, or 78 for a wrong configuration
	Reason  Reason   `json:"reason,omitempty"`  // of a failure: its kind, for programs
	Remarks []string `json:"remarks,omitempty"` // of "reload": what the user should know

	Daemon   *Daemon        `json:"daemon,omitempty"`   // of "hello"
	Instance *Instance      `json:"instance,omitempty"` // of "status"
	Preview  *ReloadPlan    `json:"preview,omitempty"`  // of "preview"
	Log      *Log           `json:"log,omitempty"`      // of "log"
	Clients  *ClientsAnswer `json:"clients,omitempty"`  // of "clients"
	SignIn   *SignIn        `json:"sign_in,omitempty"`  // of "sign-in"; absent where the server has asked for nothing
	Upgraded *Upgraded      `json:"upgraded,omitempty"` // of "upgrade"
}

// fail makes the response one of a failure.
func (r *response) fail(err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Text: err.Error()}
	}
	r.Error, r.Code, r.Reason = e.Text, max(e.Code, 1), e.Reason
	if r.Reason == "" {
		r.Reason = ReasonFailed
	}
}

// failure is the failure that the response tells of; nil where it tells of none.
func (r *response) failure() error {
	if r.Error == "" {
		return nil
	}
	return &Error{Text: r.Error, Code: max(r.Code, 1), Reason: r.Reason}
}

// parseRequest reads a request's line, in the version of this package; "hello" in any, which its sender asks for. A field that is not known is
// refused: it could be the one that says "only tell me what you would do".
func parseRequest(line []byte) (*request, error) {
	var head struct {
		Version json.RawMessage `json:"version"`
		Op      json.RawMessage `json:"op"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, &Error{Text: "the request is not valid JSON: an object is expected, on one line", Reason: ReasonRequest}
	}
	var op string
	var version int
	if json.Unmarshal(head.Op, &op) == nil && op == OpHello {
		return &request{Version: Version, Op: OpHello}, nil // also of clients whose requests have other fields
	}
	if json.Unmarshal(head.Version, &version) != nil || version != Version {
		return nil, &Error{Text: fmt.Sprintf("the running daemon speaks version %d of the control protocol, and the request is in version %.20s: "+
			"restart the daemon where it is the older one", Version, orAbsent(head.Version)), Reason: ReasonVersion}
	}
	var r request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		// encoding/json has no type for it (go.dev/issue/29035).
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			if !known(op) {
				return nil, unknownOperation(op)
			}
			return nil, &Error{Text: fmt.Sprintf("the running daemon does not know the field %.64s of the operation %s", name, op), Reason: ReasonField}
		}
		text := "the request is not valid JSON"
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			text = fmt.Sprintf("%s: a %s cannot be the value of %.64q", text, e.Value, e.Field)
		}
		return nil, &Error{Text: text, Reason: ReasonRequest}
	}
	return &r, nil
}

func orAbsent(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "none"
	}
	return string(raw)
}

func unknownOperation(op string) error {
	return &Error{Text: fmt.Sprintf("the running daemon does not know the operation %.32q", op), Reason: ReasonOperation}
}
