package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/server"
	"culvert/tunnel"
)

// Clients implements [control.ClientKeeper].
func (d *daemon) Clients(r control.ClientsRequest) (*control.ClientsAnswer, error) {
	if err := d.operate(); err != nil {
		return nil, err
	}
	defer d.ops.Unlock()
	in, ok := d.body.(*instance)
	if !ok {
		return nil, fmt.Errorf("%s has no tunnel that clients join", d.name)
	}
	list, err := in.serving(r.Tunnel)
	if err != nil {
		return nil, err
	}
	answer := &control.ClientsAnswer{}
	if r.Do == control.DoList {
		for _, t := range list {
			t.listClients(r.Name, answer)
		}
		return answer, nil
	}
	if len(list) > 1 {
		var names []string
		for _, t := range list {
			names = append(names, t.hooks.ifname)
		}
		return nil, fmt.Errorf("%s has several tunnels that clients join: name one of %s", d.name, strings.Join(names, ", "))
	}
	return answer, list[0].keepClients(&r, answer)
}

// serving are the tunnels that clients join, or the one of that name.
func (in *instance) serving(name string) (list []*liveTunnel, err error) {
	for _, t := range in.live() {
		if t.role.server != nil && (name == "" || t.hooks.ifname == name) {
			list = append(list, t)
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case name == "":
		return nil, fmt.Errorf("%s has no tunnel that clients join: it needs \"server:\"", in.file.Instance)
	}
	return nil, fmt.Errorf("%s has no tunnel %s that clients join", in.file.Instance, name)
}

// keepClients does what is asked of the clients of a tunnel, and makes it so.
func (t *liveTunnel) keepClients(r *control.ClientsRequest, answer *control.ClientsAnswer) error {
	t.role.changing.Lock()
	defer t.role.changing.Unlock()
	s, now := t.role.server.server, time.Now()
	switch r.Do {
	case control.DoInvite:
		link, made, err := s.Invite(r.Name, r.Group, time.Duration(min(r.Expires, 1e9)*float64(time.Second)), now)
		if err != nil {
			return err
		}
		if answer.Link, err = link.Encode(); err != nil {
			return err
		}
		link.Secret.Zero()
		answer.Expires = made.Expires.UTC().Truncate(time.Second)
	case control.DoAdd:
		if r.WireGuard && t.conf.PostQuantum {
			return fmt.Errorf("tunnel %s requires post-quantum keys of all peers, and the wireguard wire has none", t.conf.Name)
		}
		if r.WireGuard && t.conf.Mode == config.ModeTap {
			return fmt.Errorf("tunnel %s carries Ethernet frames, and the wireguard wire has none", t.conf.Name)
		}
		if _, err := s.Add(r.Name, r.Group, r.Key, r.WireGuard, now); err != nil {
			return err
		}
		answer.Setup = t.setupFor(r.Name)
	case control.DoCodes:
		link, err := s.EnrolCodes(r.Name, now)
		if err != nil {
			return err
		}
		answer.Link = link
	case control.DoRevoke:
		if err := s.Revoke(r.Name, now); err != nil {
			return err
		}
		t.role.server.forget(now)
	default:
		return fmt.Errorf("the running daemon does not know how to %.32q clients", r.Do)
	}
	if err := t.applyClients(context.Background()); err != nil {
		select {
		case t.role.refresh <- struct{}{}:
		default:
		}
		return fmt.Errorf("it is noted, and tried again every %v; until then not all of it is in force: %w", applyAgain, err)
	}
	t.forgetVisits()
	if r.Do == control.DoCodes {
		t.tellNamed(r.Name)
	}
	select {
	case t.role.refresh <- struct{}{}:
	default:
	}
	return nil
}

// setupFor is what a client is to set up.
func (t *liveTunnel) setupFor(name string) *control.ClientSetup {
	d, ok := t.role.server.server.DocumentOf(name)
	if !ok {
		return nil
	}
	out := &control.ClientSetup{
		ServerKey: t.conf.PrivateKey.Public(), Addresses: d.Addresses, AllowedIPs: d.Networks(), DNS: d.DNS, Search: completing(&d),
		MTU: d.MTU, Keepalive: int(d.Keepalive / time.Second),
	}
	if len(t.conf.Server.Endpoints) > 0 {
		out.Endpoint = t.conf.Server.Endpoints[0].String()
	}
	return out
}

// completing are the domains that complete short names: those for that alone, and those asked of the name servers but for ones with a ~.
func completing(d *server.Document) []string {
	list := slices.DeleteFunc(slices.Clone(d.Domains), func(s string) bool { return strings.HasPrefix(s, "~") })
	for _, s := range d.Search {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// may are lines for people that say what a client may do.
func may(s *config.Server, name, group string) (lines []string) {
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	a := s.GroupAccess(group)
	if i := slices.IndexFunc(s.Clients, func(c config.ServerClient) bool { return c.Name == name }); i >= 0 && s.Clients[i].Access != nil {
		a = s.Clients[i].Access
	}
	if a == nil {
		a = &config.Access{}
	}
	summarizeClients(line, a)
	if !s.Mixes(name, group) {
		line("kept from other clients")
	}
	return lines
}

// listClients adds the clients, with what they may do where it is asked for one of them.
func (t *liveTunnel) listClients(name string, answer *control.ClientsAnswer) {
	status := t.engine.Status()
	status.PrivateKey.Zero()
	peers := make(map[crypto.PublicKey]*tunnel.PeerStatus, len(status.Peers))
	for i := range status.Peers {
		peers[status.Peers[i].PublicKey] = &status.Peers[i]
	}
	s := t.role.server.server
	conf := serverConfig(&t.conf)
	for _, c := range s.Clients() {
		out := control.ServerClient{
			Tunnel: t.hooks.ifname, Name: c.Name, Group: c.Group, PublicKey: c.Key, Wire: "culvert", Addresses: c.Addresses,
			Networks: conf.Clients[c.Name].Networks, AnyAddress: t.conf.Mode == config.ModeTap && t.conf.Server.MayUseAnyAddress(c.Name, c.Group), Says: c.Says, Joined: second(c.Joined), JoinedFrom: c.From, Seen: second(c.Seen),
		}
		if c.WireGuard {
			out.Wire = "wireguard"
		}
		if c.Name == name {
			out.May = may(t.conf.Server, c.Name, c.Group)
		}
		out.GroupMissing = s.Strayed(c.Name)
		if end, by, as, asked := s.SignInEnds(c.Name, time.Now()); asked {
			out.SignIn = &control.ClientSignIn{By: by, As: as, Until: second(end)}
		}
		if p := peers[c.Key]; p != nil {
			out.Endpoint, out.LatestHandshake, out.Connected = p.EndpointText, second(p.LastHandshake), p.Session
			out.ReceivedBytes, out.SentBytes = p.ReceivedBytes, p.SentBytes
		}
		answer.Clients = append(answer.Clients, out)
	}
	for _, i := range s.Invitations(time.Now()) {
		answer.Invitations = append(answer.Invitations, control.Invited{Tunnel: t.hooks.ifname, Name: i.Name, Group: i.Group, Expires: second(i.Expires)})
	}
}

// second is a time as the control protocol shows it.
func second(at time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return at.UTC().Truncate(time.Second)
}
