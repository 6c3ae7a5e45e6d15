package main

import (
	"errors"
	"fmt"
	"strings"

	"culvert/config"
	"culvert/server"
)

// summarizeServer writes what a tunnel that clients join gives to them.
func summarizeServer(line func(string, ...any), t *config.Tunnel) {
	s := t.Server
	if s == nil {
		return
	}
	line("server for clients")
	inner := func(format string, args ...any) { line("  "+format, args...) }
	conf := serverConfig(t)
	inner("addresses from %s", joined(conf.Prefixes()))
	if len(s.Endpoints) > 0 {
		inner("invitations tell %s", joined(s.Endpoints))
	} else {
		inner("nobody can be invited, for it has no endpoints to tell")
	}
	for i := range s.Others {
		inner("who joins is told of another server, %s, at %s", s.Others[i].Name, joined(s.Others[i].Endpoints))
	}
	switch {
	case s.NAT:
		inner("this machine forwards what clients send, and it leaves with the machine's address")
	case s.Forward:
		inner("this machine forwards what clients send")
	default:
		inner("this machine does not forward what clients send by this file")
	}
	summarizeAddresses(inner, t, s.AnyAddress)
	summarizeSettings(inner, "told", &s.Push)
	summarizeMix(inner, s.Mix)
	summarizeClients(inner, s.Access)
	for i := range s.Groups {
		g := &s.Groups[i]
		line("  group %s", g.Name)
		within := func(format string, args ...any) { inner("  "+format, args...) }
		summarizeSignIn(within, g.SignIn)
		summarizeAddresses(within, nil, g.AnyAddress)
		summarizeSettings(within, "told", &g.ClientSettings)
		summarizeMix(within, g.Mix)
		summarizeClients(within, g.Access)
	}
	for i := range s.Clients {
		c := &s.Clients[i]
		line("  client %s", c.Name)
		within := func(format string, args ...any) { inner("  "+format, args...) }
		if c.Group != "" {
			within("in the group %s", c.Group)
		}
		if len(c.Addresses) > 0 {
			within("always has %s", joined(c.Addresses))
		}
		if len(c.Networks) > 0 {
			within("behind it %s", joined(c.Networks))
		}
		summarizeAddresses(within, nil, c.AnyAddress)
		summarizeSettings(within, "told", &c.ClientSettings)
		summarizeMix(within, c.Mix)
		summarizeClients(within, c.Access)
	}
}

// summarizeAddresses writes which IP addresses clients' frames may come from, where it is said or, of a tunnel, holds anyhow.
func summarizeAddresses(line func(string, ...any), t *config.Tunnel, anyAddress *bool) {
	switch {
	case anyAddress != nil && *anyAddress:
		line("frames may come from any IP address")
	case anyAddress != nil && t == nil, t != nil && t.Mode == config.ModeTap:
		line("frames come from a client's own IP addresses alone")
	}
}

// summarizeMix writes whether clients reach each other, where that is said.
func summarizeMix(line func(string, ...any), mix *bool) {
	switch {
	case mix == nil:
	case *mix:
		line("reached by other clients")
	default:
		line("kept from other clients")
	}
}

// summarizeClients writes what clients may do. An access that says nothing lifts what is said more generally.
func summarizeClients(line func(string, ...any), a *config.Access) {
	if a == nil {
		return
	}
	if len(a.Rules) == 0 && a.Default != "deny" {
		line("everything is allowed")
	}
	summarizeAccess(func(format string, args ...any) { line(strings.TrimPrefix(format, "  "), args...) }, a)
}

func summarizeSignIn(line func(string, ...any), s *config.SignIn) {
	if s == nil {
		return
	}
	lasts := s.Lasts
	if lasts == 0 {
		lasts = config.DefaultSignIn
	}
	if s.TOTP {
		line("nothing passes until the user has given a code, every %s", duration(lasts))
		return
	}
	o := s.OIDC
	line("nothing passes until the user has signed in at %s, every %s", o.Issuer, duration(lasts))
	for _, who := range []struct {
		what string
		list []string
	}{{"e-mail addresses", o.Emails}, {"subjects", o.Subjects}, {"groups there", o.Groups}} {
		if len(who.list) > 0 {
			line("  %s %s", who.what, few(who.list))
		}
	}
	if o.SameName {
		line("  the user's name there has to be the client's")
	}
}

// summarizeSettings writes what clients are told; an empty list stands for itself.
func summarizeSettings(line func(string, ...any), verb string, s *config.ClientSettings) {
	line = func(line func(string, ...any)) func(string, ...any) {
		return func(format string, args ...any) { line(verb+" "+format, args...) }
	}(line)
	if s.Routes != nil {
		line("routes %s", orNone(joined(s.Routes)))
	}
	if s.DNS.Servers != nil {
		line("name servers %s", orNone(joined(s.DNS.Servers)))
	}
	if len(s.DNS.Domains) > 0 {
		line("to ask them for %s", strings.Join(s.DNS.Domains, ", "))
	}
	if len(s.DNS.Search) > 0 {
		line("search domains %s", strings.Join(s.DNS.Search, ", "))
	}
	if s.MTU != nil {
		line("MTU %d", *s.MTU)
	}
	if s.Keepalive != nil {
		line("a keepalive every %s", duration(*s.Keepalive))
	}
	switch {
	case s.FullTunnel == nil:
	case *s.FullTunnel:
		line("to send all traffic here")
	default:
		line("not to send all traffic here")
	}
}

// few shows the first of a list that may be long.
func few(list []string) string {
	const most = 4
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// summarizePulled writes what a server may have set up here.
func summarizePulled(line func(string, ...any), p *config.Peer) {
	if !p.Pull {
		return
	}
	line("says what to set up here")
	if p.Accept.Routes != nil {
		line("  of routes only those in %s", orNone(joined(p.Accept.Routes)))
	}
	if !p.Accept.DNS {
		line("  no name servers")
	}
	if !p.Accept.FullTunnel {
		line("  not that all traffic goes there")
	}
}

// serverErrors are those of a server's configuration, each where the file says what is wrong.
func serverErrors(file *config.File, t *config.Tunnel, err error) (list config.Errors) {
	all := []error{err}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		all = several.Unwrap()
	}
	for _, err := range all {
		at := serverPosition(t)
		if of, ok := errors.AsType[*server.ClientError](err); ok {
			for i := range t.Server.Clients {
				if t.Server.Clients[i].Name == of.Client {
					at = config.Position(t.Server.Clients[i].Origin)
				}
			}
		}
		list = append(list, file.ErrorAt(at, "server: "+err.Error(), "", err))
	}
	return list
}
