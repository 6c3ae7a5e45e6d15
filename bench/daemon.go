package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"culvert/crypto"
	"culvert/internal/lab"
)

// tunnelDevice is the name of either end's tun. The ends are in different namespaces and see different sockets.
const tunnelDevice = "wg0"

// daemon is one end of a tunnel.
type daemon struct {
	pid    int
	socket string // of the userspace API
	ended  <-chan struct{}

	mu  sync.Mutex
	log []byte // the last of what it wrote
}

// logKept is how much of a daemon's log is kept, in bytes.
const logKept = 4 << 10

// Write keeps the end of the log.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, p...)
	d.log = d.log[max(0, len(d.log)-logKept):]
	return len(p), nil
}

func (d *daemon) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.log)
}

// startupTimeout bounds each wait for a daemon: for its socket or device, and for its peer.
const startupTimeout = 20 * time.Second

// startDaemon starts an implementation on a host and returns when ready does not fail any more. It ends with the stage. The
// arguments follow the implementation's command.
func startDaemon(s *stage, host *lab.Host, impl Implementation, ready func(*daemon) error, arguments ...string) (*daemon, error) {
	// Before the first process is started there.
	root, err := host.Namespace.PrivateMounts("/run/wireguard", "/run/culvert")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan struct{})
	d := &daemon{socket: filepath.Join(root, "run/wireguard", tunnelDevice+".sock"), ended: ended}
	args := slices.Concat(impl.Command[1:], arguments)
	cmd := exec.CommandContext(ctx, impl.Command[0], args...)
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error")
	cmd.Stdout, cmd.Stderr = d, d
	if err := host.Start(cmd); err != nil {
		cancel()
		return nil, err
	}
	d.pid = cmd.Process.Pid
	go func() {
		defer close(ended)
		_ = cmd.Wait() // told by whoever misses it
	}()
	s.Cleanup(func() {
		cancel()
		<-ended
	})
	for end := time.After(startupTimeout); ; {
		if err = ready(d); err == nil {
			return d, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ended:
			return nil, fmt.Errorf("%s ended at once: %s", impl.Name, d.text())
		case <-end:
			return nil, fmt.Errorf("%s is not ready within %v: %w\n%s", impl.Name, startupTimeout, err, d.text())
		}
	}
}

// answers reports whether the daemon's socket does.
func (d *daemon) answers() error {
	_, err := d.ask("get=1\n\n")
	return err
}

// ask does one exchange of the userspace API and returns the answer's lines.
func (d *daemon) ask(request string) (lines []string, err error) {
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(startupTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return nil, err
	}
	scanner := bufio.NewScanner(conn)
	for scanner.Scan() && scanner.Text() != "" {
		line := scanner.Text()
		if code, ok := strings.CutPrefix(line, "errno="); ok && code != "0" {
			return nil, fmt.Errorf("the daemon answered errno %s", code)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, errors.Join(errors.New("the daemon's answer is empty"), scanner.Err())
	}
	return lines, scanner.Err()
}

// peerText is the part of the userspace API's configuration that makes a peer.
type peerText struct {
	publicKey string // hexadecimal
	endpoint  netip.AddrPort
	allowed   netip.Prefix
}

func (p peerText) String() string {
	return fmt.Sprintf("public_key=%s\nendpoint=%v\nreplace_allowed_ips=true\nallowed_ip=%v\n", p.publicKey, p.endpoint, p.allowed)
}

func (d *daemon) configure(privateKey string, port uint16, peer peerText) error {
	_, err := d.ask(fmt.Sprintf("set=1\nprivate_key=%s\nlisten_port=%d\nreplace_peers=true\n%v\n", privateKey, port, peer))
	return err
}

// forget drops the session with a peer: it removes the peer and adds it again.
func (d *daemon) forget(peer peerText) error {
	if _, err := d.ask(fmt.Sprintf("set=1\npublic_key=%s\nremove=true\n\n", peer.publicKey)); err != nil {
		return err
	}
	_, err := d.ask(fmt.Sprintf("set=1\n%v\n", peer))
	return err
}

// forgetAll drops all sessions without changing a peer: it takes another private key and then its own again. A peer on the
// native wire cannot be added again through the userspace API.
func (d *daemon) forgetAll(privateKey string) error {
	other, _, err := newKey()
	if err != nil {
		return err
	}
	for _, key := range []string{other, privateKey} {
		if _, err := d.ask(fmt.Sprintf("set=1\nprivate_key=%s\n\n", key)); err != nil {
			return err
		}
	}
	return nil
}

// tunnelFile is a configuration in culvert's format of a tunnel on the native wire.
const tunnelFile = `version: 1
tunnels:
  %s:
    mode: %s
    private_key_file: own.key
    listen: %d
    addresses: [%v]
    mtu: %d
    peers:
      far:
        public_key: %s
        endpoints: ["%v"]
`

// folderOf returns a new folder that goes with the stage.
func folderOf(s *stage) (string, error) {
	folder, err := os.MkdirTemp("", "culvert-bench-")
	if err == nil {
		s.Cleanup(func() { os.RemoveAll(folder) })
	}
	return folder, err
}

// writeTunnelFile writes a configuration to a folder that goes with the stage, and returns its name.
func writeTunnelFile(s *stage, impl Implementation, privateKey string, address netip.Prefix, peer peerText) (string, error) {
	folder, err := folderOf(s)
	if err != nil {
		return "", err
	}
	private, err := crypto.ParsePrivateKeyHex(privateKey)
	if err != nil {
		return "", err
	}
	public, err := crypto.ParsePublicKeyHex(peer.publicKey)
	if err != nil {
		return "", err
	}
	name := filepath.Join(folder, "bench.yaml")
	mode := "tap"
	if !impl.Ethernet {
		mode = "tun"
	}
	text := fmt.Sprintf(tunnelFile, tunnelDevice, mode, tunnelPort, address, cmp.Or(impl.MTU, tunnelMTU), public.Base64(),
		peer.endpoint)
	if !impl.Ethernet {
		text += fmt.Sprintf("        allowed_ips: [%v]\n", peer.allowed)
	}
	return name, errors.Join(os.WriteFile(filepath.Join(folder, "own.key"), []byte(private.Base64()+"\n"), 0o600),
		os.WriteFile(name, []byte(text), 0o600))
}

// newKey returns a pair of keys in hexadecimal.
func newKey() (private, public string, err error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	return hex.EncodeToString(key.Bytes()), hex.EncodeToString(key.PublicKey().Bytes()), nil
}
