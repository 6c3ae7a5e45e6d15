package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"culvert/cmd/culvert/resolve"
	"culvert/crypto"
	"culvert/crypto/enrolment"
	"culvert/server"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// noDevice is the overlay of an engine that carries nothing but control messages.
type noDevice struct {
	events chan device.Event
	closed chan struct{}
	once   sync.Once
}

func newNoDevice() *noDevice {
	d := &noDevice{events: make(chan device.Event, 1), closed: make(chan struct{})}
	d.events <- device.EventUp
	return d
}

func (d *noDevice) Layer() device.Layer         { return device.LayerIP }
func (d *noDevice) Name() (string, error)       { return "join", nil }
func (d *noDevice) MTU() (int, error)           { return minAutoMTU, nil }
func (d *noDevice) Queues() []device.Queue      { return []device.Queue{d} }
func (d *noDevice) Events() <-chan device.Event { return d.events }

func (d *noDevice) Close() error {
	d.once.Do(func() { close(d.closed); close(d.events) })
	return nil
}

func (d *noDevice) Read(_ []byte, wait bool) (lo, hi int, o device.Offload, err error) {
	if !wait {
		return 0, 0, o, device.ErrWouldBlock
	}
	<-d.closed
	return 0, 0, o, os.ErrClosed
}

func (d *noDevice) Write([]byte, int, int, device.Offload) error { return nil }

// refusal is the error of a server that has said that it does not take a key.
type refusal struct{ reason string }

func (r *refusal) Error() string { return "the server refuses: " + r.reason }

// enrolAt has the server of an invitation take a key, trying its endpoints in their order, and returns its answer. Where that is an
// error other than a refusal, asked tells whether the server may have been asked, and so may have taken the key.
func enrolAt(ctx context.Context, link *server.Link, key crypto.PublicKey, name string) (accepted server.EnrolAnswer, asked bool, err error) {
	request, err := (&server.EnrolRequest{Key: key, Name: name}).Encode()
	if err != nil { // a host's name that cannot be shown
		if request, err = (&server.EnrolRequest{Key: key}).Encode(); err != nil {
			return accepted, false, err
		}
	}
	private, psk, err := enrolment.Derive(link.Secret, link.ServerKey)
	if err != nil {
		return accepted, false, err
	}
	defer private.Zero()
	defer psk.Zero()
	answers := make(chan []byte, 1)
	engine, err := tunnel.New(newNoDevice(), transport.UDP{}, tunnel.Options{Agent: agent(), Pushed: func(_ crypto.PublicKey, subject string, document []byte) {
		if subject == server.SubjectEnrolled {
			select {
			case answers <- document:
			default:
			}
		}
	}})
	if err != nil {
		return accepted, false, err
	}
	defer func() {
		engine.Close()
		asked = engine.Status().Handshakes.Completed > 0 // what is pushed leaves under a session alone, and there will be none any more
	}()
	if err := engine.Configure(tunnel.Change{PrivateKey: &private}); err != nil {
		return accepted, false, err
	}
	var errs []error
	for _, e := range link.Endpoints {
		addrs, err := addressesOf(ctx, e)
		if err != nil {
			errs = append(errs, err)
		}
		for _, a := range addrs {
			answer, err := enrolWith(ctx, engine, link.ServerKey, &psk, a, request, answers)
			switch {
			case err != nil:
				errs = append(errs, err)
			case !answer.Accepted:
				return accepted, true, &refusal{answer.Reason}
			default:
				return answer, true, nil
			}
			if ctx.Err() != nil {
				break
			}
		}
		if ctx.Err() != nil {
			return accepted, false, context.Cause(ctx)
		}
	}
	return accepted, false, hint(errors.Join(errs...), "an invitation that was used, revoked, or whose time is up gets no answer: ask for another if the server can be reached")
}

func addressesOf(ctx context.Context, endpoint string) (out []netip.AddrPort, err error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	if t := (resolve.Target{Host: host, Port: uint16(n)}); host != "" {
		if a, ok := t.Literal(); ok {
			return []netip.AddrPort{a}, nil
		}
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", host, err)
	}
	const most = 4
	for _, a := range addrs[:min(len(addrs), most)] {
		out = append(out, netip.AddrPortFrom(a.Unmap(), uint16(n)))
	}
	return out, nil
}

// enrolWith asks the server at one address. It asks again: what was acknowledged may have been dropped where it waited.
func enrolWith(parent context.Context, engine *tunnel.Tunnel, key crypto.PublicKey, psk *crypto.PresharedKey, at netip.AddrPort, request []byte, answers <-chan []byte) (server.EnrolAnswer, error) {
	ctx, cancel := context.WithTimeout(parent, joinTime)
	defer cancel()
	wire := tunnel.Culvert
	if err := engine.Configure(tunnel.Change{ReplacePeers: true, Peers: []tunnel.PeerChange{{
		PublicKey: key, Wire: &wire, PresharedKey: psk, Endpoint: &transport.Endpoint{Remote: at},
	}}}); err != nil {
		return server.EnrolAnswer{}, err
	}
	const again = 8 * time.Second
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		if err := engine.Push(key, server.SubjectEnrol, request); err != nil {
			return server.EnrolAnswer{}, err
		}
		select {
		case b := <-answers:
			return server.DecodeEnrolAnswer(b)
		case <-engine.Done():
			return server.EnrolAnswer{}, engine.Err()
		case <-parent.Done():
			return server.EnrolAnswer{}, context.Cause(parent)
		case <-ctx.Done():
			return server.EnrolAnswer{}, fmt.Errorf("no answer from %s within %v", at, joinTime)
		case <-tick.C:
		}
	}
}
