package main

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"testing"

	"culvert/config"
	"culvert/crypto"
	"culvert/server"
)

// One client that says much takes nothing from the others, and no memory.
func TestMailboxIsShared(t *testing.T) {
	r := role{mail: newMailbox(), server: &served{}}
	loud, quiet := crypto.PublicKey{1}, crypto.PublicKey{2}
	for range 100_000 {
		r.pushed(loud, server.SubjectPull, make([]byte, 16<<10))
		r.pushed(loud, server.SubjectEnrol, make([]byte, server.MaxEnrolRequest+1))
		r.pushed(loud, server.SubjectEnrolled, []byte{1})
		r.pushed(loud, "whatever", make([]byte, 16<<10))
		r.pushed(loud, server.SubjectConfig, make([]byte, server.MaxDocument)) // a server is told nothing to set up
		r.greeted(loud, netip.AddrPort{})
	}
	r.pushed(quiet, server.SubjectEnrol, []byte{1})
	r.pushed(quiet, server.SubjectEnrol, []byte{2})
	select {
	case <-r.mail.ready:
	default:
		t.Error("nobody is told of mail")
	}
	list := r.mail.take()
	if len(list) != 3 || list[0].subject != server.SubjectPull || list[0].document != nil || list[1].subject != "" ||
		list[2].peer != quiet || list[2].document[0] != 2 {
		t.Errorf("%d: %+v", len(list), list)
	}
	client := role{mail: newMailbox()}
	client.pushed(loud, server.SubjectPull, nil)
	client.pushed(loud, server.SubjectEnrol, []byte{1})
	client.pushed(loud, server.SubjectConfig, make([]byte, server.MaxDocument+1))
	client.pushed(loud, server.SubjectConfig, []byte{1})
	if list := client.mail.take(); len(list) != 1 || list[0].subject != server.SubjectConfig {
		t.Errorf("a client keeps %+v", list)
	}
	if rest := r.mail.take(); len(rest) != 0 {
		t.Errorf("taken twice: %+v", rest)
	}
}

// What anybody else pushes than the peer that is pulled from, or what cannot be read, changes nothing.
func TestForgedPushes(t *testing.T) {
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	gate, other := crypto.PublicKey{9}, crypto.PublicKey{8}
	conf := config.Tunnel{Name: "vpn0", PrivateKey: key, Peers: []config.Peer{
		{Name: "other", PublicKey: other}, {Name: "gate", PublicKey: gate, Pull: true, Accept: config.Accept{DNS: true, FullTunnel: true}}}}
	d := server.Document{Addresses: []netip.Prefix{netip.MustParsePrefix("10.20.0.2/24")}, FullTunnel: true}
	document, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	tunnel := &liveTunnel{conf: conf, whole: wholeTunnel{Tunnel: conf}, log: slog.New(slog.NewTextHandler(io.Discard, nil)), file: &config.File{Instance: "x", Tunnels: []config.Tunnel{conf}},
		around: func(context.Context) error { t.Error("the network was changed"); return nil }}
	for name, m := range map[string]roleMail{
		"another peer":     {peer: other, subject: server.SubjectConfig, document: document},
		"a stranger":       {peer: crypto.PublicKey{7}, subject: server.SubjectConfig, document: document},
		"cut off":          {peer: gate, subject: server.SubjectConfig, document: document[:len(document)-1]},
		"with more behind": {peer: gate, subject: server.SubjectConfig, document: append(document[:len(document):len(document)], 0)},
		"empty":            {peer: gate, subject: server.SubjectConfig},
	} {
		tunnel.takePushed(t.Context(), &m)
		if tunnel.role.pulled != nil {
			t.Fatalf("%s: %+v", name, tunnel.role.pulled)
		}
	}
	// The same by the server is about to be set up, which here is too early: it goes as far as the engine.
	tunnel.role.pulled, tunnel.role.pulledBy = &d, gate
	whole := tunnel.wholeOf(conf)
	if len(whole.Addresses) != 1 || whole.FullTunnel.None() || whole.Mark == 0 || len(whole.Peers[1].AllowedIPs) != 2 || len(whole.Peers[0].AllowedIPs) != 0 {
		t.Errorf("%+v", whole)
	}
	for what, change := range map[string]func(*config.Tunnel){
		"full_tunnel: false": func(c *config.Tunnel) { c.FullTunnelPos = config.Position{Line: 1} },
		"accept":             func(c *config.Tunnel) { c.Peers[1].Accept.FullTunnel = false },
	} {
		conf := conf
		conf.Peers = append([]config.Peer(nil), conf.Peers...)
		change(&conf)
		if whole := tunnel.wholeOf(conf); !whole.FullTunnel.None() || whole.Mark != 0 || len(whole.Peers[1].AllowedIPs) != 1 {
			t.Errorf("%s: %+v", what, whole)
		}
	}
	// Of the families that the file names alone.
	four := conf
	four.FullTunnel, four.FullTunnelPos = config.Families{IPv4: true}, config.Position{Line: 1}
	tunnel.role.pulled.Addresses = append(tunnel.role.pulled.Addresses, netip.MustParsePrefix("fd20::2/64"))
	if whole := tunnel.wholeOf(four); whole.FullTunnel != (config.Families{IPv4: true}) || len(whole.Peers[1].AllowedIPs) != 3 {
		t.Errorf("%+v", whole.Peers[1].AllowedIPs)
	}
	// The file alone says it, and the server nothing.
	tunnel.role.pulled.FullTunnel = false
	if whole := tunnel.wholeOf(four); whole.FullTunnel != (config.Families{IPv4: true}) || len(whole.Peers[1].AllowedIPs) != 3 {
		t.Errorf("of the file alone: %+v", whole.Peers[1].AllowedIPs)
	}
}
