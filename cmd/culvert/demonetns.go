package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/setup"
)

// demoPrefix starts the name of everything a demo makes; the process number follows, by which a later one finds what a
// killed one left.
const demoPrefix = "culvert-demo-"

const (
	demoPort      = 51820
	demoStartTime = 20 * time.Second
	demoStopTime  = 20 * time.Second
)

// demoEnd is one namespace with its daemon.
type demoEnd struct {
	letter       string
	outer, inner netip.Addr
	key          crypto.PrivateKey
	namespace    *setup.Namespace
	dir          string
	daemon       *exec.Cmd
	log          bytes.Buffer
	ended        chan struct{} // closed when the daemon is gone
}

// demoInNamespaces makes two namespaces and starts a daemon in each.
func (p *program) demoInNamespaces(ctx context.Context, s *show, mode config.Mode, wire config.Wire) (_ *demoEnds, err error) {
	reapDemos()
	var u undo
	defer func() {
		if err != nil {
			err = errors.Join(err, u.run())
		}
	}()
	a := &demoEnd{letter: "a", outer: netip.MustParseAddr("192.0.2.1"), inner: netip.MustParseAddr("10.77.0.1")}
	b := &demoEnd{letter: "b", outer: netip.MustParseAddr("192.0.2.2"), inner: netip.MustParseAddr("10.77.0.2")}
	both := []*demoEnd{a, b}
	dir, err := os.MkdirTemp("", demoPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	u.add("remove "+dir, func() error { return os.RemoveAll(dir) })
	for _, e := range both {
		name := demoPrefix + strconv.Itoa(os.Getpid()) + "-" + e.letter
		if e.namespace, err = setup.NewNamespace(name); err != nil {
			return nil, err
		}
		u.add("delete namespace "+name, e.namespace.Delete)
		e.dir = filepath.Join(dir, e.letter)
		if err := os.Mkdir(e.dir, 0o700); err != nil {
			return nil, err
		}
		if e.key, err = crypto.GeneratePrivateKey(); err != nil {
			return nil, err
		}
	}
	end := func(e *demoEnd) setup.VethEnd {
		return setup.VethEnd{Namespace: e.namespace, Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(e.outer, 24)}}
	}
	if err := setup.VethPair(end(a), end(b), 0); err != nil {
		return nil, err
	}
	s.step("two namespaces, %s and %s, joined by a veth pair", a.namespace.Name(), b.namespace.Name())
	if err := a.writeConfig(b, mode, wire); err != nil {
		return nil, err
	}
	if err := b.writeConfig(a, mode, wire); err != nil {
		return nil, err
	}
	for _, e := range both {
		u.add("stop daemon "+e.letter, e.stop)
		if err := p.startDemoDaemon(ctx, e); err != nil {
			return nil, err
		}
	}
	s.step("two daemons, tunnel demo (%s) on the %s wire: %s to %s", mode, wire, a.inner, b.inner)
	ends := &demoEnds{
		devices: string(mode),
		listen: func() (l net.Listener, err error) {
			err = b.namespace.Do(func() error {
				l, err = net.Listen("tcp4", netip.AddrPortFrom(b.inner, demoPort).String())
				return err
			})
			return l, err
		},
		dial: func(ctx context.Context) (c net.Conn, err error) {
			err = a.namespace.Do(func() error {
				var d net.Dialer
				c, err = d.DialContext(ctx, "tcp4", netip.AddrPortFrom(b.inner, demoPort).String())
				return err
			})
			return c, err
		},
		pinger: func() (c echoConn, err error) {
			err = a.namespace.Do(func() error {
				ip, err := net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: b.inner.AsSlice()})
				c = icmpEcho{ip}
				return err
			})
			return c, err
		},
		usage: func() (usage, error) {
			var sum usage
			for _, e := range both {
				cpu, rss, err := processUsage(strconv.Itoa(e.daemon.Process.Pid))
				if err != nil {
					return sum, errors.Join(fmt.Errorf("daemon %s: %w", e.letter, err), e.lastWords())
				}
				sum.cpu += cpu
				sum.peakRSS = append(sum.peakRSS, rss)
			}
			return sum, nil
		},
		peer:  a.peer,
		close: u.run,
	}
	if mode == config.ModeTap {
		ends.ready = func(ctx context.Context) error { return awaitCarrier(ctx, a, b) }
		ends.ethernet = func(ctx context.Context) (*ethernetSigns, error) { return ethernetSignsOf(ctx, a, b) }
	}
	return ends, nil
}

// runDir is where the daemon has its control socket.
func (e *demoEnd) runDir() string { return filepath.Join(e.dir, "run") }

// tunnel is what the daemon says of its tunnel.
func (e *demoEnd) tunnel() (control.Tunnel, error) {
	in, err := control.NewClient(e.runDir(), "demo").Status(context.Background())
	if err != nil {
		return control.Tunnel{}, errors.Join(fmt.Errorf("status of daemon %s: %w", e.letter, err), e.lastWords())
	}
	if len(in.Tunnels) != 1 || len(in.Tunnels[0].Peers) != 1 {
		return control.Tunnel{}, fmt.Errorf("daemon %s has lost its peer", e.letter)
	}
	return in.Tunnels[0], nil
}

// peer is what the daemon says of the other end.
func (e *demoEnd) peer() (control.Peer, error) {
	t, err := e.tunnel()
	if err != nil {
		return control.Peer{}, err
	}
	return t.Peers[0], nil
}

// writeConfig writes the end's configuration, with the other end as its peer.
func (e *demoEnd) writeConfig(peer *demoEnd, mode config.Mode, wire config.Wire) error {
	key := e.key.Base64() + "\n"
	if err := os.WriteFile(filepath.Join(e.dir, "demo.key"), []byte(key), 0o600); err != nil {
		return err
	}
	text := fmt.Sprintf(`version: 1
instance: demo
tunnels:
  demo:
    mode: %s
    wire: %s
    listen: %d
    private_key_file: demo.key
    addresses: [%s/24]
    peers:
      other:
        public_key: %q
        endpoints: ["%s:%d"]
`, mode, wire, demoPort, e.inner, peer.key.Public(), peer.outer, demoPort)
	if mode == config.ModeTun {
		text += fmt.Sprintf("        allowed_ips: [%s/32]\n", peer.inner)
	}
	return os.WriteFile(filepath.Join(e.dir, "demo.yaml"), []byte(text), 0o600)
}

// startDemoDaemon starts "culvert up" in the end's namespace and waits until its tunnel is up.
func (p *program) startDemoDaemon(ctx context.Context, e *demoEnd) error {
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(e.dir, "notify"), Net: "unixgram"})
	if err != nil {
		return err
	}
	defer notify.Close()
	cmd := exec.Command(ownProgram(), "up", "--foreground", filepath.Join(e.dir, "demo.yaml"))
	cmd.Args[0] = p.name
	cmd.Env = append(os.Environ(), runDirEnv+"="+e.runDir(), wgDirEnv+"="+filepath.Join(e.dir, "wg"),
		"NOTIFY_SOCKET="+notify.LocalAddr().String())
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &e.log, &e.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which ends them in order
	if err := e.namespace.Start(cmd); err != nil {
		return fmt.Errorf("cannot start daemon %s: %w", e.letter, err)
	}
	e.daemon, e.ended = cmd, make(chan struct{})
	go func() {
		defer close(e.ended)
		cmd.Wait()
	}()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithTimeout(ctx, demoStartTime)
	defer cancel()
	wg.Go(func() {
		select {
		case <-e.ended:
		case <-ctx.Done():
		}
		notify.SetReadDeadline(time.Unix(1, 0))
	})
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			break
		}
		if strings.Contains(string(buf[:n]), "READY=1") {
			return nil
		}
	}
	select {
	case <-e.ended:
		return fmt.Errorf("daemon %s ended: %w", e.letter, e.lastWords())
	default:
	}
	if ctx.Err() == context.Canceled { // not its cause, which names the signal
		return context.Canceled
	}
	return fmt.Errorf("daemon %s is not up within %v", e.letter, demoStartTime)
}

// lastWords is what the daemon wrote, once it has ended.
func (e *demoEnd) lastWords() error {
	select {
	case <-e.ended:
		return errors.New(strings.TrimSpace(e.log.String()))
	case <-time.After(time.Second):
		return nil
	}
}

// stop ends the daemon and waits for it.
func (e *demoEnd) stop() error {
	if e.daemon == nil {
		return nil
	}
	e.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.ended:
		if s, ok := e.daemon.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() != syscall.SIGKILL {
			return nil // before it could catch the signal, and so before it had anything to take away
		}
		if code := e.daemon.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("it ended with code %d: %s", code, strings.TrimSpace(e.log.String()))
		}
		return nil
	case <-time.After(demoStopTime):
		e.daemon.Process.Kill()
		<-e.ended
		return fmt.Errorf("it had to be killed after %v", demoStopTime)
	}
}

// reapDemos removes what killed demos left: namespaces with their processes, and directories.
func reapDemos() {
	_, _ = setup.ReapNamespaces(demoPrefix, nil)
	entries, _ := filepath.Glob(filepath.Join(os.TempDir(), demoPrefix+"*"))
	for _, path := range entries {
		digits, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), demoPrefix), "-")
		pid, err := strconv.Atoi(digits)
		if err != nil || pid <= 0 || syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		// Directories of one's own only: in /tmp anybody may make one of this name.
		if st, err := os.Lstat(path); err == nil && st.IsDir() && int(st.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() {
			os.RemoveAll(path)
		}
	}
}
