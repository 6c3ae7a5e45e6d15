package control

import (
	"errors"
	"net/netip"
	"time"

	"culvert/crypto"
)

// What a [ClientsRequest] asks for.
const (
	DoInvite = "invite"
	DoList   = "list"
	DoAdd    = "add"
	DoRevoke = "revoke"
	DoCodes  = "codes" // a new secret for the codes of a client
)

// ClientsRequest is about the clients of a tunnel that is a server.
type ClientsRequest struct {
	Do        string           `json:"do"`                  // "invite", "list", "add", "revoke", or "codes": a new secret for the codes of a client
	Tunnel    string           `json:"tunnel,omitempty"`    // may be left out where one tunnel of the instance is a server
	Name      string           `json:"name,omitempty"`      // the client's; of "list", for the one of which it is told what it may do
	Group     string           `json:"group,omitempty"`     // of the file; of those who are invited or added
	Expires   float64          `json:"expires,omitempty"`   // seconds, of an invitation
	Key       crypto.PublicKey `json:"public_key,omitzero"` // of a client that is added
	WireGuard bool             `json:"wireguard,omitempty"` // it is a stock WireGuard, on the wireguard wire; of a client that is added
}

// ClientsAnswer answers it. The link, of an invitation or with the secret for codes, is for whoever asked, and is written nowhere.
type ClientsAnswer struct {
	Link        string         `json:"link,omitempty"`        // of an invitation, or with the secret for codes: for whoever asked, and written nowhere
	Expires     time.Time      `json:"expires,omitzero"`      // of the invitation
	Clients     []ServerClient `json:"clients,omitempty"`     // of "list": all of them
	Invitations []Invited      `json:"invitations,omitempty"` // of "list": those that nobody has used
	Setup       *ClientSetup   `json:"setup,omitempty"`       // of a client that was added
}

// ServerClient is one client of a server, as "culvert client list --json" shows it. Fields are added, never renamed.
type ServerClient struct {
	Tunnel          string           `json:"tunnel"`                    // the server's interface
	Name            string           `json:"name"`                      // which nobody else of the server has
	Group           string           `json:"group,omitempty"`           // of the file
	PublicKey       crypto.PublicKey `json:"public_key"`                // of the client
	Wire            string           `json:"wire"`                      // "culvert" or "wireguard"
	Addresses       []netip.Addr     `json:"addresses"`                 // that it has inside
	Networks        []netip.Prefix   `json:"networks,omitempty"`        // behind it
	AnyAddress      bool             `json:"any_address,omitempty"`     // its frames may come from any IP address
	May             []string         `json:"may,omitempty"`             // what it may do, in lines for people; of the one that was asked for by name
	Says            string           `json:"says,omitempty"`            // what it calls itself
	Joined          time.Time        `json:"joined"`                    // when it joined, or was added
	JoinedFrom      string           `json:"joined_from,omitempty"`     // address:port that it joined from
	Endpoint        string           `json:"endpoint,omitempty"`        // where it was heard of last
	LatestHandshake time.Time        `json:"latest_handshake,omitzero"` // since the server has started
	Connected       bool             `json:"connected"`                 // there is a session: made less than 180 seconds ago, and ended by neither end
	Seen            time.Time        `json:"seen,omitzero"`             // about, over restarts of the server
	ReceivedBytes   uint64           `json:"received_bytes"`            // of UDP payload, since the server has started
	SentBytes       uint64           `json:"sent_bytes"`                // the same
	GroupMissing    bool             `json:"group_missing,omitempty"`   // the file has not its group: nothing passes
	SignIn          *ClientSignIn    `json:"sign_in,omitempty"`         // its second factor; absent where it needs none
}

// ClientSignIn is how it is with a client's second factor.
type ClientSignIn struct {
	By    string    `json:"by"`             // "totp", or "oidc" and the issuer
	As    string    `json:"as,omitempty"`   // who has signed in, as the provider says
	Until time.Time `json:"until,omitzero"` // absent where it has not signed in, and nothing passes
}

// Invited is an invitation that nobody has used.
type Invited struct {
	Tunnel  string    `json:"tunnel"`          // the server's interface
	Name    string    `json:"name"`            // that the client will have
	Group   string    `json:"group,omitempty"` // that it will be of
	Expires time.Time `json:"expires"`         // when its link is no good any more
}

// ClientSetup is what a client is to set up that nothing can be pushed to.
type ClientSetup struct {
	ServerKey  crypto.PublicKey `json:"server_key"`                     // of the server, as its peer
	Endpoint   string           `json:"endpoint"`                       // host:port of the server
	Addresses  []netip.Prefix   `json:"addresses"`                      // of its interface
	AllowedIPs []netip.Prefix   `json:"allowed_ips"`                    // to be reached by the server
	DNS        []netip.Addr     `json:"dns,omitempty"`                  // name servers
	Search     []string         `json:"search,omitempty"`               // domains that complete short names
	MTU        int              `json:"mtu,omitempty"`                  // of its interface, in bytes
	Keepalive  int              `json:"persistent_keepalive,omitempty"` // seconds
}

// ClientKeeper is a [Service] with tunnels that are servers.
type ClientKeeper interface {
	Clients(ClientsRequest) (*ClientsAnswer, error)
}

func keepClients(s Service, r *ClientsRequest) (*ClientsAnswer, error) {
	k, ok := s.(ClientKeeper)
	if !ok || r == nil {
		return nil, errors.New("the request is about clients, which there are none of here")
	}
	return k.Clients(*r)
}
