package doctor

import (
	"net/netip"
	"time"

	"culvert/control"
)

// Facts are all that is looked at. What could not be found out is absent.
type Facts struct {
	Name    string    `json:"name"`
	Now     time.Time `json:"now"`
	Version string    `json:"version"` // of this program
	Root    bool      `json:"root"`

	// First and Second are the daemon's status, some seconds apart; nil where it does not run, because of DaemonError.
	First       *control.Instance `json:"first,omitempty"`
	Second      *control.Instance `json:"second,omitempty"`
	DaemonError string            `json:"daemon_error,omitempty"`
	NotRunning  bool              `json:"not_running,omitempty"`
	LogTail     []string          `json:"log_tail,omitempty"` // the last lines of a daemon that has ended

	File      string         `json:"file,omitempty"`
	FileError string         `json:"file_error,omitempty"`
	Tunnels   []Configured   `json:"tunnels,omitempty"` // of the file
	Names     []Resolved     `json:"names,omitempty"`
	Routes    []Route        `json:"routes,omitempty"`
	Ports     []PortError    `json:"ports,omitempty"` // that cannot be opened; looked at where the daemon does not run
	Firewall  *Firewall      `json:"firewall,omitempty"`
	Sysctls   map[string]int `json:"sysctls,omitempty"`  // by name with dots
	NoTun     string         `json:"no_tun,omitempty"`   // why /dev/net/tun cannot be opened
	Unsynced  bool           `json:"unsynced,omitempty"` // the kernel says that nothing keeps its clock right
	Elsewhere bool           `json:"elsewhere,omitempty"`
	Unit      *Unit          `json:"unit,omitempty"`
	Others    []Prefixes     `json:"others,omitempty"` // allowed IPs of other instances' tunnels
}

// Configured is a tunnel as its file has it.
type Configured struct {
	Name       string           `json:"name"`
	Listen     uint16           `json:"listen,omitempty"`
	Server     bool             `json:"server,omitempty"`
	Pool       []netip.Prefix   `json:"pool,omitempty"`
	Clients    int              `json:"clients,omitempty"` // that have joined
	FullTunnel bool             `json:"full_tunnel,omitempty"`
	Peers      []ConfiguredPeer `json:"peers,omitempty"`
}

// ConfiguredPeer is a peer as the file has it.
type ConfiguredPeer struct {
	Name      string   `json:"name"`
	Key       string   `json:"public_key"`
	Endpoints []string `json:"endpoints,omitempty"` // host:port
	Keepalive bool     `json:"keepalive,omitempty"`
	TCP       bool     `json:"tcp,omitempty"`
}

// Resolved is how looking a name up ended.
type Resolved struct {
	Host  string `json:"host"`
	Error string `json:"error,omitempty"`
}

// Route is where the kernel would send a tunnel's datagrams to an endpoint.
type Route struct {
	Tunnel string     `json:"tunnel"`
	Peer   string     `json:"public_key"`
	To     netip.Addr `json:"to"`
	Link   string     `json:"link,omitempty"`
	MTU    int        `json:"mtu,omitempty"` // of the way there, in bytes
	Source netip.Addr `json:"source,omitzero"`
	Error  string     `json:"error,omitempty"`
}

// PortError is a UDP port that cannot be opened.
type PortError struct {
	Port  uint16 `json:"port"`
	Error string `json:"error"`
}

// Unit is the systemd unit's state, where there is one.
type Unit struct {
	Name   string `json:"name"`
	Active string `json:"active"` // as "active", "failed", "inactive"
	Result string `json:"result,omitempty"`
}

// Prefixes are a tunnel's allowed IPs.
type Prefixes struct {
	Instance string         `json:"instance"`
	Tunnel   string         `json:"tunnel"`
	List     []netip.Prefix `json:"list"`
}
