package main

import (
	"fmt"
	"net"
	"os"

	"culvert/internal/lab"
)

// The implementations of Ethernet tunnels, beside plain and other projects'. tapWide has the MTU of the underlay, so that
// culvert cuts full frames in two; nativeTun is there to show what frames cost more than packets.
const (
	nativeTun = "culvert tun"
	nativeTap = "culvert tap"
	tapWide   = "culvert tap 1500"
)

const (
	// tapMTU is that of every device but tapWide's. All implementations' datagrams then fit the underlay.
	tapMTU = 1400
	// wideMTU is the usual one of an Ethernet.
	wideMTU = 1500
	// ethernetHeader is the length of what a frame has before its packet, in bytes.
	ethernetHeader = 14
)

// tapImplementations returns what is measured of Ethernet tunnels, and a line on each that is missing here.
func tapImplementations(s *stage, o *options, m Machine) (list []Implementation, missing []string, err error) {
	command := nativeCommand(s, o)
	list = []Implementation{
		{Name: plain},
		{Name: nativeTun, Command: command, File: true, MTU: tapMTU},
		{Name: nativeTap, Command: command, File: true, MTU: tapMTU, Ethernet: true},
		{Name: tapWide, Command: command, File: true, MTU: wideMTU, Ethernet: true},
	}
	for i := range list[1:] {
		own := &list[1+i]
		if err := own.identify(); err != nil {
			return nil, nil, err
		}
		if o.native == "" {
			own.builtHere(m)
		}
	}
	for _, f := range o.rivals {
		path, err := f.find()
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		version, err := f.version(path)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, Implementation{Name: f.name, Command: []string{path}, MTU: tapMTU, Ethernet: true, Version: version,
			Settings: f.settings, rival: f})
	}
	for i := range list {
		list[i].Part = partTap
	}
	return list, missing, nil
}

// addByFiles is addTunnel for daemons that are configured by files: it returns when full packets cross the tunnel, and the
// daemons do what they will do from then on.
func (sc *scene) addByFiles(s *stage, wire lab.Wire, impl Implementation) error {
	ends, err := newOverlayEnds(wire)
	if err != nil {
		return err
	}
	arguments, err := impl.fileArguments(s, ends)
	if err != nil {
		return err
	}
	sc.daemons = make([]*daemon, len(ends))
	// The far end first, so that the other one's first call is answered.
	for _, i := range []int{1, 0} {
		e := ends[i]
		ready := func(*daemon) error { return hasDevice(e.Host, tunnelDevice) }
		if sc.daemons[i], err = startDaemon(s, e.Host, impl, ready, arguments[i]...); err != nil {
			return err
		}
		if impl.Ethernet {
			keepNeighbours(e.Host, tunnelDevice)
		}
		if impl.rival != nil {
			e.Host.SetMTU(tunnelDevice, impl.MTU)
			if !impl.rival.addresses {
				e.Host.AddAddr(tunnelDevice, e.address.String())
			}
			e.Host.Up(tunnelDevice)
		}
	}
	sc.home, sc.target = ends[0].address.Addr(), ends[1].address.Addr()
	if err := sc.awaitTunnel(wire.A.Host); err != nil {
		return fmt.Errorf("nothing crosses the tunnel: %w", err)
	}
	if impl.rival != nil && impl.rival.settled != nil {
		for i, d := range sc.daemons {
			if err := sc.await(func() error { return impl.rival.settled(d) }); err != nil {
				return fmt.Errorf("end %d: %w", i+1, err)
			}
		}
	}
	const headers = 20 + 8 // IPv4, ICMP
	if err := wire.A.Host.PingSize(sc.target, impl.MTU-headers); err != nil {
		return fmt.Errorf("full packets do not cross the tunnel: %w", err)
	}
	return nil
}

// fileArguments writes the configuration of both ends and returns what their daemons are started with.
func (i *Implementation) fileArguments(s *stage, ends [2]overlayEnd) (arguments [2][]string, err error) {
	if i.rival == nil {
		for j, e := range ends {
			file, err := writeTunnelFile(s, *i, e.private, e.address, e.peer)
			if err != nil {
				return arguments, err
			}
			arguments[j] = []string{file}
		}
		return arguments, nil
	}
	var theirs [2]rivalEnd
	for j, e := range ends {
		theirs[j] = rivalEnd{address: e.V4.Addr(), inner: e.address, tap: i.Ethernet, mtu: i.MTU}
		if theirs[j].folder, err = folderOf(s); err != nil {
			return arguments, err
		}
	}
	return i.rival.configure(i.Command[0], theirs)
}

// hasDevice returns an error as long as the host has none of that name.
func hasDevice(h *lab.Host, name string) error {
	return h.Namespace.Do(func() error {
		_, err := net.InterfaceByName(name)
		return err
	})
}

// keepNeighbours has the kernel trust an address it has resolved for the length of the trial. It would ask again after about
// half a minute, and a flood that loses three of four packets loses the question as well: all packets then wait for the
// answer. A tun has no neighbours.
func keepNeighbours(h *lab.Host, device string) {
	h.Sysctl("net/ipv4/neigh/"+device+"/base_reachable_time_ms", "7200000")
}

// wholeDatagrams returns an error where the hosts cut datagrams into IP fragments: the tunnel's then did not fit the
// underlay, and the figures are of something else than they say.
func (sc *scene) wholeDatagrams() error {
	for _, h := range sc.hosts {
		made, err := counterOf(h, "Ip:", "FragCreates")
		if err != nil {
			return err
		}
		if made > 0 {
			return fmt.Errorf("host %s sent %d IP fragments", h.Name, made)
		}
	}
	return nil
}

// counterOf reads one of a host's counters of its protocols.
func counterOf(h *lab.Host, protocol, counter string) (value int64, err error) {
	err = h.Namespace.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err == nil {
			value, err = parseSNMP(string(text), protocol, counter)
		}
		return err
	})
	return value, err
}
