package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"culvert/crypto"
)

// OpEvents tells what happens, as it happens.
const OpEvents = "events"

const (
	// maxEventStreams is how many clients an instance tells of events at once.
	maxEventStreams = 16
	// maxEvent bounds an event's line, in bytes.
	maxEvent = 1 << 20
)

// Kinds of an [Event]. The word before the first hyphen is a group, which [EventOptions] can name as well.
const (
	EventInstanceUp       = "instance-up"       // everything of its file is there
	EventInstanceReloaded = "instance-reloaded" // the file was read again, and is in force
	EventReloadFailed     = "instance-reload-failed"
	EventInstanceEnding   = "instance-ending"

	EventTunnelUp   = "tunnel-up"   // its interface is up and its port open
	EventTunnelDown = "tunnel-down" // also where somebody has set the interface down

	EventPeerConnected = "peer-connected" // its first session, or the first after it was lost
	EventPeerLost      = "peer-lost"      // it was silent for 180 s, or left handshakes unanswered for 20 s, or is no peer any more
	EventPeerRoamed    = "peer-roamed"    // it is somewhere else
	EventPeerTCP       = "peer-tcp"       // it is reached over TCP from now on
	EventPeerUDP       = "peer-udp"       // it is reached over UDP again

	EventClientInvited     = "client-invited"
	EventClientUninvited   = "client-invitation-expired"
	EventClientJoined      = "client-joined"
	EventClientAdded       = "client-added"
	EventClientRefused     = "client-refused"
	EventClientConnected   = "client-connected"
	EventClientReaddressed = "client-readdressed"
	EventClientRevoked     = "client-revoked"
	EventClientFactor      = "client-factor-enrolled"
	EventClientSignedIn    = "client-signed-in"
	EventClientSignedOut   = "client-sign-in-expired"

	EventServerChanged = "server-changed" // a client of several servers uses another one

	EventDriftFound = "drift-found" // something else than before is not as the file declares it
	EventDriftGone  = "drift-gone"  // everything is as declared again

	EventMissed = "events-missed" // the subscriber was too slow for some
)

// EventKinds are all there are.
var EventKinds = []string{
	EventInstanceUp, EventInstanceReloaded, EventReloadFailed, EventInstanceEnding, EventTunnelUp, EventTunnelDown,
	EventPeerConnected, EventPeerLost, EventPeerRoamed, EventPeerTCP, EventPeerUDP,
	EventClientInvited, EventClientUninvited, EventClientJoined, EventClientAdded, EventClientRefused, EventClientConnected,
	EventClientReaddressed, EventClientRevoked, EventClientFactor, EventClientSignedIn, EventClientSignedOut,
	EventServerChanged, EventDriftFound, EventDriftGone, EventMissed,
}

// Event is something that has happened. Kinds and fields are added over time; a reader passes over those it does not know.
type Event struct {
	Time      time.Time        `json:"time"`                // when it was noticed, in UTC: of tunnels and peers within a second
	Event     string           `json:"event"`               // what: its kind
	Instance  string           `json:"instance"`            // where: the instance's name
	Tunnel    string           `json:"tunnel,omitempty"`    // and its tunnel's
	Peer      string           `json:"peer,omitempty"`      // the peer's name, where the configuration file gives it one
	PublicKey crypto.PublicKey `json:"public_key,omitzero"` // the peer's, or the client's
	Endpoint  string           `json:"endpoint,omitempty"`  // address:port where the peer or client is
	Before    string           `json:"before,omitempty"`    // what was there before: the endpoint of one that roamed, the server used until now
	Client    string           `json:"client,omitempty"`    // the client's name
	Why       string           `json:"why,omitempty"`       // the reason of a failure, a refusal, an end
	By        string           `json:"by,omitempty"`        // how a client signed in, and as whom
	Drift     []Drift          `json:"drift,omitempty"`     // all that is not as declared now
	Missed    uint64           `json:"missed,omitempty"`    // of "events-missed": how many
}

// EventOptions says what to be told of.
type EventOptions struct {
	Kinds []string `json:"kinds,omitempty"` // only these, or groups of them such as "peer", which is the word before the first hyphen; absent: everything. "events-missed" always comes
}

// Want reports whether a kind is among those to be told of.
func (o EventOptions) Want(kind string) bool {
	group, _, _ := strings.Cut(kind, "-")
	return len(o.Kinds) == 0 || kind == EventMissed || slices.Contains(o.Kinds, kind) || slices.Contains(o.Kinds, group)
}

// Check refuses kinds that there are not.
func (o EventOptions) Check() error {
	for _, want := range o.Kinds {
		if !slices.ContainsFunc(EventKinds, func(kind string) bool {
			return kind == want || strings.HasPrefix(kind, want+"-") && !strings.Contains(want, "-")
		}) {
			return fmt.Errorf("%.40q is no kind of event: there are %s", want, strings.Join(EventKinds, ", "))
		}
	}
	return nil
}

// EventSource is a [Service] that tells what happens.
type EventSource interface {
	// Events begins to. next waits for what happens, and returns an error when ctx ends or there will be no more, in both cases with what
	// has happened until then; a slow caller misses events, is told how many, and slows nothing. At the end done is to be called.
	Events(o EventOptions) (next func(ctx context.Context) ([]Event, error), done func())
}

// beginEvents begins to tell of events and takes a place in l.tellings.
func (l *Listener) beginEvents(o *EventOptions, s Service) (stream, error) {
	source, ok := s.(EventSource)
	if !ok {
		return nil, errors.New("this instance tells of no events")
	}
	if o == nil {
		o = new(EventOptions)
	}
	if err := o.Check(); err != nil {
		return nil, &Error{Text: err.Error(), Reason: ReasonRequest}
	}
	select {
	case l.tellings <- struct{}{}:
	default:
		return nil, &Error{Text: fmt.Sprintf("%d clients are told of events already, which are the most", maxEventStreams), Reason: ReasonBusy}
	}
	next, done := source.Events(*o)
	return func(ctx context.Context, w io.Writer) error {
		defer func() { done(); <-l.tellings }()
		var lines bytes.Buffer
		enc := json.NewEncoder(&lines)
		for {
			events, end := next(ctx)
			for i := range events {
				if err := enc.Encode(&events[i]); err != nil {
					return err
				}
			}
			if _, err := lines.WriteTo(w); err != nil {
				return err
			}
			if end != nil {
				return nil
			}
		}
	}, nil
}

// EventStream is what a running instance tells of what happens.
type EventStream struct{ streamed }

// Events begins to tell of events, of what happens from now on. It ends with ctx.
func (c *Client) Events(ctx context.Context, o EventOptions) (*EventStream, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	s, err := c.open(ctx, request{Op: OpEvents, Events: &o})
	if err != nil {
		return nil, err
	}
	return &EventStream{s}, nil
}

// Next waits for the next event. io.EOF is the end of the daemon, or of the stream after Stop. It may be called by one goroutine at a time.
func (s *EventStream) Next() (Event, error) {
	if _, err := s.r.Peek(1); err != nil {
		return Event{}, err
	}
	line, err := readLine(s.r, maxEvent)
	if err != nil {
		return Event{}, err
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("cannot understand what the daemon tells: %w", err)
	}
	return e, nil
}
