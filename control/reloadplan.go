package control

import "context"

// ReloadPlan is what a reload would do.
type ReloadPlan struct {
	Changes []ReloadChange `json:"changes"` // of the instance, its tunnels and their peers, in the order of the file, what goes first
	Network []string       `json:"network"` // a line for each thing of the network around them, as "culvert plan" shows it
	// Refused is why the reload would fail, as far as that can be told before; absent where nothing is known to stand in its way.
	Refused string   `json:"refused,omitempty"`
	Remarks []string `json:"remarks,omitempty"` // what the user should know
}

// ReloadChange is what becomes of one tunnel, of a peer, or of one setting of theirs or of the instance.
type ReloadChange struct {
	Verdict    string `json:"verdict"`              // "create", "change" or "delete"
	Tunnel     string `json:"tunnel"`               // its name; empty where it is about the instance as a whole
	Peer       string `json:"peer,omitempty"`       // the peer's name in the file; absent where it is about the tunnel
	PublicKey  string `json:"public_key,omitempty"` // the peer's
	Setting    string `json:"setting,omitempty"`    // of "change": the key in the file, with dots, "access.rules.1.allow"
	Old        string `json:"old,omitempty"`        // its value that is in force; absent where it is not set, and keys are never told
	New        string `json:"new,omitempty"`        // the file's
	Interrupts string `json:"interrupts,omitempty"` // what is interrupted by it; absent where nothing is
}

// Previewer is a [Service] that can say what its Reload would do.
type Previewer interface {
	Preview(ctx context.Context) (*ReloadPlan, error)
}
