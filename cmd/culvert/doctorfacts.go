package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"culvert/cmd/culvert/doctor"
	"culvert/config"
	"culvert/control"
	"culvert/setup"
)

// doctorFacts looks at everything there is to be known of an instance, given by its name or file.
func (p *program) doctorFacts(ctx context.Context, arg string) *doctor.Facts {
	f := &doctor.Facts{Name: arg, Version: version(), Root: os.Geteuid() == 0}
	if isFileName(arg) || exists(arg) {
		f.File = arg
		f.Name = nameOf(arg)
	}
	p.locate(f.Name)
	p.askDaemon(ctx, f)
	file := p.doctorFile(f)
	if file != nil {
		p.fromFile(f, file)
		resolveNames(ctx, f, file)
	}
	f.Now = time.Now()
	f.NoTun = noTun()
	f.Unsynced = clockUnsynced()
	f.Unit = unitOf(ctx, f.Name)
	if f.Elsewhere {
		return f
	}
	f.Sysctls = make(map[string]int)
	readSysctls(f)
	listing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(listing, "nft", "-j", "list", "ruleset").Output(); err == nil {
		f.Firewall, _ = doctor.ParseNFT(out) // what cannot be read is not looked at
	}
	if f.Second != nil {
		lookUpRoutes(f)
		f.Others = p.othersPrefixes(ctx, f.Name)
	} else if f.NotRunning {
		tryPorts(f)
	}
	return f
}

// askDaemon asks twice, so that what is counted can be seen to rise.
func (p *program) askDaemon(ctx context.Context, f *doctor.Facts) {
	c := control.NewClient(p.runDir, f.Name)
	first, err := c.Status(ctx)
	if err == nil {
		f.First = &first
		select {
		case <-time.After(between):
		case <-ctx.Done():
		}
		var second control.Instance
		if second, err = c.Status(ctx); err == nil {
			f.Second = &second
		}
	}
	switch {
	case errors.Is(err, control.ErrNotRunning):
		f.NotRunning = true
		f.LogTail = lastLines(logPath(p.runDir, f.Name), 3)
	case err != nil:
		f.DaemonError = err.Error()
	default:
		own, err1 := os.Readlink("/proc/self/ns/net")
		its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", f.Second.PID))
		f.Elsewhere = err1 == nil && err2 == nil && own != its
	}
}

// doctorFile reads the instance's file, nil where there is none, or it is wrong.
func (p *program) doctorFile(f *doctor.Facts) *config.File {
	if f.File == "" && f.Second != nil {
		f.File = f.Second.File
	}
	if f.File == "" && f.Second == nil {
		for _, guess := range []string{"/etc/culvert/" + f.Name + ".yaml", "/etc/wireguard/" + f.Name + ".conf"} {
			if exists(guess) {
				f.File = guess
				break
			}
		}
	}
	if f.File == "" {
		return nil
	}
	file, err := loadConfig(f.File)
	if err != nil {
		f.FileError = err.Error()
		return nil
	}
	return file
}

func (p *program) fromFile(f *doctor.Facts, file *config.File) {
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		c := doctor.Configured{Name: t.Name, Listen: t.Listen, FullTunnel: !t.FullTunnel.None()}
		if s := t.Server; s != nil {
			c.Server, c.Pool = true, s.Pool
			if answer, err := control.NewClient(p.runDir, f.Name).Clients(context.Background(), control.ClientsRequest{Do: control.DoList, Tunnel: t.Name}); err == nil {
				c.Clients = len(answer.Clients)
			}
			if len(c.Pool) == 0 {
				for _, a := range t.Addresses {
					c.Pool = append(c.Pool, a.Prefix.Masked())
				}
			}
		}
		for j := range t.Peers {
			q := &t.Peers[j]
			peer := doctor.ConfiguredPeer{Name: q.Name, Key: q.PublicKey.Base64(), Keepalive: q.Keepalive != 0, TCP: len(q.TCP) > 0}
			for _, e := range q.Endpoints {
				peer.Endpoints = append(peer.Endpoints, e.String())
			}
			c.Peers = append(c.Peers, peer)
		}
		f.Tunnels = append(f.Tunnels, c)
	}
}

// Bounds of what is looked up.
const (
	mostNames  = 200
	lookupTime = 5 * time.Second
)

// resolveNames looks the endpoints' names up, several at a time.
func resolveNames(ctx context.Context, f *doctor.Facts, file *config.File) {
	seen := make(map[string]bool)
	var names []string
	for i := range file.Tunnels {
		for j := range file.Tunnels[i].Peers {
			for _, e := range file.Tunnels[i].Peers[j].Endpoints {
				if _, err := netip.ParseAddr(e.Host); err != nil && !seen[e.Host] && len(names) < mostNames {
					seen[e.Host] = true
					names = append(names, e.Host)
				}
			}
		}
	}
	f.Names = make([]doctor.Resolved, len(names))
	slots := make(chan struct{}, 8)
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			f.Names[i].Host = name
			if _, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name); err != nil {
				f.Names[i].Error = err.Error()
			}
		})
	}
	all.Wait()
}

// mostRoutes bounds the routes asked for: peers beyond them have routes of the same kind.
const mostRoutes = 1000

func lookUpRoutes(f *doctor.Facts) {
	for i := range f.Second.Tunnels {
		t := &f.Second.Tunnels[i]
		for j := range t.Peers {
			to, err := netip.ParseAddrPort(t.Peers[j].Endpoint)
			if err != nil || len(f.Routes) >= mostRoutes {
				continue
			}
			r := doctor.Route{Tunnel: t.Interface, Peer: t.Peers[j].PublicKey.Base64(), To: to.Addr()}
			r.Link, r.Source, r.MTU, err = setup.RouteTo(to.Addr(), t.FwMark)
			if err != nil {
				r.Error = err.Error()
			}
			f.Routes = append(f.Routes, r)
		}
	}
}

// othersPrefixes are the allowed IPs of the other instances that run.
func (p *program) othersPrefixes(ctx context.Context, name string) (list []doctor.Prefixes) {
	running, _ := p.runningStatus(ctx)
	for _, in := range running {
		if in.Name == name {
			continue
		}
		for i := range in.Tunnels {
			q := doctor.Prefixes{Instance: in.Name, Tunnel: in.Tunnels[i].Interface}
			for j := range in.Tunnels[i].Peers {
				q.List = append(q.List, in.Tunnels[i].Peers[j].AllowedIPs...)
			}
			list = append(list, q)
		}
	}
	return list
}

// tryPorts opens the ports that the file's tunnels would have.
func tryPorts(f *doctor.Facts) {
	for _, t := range f.Tunnels {
		if t.Listen == 0 {
			continue
		}
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(t.Listen)})
		if err != nil {
			f.Ports = append(f.Ports, doctor.PortError{Port: t.Listen, Error: err.Error()})
			continue
		}
		c.Close()
	}
}

func openError(path string) string {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	file.Close()
	return ""
}

func readSysctls(f *doctor.Facts) {
	names := []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.all.src_valid_mark"}
	for _, t := range f.Tunnels {
		names = append(names, "net.ipv4.conf."+t.Name+".rp_filter")
	}
	for _, name := range names {
		text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if err != nil {
			continue
		}
		if v, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			f.Sysctls[name] = v
		}
	}
}

// unitOf asks systemd about culvert@NAME, nil where there is no such unit.
func unitOf(ctx context.Context, name string) *doctor.Unit {
	unit := "culvert@" + name + ".service"
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=LoadState,ActiveState,Result", unit).Output()
	if err != nil {
		return nil
	}
	is := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		is[k] = v
	}
	if is["LoadState"] != "loaded" {
		return nil
	}
	return &doctor.Unit{Name: unit, Active: is["ActiveState"], Result: is["Result"]}
}

// lastLines are the last lines of a file, of its last 4 KiB.
func lastLines(path string, n int) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(text[max(0, len(text)-4096):])), "\n")
	return lines[max(0, len(lines)-n):]
}
