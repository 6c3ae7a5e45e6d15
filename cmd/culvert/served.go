package main

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/server"
)

// served is a tunnel that clients join.
type served struct {
	server *server.Server
	told   map[crypto.PublicKey][]byte         // what connected clients were told last, nil where they have to sign in; changing guards it, as what follows
	asked  map[crypto.PublicKey]time.Time      // when a client was answered last that had asked
	from   map[crypto.PublicKey]netip.AddrPort // where the ends of invitations are
	visits map[crypto.PublicKey]*visit         // of clients whose users sign in at a provider
	again  time.Time                           // when what could not be applied is tried again, the zero time where all is

	apart atomic.Pointer[apart] // the last; nil before the first
}

func openServed(s surroundings, conf *config.Tunnel, log *slog.Logger) (*served, error) {
	kept, err := s.clients(conf.Name)
	if err != nil {
		return nil, err
	}
	sv, err := server.Open(kept.store, serverConfig(conf), time.Now(), func(e server.Event) {
		log.Info("client", eventAttributes(&e)...)
		s.clientHappened(conf.Name, e)
		if err := kept.audit.Write(e); err != nil {
			log.Error("cannot write the audit log", "error", err)
		}
	})
	if err != nil {
		return nil, err
	}
	return &served{server: sv, told: make(map[crypto.PublicKey][]byte), asked: make(map[crypto.PublicKey]time.Time),
		from: make(map[crypto.PublicKey]netip.AddrPort), visits: make(map[crypto.PublicKey]*visit)}, nil
}

// eventAttributes are what the log says of an event: what the audit log has, in short.
func eventAttributes(e *server.Event) []any {
	attributes := []any{"event", e.Event, "client", e.Client}
	for _, a := range [][2]string{{"from", e.From}, {"why", e.Why}} {
		if a[1] != "" {
			attributes = append(attributes, a[0], a[1])
		}
	}
	return attributes
}

// serverPosition is where a file makes a tunnel a server.
func serverPosition(t *config.Tunnel) config.Position {
	if t.Server == nil {
		return t.Pos
	}
	return config.Position(t.Server.Origin)
}

// serverConfig is what a tunnel's configuration is to its server.
func serverConfig(t *config.Tunnel) server.Config {
	c := server.Config{
		Tunnel: t.Name, Frames: t.Mode == config.ModeTap, Addresses: config.Prefixes(t.Addresses), Pool: t.Server.Pool, PublicKey: t.PrivateKey.Public(),
		Reserved: make(map[crypto.PublicKey]bool, len(t.Peers)), Push: settingsOf(&t.Server.Push),
		Groups: make(map[string]server.Settings, len(t.Server.Groups)), SignIns: signInsOf(t.Server), Clients: make(map[string]server.ClientConfig, len(t.Server.Clients)),
	}
	for _, e := range t.Server.Endpoints {
		c.Endpoints = append(c.Endpoints, e.String())
	}
	for i := range t.Server.Others {
		o := &t.Server.Others[i]
		other := server.OtherServer{Key: o.PublicKey}
		for _, e := range o.Endpoints {
			other.Endpoints = append(other.Endpoints, e.String())
		}
		c.Others = append(c.Others, other)
	}
	for i := range t.Peers {
		c.Reserved[t.Peers[i].PublicKey] = true
		c.Excluded = append(c.Excluded, config.Prefixes(t.Peers[i].AllowedIPs)...)
	}
	for i := range t.Server.Groups {
		c.Groups[t.Server.Groups[i].Name] = settingsOf(&t.Server.Groups[i].ClientSettings)
	}
	for i := range t.Server.Clients {
		of := &t.Server.Clients[i]
		c.Clients[of.Name] = server.ClientConfig{Group: of.Group, Addresses: of.Addresses, Networks: of.Networks, Settings: settingsOf(&of.ClientSettings)}
	}
	return c
}

func settingsOf(s *config.ClientSettings) server.Settings {
	return server.Settings{Routes: s.Routes, DNS: s.DNS.Servers, Domains: s.DNS.Domains, Search: s.DNS.Search, MTU: s.MTU, Keepalive: s.Keepalive, FullTunnel: s.FullTunnel}
}

// poolOf are the networks that are led to a tunnel's clients; nil where it has none, or they share an Ethernet.
func poolOf(t *config.Tunnel) []netip.Prefix {
	if t.Server == nil || t.Mode == config.ModeTap {
		return nil
	}
	c := serverConfig(t)
	return c.Prefixes()
}

// with is a configuration with the server's peers besides its own, and what each of these may do.
func (s *served) with(conf config.Tunnel, now time.Time) wholeTunnel {
	list := s.server.Peers(now)
	may := make(map[string]*config.Access, len(conf.Server.Clients)) // of clients that the file says something of
	for i := range conf.Server.Clients {
		may[conf.Server.Clients[i].Name] = conf.Server.Clients[i].Access
	}
	whole := wholeTunnel{Tunnel: conf}
	peers := append(make([]config.Peer, 0, len(conf.Peers)+len(list)), conf.Peers...)
	for i := range list {
		p := &list[i]
		q := config.Peer{Name: p.Name, PublicKey: p.Key, PresharedKey: p.PresharedKey, Wire: config.WireCulvert}
		if p.WireGuard {
			q.Wire = config.WireWireGuard
		}
		if p.Invitation {
			q.Name, q.Invited = p.Name+" (invited)", true
		} else if q.Access = may[p.Name]; q.Access == nil {
			q.Access = conf.Server.GroupAccess(p.Group)
		}
		mixes := p.Invitation || conf.Server.Mixes(p.Name, p.Group)
		if q.Apart = !mixes; q.Apart && whole.apart == nil {
			whole.apart = s.apartOf(&conf)
		}
		if conf.Mode == config.ModeTap {
			q.Spoke = !p.Invitation && mixes
			if !p.Invitation && !conf.Server.MayUseAnyAddress(p.Name, p.Group) {
				q.Sources = append([]netip.Prefix{}, p.AllowedIPs...)
				q.HoldsMACs, q.MaxMACs = true, clientMACs
			}
			peers = append(peers, q)
			continue
		}
		for _, a := range p.AllowedIPs {
			q.AllowedIPs = append(q.AllowedIPs, config.Prefix{Prefix: a})
		}
		peers = append(peers, q)
	}
	whole.Peers = peers
	return whole
}

// apartOf is whom clients of a tunnel are kept from that are: the same as before, where nothing of it has changed.
func (s *served) apartOf(conf *config.Tunnel) *apart {
	others, except := othersOf(conf)
	if a := s.apart.Load(); a != nil && slices.Equal(a.networks, others) && slices.Equal(a.except, except) {
		return a
	}
	a := newApart(others, except)
	s.apart.Store(a)
	return a
}

// clientMACs is how many MAC addresses a client has that is held to its IP addresses: its interface has one, and another one after a restart.
const clientMACs = 8

// othersOf are the networks that clients of a tunnel may be in, and what of them is not theirs: the tunnel's own addresses, and its other peers'.
func othersOf(conf *config.Tunnel) (others, except []netip.Prefix) {
	c := serverConfig(conf)
	others = slices.Clone(c.Prefixes())
	for i := range conf.Server.Clients {
		of := &conf.Server.Clients[i]
		others = append(others, of.Networks...)
		for _, a := range of.Addresses {
			others = append(others, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	overlaps := func(p netip.Prefix) bool { return slices.ContainsFunc(others, p.Overlaps) }
	for _, a := range c.Addresses {
		if p := netip.PrefixFrom(a.Addr(), a.Addr().BitLen()); overlaps(p) {
			except = append(except, p)
		}
	}
	for _, p := range c.Excluded {
		if overlaps(p) {
			except = append(except, p)
		}
	}
	return others, except
}

// askEvery is how often one client is answered that asks what to set up, which it is told at each session and change without asking, or
// the end of an invitation.
const askEvery = time.Second

// mayAsk reports whether a client, or the end of an invitation, is answered now.
func (s *served) mayAsk(peer crypto.PublicKey, now time.Time) bool {
	if last, ok := s.asked[peer]; ok && now.Sub(last) < askEvery {
		return false
	}
	s.asked[peer] = now
	return true
}

// forget drops what is known of who is no client any more, nor the end of an invitation.
func (s *served) forget(now time.Time) {
	here := make(map[crypto.PublicKey]bool)
	for _, p := range s.server.Peers(now) {
		here[p.Key] = true
	}
	gone := func(k crypto.PublicKey) bool { return !here[k] }
	maps.DeleteFunc(s.told, func(k crypto.PublicKey, _ []byte) bool { return gone(k) })
	maps.DeleteFunc(s.asked, func(k crypto.PublicKey, _ time.Time) bool { return gone(k) })
	maps.DeleteFunc(s.from, func(k crypto.PublicKey, _ netip.AddrPort) bool { return gone(k) })
}

// serve works off what clients, and the ends of invitations, have sent. Who joins at the same time is made a peer at the same time.
func (t *liveTunnel) serve(ctx context.Context, mail []roleMail) {
	t.role.changing.Lock()
	defer t.role.changing.Unlock()
	s, now := t.role.server, time.Now()
	var answers []enrolAnswer
	joined := false
	for i := range mail {
		m := &mail[i]
		_, client := s.server.Document(m.peer)
		switch {
		case client && m.subject == "":
			if err := s.server.Connected(m.peer, m.from, now); err != nil {
				t.log.Error("cannot keep when a client was seen", "error", err)
			}
			t.tell(m.peer, true)
		case client && m.subject == server.SubjectPull:
			if s.mayAsk(m.peer, now) {
				t.tell(m.peer, true)
			}
		case client && m.subject == server.SubjectSignInAnswer:
			t.answered(ctx, m, now)
		case client:
		case m.subject == "":
			s.from[m.peer] = m.from
		case m.subject == server.SubjectEnrol && s.mayAsk(m.peer, now):
			answer, client := s.server.Enrol(m.peer, m.document, s.from[m.peer], now)
			joined = joined || client != nil
			if answer != nil {
				answers = append(answers, enrolAnswer{m.peer, answer})
			}
		}
	}
	if joined || len(answers) > 0 && !s.again.IsZero() { // nobody is told to have joined who is no peer yet
		if err := t.applyClients(ctx); err != nil {
			t.log.Error("clients have joined, and cannot be made peers", "error", err)
			return
		}
	}
	for _, a := range answers {
		if err := t.engine.Push(a.invitation, server.SubjectEnrolled, a.document); err != nil {
			t.log.Warn("an invitation cannot be answered", "error", err)
		}
	}
}

// enrolAnswer is for the end of an invitation, once what it asked for is so.
type enrolAnswer struct {
	invitation crypto.PublicKey
	document   []byte
}

// tell pushes to a client what it is to set up; with again though it was told so before. The tunnel's changing is locked.
func (t *liveTunnel) tell(client crypto.PublicKey, again bool) {
	s := t.role.server
	d, ok := s.server.Document(client)
	if !ok {
		return
	}
	if !t.tellSignIn(client, again, time.Now()) {
		return
	}
	b, err := d.Encode()
	if err != nil {
		t.log.Error("a client cannot be told what to set up", "client", client, "error", err)
		return
	}
	if !again && bytes.Equal(s.told[client], b) {
		return
	}
	if err := t.engine.Push(client, server.SubjectConfig, b); err != nil {
		t.log.Warn("a client cannot be told what to set up", "client", client, "error", err)
		return
	}
	s.told[client] = b
}

// tellAll tells connected clients what has changed, or asks the server anew. The tunnel's changing is locked.
func (t *liveTunnel) tellAll() {
	if t.role.server != nil {
		t.forgetVisits()
		for client := range t.role.server.told {
			t.tell(client, false)
		}
	}
	t.pull()
}

// expire ends invitations and sign-ins whose time is up.
func (t *liveTunnel) expire(ctx context.Context) {
	t.role.changing.Lock()
	defer t.role.changing.Unlock()
	s := t.role.server
	t.signOut(time.Now())
	over, err := s.server.Expire(time.Now())
	if err != nil {
		t.log.Error("cannot forget invitations whose time is up", "error", err)
	}
	if over {
		s.forget(time.Now())
	}
	if !over && (s.again.IsZero() || time.Now().Before(s.again)) {
		return
	}
	if err := t.applyClients(ctx); err != nil {
		t.log.Error("what has changed of the clients cannot be applied", "error", err)
	}
}
