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
	Do        string           `json:"do"`
	Tunnel    string           `json:"tunnel,omitempty"` // may be left out where one tunnel of the instance is a server
	Name      string           `json:"name,omitempty"`
	Group     string           `json:"group,omitempty"`
	Expires   float64          `json:"expires,omitempty"` // seconds, of an invitation
	Key       crypto.PublicKey `json:"public_key,omitzero"`
	WireGuard bool             `json:"wireguard,omitempty"`
}

// ClientsAnswer answers it. The link, of an invitation or with the secret for codes, is for whoever asked, and is written nowhere.
type ClientsAnswer struct {
	Link        string         `json:"link,omitempty"`
	Expires     time.Time      `json:"expires,omitzero"`
	Clients     []ServerClient `json:"clients,omitempty"`
	Invitations []Invited      `json:"invitations,omitempty"`
	Setup       *ClientSetup   `json:"setup,omitempty"` // of a client that was added
}

// ServerClient is one client of a server, as "culvert client list --json" shows it. Fields are added, never renamed.
type ServerClient struct {
	Tunnel          string           `json:"tunnel"`
	Name            string           `json:"name"`
	Group           string           `json:"group,omitempty"`
	PublicKey       crypto.PublicKey `json:"public_key"`
	Wire            string           `json:"wire"`
	Addresses       []netip.Addr     `json:"addresses"`
	Networks        []netip.Prefix   `json:"networks,omitempty"`    // behind it
	AnyAddress      bool             `json:"any_address,omitempty"` // its frames may come from any IP address
	Says            string           `json:"says,omitempty"`        // what it calls itself
	Joined          time.Time        `json:"joined"`
	JoinedFrom      string           `json:"joined_from,omitempty"`
	Endpoint        string           `json:"endpoint,omitempty"` // where it was heard of last
	LatestHandshake time.Time        `json:"latest_handshake,omitzero"`
	Seen            time.Time        `json:"seen,omitzero"` // about, over restarts of the server
	ReceivedBytes   uint64           `json:"received_bytes"`
	SentBytes       uint64           `json:"sent_bytes"`
	GroupMissing    bool             `json:"group_missing,omitempty"` // the file has not its group: nothing passes
	SignIn          *ClientSignIn    `json:"sign_in,omitempty"`       // absent where it needs no second factor
}

// ClientSignIn is how it is with a client's second factor.
type ClientSignIn struct {
	By    string    `json:"by"` // "totp", or "oidc" and the issuer
	As    string    `json:"as,omitempty"`
	Until time.Time `json:"until,omitzero"` // absent where it has not signed in, and nothing passes
}

// Invited is an invitation that nobody has used.
type Invited struct {
	Tunnel  string    `json:"tunnel"`
	Name    string    `json:"name"`
	Group   string    `json:"group,omitempty"`
	Expires time.Time `json:"expires"`
}

// ClientSetup is what a client is to set up that nothing can be pushed to.
type ClientSetup struct {
	ServerKey  crypto.PublicKey `json:"server_key"`
	Endpoint   string           `json:"endpoint"`
	Addresses  []netip.Prefix   `json:"addresses"`
	AllowedIPs []netip.Prefix   `json:"allowed_ips"`
	DNS        []netip.Addr     `json:"dns,omitempty"`
	Search     []string         `json:"search,omitempty"`
	MTU        int              `json:"mtu,omitempty"`
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
