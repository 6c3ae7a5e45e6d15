package scenes

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// office is a machine with examples/server.yaml, the office's network behind it, and a port wan towards the machine m.
func (m *machine) office() (s *machine, public string) {
	m.Helper()
	s = newMachine(m.T)
	m.cable(s.host, "wan", "wan", "198.51.100.2/24", "198.51.100.1/24")
	lan := s.outside("lan", "10.30.0.1/16", "10.30.0.80/16 10.30.0.53/16") // which knows no way to clients
	webServer(m.T, lan, ":80")
	webServer(m.T, lan, ":8080")
	nameServer(m.T, lan, "10.30.0.53:53", map[string]string{"web.corp.example.": "10.30.0.80"})
	public = s.key("server.key")
	s.example("server.yaml", "vpn.example.net", "198.51.100.1")
	return s, public
}

// The example for a server and the one for its clients fit together: who is added gets an address, is told what the file says, and may do
// that and no more.
func TestServerExample(t *testing.T) {
	t.Parallel()
	lab.NeedNAT(t)
	m := newMachine(t)
	s, public := m.office()
	before := s.settledSnapshot()
	s.apply()
	s.settled()
	m.resolvConf("nameserver 198.51.100.9\n")
	clean := m.settledSnapshot()
	out, stderr, code := s.culvert("client", "add", "alice", "--public-key", m.key("client.key"))
	if code != 0 {
		t.Fatalf("%s%s", out, stderr)
	}
	m.publicKey = public
	m.example("client.yaml", "vpn.example.net", "198.51.100.1", "vpn2.example.net", "198.51.100.77")
	m.must("up", m.file)
	m.isUp = true
	m.seenAs("10.30.0.80", "10.30.0.1")
	m.await("the name server is set", func() bool {
		text, _ := os.ReadFile(filepath.Join(m.dir, "resolv.conf"))
		return strings.Contains(string(text), "nameserver 10.30.0.53\n")
	})
	if m.opens("10.30.0.80:8080") {
		t.Error("a port is reached that access does not name")
	}
	s.edit("access:\n        default: deny", "access:\n        default: allow")
	s.apply()
	m.await("what the file allows now is reached", func() bool { return m.opens("10.30.0.80:8080") })
	// The client goes on where the server is another by now, and its file is changed.
	m.edit("except: [192.168.0.0/16]", "except: [192.168.0.0/16, 198.51.100.0/24]")
	m.apply()
	m.reaches("", "198.51.100.1")
	m.destroy()
	m.same(clean, "the client is down")
	s.destroy()
	s.shell("", "rm", "-r", "/var/lib/culvert/.server") // who its clients are outlives it
	s.same(before, "the server is down")
}

// opens reports whether a TCP port takes connections from the machine.
func (m *machine) opens(address string) bool {
	m.Helper()
	return m.host.Do(func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}) == nil
}
