package server

import (
	"encoding/json"
	"io"
	"net/netip"
	"sync"
	"time"

	"culvert/crypto"
)

// What an event tells of.
const (
	EventInvited   = "invited"
	EventExpired   = "expired" // an invitation
	EventJoined    = "joined"
	EventAdded     = "added"
	EventRefused   = "refused" // Why says why
	EventConnected = "connected"
	EventReadress  = "readdressed" // a changed configuration gave a client other addresses
	EventRevoked   = "revoked"

	EventEnrolled  = "factor-enrolled" // a secret for codes was made
	EventSignedIn  = "signed-in"       // By says how, and who
	EventSignedOut = "sign-in-expired"
)

// Event is one line of the audit log. There is never a secret in it.
type Event struct {
	Time      time.Time        `json:"time"`
	Event     string           `json:"event"`
	Tunnel    string           `json:"tunnel"`
	Client    string           `json:"client,omitempty"`
	Group     string           `json:"group,omitempty"` // that it is invited or added to
	Says      string           `json:"says,omitempty"`  // what the client calls itself
	Key       crypto.PublicKey `json:"public_key,omitzero"`
	From      string           `json:"from,omitempty"` // address and port on the underlay
	Addresses []netip.Addr     `json:"addresses,omitempty"`
	Expires   time.Time        `json:"expires,omitzero"`
	Why       string           `json:"why,omitempty"`
	By        string           `json:"by,omitempty"`
}

// AuditLog writes events as lines of JSON, each by one write. A line that was written in part, as on a full disk, is ended before the next.
type AuditLog struct {
	mu   sync.Mutex
	w    io.Writer
	torn bool
}

// NewAuditLog writes to w, which should append.
func NewAuditLog(w io.Writer) *AuditLog { return &AuditLog{w: w} }

// Write writes one event.
func (l *AuditLog) Write(e Event) error {
	e.Time = e.Time.UTC()
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.torn {
		if _, err := l.w.Write([]byte{'\n'}); err != nil {
			return err
		}
		l.torn = false
	}
	n, err := l.w.Write(append(b, '\n'))
	l.torn = err != nil && n > 0
	return err
}
