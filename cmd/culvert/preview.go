package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"culvert/cmd/culvert/reloadplan"
	"culvert/config"
	"culvert/control"
)

// readAgain reads the file of an instance again. Nothing is changed.
func (in *instance) readAgain() (file *config.File, remarks []string, err error) {
	file, err = loadConfig(in.d.file)
	if err != nil {
		return nil, nil, in.d.confined.explain(err)
	}
	if file.Instance != in.file.Instance {
		return nil, nil, fmt.Errorf("%s now names the instance %s: take %s down and bring the file up", in.d.file, file.Instance, in.file.Instance)
	}
	for _, w := range file.Warnings {
		remarks = append(remarks, "warning: "+w.Error())
	}
	if !reflect.DeepEqual(file.Nice, in.file.Nice) {
		remarks = append(remarks, "nice: it counts from the next start on")
	}
	if file.Confine != in.file.Confine {
		remarks = append(remarks, "confine: it counts from the next start on")
	}
	remark, err := in.d.confined.allows(file)
	if err != nil {
		return nil, remarks, err
	}
	if remark != "" {
		remarks = append(remarks, remark)
	}
	if !reflect.DeepEqual(programsAt(file), programsAt(in.file)) {
		remarks = append(remarks, "on: other programs are run at events")
	}
	return file, remarks, nil
}

// checkFixed refuses a file that changes of a tunnel what cannot change while it is up.
func (in *instance) checkFixed(file *config.File) error {
	running := make(map[string]*liveTunnel)
	for _, t := range in.live() {
		running[t.hooks.ifname] = t
	}
	for i := range file.Tunnels {
		conf := &file.Tunnels[i]
		t := running[conf.Name]
		if t == nil || t.netns != netnsOf(file, conf.Name) {
			continue
		}
		if what, at := fixed(&t.conf, conf); what != "" {
			return hint(placed(at, fmt.Errorf("tunnel %s cannot change %s while it is up", conf.Name, what)),
				"culvert down %s, then culvert up %s", file.Instance, in.d.file)
		}
	}
	return nil
}

// preview says what reload would do.
func (in *instance) preview(ctx context.Context) (*control.ReloadPlan, error) {
	file, remarks, err := in.readAgain()
	if err != nil {
		return nil, err
	}
	made := &control.ReloadPlan{Changes: reloadplan.Of(in.file, file), Network: []string{}, Remarks: remarks}
	if made.Changes == nil {
		made.Changes = []control.ReloadChange{}
	}
	refused := in.checkFixed(file)
	if in.net != nil || in.hasNetwork(file) {
		whole, err := in.wholeFile(file)
		if err != nil {
			return nil, err
		}
		network, err := in.previewNetwork(ctx, whole)
		if err != nil {
			return nil, err
		}
		made.Network = append(made.Network, network.lines...)
		made.Remarks = append(made.Remarks, network.notes...)
		refused = errors.Join(refused, network.refused)
	}
	for i := range file.Tunnels { // what is looked at before anything is changed
		before := in.file.Tunnel(file.Tunnels[i].Name)
		if before == nil {
			before = &config.Tunnel{}
		}
		_, err := changeTo(&wholeTunnel{Tunnel: file.Tunnels[i]}, before)
		refused = errors.Join(refused, err)
	}
	if refused != nil {
		made.Refused = refused.Error()
	}
	return made, nil
}

// networkPreview is what becomes of the network around the tunnels.
type networkPreview struct {
	lines, notes []string
	refused      error
}

func (in *instance) previewNetwork(ctx context.Context, file *config.File) (p networkPreview, err error) {
	if in.net == nil { // it would be opened
		made, err := in.d.p.lookAndTry(ctx, file)
		if err != nil {
			return p, err
		}
		p.lines, p.notes = describe(made), made.Notes
		if made.HasConflict() || len(made.Missing) > 0 {
			p.refused = errors.New("the network has conflicts, or lacks something")
		}
		return p, nil
	}
	in.net.mu.Lock()
	defer in.net.mu.Unlock()
	items := itemsOf(file)
	made, _, err := in.net.engine.Plan(ctx, items)
	if err == nil {
		err = in.net.engine.Try(ctx, made, items)
	}
	if err != nil {
		return p, err
	}
	p.lines, p.notes = describe(made), made.Notes
	if made.HasConflict() || len(made.Missing) > 0 {
		p.refused = errors.New("the network has conflicts, or lacks something")
	}
	return p, nil
}
