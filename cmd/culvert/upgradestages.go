package main

import "time"

// This file is what the two processes of an upgrade say to each other, in the order that predecessor.go has.

// succeedEnv names the descriptor of the pair of sockets in the new process's environment.
const succeedEnv = "CULVERT_SUCCEED_FD"

// Stages of an upgrade.
const (
	stageBegin  = "begin"
	stageHere   = "here"
	stageStores = "stores"
	stageHolds  = "holds"
	stageEstate = "estate"
	stageFiles  = "files"
	stageReady  = "ready"
	stageGo     = "go"
	stageRuns   = "runs"
	stageFailed = "failed"
)

// successionMessage is what the two processes say to each other.
type successionMessage struct {
	Stage string `json:"stage"`

	Begin *beginning `json:"begin,omitempty"`
	Files int        `json:"files,omitempty"` // of "estate": how many descriptors follow
	Error string     `json:"error,omitempty"` // of "failed"
	Code  int        `json:"code,omitempty"`
}

// beginning is what the new process starts from.
type beginning struct {
	Instance   string    `json:"instance"`
	Detached   bool      `json:"detached"` // it logs to a file
	Level      int       `json:"level"`
	StartLevel int       `json:"start_level"`
	Started    time.Time `json:"started"`
	Refused    string    `json:"refused"` // system calls, as confine.Calls names them
	From       string    `json:"from"`    // the program before
	PID        int       `json:"pid"`
	Stores     bool      `json:"stores"` // the clients' file was open
	Journal    bool      `json:"journal"`
}
