package interop

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// patience bounds what must happen but is not announced: a handshake is retried every 5 s, and a peer that forgot its session is
// noticed after 15 s. In the guest everything takes longer.
var patience = func() time.Duration {
	if inGuest() {
		return 3 * time.Minute
	}
	return time.Minute
}()

// side is one end of a tunnel: a device of some implementation on a host, and its desired configuration.
type side struct {
	t              *testing.T
	host           *lab.Host
	implementation implementation
	device         string
	run            string // the root folder of the host's processes, for their sockets
	daemon         *daemon
	configured     bool // has a configuration, so that the next one is a change

	privateKey, publicKey string // base64
	port                  uint16
	mark                  uint32
	peers                 []*peer
}

// peer is the configuration of a peer.
type peer struct {
	publicKey    string
	presharedKey string
	endpoint     netip.AddrPort
	allowed      []string
	keepalive    int
	wire         string // in a file in culvert's format; "" is wireguard
}

// newSide starts a device wg0 with a new key and no peers.
func newSide(t *testing.T, impl implementation, host *lab.Host, port uint16) *side {
	t.Helper()
	s := prepareSide(t, impl, host, port)
	s.start()
	return s
}

// prepareSide is newSide without the start.
func prepareSide(t *testing.T, impl implementation, host *lab.Host, port uint16) *side {
	t.Helper()
	lab.NeedTun(t)
	lab.NeedProgram(t, "wg")
	lab.NeedProgram(t, "ping")
	s := &side{t: t, host: host, implementation: impl, device: "wg0", port: port, run: host.PrivateRun()}
	s.privateKey, s.publicKey = newKey(t)
	return s
}

func newKey(t *testing.T) (private, public string) {
	t.Helper()
	var scalar [32]byte
	rand.Read(scalar[:])
	// Clamped (RFC 7748, section 5), so that what is shown later is what was set.
	scalar[0] &= 248
	scalar[31] = scalar[31]&127 | 64
	key, err := ecdh.X25519().NewPrivateKey(scalar[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(key.Bytes()), base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
}

func newPresharedKey() string {
	var key [32]byte
	rand.Read(key[:])
	return base64.StdEncoding.EncodeToString(key[:])
}

// start makes the device, with its configuration but without addresses, and sets it up.
func (s *side) start() {
	s.t.Helper()
	s.startDown()
	s.host.Up(s.device)
}

// startDown is start without setting the device up.
func (s *side) startDown() {
	s.t.Helper()
	s.configured = false
	if s.implementation.command == nil {
		s.host.Shell("ip", "link", "add", s.device, "type", "wireguard")
	} else {
		s.daemon = startDaemon(s.t, s)
	}
	s.apply()
}

func (s *side) socket() string { return filepath.Join(s.run, "run/wireguard", s.device+".sock") }

// wg runs Debian's wg on the host with the given standard input and returns what it printed.
func (s *side) wg(input string, args ...string) string {
	s.t.Helper()
	out, err := s.tryWG(input, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *side) tryWG(input string, args ...string) (string, error) {
	s.t.Helper()
	command := s.host.Command(s.t.Context(), "wg", args...)
	command.Stdin = strings.NewReader(input)
	out, err := s.host.Output(command)
	return string(out), err
}

// config is the desired configuration in wg's own format.
func (s *side) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\nListenPort = %d\nFwMark = %d\n", s.privateKey, s.port, s.mark)
	for _, p := range s.peers {
		fmt.Fprintf(&b, "[Peer]\nPublicKey = %s\nPersistentKeepalive = %d\n", p.publicKey, p.keepalive)
		if p.presharedKey != "" {
			fmt.Fprintf(&b, "PresharedKey = %s\n", p.presharedKey)
		}
		if p.endpoint.IsValid() {
			fmt.Fprintf(&b, "Endpoint = %v\n", p.endpoint)
		}
		if len(p.allowed) != 0 {
			fmt.Fprintf(&b, "AllowedIPs = %s\n", strings.Join(p.allowed, ", "))
		}
	}
	return b.String()
}

// apply makes the device's configuration the desired one.
func (s *side) apply() {
	s.t.Helper()
	verb := "setconf"
	if s.configured {
		verb = "syncconf"
	}
	s.wg(s.config(), verb, s.device, "/dev/stdin")
	s.configured = true
}

// addPeer adds another side as a peer and applies that.
func (s *side) addPeer(other *side, endpoint netip.AddrPort, allowed ...string) *peer {
	s.t.Helper()
	p := &peer{publicKey: other.publicKey, endpoint: endpoint, allowed: allowed}
	s.peers = append(s.peers, p)
	s.apply()
	return p
}

// moveEndpoint changes the endpoint of the side's one peer and nothing else.
func (s *side) moveEndpoint(to netip.AddrPort) {
	s.t.Helper()
	s.peers[0].endpoint = to
	s.wg("", "set", s.device, "peer", s.peers[0].publicKey, "endpoint", to.String())
}

// deviceState is what `wg show DEVICE dump` tells.
type deviceState struct {
	privateKey, publicKey string
	port                  int
	mark                  string
	peers                 map[string]peerState
}

type peerState struct {
	presharedKey string
	endpoint     netip.AddrPort
	allowed      string
	handshake    int64 // Unix time, in seconds
	received     int64 // bytes
	sent         int64
	keepalive    string
}

func (s *side) state() deviceState {
	s.t.Helper()
	lines := strings.Split(strings.TrimRight(s.wg("", "show", s.device, "dump"), "\n"), "\n")
	first := strings.Split(lines[0], "\t")
	if len(first) != 4 {
		s.t.Fatalf("wg show dump begins with %q", lines[0])
	}
	state := deviceState{
		privateKey: first[0],
		publicKey:  first[1],
		port:       int(s.number(first[2])),
		mark:       first[3],
		peers:      make(map[string]peerState),
	}
	for _, line := range lines[1:] {
		fields := strings.Split(line, "\t")
		if len(fields) != 8 {
			s.t.Fatalf("wg show dump has the line %q", line)
		}
		p := peerState{
			presharedKey: fields[1],
			allowed:      fields[3],
			handshake:    s.number(fields[4]),
			received:     s.number(fields[5]),
			sent:         s.number(fields[6]),
			keepalive:    fields[7],
		}
		if fields[2] != "(none)" {
			endpoint, err := netip.ParseAddrPort(fields[2])
			if err != nil {
				s.t.Fatalf("wg show dump: %v", err)
			}
			p.endpoint = endpoint
		}
		state.peers[fields[0]] = p
	}
	return state
}

// of is the state of the peer that the other side is.
func (s *side) of(other *side) peerState {
	s.t.Helper()
	p, ok := s.state().peers[other.publicKey]
	if !ok {
		s.t.Fatalf("%s on %s has lost its peer", s.implementation.name, s.host.Name)
	}
	return p
}

func (s *side) number(text string) int64 {
	s.t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// reaches waits until a ping from the side's host is answered.
func (s *side) reaches(to netip.Addr) {
	s.t.Helper()
	var last error
	defer func() {
		if s.t.Failed() {
			s.t.Logf("%s: the last ping: %v", s.host.Name, last)
		}
	}()
	lab.Eventually(s.t, patience, fmt.Sprintf("%s (%s) pings %v", s.host.Name, s.implementation.name, to), func() bool {
		last = s.host.Ping(to)
		return last == nil
	})
}

// pings once and waits long: a session is there and nothing may be lost, however busy the machine is.
func (s *side) pings(to netip.Addr) {
	s.t.Helper()
	const payload = 56
	s.pingsSize(to, payload)
}

// pingsSize is pings with that many bytes of payload.
func (s *side) pingsSize(to netip.Addr, size int) {
	s.t.Helper()
	out, code := output(s.t, s.host, s.host.Command(s.t.Context(), "ping", "-n", "-c", "1", "-s", strconv.Itoa(size),
		"-W", strconv.Itoa(int(patience.Seconds())), to.String()))
	if code != 0 {
		s.t.Errorf("%s (%s): ping ended with %d:\n%s", s.host.Name, s.implementation.name, code, out)
	}
}

// deviceCounters reads what went through a network device since it was made.
func (s *side) deviceCounters() (received, sent int64) {
	s.t.Helper()
	var table []byte
	s.host.Must(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	for line := range bytes.Lines(table) {
		name, rest, _ := strings.Cut(string(line), ":")
		if fields := strings.Fields(rest); strings.TrimSpace(name) == s.device && len(fields) == 16 {
			return s.number(fields[1]), s.number(fields[9])
		}
	}
	s.t.Fatalf("no device %s in\n%s", s.device, table)
	return 0, 0
}

// output runs a command on a host and returns everything it printed and its exit code.
func output(t *testing.T, host *lab.Host, command *exec.Cmd) (string, int) {
	t.Helper()
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := host.Start(command); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // the exit code tells
	return out.String(), command.ProcessState.ExitCode()
}
