package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"culvert/config"
	"culvert/setup/spec"
)

// Capabilities by their numbers (linux/capability.h).
const (
	capNetBindService = 10
	capNetAdmin       = 12
	capSysAdmin       = 21
)

var capNames = map[int]string{capNetBindService: "CAP_NET_BIND_SERVICE", capNetAdmin: "CAP_NET_ADMIN", capSysAdmin: "CAP_SYS_ADMIN"}

// dropIn is a file of dist/systemd that gives the unit culvert@ more.
type dropIn string

const (
	dropInFolder        = "/usr/share/culvert/systemd/"
	lowPorts     dropIn = "low-ports.conf"
	wide         dropIn = "wide.conf"
)

// demand is something in a file for which the unit culvert@ gives too few rights.
type demand struct {
	what       string // as in "port 443"
	at         string // file:line:column
	dropIn     dropIn
	capability int // without which it cannot be; 0: it is not for one alone
}

// demands are what a file wants besides CAP_NET_ADMIN and /dev/net/tun.
func demands(file *config.File) (list []demand) {
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		if t.Listen != 0 && t.Listen < 1024 {
			list = append(list, demand{fmt.Sprintf("UDP port %d", t.Listen), t.ListenPos.String(), lowPorts, capNetBindService})
		}
		if p := t.TCP.Listen.Port(); p != 0 && p < 1024 {
			list = append(list, demand{fmt.Sprintf("TCP port %d", p), t.TCP.Pos.String(), lowPorts, capNetBindService})
		}
		for _, hooks := range [][]config.Hook{t.Hooks.PreUp, t.Hooks.PostUp, t.Hooks.PreDown, t.Hooks.PostDown} {
			for _, h := range hooks {
				list = append(list, demand{"a command of " + t.Name, h.Pos.String(), wide, 0})
			}
		}
	}
	s := &file.Setup
	at := func(p spec.Place) string { return config.Position(p.At("")).String() }
	for i := range s.Netns {
		list = append(list, demand{"the network namespace " + s.Netns[i].Name, at(s.Netns[i].Place), wide, capSysAdmin})
	}
	for i := range s.Links {
		l := &s.Links[i]
		switch {
		case l.Type == spec.TypeTeam:
			list = append(list, demand{"teamd for " + l.DeviceName(), at(l.Place), wide, 0})
		case l.Type == spec.TypeMacvtap, l.Type == spec.TypeIPvtap, l.Handover != nil:
			list = append(list, demand{"the device and socket of " + l.DeviceName(), at(l.Place), wide, 0})
		}
	}
	for i := range s.Services {
		list = append(list, demand{"dnsmasq", at(s.Services[i].Place), wide, 0})
	}
	return list
}

// writeDemands says what has to be added to the unit for a file to run as a service.
func writeDemands(w io.Writer, file *config.File) {
	list := demands(file)
	if len(list) == 0 {
		return
	}
	name := file.Instance
	fmt.Fprintf(w, "\nas the service culvert@%s it needs more rights than the unit gives:\n", name)
	files := map[dropIn]bool{}
	for _, d := range list {
		fmt.Fprintf(w, "  %s, for %s (%s)\n", d.dropIn, d.what, filepath.Base(d.at))
		files[d.dropIn] = true
	}
	if files[wide] {
		delete(files, lowPorts) // which it includes
	}
	for _, f := range []dropIn{lowPorts, wide} {
		if files[f] {
			fmt.Fprintf(w, "  install -Dm644 %s%s /etc/systemd/system/culvert@%s.service.d/%[2]s && systemctl daemon-reload\n", dropInFolder, f, name)
		}
	}
}

// unmet are the demands of a file for which this process has not got the capability. What it has cannot be told: none.
func unmet(file *config.File) (list []demand) {
	have, ok := capabilities()
	if !ok {
		return nil
	}
	for _, d := range demands(file) {
		if d.capability != 0 && have&(1<<d.capability) == 0 {
			list = append(list, d)
		}
	}
	return list
}

// capabilities are those in force of this process, a bit for each.
func capabilities() (set uint64, ok bool) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if v, found := strings.CutPrefix(line, "CapEff:"); found {
			set, err = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return set, err == nil
		}
	}
	return 0, false
}
