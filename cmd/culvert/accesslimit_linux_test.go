package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/control"
	"culvert/internal/lab"
)

// measureLimit sends through a limit as long as it takes and reports the share of it that arrived.
func measureLimit(b *testing.B, congestion string, mbit int, direction string) {
	lab.NeedTun(b)
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	hosts := [2]*lab.Host{lab.NewHost(b, "a"), lab.NewHost(b, "c")}
	lab.Link(b, hosts[0], hosts[1], lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	var dirs, keys [2]string
	run := func(i int, args ...string) string {
		cmd := hosts[i].Command(b.Context(), exe, args...)
		cmd.Args[0], cmd.Dir = "culvert", dirs[i]
		cmd.Env = append(cmd.Environ(), stateDirEnv+"="+filepath.Join(dirs[i], "state"))
		out, err := hosts[i].Output(cmd)
		if err != nil {
			text := ""
			if e, ok := err.(*exec.ExitError); ok {
				text = string(e.Stderr)
			}
			b.Fatalf("%v: %v\n%s", args, err, text)
		}
		return strings.TrimSpace(string(out))
	}
	for i, h := range hosts {
		h.PrivateRun()
		dirs[i] = b.TempDir()
		key := run(i, "genkey")
		if err := os.WriteFile(filepath.Join(dirs[i], "key"), []byte(key+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
		cmd := h.Command(b.Context(), exe, "pubkey")
		cmd.Args[0], cmd.Stdin = "culvert", strings.NewReader(key+"\n")
		out, err := h.Output(cmd)
		if err != nil {
			b.Fatal(err)
		}
		keys[i] = strings.TrimSpace(string(out))
	}
	for i := range hosts {
		access := ""
		if i == 0 {
			access = fmt.Sprintf(", access: {limit: {%s: %dmbit}}", direction, mbit)
		}
		text := fmt.Sprintf("version: 1\ntunnels:\n  wg0:\n    private_key_file: key\n    listen: 1000\n    addresses: [10.20.0.%d/24]\n    peers:\n"+
			"      other: {public_key: %q, allowed_ips: [10.20.0.%d/32], endpoints: [\"192.0.2.%d:1000\"]%s}\n", i+1, keys[1-i], 2-i, 2-i, access)
		if err := os.WriteFile(filepath.Join(dirs[i], "x.yaml"), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		run(i, "up", "x.yaml")
	}
	from, to := 1, 0
	if direction == "to_peer" {
		from, to = 0, 1
	}
	var l net.Listener
	hosts[to].Must(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("10.20.0.%d:9000", to+1))
		return err
	})
	defer l.Close()
	const lead, long = 2 * time.Second, 4 * time.Second
	for b.Loop() {
		var out net.Conn
		hosts[from].Must(func() (err error) {
			d := net.Dialer{Timeout: 20 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
				return errors.Join(c.Control(func(fd uintptr) {
					err = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, congestion)
				}), err)
			}}
			out, err = d.Dial("tcp", l.Addr().String())
			return err
		})
		in, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			block := make([]byte, 1<<16)
			for {
				if _, err := out.Write(block); err != nil {
					return
				}
			}
		}()
		got, block, start := 0, make([]byte, 1<<18), time.Now()
		for {
			n, err := in.Read(block)
			if err != nil {
				b.Fatal(err)
			}
			at := time.Since(start)
			if at > lead+long {
				break
			}
			if at > lead {
				got += n
			}
		}
		out.Close()
		in.Close()
		b.ReportMetric(float64(got)*8/long.Seconds()/float64(mbit)/1e4, "%ofrate")
	}
	var all []control.Instance
	if err := json.Unmarshal([]byte(run(0, "status", "--json")), &all); err != nil {
		b.Fatal(err)
	}
	a := all[0].Tunnels[0].Peers[0].Access
	b.ReportMetric(float64(a.FromPeer.OverRate+a.ToPeer.OverRate), "dropped")
	for i := range hosts {
		run(i, "down", "x")
	}
}
