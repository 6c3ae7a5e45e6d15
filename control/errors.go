package control

import (
	"errors"
	"io/fs"
)

// ErrNotRunning means that no process serves the instance.
var ErrNotRunning = errors.New("not running")

// ErrBusy means that the daemon serves as many clients as it ever does at once.
var ErrBusy = errors.New("busy")

var errNoAnswer = errors.New("the daemon closed the connection without an answer")

// Reason says of what kind a failure is, for programs. Reasons are added over time: one that is not known here is to be read as
// [ReasonFailed].
type Reason string

// Reasons of an [Error].
const (
	ReasonFailed    Reason = "failed"    // the operation was tried: Text says what went wrong
	ReasonRefused   Reason = "refused"   // the caller is neither root nor the daemon's user
	ReasonBusy      Reason = "busy"      // as many are served as ever are at once
	ReasonRequest   Reason = "request"   // it is no request: not one line of JSON, too long, too slow
	ReasonVersion   Reason = "version"   // the daemon does not speak this version of the API
	ReasonOperation Reason = "operation" // the daemon does not have this operation
	ReasonMoved     Reason = "moved"     // another process has gone on with the instance since: asked again, it answers
	ReasonField     Reason = "field"     // the request has a field that the daemon does not know, and so may not leave out
)

// Error is a failure the daemon reported. errors.Is finds in it fs.ErrPermission where the caller is not served, errors.ErrUnsupported where
// the daemon is of a version that does not have what is asked for, and [ErrBusy].
type Error struct {
	Text   string
	Code   int    // exit code of the command that asked: 1 failure, 78 bad configuration
	Reason Reason // "" is ReasonFailed
}

func (e *Error) Error() string { return e.Text }

// Is is for errors.Is.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrPermission:
		return e.Reason == ReasonRefused
	case errors.ErrUnsupported:
		return e.Reason == ReasonVersion || e.Reason == ReasonOperation || e.Reason == ReasonField
	case ErrBusy:
		return e.Reason == ReasonBusy
	}
	return false
}
