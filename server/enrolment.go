package server

import (
	"errors"
	"fmt"
	"slices"

	"culvert/crypto"
	"culvert/server/terminal"
)

// SubjectEnrol is the subject of what the end of an invitation sends, an [EnrolRequest]; SubjectEnrolled that of the answer, an
// [EnrolAnswer].
const (
	SubjectEnrol    = "enrol"
	SubjectEnrolled = "enrolled"
)

// EnrolRequest is what a client says of itself when it joins.
type EnrolRequest struct {
	Key  crypto.PublicKey // its own from now on
	Name string           // what it calls itself, for people; printable, at most MaxName bytes, may be empty
}

// EnrolAnswer is what it is told.
type EnrolAnswer struct {
	Accepted bool
	Frames   bool   // the tunnel carries Ethernet frames; only where accepted
	Reason   string // why not; printable, at most MaxReason bytes, empty where accepted
	// Others are servers to go to where this one does not answer, in this order, at most MaxOthers, of different keys; only where accepted.
	Others []OtherServer
}

// OtherServer is a server that a client is told of by another.
type OtherServer struct {
	Key       crypto.PublicKey
	Endpoints []string // host:port, 1 to MaxEndpoints, to be tried in this order
}

type enrolRequestFields struct {
	Version uint64 `cbor:"1,keyasint"`
	Key     []byte `cbor:"2,keyasint"`
	Name    string `cbor:"3,keyasint,omitempty"`
}

type enrolAnswerFields struct {
	Version  uint64 `cbor:"1,keyasint"`
	Accepted bool   `cbor:"2,keyasint"`
	Reason   string `cbor:"3,keyasint,omitempty"`
	Frames   bool   `cbor:"4,keyasint,omitempty"`

	Others []otherServerFields `cbor:"5,keyasint,omitempty"`
}

type otherServerFields struct {
	_         struct{} `cbor:",toarray"`
	Key       []byte
	Endpoints []string
}

// Encode writes the request. ErrMalformed where its name is not as described.
func (r *EnrolRequest) Encode() ([]byte, error) {
	if len(r.Name) > MaxName || !terminal.Printable(r.Name) {
		return nil, ErrMalformed
	}
	return encoding.Marshal(enrolRequestFields{1, r.Key[:], r.Name})
}

// DecodeEnrolRequest reads what [EnrolRequest.Encode] writes, and nothing else.
func DecodeEnrolRequest(b []byte) (r EnrolRequest, err error) {
	var f enrolRequestFields
	if err := decode(b, &f); err != nil {
		return r, err
	}
	if len(f.Key) != crypto.KeySize || len(f.Name) > MaxName || !terminal.Printable(f.Name) {
		return r, ErrMalformed
	}
	return EnrolRequest{crypto.PublicKey(f.Key), f.Name}, nil
}

// Encode writes the answer. ErrMalformed where its reason is not as described.
func (a *EnrolAnswer) Encode() ([]byte, error) {
	if !a.valid() {
		return nil, ErrMalformed
	}
	var others []otherServerFields
	for _, o := range a.Others {
		others = append(others, otherServerFields{Key: o.Key[:], Endpoints: o.Endpoints})
	}
	return encoding.Marshal(enrolAnswerFields{1, a.Accepted, a.Reason, a.Frames, others})
}

func (a *EnrolAnswer) valid() bool {
	return len(a.Reason) <= MaxReason && terminal.Printable(a.Reason) && a.Accepted == (a.Reason == "") && (a.Accepted || !a.Frames && len(a.Others) == 0) &&
		checkOthers(a.Others) == nil
}

// checkOthers checks other servers that a client is to be told of.
func checkOthers(others []OtherServer) error {
	if len(others) > MaxOthers {
		return fmt.Errorf("there are %d other servers, of at most %d", len(others), MaxOthers)
	}
	for i, o := range others {
		if o.Key.IsLowOrder() {
			return errors.New("an other server's public key is no key")
		}
		if slices.ContainsFunc(others[:i], func(b OtherServer) bool { return b.Key == o.Key }) {
			return errors.New("two other servers have the same public key")
		}
		if n := len(o.Endpoints); n == 0 || n > MaxEndpoints {
			return fmt.Errorf("an other server has %d endpoints, not 1 to %d", n, MaxEndpoints)
		}
		for _, e := range o.Endpoints {
			if err := checkEndpoint(e); err != nil {
				return fmt.Errorf("%.64q: %w", e, err)
			}
		}
	}
	return nil
}

// DecodeEnrolAnswer reads what [EnrolAnswer.Encode] writes, and nothing else.
func DecodeEnrolAnswer(b []byte) (EnrolAnswer, error) {
	var f enrolAnswerFields
	if err := decode(b, &f); err != nil {
		return EnrolAnswer{}, err
	}
	a := EnrolAnswer{f.Accepted, f.Frames, f.Reason, nil}
	for _, o := range f.Others {
		if len(o.Key) != crypto.KeySize {
			return EnrolAnswer{}, ErrMalformed
		}
		a.Others = append(a.Others, OtherServer{crypto.PublicKey(o.Key), o.Endpoints})
	}
	if !a.valid() {
		return EnrolAnswer{}, ErrMalformed
	}
	return a, nil
}
