package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"culvert/control"
)

// folders are where instances have their sockets, logs and journals.
type folders struct{ runDir, wgDir, stateDir string }

// The unit culvert@.service runs instances as a user of its own, in folders of that user's, which it names in the environment. Root has others,
// so that nobody but root can put anything into what root's daemons trust.
const (
	serviceRunDir   = "/run/culvert-service"
	serviceStateDir = "/var/lib/culvert-service"
)

// servicePlace is where the instances of services are to be found; nil where the environment has named other folders.
func servicePlace() *folders {
	for _, v := range []string{runDirEnv, wgDirEnv, stateDirEnv} {
		if os.Getenv(v) != "" {
			return nil
		}
	}
	return &folders{serviceRunDir, filepath.Join(serviceRunDir, "wireguard"), serviceStateDir}
}

// locate turns to where an instance is: where those of services are, if it is there and not where one's own are.
func (p *program) locate(name string) {
	if p.service == nil || !control.ValidName(name) || control.Left(p.runDir, name) || p.hasJournal(name) {
		return
	}
	if s := p.service; control.Left(s.runDir, name) || exists(filepath.Join(s.stateDir, name)) {
		p.goTo(s)
	}
}

// runsAsService refuses to start by hand what runs as a service.
func (p *program) runsAsService(name string) error {
	if p.service == nil {
		return nil
	}
	in, err := control.NewClient(p.service.runDir, name).Status(context.Background())
	if err != nil {
		return nil
	}
	return hint(fmt.Errorf("%s is already running, as a service (process %d)", name, in.PID),
		"culvert status %[1]s shows it, culvert reload %[1]s applies a changed file, systemctl stop culvert@%[1]s ends it", name)
}

func (p *program) goTo(s *folders) {
	p.runDir, p.wgDir, p.stateDir, p.service = s.runDir, s.wgDir, s.stateDir, nil
}

// ofServices is the program as it looks at the instances of services; nil where there are none that it may look at.
func (p *program) ofServices() *program {
	if p.service == nil {
		return nil
	}
	if _, err := os.ReadDir(p.service.runDir); err != nil {
		return nil
	}
	other := *p
	other.goTo(p.service)
	return &other
}
