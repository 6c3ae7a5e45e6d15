package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// OpLog shows the latest lines of the log, and changes its level.
const OpLog = "log"

// LogRequest is about the daemon's log.
type LogRequest struct {
	Level string `json:"level,omitempty"` // from now on: "debug", "info", "warn" or "error"; absent: as it is
}

// Check refuses levels that there are not.
func (r LogRequest) Check() error {
	if r.Level == "" {
		return nil
	}
	_, err := ParseLevel(r.Level)
	return err
}

// ParseLevel reads a level's name.
func ParseLevel(name string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.ToLower(l.String()) == name {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%.20q is no level of a log: there are debug, info, warn and error", name)
}

// Log is the daemon's log.
type Log struct {
	Level string   `json:"level"`           // what is written: of this level and those above it; "silent" is nothing
	Lines []string `json:"lines,omitempty"` // the latest, the oldest first: at most 256, as text with times, each at most 1,024 bytes
}

// Logger is a [Service] whose log can be asked for.
type Logger interface {
	Log(LogRequest) (*Log, error)
}

func answerLog(s Service, r *LogRequest) (*Log, error) {
	logger, ok := s.(Logger)
	if !ok {
		return nil, errors.New("this instance's log cannot be asked for")
	}
	if r == nil {
		r = new(LogRequest)
	}
	if err := r.Check(); err != nil {
		return nil, &Error{Text: err.Error(), Reason: ReasonRequest}
	}
	return logger.Log(*r)
}

// Log asks for the latest lines of the daemon's log, or changes its level.
func (c *Client) Log(ctx context.Context, r LogRequest) (*Log, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	resp, err := c.call(ctx, request{Op: OpLog, Log: &r}, statusTime)
	if err == nil && resp.Log == nil {
		err = errors.New("the daemon's answer holds no log")
	}
	return resp.Log, err
}
