package control

import (
	"context"
	"errors"
	"time"
)

// UpgradeRequest asks a daemon to have another program go on with its work.
type UpgradeRequest struct {
	Program string `json:"program,omitempty"` // its absolute path; absent: the one that the daemon was started from
}

// Upgraded is how a daemon's work has passed on.
type Upgraded struct {
	From  string  `json:"from"`  // the build of the program before
	To    string  `json:"to"`    // the build of the program that goes on
	PID   int     `json:"pid"`   // the process that goes on
	Pause float64 `json:"pause"` // seconds for which packets waited
}

// An Upgrader is a [Service] whose work another process can go on with.
type Upgrader interface {
	// Upgrade returns once the other process runs. On an error this one runs on.
	Upgrade(context.Context, UpgradeRequest) (*Upgraded, error)
}

// upgradeTime bounds an upgrade.
const upgradeTime = 3 * time.Minute

// Upgrade has another process go on with the instance: nothing is lost, and what has called the old one before is answered by it.
func (c *Client) Upgrade(ctx context.Context, r UpgradeRequest) (*Upgraded, error) {
	resp, err := c.call(ctx, request{Op: OpUpgrade, Upgrade: &r}, upgradeTime)
	if err == nil && resp.Upgraded == nil {
		err = errors.New("the daemon's answer does not say who goes on")
	}
	return resp.Upgraded, err
}

func upgrade(ctx context.Context, s Service, r *UpgradeRequest) (*Upgraded, error) {
	u, ok := s.(Upgrader)
	if !ok {
		return nil, errors.New("this daemon cannot be upgraded")
	}
	if r == nil {
		r = &UpgradeRequest{}
	}
	ctx, cancel := context.WithTimeout(ctx, upgradeTime)
	defer cancel()
	return u.Upgrade(ctx, *r)
}
