package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"culvert/config"
	"culvert/server"
	"culvert/transport"
	"culvert/transport/stream"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/uapi"
)

// heirTunnel is a tunnel that is being taken over.
type heirTunnel struct {
	*liveTunnel
	infof   func(string, ...any)
	estate  *tunnelEstate
	network *observedNetwork
	ports   *inheritedNetwork
	wgFile  *os.File
	change  tunnel.Change
}

// make makes a tunnel that does not run.
func (t *heirTunnel) make(ctx context.Context, s surroundings, next func(int) ([]*os.File, error)) error {
	e := t.estate
	if (e.Layer == device.LayerEthernet) != (t.conf.Mode == config.ModeTap) {
		return errors.New("it is a tap now and was a tun, or the other way round")
	}
	state, err := tunnel.DecodeState(e.State)
	clear(e.State)
	if err != nil {
		return err
	}
	t.role.order.set(serversOf(&t.conf), time.Now())
	t.role.order.choose(e.Server)
	if e.Pulled != nil {
		d, err := server.DecodeDocument(e.Pulled)
		if err != nil {
			return err
		}
		t.role.pulled, t.role.pulledBy = &d, e.PulledBy
	}
	if t.role.server != nil {
		t.role.server.server.Resume(e.Clients)
	}
	t.whole = t.wholeOf(t.conf)
	if t.certificate, err = e.certificateOf(); err != nil {
		return err
	}
	queues, err := next(e.Queues)
	if err != nil {
		return err
	}
	dev, err := device.Inherit(e.Layer, queues)
	if err != nil {
		return err
	}
	streams, err := t.takePorts(next)
	if err != nil {
		return err
	}
	wg, err := next(1)
	if err != nil {
		return err
	}
	t.wgFile = wg[0]
	if err := t.link.goOn(ctx, t.conf.Name, &e.Link); err != nil {
		return err
	}
	if t.change, err = t.firstChange(s, &t.whole); err != nil {
		return err
	}
	if t.whole.Mark == 0 {
		t.change.Mark = &e.Mark // of the policy of a default route
	}
	t.network, err = t.runEngine(dev, streams, state, t.infof)
	return err
}

// takePorts takes the tunnel's ports: UDP, that of each lane, and TCP.
func (t *heirTunnel) takePorts(next func(int) ([]*os.File, error)) (*stream.Network, error) {
	e := t.estate
	t.ports = &inheritedNetwork{Network: t.kernel.network}
	take := func(list []socketEstate, o transport.Options) (transport.Socket, error) {
		files, err := next(len(list))
		if err != nil {
			return nil, err
		}
		o.Logf, o.Mark, o.DontFragment = t.infof, e.Mark, false
		return t.ports.take(list, files, o)
	}
	if len(e.Port) > 0 {
		var err error
		if t.ports.port, err = take(e.Port, transport.Options{}); err != nil {
			return nil, err
		}
	}
	for _, list := range e.Lanes {
		lane, err := take(list, transport.Options{Unwatched: true})
		if err != nil {
			return nil, err
		}
		t.ports.lanes = append(t.ports.lanes, lane)
	}
	streams := stream.New(t.ports)
	if e.TCP != (netip.AddrPort{}) {
		f, err := next(1)
		if err != nil {
			return nil, err
		}
		if err := streams.Inherit(f[0], e.TCP); err != nil {
			return nil, err
		}
	}
	return streams, nil
}

// choose makes one of the servers the one in use.
func (o *serverOrder) choose(key [32]byte) {
	for i := range o.keys {
		if o.keys[i] == key {
			o.inUse = i
		}
	}
}

// goOn has what is around the engine go on.
func (t *heirTunnel) goOn(ctx context.Context, wgDir string) error {
	if len(t.estate.Port) > 0 { // the interface is up
		if err := t.network.wait(ctx, t.engine.Done()); err != nil {
			return err
		}
	}
	l, err := uapi.Adopt(t.wgFile, wgDir, t.conf.Name)
	if err != nil {
		return err
	}
	t.wg = serveWG(l, t.engine, t.infof)
	t.isUp = true
	t.undo = undo{}
	t.undoHooks("PostDown", func() []config.Hook { return t.conf.Hooks.PostDown })
	t.undo.add("close the device", t.engine.Close)
	t.undoSockets()
	return nil
}
