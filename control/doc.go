// Package control is how programs talk to a running instance of culvert, and both ends of it: [Client] asks, [Listener] answers. The command
// line has no other way; docs/api.md is the reference for clients in other languages.
//
// An instance NAME holds NAME.lock (flock, so that the kernel frees it whatever way the process ends) and listens on
// NAME.sock in the run directory, /run/culvert. The exchange is one line of JSON each way, then the server closes:
//
//	→ {"version":1,"op":"status"}
//	← {"version":1,"instance":{...}}
//
// Behind the answer to "capture" follows a stream, until a limit is reached, the daemon or the tunnel ends, or the client says that it
// has had enough by closing its side for writing; its rest still comes then. After "down" the connection stays open until the process has
// ended, so that its end of file is the proof.
//
// A request in another version, of an operation or with a field that the daemon does not know is refused with a reason ([Reason]), and
// "hello" is answered in any version ([Client.Hello]). So neither end misunderstands one of another age. A client ignores fields of
// answers that it does not know.
//
// Only root and the user the daemon runs as are served, and everything is bounded: the length of a line, the time a
// client may take, the number of clients and of streams. Keys other than public ones are not part of any message, but for the link of an
// invitation and the secret for codes of a client; a capture holds what the tunnel protects, in clear.
//
//go:generate go test -run TestAPIDocument -docs .
package control

import "time"

// Version is the version of the API. A daemon refuses any other, and fields and operations that it does not know, so that an old one never
// misunderstands a newer command. It changes only when a client of the version before could misunderstand an answer.
const Version = 1

// Bounds of the exchange.
const (
	maxRequest  = 4 << 10          // bytes of a request line
	maxResponse = 64 << 20         // bytes of a response line; a status is about 1 KiB a peer
	maxClients  = 32               // served at once, besides streams; more are turned away
	requestTime = 5 * time.Second  // for a client to send its request
	answerTime  = 10 * time.Second // for a client to take its answer
)
