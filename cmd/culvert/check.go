package main

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"culvert/config"
)

func (p *program) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "say what a file would do",
		Long: `Usage: culvert check FILE

Reads FILE as "culvert up" would, and touches nothing. Prints what it would do, or everything that is wrong with it (exit
code 78).
`,
		Args: needArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := loadConfig(args[0])
			if err != nil {
				return configHint(args[0], err)
			}
			p.warn(file.Warnings)
			return writeSummary(p.stdout, file)
		},
	}
}

// writeSummary writes what a file would do.
func writeSummary(w io.Writer, file *config.File) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s: right; instance %s\n", filepath.Base(file.Path), file.Instance)
	for i := range file.Tunnels {
		summarize(b, &file.Tunnels[i])
	}
	summarizeNetwork(b, file)
	writeDemands(b, file)
	return b.Flush()
}

func summarize(b io.Writer, t *config.Tunnel) {
	line := func(format string, args ...any) { fmt.Fprintf(b, "  "+format+"\n", args...) }
	fmt.Fprintf(b, "\ntunnel %s\n", t.Name)
	tap := t.Mode == config.ModeTap
	if tap {
		summarizeSwitch(line, t)
	}
	line("public key %s", t.PrivateKey.Public())
	if t.Listen != 0 {
		line("listens on UDP port %d", t.Listen)
	} else {
		line("listens on a UDP port of the kernel's choice")
	}
	if t.TCP.Listen.Port() != 0 {
		line("and on TCP port %d, for whom UDP does not reach", t.TCP.Listen.Port())
	}
	for _, a := range t.Addresses {
		line("address %s", a)
	}
	switch {
	case t.MTU != 0:
		line("MTU %d", t.MTU)
	case tap:
		line("MTU %d", defaultTapMTU)
	default:
		line("MTU as the way to the peers allows")
	}
	if n := queuesOf(t); n > 1 {
		line("%d queues", n)
	}
	if t.FwMark.Set && t.FwMark.Value != 0 {
		line("fwmark %#x", t.FwMark.Value)
	}
	if len(t.DNS.Servers) > 0 {
		line("name servers %s", joined(t.DNS.Servers))
	}
	if len(t.DNS.Domains) > 0 {
		line("asked for %s", strings.Join(t.DNS.Domains, ", "))
	}
	if len(t.DNS.Search) > 0 {
		line("search domains %s", strings.Join(t.DNS.Search, ", "))
	}
	if !t.FullTunnel.None() {
		line("takes all %s", t.FullTunnel)
	}
	if t.KillSwitch {
		line("nothing leaves but by it")
	}
	if len(t.Except) > 0 {
		line("except to %s", joined(config.Prefixes(t.Except)))
	}
	routes := linkOf(t, 0).Routes
	switch {
	case t.Table.Off:
		line("no routes")
	case len(routes) > 0 && t.Table.Number != 0:
		line("routes go into table %d", t.Table.Number)
	}
	_, policy := splitRoutes(routes)
	for _, r := range policy {
		line("default route %s by policy rules: everything but the tunnel's own packets goes into the tunnel", r.Prefix)
	}
	for _, h := range []struct {
		when string
		list []config.Hook
	}{{"PreUp", t.Hooks.PreUp}, {"PostUp", t.Hooks.PostUp}, {"PreDown", t.Hooks.PreDown}, {"PostDown", t.Hooks.PostDown}} {
		for _, hook := range h.list {
			line("%s runs %s", h.when, strings.ReplaceAll(hook.Command, "%i", t.Name))
		}
	}
	summarizeServer(line, t)
	for _, p := range t.Peers {
		fmt.Fprintf(b, "  peer %s\n", p.Name)
		line("  public key %s", p.PublicKey)
		line("  speaks the %s wire", p.Wire)
		if !p.PresharedKey.IsZero() {
			line("  with a preshared key")
		}
		switch len(p.Endpoints) {
		case 0:
			line("  waits for the peer to call")
		case 1:
			line("  calls %s", p.Endpoints[0])
		default:
			line("  calls, until one answers, %s", joined(p.Endpoints))
		}
		if len(p.TCP) > 0 {
			line("  or, where UDP does not get through, by TCP %s", joined(p.TCP))
		}
		summarizePulled(func(format string, args ...any) { line("  "+format, args...) }, &p)
		for _, a := range p.AllowedIPs {
			line("  has %s", a)
		}
		if tap {
			summarizePort(line, &p)
		}
		summarizeAccess(line, p.Access)
		if p.Keepalive != 0 {
			line("  gets a keepalive every %s", duration(p.Keepalive))
		}
	}
}

func joined[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}
