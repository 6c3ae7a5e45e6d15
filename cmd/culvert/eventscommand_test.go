package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/internal/lab"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// seenEngine is a fake engine whose one peer is where the test says.
type seenEngine struct {
	*fakeEngine
	peer chan tunnel.Sighting // capacity 1: what is seen now
}

func (e *seenEngine) IsUp() bool { return true }

func (e *seenEngine) Sightings(list []tunnel.Sighting) []tunnel.Sighting {
	s := <-e.peer
	e.peer <- s
	return append(list, s)
}

// A client that asks the daemon is told of what happens to it: lines for people, and JSON for programs.
func TestEventsOfDaemon(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, capturedFile)
	in := newInstance(t, s, file)
	in.d.name = "site"
	in.d.openEvents()
	key := crypto.PublicKey{9}
	for i := range file.Tunnels[0].Peers {
		key = file.Tunnels[0].Peers[i].PublicKey
	}
	at := netip.MustParseAddrPort("192.0.2.9:51820")
	e := &seenEngine{peer: make(chan tunnel.Sighting, 1)}
	e.peer <- tunnel.Sighting{PublicKey: key}
	see := func(s tunnel.Sighting) { <-e.peer; e.peer <- s; in.d.events.Look() }
	newEngine := in.kernel.newEngine
	in.kernel.newEngine = func(d device.Device, n transport.Network, o tunnel.Options) (engine, error) {
		fake, err := newEngine(d, n, o)
		if err != nil {
			return nil, err
		}
		e.fakeEngine = fake.(*fakeEngine)
		return e, nil
	}
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	p := serveDaemon(t, in.d)

	stream, err := p.ask("site").Events(t.Context(), control.EventOptions{Kinds: []string{"peer", "instance"}})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	see(tunnel.Sighting{PublicKey: key, Connected: true, Endpoint: at})
	see(tunnel.Sighting{PublicKey: key, Connected: true, Endpoint: at, TCP: true})
	if _, err := in.d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in.d.file, []byte("version: 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := in.d.Reload(t.Context()); err == nil {
		t.Fatal("a wrong file was taken")
	}
	for _, want := range []string{"site wg0 peer-connected branch at 192.0.2.9:51820", "site wg0 peer-tcp branch at 192.0.2.9:51820 before 192.0.2.9:51820",
		"site instance-reloaded", "site instance-reload-failed: "} {
		got, err := stream.Next()
		if err != nil || !strings.Contains(eventText(&got), strings.Replace(want, "wg0", file.Tunnels[0].Name, 1)) {
			t.Errorf("%s, %v\nwant %s", eventText(&got), err, want)
		}
	}

	// The command prints until the daemon ends.
	type printed struct {
		out, errs []byte
		code      int
	}
	ended := func(args ...string) <-chan printed {
		c := new(program)
		*c = *p
		done := make(chan printed, 1)
		go func() {
			out, errs, code := c.command(args...)
			done <- printed{out, errs, code}
		}()
		return done
	}
	lines, text := ended("events", "site", "--json", "--only", "instance-ending"), ended("events", "--only", "instance")
	for in.d.events.Subscribers() < 3 {
		time.Sleep(time.Millisecond)
	}
	in.d.events.Publish(control.Event{Event: control.EventInstanceEnding, Why: "asked\nto stop"})
	in.d.events.Close()
	got := <-lines
	var e1 control.Event
	if err := json.Unmarshal(got.out, &e1); err != nil || e1.Event != control.EventInstanceEnding || e1.Instance != "site" || got.code != 0 || len(got.errs) > 0 {
		t.Errorf("%s%s, %d: %v", got.out, got.errs, got.code, err)
	}
	if got := <-text; !strings.HasSuffix(string(got.out), " site instance-ending: asked?to stop\n") || got.code != 0 || len(got.errs) > 0 {
		t.Errorf("%s%s, %d", got.out, got.errs, got.code)
	}
	if _, errs, code := p.command("events", "site", "--only", "nothing"); code != exitUsage || !strings.Contains(string(errs), "no kind of event") {
		t.Errorf("%s, %d", errs, code)
	}
	if _, errs, code := p.command("events", "none"); code != exitFailure || !strings.Contains(string(errs), "nothing called none") {
		t.Errorf("%s, %d", errs, code)
	}
}

// Programs of the file are run at events from the start on; a reload changes them, and kinds that there are not are refused with their place.
func TestProgramsAtEvents(t *testing.T) {
	s := newSystem(t)
	dir := t.TempDir()
	said, script := filepath.Join(dir, "said"), filepath.Join(dir, "hook")
	lab.WriteProgram(t, script, []byte("#!/bin/sh\necho \"$2 $CULVERT_EVENT\" >>\"$1\"\n"), 0o700)
	on := func(kind, word string) string {
		return fmt.Sprintf("on: [{events: [%s], run: [%s, %s, %s]}]\n", kind, script, said, word)
	}
	text := yamlText(capturedFile)
	in := newInstance(t, s, yamlFile(t, text+on("instance-reloaded", "first")))
	in.d.openEvents()
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(in.d.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text + on("instance", "second"))
	if remarks, err := in.d.Reload(t.Context()); err != nil || !slices.Contains(remarks, "on: other programs are run at events") {
		t.Fatalf("%q, %v", remarks, err)
	}
	write(text + on("peer-eaten", "third"))
	_, err := in.d.Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), "\"peer-eaten\" is no kind of event") || !strings.Contains(err.Error(), in.d.file+":") {
		t.Errorf("a kind that there is not: %v", err)
	}
	in.d.events.Publish(control.Event{Event: control.EventInstanceEnding})
	in.d.closeEvents()
	if got := read(t, said); got != "second instance-reloaded\nsecond instance-reload-failed\nsecond instance-ending\n" {
		t.Errorf("run were\n%s", got)
	}
}
