package service

import (
	"time"

	"culvert/setup/model"
)

// Status is one thing that an instance's supervisor keeps, or that was left by one.
type Status struct {
	ID     model.ID     `json:"id"`
	Fields model.Fields `json:"fields"`
	// Orphaned says that no supervisor keeps it: it was killed, and no later one has taken the thing over.
	Orphaned bool `json:"orphaned,omitempty"`
	// Of the namespace it is in, 0 where that is gone or another one has its name.
	Inode uint64 `json:"inode,omitempty"`
	Index int    `json:"index,omitempty"` // of a hand-over's device

	// Of a process.
	Phase    Phase         `json:"phase,omitempty"`
	For      time.Duration `json:"for,omitempty"` // since the phase began
	PID      int           `json:"pid,omitempty"`
	Started  uint64        `json:"started,omitempty"`
	Restarts int           `json:"restarts,omitempty"`
	LastEnd  string        `json:"last_end,omitempty"` // why the program ended that ran before
}
