package main

import (
	"context"

	"culvert/setup"
	"culvert/setup/apply"
	linuxkernel "culvert/setup/kernel"
	"culvert/setup/plan"
	"culvert/setup/resolver"
)

// machine is where plans of an instance are carried out.
type machine struct {
	apply.Kernel
	preflight apply.Preflight // nil: nothing is tried before
	// watch calls changed whenever something changes in namespaces, until ctx ends; nil: nothing tells.
	watch func(ctx context.Context, netns []string, changed func()) error
}

// machine returns the running system as an instance sees it: its kernel, and the instance's services.
func (p *program) machine(instance string) machine {
	if p.machineOf != nil {
		return p.machineOf(instance)
	}
	return p.linuxMachine(instance)
}

func (p *program) linuxMachine(instance string) machine {
	k, services := linuxkernel.New(""), p.services(ownProgram(), instance)
	return machine{Kernel: &apply.Parts{Kernel: k, Processes: services, Names: p.names(instance)}, preflight: preflights{k, services}, watch: k.Watch}
}

// names is the part of the machine that resolves names, as an instance sees it.
func (p *program) names(instance string) *resolver.Kernel {
	return resolver.New(resolver.Options{Instance: instance, Dir: p.journalDir(instance),
		Index: func(netns, link string) (int, error) { return setup.LinkIndex(setup.NamespacePath(netns), link) }})
}

// preflights are several as one.
type preflights []apply.Preflight

// Try returns what any of them misses.
func (list preflights) Try(ctx context.Context, steps []plan.Step) (missing []apply.Missing, err error) {
	for _, p := range list {
		more, err := p.Try(ctx, steps)
		if err != nil {
			return nil, err
		}
		missing = append(missing, more...)
	}
	return missing, nil
}
