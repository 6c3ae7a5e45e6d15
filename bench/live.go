package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"culvert/crypto"
	"culvert/internal/lab"
)

// liveSite is a host with a daemon that is started again whenever it ends, as its unit has systemd do.
type liveSite struct {
	host    *lab.Host
	program string
	folder  string // of the configuration, the sockets and the state
	public  string

	pid    atomic.Int32  // 0 while it does not run
	gone   atomic.Int64  // when it ended last, nanoseconds since 1970
	starts atomic.Int32  // how often it was started
	stop   chan struct{} // closed at the end
	ended  sync.WaitGroup

	mu  sync.Mutex
	log tail
}

// tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(b []byte) (int, error) {
	n, err := t.Buffer.Write(b)
	if over := t.Len() - logKept; over > 0 {
		t.Next(over)
	}
	return n, err
}

func (l *liveSite) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(b)
}

func (l *liveSite) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

// restartPause is systemd's RestartSec where a unit says nothing of it.
const restartPause = 100 * time.Millisecond

// newLiveSite makes a host with a key and no configuration yet.
func newLiveSite(s *stage, name, program string) (*liveSite, error) {
	folder, err := folderOf(s)
	if err != nil {
		return nil, err
	}
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	l := &liveSite{host: lab.NewHost(s, name), program: program, folder: folder, public: key.Public().Base64(), stop: make(chan struct{})}
	return l, os.WriteFile(filepath.Join(folder, "own.key"), []byte(key.Base64()+"\n"), 0o600)
}

func (l *liveSite) configure(text string) error {
	return os.WriteFile(filepath.Join(l.folder, "site.yaml"), []byte("version: 1\ntunnels:\n"+text), 0o600)
}

// command is culvert with sockets and state of the site's own.
func (l *liveSite) command(s *stage, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.Context(), l.program, args...)
	cmd.Env = append(os.Environ(), "CULVERT_RUN_DIR="+l.folder+"/run", "CULVERT_WG_DIR="+l.folder+"/wg", "CULVERT_STATE_DIR="+l.folder+"/state")
	return cmd
}

// run runs a command on the host and returns what it wrote.
func (l *liveSite) run(s *stage, args ...string) (string, error) {
	cmd := l.command(s, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := l.host.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("culvert %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// supervise starts the daemon, and again whenever it ends, until the stage ends.
func (l *liveSite) supervise(s *stage) {
	l.ended.Go(func() {
		for {
			cmd := l.command(s, "up", "-f", filepath.Join(l.folder, "site.yaml"))
			cmd.Stdout, cmd.Stderr = l, l
			if err := l.host.Start(cmd); err != nil {
				fmt.Fprintf(l, "%v\n", err)
			} else {
				l.starts.Add(1)
				l.pid.Store(int32(cmd.Process.Pid))
				_ = cmd.Wait()
				l.gone.Store(time.Now().UnixNano())
				l.pid.Store(0)
			}
			select {
			case <-l.stop:
				return
			case <-time.After(restartPause):
			}
		}
	})
	s.Cleanup(func() {
		close(l.stop)
		_ = l.signal(syscall.SIGTERM)
		l.ended.Wait()
	})
}

// signal sends a signal to the daemon that runs.
func (l *liveSite) signal(sig syscall.Signal) error {
	pid := l.pid.Load()
	if pid == 0 {
		return errors.New("the daemon does not run")
	}
	return syscall.Kill(int(pid), sig)
}

// pinger sends ICMP echo requests all the time and notes which are answered, when.
type pinger struct {
	conn *icmp.PacketConn
	to   *net.IPAddr
	id   int

	mu       sync.Mutex
	sent     map[int]time.Time // by sequence number
	answered []echoed
	waiting  chan struct{} // one is written when an answer comes
	Sent     atomic.Int64
	Answers  atomic.Int64
}

// echoed is an answered request.
type echoed struct{ sent, came time.Time }

// startPinger pings an address from a host until the stage ends.
func startPinger(s *stage, host *lab.Host, to netip.Addr, every time.Duration, size int) (*pinger, error) {
	p := &pinger{to: &net.IPAddr{IP: to.AsSlice()}, id: os.Getpid() & 0xffff, sent: make(map[int]time.Time), waiting: make(chan struct{}, 1)}
	if err := host.Do(func() (err error) { p.conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0"); return err }); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() { p.send(every, size, stop) })
	ended.Go(p.receive)
	s.Cleanup(func() {
		close(stop)
		p.conn.Close()
		ended.Wait()
	})
	return p, nil
}

func (p *pinger) send(every time.Duration, size int, stop <-chan struct{}) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; ; n = (n + 1) & 0xffff {
		request, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: p.id, Seq: n, Data: make([]byte, size)}}).Marshal(nil)
		if err != nil {
			panic(err)
		}
		p.mu.Lock()
		p.sent[n] = time.Now()
		p.mu.Unlock()
		_, _ = p.conn.WriteTo(request, p.to) // one that cannot be sent is not answered
		p.Sent.Add(1)
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
	}
}

func (p *pinger) receive() {
	for buf := make([]byte, 64<<10); ; {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := icmp.ParseMessage(1, buf[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || echo.ID != p.id {
			continue
		}
		p.mu.Lock()
		if at, ok := p.sent[echo.Seq]; ok {
			delete(p.sent, echo.Seq)
			p.answered = append(p.answered, echoed{at, time.Now()})
			if len(p.answered) > 1000 {
				p.answered = append(p.answered[:0], p.answered[500:]...)
			}
			p.Answers.Add(1)
		}
		p.mu.Unlock()
		select {
		case p.waiting <- struct{}{}:
		default:
		}
	}
}

// after waits for the first answer to a request sent after a moment, and returns when it came.
func (p *pinger) after(moment time.Time, patience time.Duration) (time.Time, error) {
	for end := time.After(patience); ; {
		p.mu.Lock()
		for _, a := range p.answered {
			if a.sent.After(moment) {
				p.mu.Unlock()
				return a.came, nil
			}
		}
		p.mu.Unlock()
		select {
		case <-p.waiting:
		case <-end:
			return time.Time{}, fmt.Errorf("no ping was answered for %v", patience)
		}
	}
}
