package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// oracle is what culvert's answers are compared with.
var oracle = wireguardGo

// steps drives two devices of one configuration with the same commands and compares what wg shows of them.
type steps struct {
	t              *testing.T
	culvert, other *side
	folder         string
}

func newSteps(t *testing.T) *steps {
	t.Helper()
	s := &steps{t: t, folder: t.TempDir()}
	s.culvert = prepareSide(t, culvert, lab.NewHost(t, "a"), portA)
	s.other = prepareSide(t, oracle, lab.NewHost(t, "b"), portA)
	s.other.privateKey, s.other.publicKey = s.culvert.privateKey, s.culvert.publicKey
	for _, side := range []*side{s.culvert, s.other} {
		side.startDown() // nothing is to be sent: what wg shows depends on the commands alone
	}
	return s
}

// file writes a file that both may read and returns its name.
func (s *steps) file(name, content string) string {
	s.t.Helper()
	name = filepath.Join(s.folder, name)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// wg runs `wg VERB wg0 ...` on both, which must take it, and compares.
func (s *steps) wg(verb string, args ...string) {
	s.t.Helper()
	full := append([]string{verb, s.culvert.device}, args...)
	_, err := s.culvert.tryWG("", full...)
	_, otherErr := s.other.tryWG("", full...)
	if err != nil || otherErr != nil {
		s.t.Fatalf("wg %s: culvert: %v; %s: %v", strings.Join(full, " "), err, oracle.name, otherErr)
	}
	s.compare(strings.Join(full, " "))
}

// uapi sends a request of the userspace API to both and compares; whether they refuse it must be the same.
func (s *steps) uapi(request string) {
	s.t.Helper()
	answer, err := askUAPI(s.culvert.socket(), request)
	otherAnswer, otherErr := askUAPI(s.other.socket(), request)
	if err != nil || otherErr != nil {
		s.t.Fatalf("%q: culvert: %v; %s: %v", request, err, oracle.name, otherErr)
	}
	const fine = "errno=0"
	if got, want := slices.Contains(answer, fine), slices.Contains(otherAnswer, fine); got != want {
		s.t.Errorf("%q: culvert answered %q, %s %q", request, answer, oracle.name, otherAnswer)
	}
	s.compare(request)
}

func (s *steps) compare(after string) {
	s.t.Helper()
	for _, show := range [][]string{{"showconf", "wg0"}, {"show", "wg0", "dump"}, {"show", "wg0", "allowed-ips"}, {"show", "wg0"}} {
		got, want := sortShown(s.culvert.wg("", show...)), sortShown(s.other.wg("", show...))
		if got != want {
			s.t.Errorf("after %q, wg %s of culvert:\n%s\nof %s:\n%s", after, strings.Join(show, " "), got, oracle.name, want)
		}
	}
}

// sortShown removes what may differ in what wg shows: the order of peers and of each one's allowed IPs, and what depends on time.
func sortShown(text string) string {
	separator, first := "\n", 0
	if strings.Contains(text, "[Interface]") || strings.Contains(text, "interface: ") {
		separator = "\n\n"
	}
	blocks := strings.Split(strings.TrimSpace(text), separator)
	if separator == "\n\n" || strings.Count(blocks[0], "\t") == 3 {
		first = 1 // the interface's own
	}
	for i, block := range blocks {
		var lines []string
		for line := range strings.SplitSeq(strings.TrimSpace(block), "\n") {
			if strings.HasPrefix(line, "  transfer: ") {
				continue
			}
			if fields := strings.Split(line, "\t"); len(fields) == 8 {
				fields[4], fields[5], fields[6] = "handshake", "received", "sent"
				line = strings.Join(fields, "\t")
			}
			lines = append(lines, prefixList.ReplaceAllStringFunc(line, sortPrefixes))
		}
		blocks[i] = strings.Join(lines, "\n")
	}
	slices.Sort(blocks[first:])
	return strings.Join(blocks, "\n")
}

// prefixList matches a list of prefixes in any of wg's formats.
var prefixList = regexp.MustCompile(`[0-9a-f.:]+/[0-9]+(, |,| )([0-9a-f.:/]+(, |,| )?)+`)

func sortPrefixes(list string) string {
	words := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestSortShown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"k\tk\t1\toff\nB\t(none)\t(none)\t10.0.0.2/32,10.0.0.1/32\t0\t0\t9\toff\nA\t(none)\t(none)\t(none)\t7\t0\t0\toff\n": "" +
			"k\tk\t1\toff\nA\t(none)\t(none)\t(none)\thandshake\treceived\tsent\toff\n" +
			"B\t(none)\t(none)\t10.0.0.1/32 10.0.0.2/32\thandshake\treceived\tsent\toff",
		"[Interface]\nListenPort = 1\n\n[Peer]\nPublicKey = B\nAllowedIPs = 10.0.0.2/32, 10.0.0.1/32\n\n[Peer]\nPublicKey = A\n": "" +
			"[Interface]\nListenPort = 1\n[Peer]\nPublicKey = A\n[Peer]\nPublicKey = B\nAllowedIPs = 10.0.0.1/32 10.0.0.2/32",
		"B\tfd::/8 10.0.0.0/8\nA\t(none)\n": "A\t(none)\nB\t10.0.0.0/8 fd::/8",
		"interface: wg0\n  listening port: 1\n\npeer: B\n  transfer: 0 B received, 1 B sent\n\npeer: A\n": "" +
			"interface: wg0\n  listening port: 1\npeer: A\npeer: B",
	} {
		if got := sortShown(text); got != want {
			t.Errorf("sortShown(%q) = %q, want %q", text, got, want)
		}
	}
}

// Everything `wg set` can do, compared with wireguard-go after each step.
func TestWGSet(t *testing.T) {
	t.Parallel()
	s := newSteps(t)
	_, peerA := newKey(t)
	_, peerB := newKey(t)
	otherPrivate, otherPublic := newKey(t)
	psk := s.file("psk", newPresharedKey()+"\n")
	ownPublic := s.culvert.publicKey

	s.wg("set", "listen-port", "12345")
	s.wg("set", "fwmark", "0xca6c")
	s.wg("set", "fwmark", "17", "listen-port", "12346")
	s.wg("set", "fwmark", "off")
	s.wg("set", "peer", peerA)
	s.wg("set", "peer", peerA, "allowed-ips", "10.1.0.0/16,10.2.3.4,fd01::/64,fd02::1")
	s.wg("set", "peer", peerA, "endpoint", "192.0.2.1:51820")
	s.wg("set", "peer", peerA, "endpoint", "[2001:db8::1]:51820")
	s.wg("set", "peer", peerA, "preshared-key", psk)
	s.wg("set", "peer", peerA, "persistent-keepalive", "25")
	s.wg("set", "peer", peerA, "persistent-keepalive", "65535")
	s.wg("set", "peer", peerB, "allowed-ips", "0.0.0.0/0,::/0", "endpoint", "192.0.2.2:1", "persistent-keepalive", "1")
	s.wg("set", "peer", peerB, "allowed-ips", "10.9.9.9/8")  // masked to 10.0.0.0/8
	s.wg("set", "peer", peerB, "allowed-ips", "10.2.3.4/32") // moves from the one to the other
	s.wg("set", "peer", peerA, "allowed-ips", "fd02::/15,10.2.3.4/32", "peer", peerB, "persistent-keepalive", "off")
	s.wg("set", "peer", peerA, "allowed-ips", "")
	s.wg("set", "peer", peerA, "preshared-key", "/dev/null")
	s.wg("set", "peer", peerA, "remove")
	s.wg("set", "peer", peerA, "remove") // there is none now
	s.wg("set", "peer", ownPublic, "allowed-ips", "10.3.0.0/16")
	s.wg("set", "peer", otherPublic, "allowed-ips", "10.4.0.0/16")
	s.wg("set", "private-key", s.file("key", otherPrivate+"\n")) // a peer of that key goes
	s.wg("set", "private-key", "/dev/null")
	s.wg("set", "private-key", s.file("key", s.culvert.privateKey+"\n"))
	s.wg("set", "listen-port", "12347", "peer", peerB, "remove", "peer", peerA, "allowed-ips", "10.5.0.0/16")
}

// The commands that take a whole file.
func TestWGConfigurationFiles(t *testing.T) {
	t.Parallel()
	s := newSteps(t)
	private, _ := newKey(t)
	var peers []string
	for range 4 {
		_, public := newKey(t)
		peers = append(peers, public)
	}
	head := "[Interface]\nPrivateKey = " + private + "\nListenPort = 4242\n"
	block := func(i int, lines ...string) string {
		return "[Peer]\nPublicKey = " + peers[i] + "\n" + strings.Join(lines, "\n") + "\n"
	}
	s.wg("setconf", s.file("1", head+block(0, "AllowedIPs = 10.0.0.0/24", "Endpoint = 192.0.2.1:1")+
		block(1, "AllowedIPs = 10.0.1.0/24, fd00::/8", "PersistentKeepalive = 9", "PresharedKey = "+newPresharedKey())))
	s.wg("addconf", s.file("2", block(2, "AllowedIPs = 10.0.2.0/24")+block(0, "AllowedIPs = 10.0.3.0/24")))
	s.wg("syncconf", s.file("3", head+"FwMark = 0x10\n"+block(1, "AllowedIPs = 10.0.1.0/24")+block(3, "AllowedIPs = 0.0.0.0/0, ::/0")))
	s.wg("syncconf", s.file("3", head+block(3, "AllowedIPs = 0.0.0.0/0")))
	s.wg("setconf", s.file("4", "[Interface]\nListenPort = 4243\n")) // everything else goes

	// What showconf prints is what setconf takes.
	s.wg("setconf", s.file("1", head+block(0, "AllowedIPs = 10.0.0.0/24", "Endpoint = [2001:db8::5]:9")+block(1)+block(2)))
	shown := s.culvert.wg("", "showconf", s.culvert.device)
	s.wg("setconf", s.file("shown", shown))
	if again := s.culvert.wg("", "showconf", s.culvert.device); sortShown(again) != sortShown(shown) {
		t.Errorf("after setconf of\n%s\nshowconf prints\n%s", shown, again)
	}
}

// What wg never sends and other programs may: parts of the userspace API beyond `wg set`, and mistakes.
func TestUserspaceAPI(t *testing.T) {
	t.Parallel()
	s := newSteps(t)
	key := func(last byte) string { return fmt.Sprintf("%062x%02x", 1, last) }
	peer := func(last byte, lines ...string) string {
		return strings.Join(append([]string{"set=1", "public_key=" + key(last)}, lines...), "\n") + "\n\n"
	}
	s.uapi("get=1\n\n")
	s.uapi(peer(1, "allowed_ip=10.0.0.0/8", "allowed_ip=10.1.0.0/16", "allowed_ip=fd00::/8"))
	s.uapi(peer(1, "allowed_ip=-10.1.0.0/16"))
	s.uapi(peer(1, "allowed_ip=-10.99.0.0/16")) // it never had this one
	s.uapi(peer(2, "allowed_ip=-fd00::/8"))     // it is the other's
	s.uapi(peer(2, "allowed_ip=10.0.0.0/8"))
	s.uapi(peer(1, "replace_allowed_ips=true", "allowed_ip=10.7.0.0/16"))
	s.uapi(peer(3, "update_only=true", "allowed_ip=10.3.0.0/16")) // does not exist
	s.uapi(peer(1, "update_only=true", "persistent_keepalive_interval=3"))
	s.uapi(peer(1, "protocol_version=1"))
	s.uapi("set=1\nreplace_peers=true\npublic_key=" + key(2) + "\nendpoint=192.0.2.1:1\npublic_key=" + key(4) + "\n\n")
	s.uapi("set=1\n\n")
	for _, mistake := range []string{
		"private_key=zz", "private_key=", "private_key=" + key(1) + "00", "listen_port=65536", "listen_port=-1", "listen_port=x",
		"fwmark=4294967296", "fwmark=", "replace_peers=false", "nonsense=1", "no equals sign",
		"public_key=1234", "public_key=" + key(1) + "\nallowed_ip=10.0.0.0/33", "public_key=" + key(1) + "\nallowed_ip=10.0.0.0",
		"public_key=" + key(1) + "\nendpoint=nowhere:1", "public_key=" + key(1) + "\nendpoint=192.0.2.1",
		"public_key=" + key(1) + "\npersistent_keepalive_interval=65536", "public_key=" + key(1) + "\nupdate_only=1",
		"public_key=" + key(1) + "\nprotocol_version=2", "public_key=" + key(1) + "\npreshared_key=00",
		"public_key=" + key(1) + "\nremove=false", "allowed_ip=10.0.0.0/8", "endpoint=192.0.2.1:1",
	} {
		s.uapi("set=1\n" + mistake + "\n\n")
		// What a refused request had changed before the mistake is left open; begin again from the same state.
		s.uapi("set=1\nreplace_peers=true\nlisten_port=7000\nfwmark=0\npublic_key=" + key(1) + "\nreplace_allowed_ips=true\n\n")
	}
}
