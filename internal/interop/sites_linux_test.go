package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
)

// site is a place with a network of its own: a namespace whose bridge br0 has the stations' cables and the tunnels' interfaces
// as ports.
type site struct {
	t       *testing.T
	host    *lab.Host
	run     string // the root folder of the host's processes
	bridged bool
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	lab.NeedTun(t)
	host := lab.NewHost(t, name)
	return &site{t: t, host: host, run: host.PrivateRun()}
}

// bridge gives the site its bridge, with options of `ip link`'s. Interfaces made from then on speak no IPv6 themselves, so that
// all there is on the network comes from stations.
func (s *site) bridge(options ...string) {
	s.t.Helper()
	s.host.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	s.host.Shell("ip", append([]string{"link", "add", "br0", "type", "bridge"}, options...)...)
	s.host.Up("br0")
	s.bridged = true
}

// station is a host on a site's network.
type station struct {
	host   *lab.Host
	port   string // the other end of its cable, at the site
	mac    string
	v4, v6 netip.Addr
}

// station puts a host onto the site's network. number is the last part of its addresses.
func (s *site) station(name string, number int) *station {
	s.t.Helper()
	st := &station{
		host: lab.NewHost(s.t, name),
		port: "to-" + name,
		v4:   netip.AddrFrom4([4]byte{10, 50, 0, byte(number)}),
		v6:   netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x50, 15: byte(number)}),
	}
	lab.Link(s.t, st.host, s.host, lab.Names("eth0", st.port), lab.Addresses(st.v4.String()+"/24 "+st.v6.String()+"/64", ""))
	st.mac = st.host.HardwareAddr("eth0")
	s.plug(st.port)
	return st
}

// forwards reports whether a port of the bridge does.
func (s *site) forwards(port string) bool {
	s.t.Helper()
	return strings.Contains(s.host.Shell("bridge", "link", "show", "dev", port), "state forwarding")
}

// plug makes an interface a port of the bridge.
func (s *site) plug(device string) {
	s.t.Helper()
	s.host.Shell("ip", "link", "set", device, "up", "master", "br0")
}

// patch lays a cable between the bridges of two sites, with a port of this name at both. It has no carrier yet: b's end is down.
func patch(a, b *site, port string) {
	a.t.Helper()
	lab.Link(a.t, a.host, b.host, lab.Names(port, port), lab.Addresses("", ""))
	b.host.Down(port)
	a.plug(port)
	b.host.Shell("ip", "link", "set", port, "master", "br0")
}

// tap is one end of a tunnel that carries Ethernet frames, which `culvert up` runs from a file with nothing else in it. The instance has
// the interface's name.
type tap struct {
	*site
	device     string
	port       uint16
	private    string
	public     string
	extra      string // more lines of the tunnel, indented by four
	peers      []*tapPeer
	configPath string
}

type tapPeer struct {
	name      string
	public    string
	endpoint  netip.AddrPort // none: the peer has to call
	keepalive string
	extra     string // more lines, indented by eight
}

// tap prepares an end.
func (s *site) tap(device string, port uint16) *tap {
	s.t.Helper()
	e := &tap{site: s, device: device, port: port, configPath: filepath.Join(s.t.TempDir(), device+".yaml")}
	e.private, e.public = newKey(s.t)
	return e
}

// connect makes two ends each other's peers, named after their sites, over a wire between their sites. Only a calls.
func connect(a, b *tap, wire lab.Wire) (ofA, ofB *tapPeer) {
	endA, endB := wire.A, wire.B
	if endA.Host != a.host {
		endA, endB = endB, endA
	}
	ofA = &tapPeer{name: b.host.Name, public: b.public, endpoint: netip.AddrPortFrom(endB.V4.Addr(), b.port), keepalive: "1s"}
	ofB = &tapPeer{name: a.host.Name, public: a.public, endpoint: netip.AddrPortFrom(endA.V4.Addr(), a.port), keepalive: "1s"}
	a.peers, b.peers = append(a.peers, ofA), append(b.peers, ofB)
	return ofA, ofB
}

func (e *tap) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\ntunnels:\n  %s:\n    mode: tap\n    listen: %d\n    private_key_file: %[1]s.key\n", e.device, e.port)
	if e.bridged {
		b.WriteString("    hooks:\n      post_up: [\"ip link set %i master br0\"]\n")
	}
	b.WriteString(e.extra + "    peers:\n")
	for _, p := range e.peers {
		fmt.Fprintf(&b, "      %s:\n        public_key: %q\n%s", p.name, p.public, p.extra)
		if p.endpoint.IsValid() {
			fmt.Fprintf(&b, "        endpoints: [%q]\n", p.endpoint)
		}
		if p.keepalive != "" {
			fmt.Fprintf(&b, "        keepalive: %s\n", p.keepalive)
		}
	}
	return b.String()
}

// culvert runs a culvert command at the site.
func (e *tap) culvert(args ...string) string {
	e.t.Helper()
	out, code := output(e.t, e.host, e.host.Command(e.t.Context(), program(e.t, "culvert", "culvert/cmd/culvert"), args...))
	if code != 0 {
		e.t.Fatalf("%s: culvert %s ended with %d:\n%s%s", e.host.Name, strings.Join(args, " "), code, out, e.log())
	}
	return out
}

func (e *tap) log() string {
	text, err := os.ReadFile(filepath.Join(e.run, "run/culvert", e.device+".log"))
	if err != nil {
		return "" // it goes with the daemon
	}
	return "its log:\n" + lastLines(string(text), 40)
}

// write writes the configuration.
func (e *tap) write() {
	e.t.Helper()
	for name, text := range map[string]string{
		filepath.Join(filepath.Dir(e.configPath), e.device+".key"): e.private + "\n", e.configPath: e.yaml(),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
}

// up starts the end.
func (e *tap) up() {
	e.t.Helper()
	e.write()
	e.culvert("up", e.configPath)
	e.t.Cleanup(func() {
		if e.t.Failed() {
			e.t.Logf("%s on %s: %s", e.device, e.host.Name, e.log())
		}
	})
}

func up(ends ...*tap) {
	for _, e := range ends {
		e.t.Helper()
		e.up()
	}
}

// tapInstance is the part of `culvert status --json` that these tests look at.
type tapInstance struct {
	PID     int
	Tunnels []tapStatus
}

type tapStatus struct {
	MTU   int
	Peers []struct {
		Name string
		Port struct {
			Spoke, Alive bool
			Addresses    int
		}
	}
	Drops  map[string]uint64
	Switch struct {
		Wire, Carrier, Blocked bool
		Loops, Moves           uint64
		Addresses              []tapAddress
	}
}

type tapAddress struct {
	MAC    string
	VLAN   uint16
	Local  bool
	Name   string // the peer's
	Pinned bool
}

func (e *tap) instance() tapInstance {
	e.t.Helper()
	text := e.culvert("status", e.device, "--json")
	var running []tapInstance
	if err := json.Unmarshal([]byte(text), &running); err != nil {
		e.t.Fatalf("culvert status --json: %v:\n%s", err, text)
	}
	if len(running) != 1 || len(running[0].Tunnels) != 1 {
		e.t.Fatalf("culvert status --json shows another number of tunnels than one:\n%s", text)
	}
	return running[0]
}

func (e *tap) status() tapStatus {
	e.t.Helper()
	return e.instance().Tunnels[0]
}

// where says at which site the end knows a station: "" for its own, "?" for nowhere.
func (e *tap) where(st *station) string {
	e.t.Helper()
	all := e.status().Switch.Addresses
	i := slices.IndexFunc(all, func(a tapAddress) bool { return a.MAC == st.mac })
	if i < 0 {
		return "?"
	}
	if all[i].Local != (all[i].Name == "") {
		e.t.Errorf("%s: culvert status shows the address %+v", e.host.Name, all[i])
	}
	return all[i].Name
}

// kill ends the daemon as a crash would.
func (e *tap) kill() {
	e.t.Helper()
	signalProcess(e.t, e.instance().PID, syscall.SIGKILL)
}

// busy is the share of one processor that the daemon takes over a second.
func (e *tap) busy() float64 {
	e.t.Helper()
	const ticks = 100 // USER_HZ
	pid := e.instance().PID
	before, start := processorTicks(e.t, pid), time.Now()
	time.Sleep(time.Second)
	return float64(processorTicks(e.t, pid)-before) / ticks / time.Since(start).Seconds()
}

func processorTicks(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // from the third on (proc_pid_stat(5))
	var sum int64
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// reaches waits until a ping to another station is answered, over IPv4 and IPv6.
func (st *station) reaches(t *testing.T, others ...*station) {
	t.Helper()
	for _, other := range others {
		for _, to := range []netip.Addr{other.v4, other.v6} {
			lab.Eventually(t, patience, fmt.Sprintf("%s pings %v of %s", st.host.Name, to, other.host.Name), func() bool {
				return st.host.Ping(to) == nil
			})
		}
	}
}

// allReach looks that every station reaches every other.
func allReach(t *testing.T, stations ...*station) {
	t.Helper()
	for _, a := range stations {
		for _, b := range stations {
			if a != b {
				a.reaches(t, b)
			}
		}
	}
}

// pingsWhole looks that packets of 1500 bytes cross in one piece.
func (st *station) pingsWhole(t *testing.T, other *station) {
	t.Helper()
	for _, to := range []struct {
		address netip.Addr
		payload string // 1500 less the headers of IP and ICMP
	}{{other.v4, "1472"}, {other.v6, "1452"}} {
		// One ping waits long for its answer; of several, the last would wait no longer than the others had to.
		for range 3 {
			out, code := output(t, st.host, st.host.Command(t.Context(), "ping", "-n", "-M", "do", "-s", to.payload, "-c", "1",
				"-W", strconv.Itoa(int(patience.Seconds())), to.address.String()))
			if code != 0 {
				t.Errorf("%s: ping ended with %d:\n%s", st.host.Name, code, out)
			}
		}
	}
}
