package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/fxamacker/cbor/v2"

	"culvert/cmd/culvert/monitor"
	"culvert/config"
	"culvert/crypto"
	"culvert/server"
	"culvert/setup"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// This file is what one daemon leaves to the next at an upgrade: what is not in the file and not on the disk. It goes through sealed memory,
// with descriptors besides, in the order in which this says that they are there.

// estateVersion is the version of the estate's encoding and of what the two processes say to each other. Another one is refused, before
// anything is touched.
const estateVersion = 1

// maxEstate bounds its encoding, in bytes.
const maxEstate = tunnel.MaxState + 64<<20

type estate struct {
	Reloads monitor.Reloads `cbor:"1,keyasint"`
	Monitor []config.Listen `cbor:"2,keyasint,omitempty"` // a descriptor each
	Tunnels []tunnelEstate  `cbor:"3,keyasint"`
}

// tunnelEstate is a tunnel's. Its descriptors are those of the queues, the port, the lanes, the TCP port and the socket for wg.
type tunnelEstate struct {
	Name        string           `cbor:"1,keyasint"`
	Layer       device.Layer     `cbor:"2,keyasint"`
	Netns       string           `cbor:"3,keyasint,omitempty"`
	State       []byte           `cbor:"4,keyasint"` // of the engine
	Queues      int              `cbor:"5,keyasint"`
	Port        []socketEstate   `cbor:"6,keyasint,omitempty"`
	Lanes       [][]socketEstate `cbor:"7,keyasint,omitempty"`
	TCP         netip.AddrPort   `cbor:"8,keyasint"` // the zero value: no descriptor
	Certificate [][]byte         `cbor:"9,keyasint,omitempty"`
	Key         []byte           `cbor:"10,keyasint,omitempty"` // of the certificate, PKCS #8
	Link        linkEstate       `cbor:"11,keyasint"`
	Mark        uint32           `cbor:"12,keyasint,omitempty"` // of what the engine sends
	Pulled      []byte           `cbor:"13,keyasint,omitempty"` // what a server has said
	PulledBy    crypto.PublicKey `cbor:"14,keyasint"`
	Server      crypto.PublicKey `cbor:"15,keyasint"` // of several, the one in use

	Clients []server.Whereabouts `cbor:"16,keyasint,omitempty"`
}

// socketEstate is one kernel socket of a port.
type socketEstate struct {
	Worker int  `cbor:"1,keyasint"`
	V6     bool `cbor:"2,keyasint,omitempty"`
}

// linkEstate is what is in force of a link.
type linkEstate struct {
	MTU       int            `cbor:"1,keyasint,omitempty"`
	Addresses []netip.Prefix `cbor:"2,keyasint,omitempty"`
	Routes    []setup.Route  `cbor:"3,keyasint,omitempty"`
	Mark      uint32         `cbor:"4,keyasint,omitempty"` // as configured
	Covered   []setup.Route  `cbor:"5,keyasint,omitempty"`
	Policy    uint32         `cbor:"6,keyasint,omitempty"` // the mark of default routes
	ValidMark bool           `cbor:"7,keyasint,omitempty"`
}

// erase overwrites the keys.
func (e *estate) erase() {
	for i := range e.Tunnels {
		clear(e.Tunnels[i].State)
		clear(e.Tunnels[i].Key)
	}
}

// encode returns the estate in CBOR. Who has it overwrites it after use.
func (e *estate) encode() ([]byte, error) {
	most := 64 << 10
	for i := range e.Tunnels {
		t := &e.Tunnels[i]
		most += len(t.State) + len(t.Key) + len(t.Pulled) + 200*(len(t.Link.Addresses)+len(t.Link.Routes)+len(t.Link.Covered)+len(t.Clients)) + 8<<10
		for _, c := range t.Certificate {
			most += len(c)
		}
	}
	return tunnel.EncodeSecret(e, min(most, maxEstate), maxEstate)
}

func decodeEstate(b []byte) (*estate, error) {
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, MaxArrayElements: 1 << 20}.DecMode()
	if err != nil {
		return nil, err
	}
	e := new(estate)
	if err := mode.Unmarshal(b, e); err != nil {
		e.erase()
		return nil, fmt.Errorf("what was handed over cannot be read: %w", err)
	}
	return e, nil
}

// suspendable is an engine that can be stopped for another process to go on with its work.
type suspendable interface {
	Suspend() (*tunnel.State, error)
	Resume() error
	Restart() error
	Ports() (port transport.Socket, lanes []transport.Socket)
}

// estate is what a tunnel leaves, with its descriptors, which the caller closes also on error. Its engine is suspended, and has this state, which
// is erased.
func (t *liveTunnel) estate(state *tunnel.State) (e tunnelEstate, files []*os.File, err error) {
	e = tunnelEstate{Name: t.conf.Name, Layer: t.dev.Layer(), Netns: t.netns}
	e.State, err = state.Encode()
	state.Erase()
	if err != nil {
		return e, nil, err
	}
	status := t.engine.Status()
	status.PrivateKey.Zero()
	e.Mark = status.Mark
	d, ok := t.dev.(device.Bequeather)
	if !ok {
		return e, nil, fmt.Errorf("the device: %w", errors.ErrUnsupported)
	}
	if files, err = d.Files(); err != nil {
		return e, files, err
	}
	e.Queues = len(files)
	take := func(s transport.Socket) (list []socketEstate, err error) {
		b, ok := s.(transport.Bequeather)
		if !ok {
			return nil, fmt.Errorf("the UDP port: %w", errors.ErrUnsupported)
		}
		sockets, err := b.Files()
		for _, f := range sockets {
			list, files = append(list, socketEstate{f.Worker, f.V6}), append(files, f.File)
		}
		return list, err
	}
	port, lanes := t.engine.(suspendable).Ports()
	if port != nil {
		if e.Port, err = take(port); err != nil {
			return e, files, err
		}
	}
	for _, s := range lanes {
		list, err := take(s)
		if err != nil {
			return e, files, err
		}
		e.Lanes = append(e.Lanes, list)
	}
	listener, at, err := t.streams.Listener()
	if err != nil {
		return e, files, err
	}
	if listener != nil {
		e.TCP, files = at, append(files, listener)
	}
	if t.certificate != nil {
		e.Certificate = t.certificate.Certificate
		if e.Key, err = x509.MarshalPKCS8PrivateKey(t.certificate.PrivateKey); err != nil {
			return e, files, err
		}
	}
	wg, err := t.wg.listener.File()
	if err != nil {
		return e, files, err
	}
	files = append(files, wg)
	t.linkMu.Lock()
	e.Link = t.link.estate()
	t.linkMu.Unlock()
	if t.role.pulled != nil {
		if e.Pulled, err = t.role.pulled.Encode(); err != nil {
			return e, files, err
		}
		e.PulledBy = t.role.pulledBy
	}
	e.Server, _ = t.role.order.use()
	if t.role.server != nil {
		e.Clients = t.role.server.server.Whereabouts()
	}
	return e, files, nil
}

// certificateOf is the one that was handed over; nil where there was none.
func (e *tunnelEstate) certificateOf() (*tls.Certificate, error) {
	if e.Key == nil {
		return nil, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(e.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: e.Certificate, PrivateKey: key}, nil
}

// estate is what is in force.
func (s *l3) estate() linkEstate {
	e := linkEstate{MTU: s.have.MTU, Addresses: s.have.Addresses, Routes: s.have.Routes, Mark: s.have.Mark}
	for r := range s.covered {
		e.Covered = append(e.Covered, r)
	}
	if s.policy != nil {
		e.Policy, e.ValidMark = s.policy.mark, s.policy.validMark
	}
	return e
}

// goOn takes up what is in force of a link.
func (s *l3) goOn(ctx context.Context, link string, e *linkEstate) error {
	s.have = setup.L3{Link: link, MTU: e.MTU, Addresses: e.Addresses, Routes: e.Routes, Mark: e.Mark}
	s.addrs, s.routes, s.covered = make(map[netip.Prefix]*applied), make(map[setup.Route]*applied), setOf(e.Covered)
	// What goes with the device needs not be taken back at the end.
	nothing := func() error { return nil }
	s.base, s.mtu = &applied{remove: nothing}, &applied{remove: nothing}
	take := func(c setup.L3, validMark bool) (*applied, error) {
		c.Link, c.Namespace = link, s.namespace
		a, err := s.inherit(ctx, c, validMark)
		if err != nil {
			return nil, err
		}
		return &a, nil
	}
	for _, p := range e.Addresses {
		a, err := take(setup.L3{Addresses: []netip.Prefix{p}}, false)
		if err != nil {
			return err
		}
		s.addrs[p] = a
	}
	plain, policy := splitRoutes(e.Routes)
	var there []setup.Route
	for _, r := range plain {
		if !s.covered[r] {
			there = append(there, r)
		}
	}
	if len(plain) > 0 {
		a, err := take(setup.L3{Routes: there}, false)
		if err != nil {
			return err
		}
		for _, r := range plain {
			s.routes[r] = a
		}
	}
	if len(policy) > 0 && e.Policy != 0 {
		a, err := take(setup.L3{Routes: policy, Mark: e.Policy}, e.ValidMark)
		if err != nil {
			return err
		}
		s.policy = a
	}
	return nil
}

// upgradePatience bounds each step of an upgrade.
const upgradePatience = 30 * time.Second

// pausePatience and, for each peer, peerPatience are how long the other process may take while packets wait: many times what it takes on a busy
// machine.
const (
	pausePatience = 3 * time.Second
	peerPatience  = time.Millisecond
)
