package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/uapi"
)

// engineArgument makes this program a daemon: culvert's engine on the native wire with a suite that the program itself would
// choose by what it measured. Arguments: the suite, the device's name.
const engineArgument = "engine"

const (
	suiteChaCha = "chacha20"
	suiteGCM    = "aes-gcm"
	suiteAny    = "measured" // what a daemon would choose
)

// suitesOf is what both ends have to offer for a suite to be chosen.
func suitesOf(name string) (crypto.Suites, error) {
	switch name {
	case suiteChaCha:
		return crypto.SuitesOf(crypto.ChaCha20Poly1305), nil
	case suiteGCM:
		return crypto.AllSuites, nil
	case suiteAny:
		return 0, nil
	}
	return 0, fmt.Errorf("there is no suite %q", name)
}

// serveEngine runs until it is told to end.
func serveEngine(suite, name string) error {
	suites, err := suitesOf(suite)
	if err != nil {
		return err
	}
	if err := raisePriority(); err != nil {
		return err
	}
	dev, err := device.OpenTun(device.TunOptions{Name: name, MTU: tunnelMTU})
	if err != nil {
		return err
	}
	t, err := tunnel.New(dev, transport.UDP{}, tunnel.Options{Suites: suites, Agent: "culvert bench"})
	if err != nil {
		dev.Close()
		return err
	}
	defer t.Close()
	listener, err := uapi.Listen("/run/wireguard", name)
	if err != nil {
		return err
	}
	defer listener.Close()
	server := uapi.NewServer(nativePeers{t}, uapi.Options{})
	defer server.Close()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case <-t.Done():
		return t.Err()
	case <-stop:
		return nil
	}
}

// nativePeers is an engine whose peers are all on the native wire. The userspace API has no word for it.
type nativePeers struct{ *tunnel.Tunnel }

// Configure puts the peers on the wire.
func (n nativePeers) Configure(c tunnel.Change) error {
	wire := tunnel.Culvert
	for i := range c.Peers {
		if !c.Peers[i].Remove {
			c.Peers[i].Wire = &wire
		}
	}
	return n.Tunnel.Configure(c)
}
