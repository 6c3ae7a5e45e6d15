// Package control is how the commands of culvert talk to a running instance.
//
// An instance NAME holds NAME.lock (flock, so that the kernel frees it whatever way the process ends) and listens on
// NAME.sock in the run directory, /run/culvert. The exchange is one line of JSON each way, then the server closes:
//
//	→ {"version":1,"op":"status"}
//	← {"version":1,"instance":{...}}
//
// Operations: "status" gives the [Instance]; "reload" reads the configuration file again and applies the differences;
// "down" takes everything away and answers when that is done; the connection then stays open until the process has
// ended, so its end of file is the proof. "confirm" keeps a change that is on trial ("apply --confirm").
//
// "capture" shows the packets inside a tunnel: the request says of which and how much ([CaptureOptions]),
//
//	→ {"version":1,"op":"capture","capture":{"interface":"wg0","snap":96,"packets":100,"seconds":60}}
//	← {"version":1}
//
// and behind the answer's line the connection carries the capture as pcapng until a limit is reached, the daemon or the
// tunnel ends, or the client says that it has had enough by closing its side for writing. In each case the rest of the
// capture follows, with its statistics at the end. An instance serves four captures at once. A client that reads slowly
// loses packets, which the statistics count, and slows nothing.
//
// A failed operation has "error" and "code", the exit code meant for it.
//
// Only root and the user the daemon runs as are served, and everything is bounded: the length of a line, the time a
// client may take, the number of clients and of captures. Keys other than public ones are not part of any message, but for the link of an invitation and
// the secret for codes of a client; a capture holds what the tunnel protects, in clear.
package control

import "time"

// Version is the protocol's version. A server refuses any other, so that an old daemon never misunderstands a newer
// command.
const Version = 1

// Bounds of the exchange.
const (
	maxRequest  = 4 << 10          // bytes of a request line
	maxResponse = 64 << 20         // bytes of a response line; a status is about 1 KiB a peer
	maxClients  = 32               // served at once; more are turned away
	requestTime = 5 * time.Second  // for a client to send its request
	answerTime  = 10 * time.Second // for a client to take its answer
)

// Operations.
const (
	OpStatus = "status"
	OpReload = "reload"
	OpDown   = "down"

	OpConfirm = "confirm"

	OpCapture = "capture"

	OpClients = "clients"

	OpSignIn = "sign-in"
)

type request struct {
	Version int    `json:"version"`
	Op      string `json:"op"`

	Capture *CaptureOptions `json:"capture,omitempty"` // of OpCapture
	Clients *ClientsRequest `json:"clients,omitempty"` // of OpClients
	SignIn  *SignInRequest  `json:"sign_in,omitempty"` // of OpSignIn
}

type response struct {
	Version  int       `json:"version"`
	Error    string    `json:"error,omitempty"`
	Code     int       `json:"code,omitempty"`
	Remarks  []string  `json:"remarks,omitempty"`
	Instance *Instance `json:"instance,omitempty"`

	Clients *ClientsAnswer `json:"clients,omitempty"`
	SignIn  *SignIn        `json:"sign_in,omitempty"`
}

// Error is a failure the daemon reported.
type Error struct {
	Text string
	Code int // exit code of the command that asked: 1 failure, 78 bad configuration
}

func (e *Error) Error() string { return e.Text }
