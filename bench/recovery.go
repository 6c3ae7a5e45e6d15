package main

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"culvert/internal/lab"
)

// RecoveryTrial is one kind of fault that befalls two daemons again and again while one of them pings the other through the tunnel.
type RecoveryTrial struct {
	Round      int       `json:"round"` // from 1
	Wire       string    `json:"wire"`  // "culvert" or "wireguard"
	Fault      string    `json:"fault"`
	LoadBefore string    `json:"load_before"`
	Error      string    `json:"error,omitempty"`
	Times      []float64 `json:"times_ms"` // from the fault, or its end, to the first answer to a ping sent afterwards
}

// Faults that are recovered from. Both ends know each other's endpoint; those on WireGuard's wire have a keepalive, without which traffic is
// back after that wire's 15 s and no sooner.
const (
	faultKillFar    = "SIGKILL, far end"        // from the signal on; its supervisor starts it again after 100 ms
	faultKillNear   = "SIGKILL, own end"        // likewise
	faultRestartFar = "peer restart"            // SIGTERM, and started again
	faultLink       = "link loss"               // from the moment when the link is up again
	faultAddress    = "address change"          // of the end that pings: from the moment when the old one is gone
	faultAddressFar = "address change, far end" // of the other
)

var recoveryKinds = func() (list []RecoveryTrial) {
	for _, wire := range []string{"culvert", "wireguard"} {
		for _, fault := range []string{faultKillFar, faultKillNear, faultRestartFar, faultLink, faultAddress, faultAddressFar} {
			list = append(list, RecoveryTrial{Wire: wire, Fault: fault})
		}
	}
	return list
}()

func (t *RecoveryTrial) fail(err error) { t.Error = err.Error() }

const (
	recoveryPing     = 5 * time.Millisecond // so often is asked whether traffic is back
	recoverySettle   = 300 * time.Millisecond
	recoveryLinkDown = 700 * time.Millisecond
	recoveryPatience = 2 * time.Minute
	// recoveryLimit bounds one kind's trial: where traffic is back late, there are fewer.
	recoveryLimit = 60 * time.Second
)

// measure makes one trial. What could be measured is in t also when there is an error.
func (t *RecoveryTrial) measure(s *stage, o *options) error {
	program := lab.Build(s, "culvert/cmd/culvert")
	a, err := newLiveSite(s, "a", program)
	if err != nil {
		return err
	}
	b, err := newLiveSite(s, "b", program)
	if err != nil {
		return err
	}
	wire := lab.Link(s, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	for _, e := range []struct {
		own, far *liveSite
		n, m     int
	}{{a, b, 1, 2}, {b, a, 2, 1}} {
		keepalive := ""
		if t.Wire == "wireguard" {
			keepalive = "keepalive: 25s, "
		}
		text := fmt.Sprintf(`  wg0:
    private_key_file: own.key
    listen: 2000
    addresses: [10.20.0.%d/24]
    peers:
      far: {public_key: %q, wire: %s, %sallowed_ips: [10.20.0.%d/32], endpoints: ["192.0.2.%d:2000"]}
`, e.n, e.far.public, t.Wire, keepalive, e.m, e.m)
		if err := e.own.configure(text); err != nil {
			return err
		}
		e.own.supervise(s)
	}
	p, err := startPinger(s, a.host, netip.MustParseAddr("10.20.0.2"), recoveryPing, 56)
	if err != nil {
		return err
	}
	if _, err := p.after(time.Now(), startupTimeout); err != nil {
		return fmt.Errorf("%w\n%s\n%s", err, a.text(), b.text())
	}
	moved := false
	limit := time.Now().Add(recoveryLimit)
	for range o.Faults {
		time.Sleep(recoverySettle)
		if _, err := p.after(time.Now(), recoveryPatience); err != nil {
			return err
		}
		var from, gone time.Time
		end := func(l *liveSite, sig syscall.Signal) error {
			before := l.gone.Load()
			from = time.Now()
			if err := l.signal(sig); err != nil {
				return err
			}
			for l.gone.Load() == before {
				time.Sleep(time.Millisecond)
			}
			gone = time.Unix(0, l.gone.Load())
			return nil
		}
		move := func(host *lab.Host, device, first, second string) {
			if moved {
				first, second = second, first
			}
			moved = !moved
			host.DelAddr(device, first) // first: it would take the other along
			host.AddAddr(device, second)
			from = time.Now()
			gone = from
		}
		var err error
		switch t.Fault {
		case faultKillFar:
			err = end(b, syscall.SIGKILL)
		case faultKillNear:
			err = end(a, syscall.SIGKILL)
		case faultRestartFar:
			err = end(b, syscall.SIGTERM)
		case faultLink:
			a.host.Down(wire.A.Device)
			time.Sleep(recoveryLinkDown)
			a.host.Up(wire.A.Device)
			from = time.Now()
			gone = from
		case faultAddress:
			move(a.host, wire.A.Device, "192.0.2.1/24", "192.0.2.11/24")
		case faultAddressFar:
			move(b.host, wire.B.Device, "192.0.2.2/24", "192.0.2.12/24")
		}
		if err != nil {
			return err
		}
		back, err := p.after(gone, recoveryPatience)
		if err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, a.text(), b.text())
		}
		t.Times = append(t.Times, float64(back.Sub(from))/float64(time.Millisecond))
		if s.Context().Err() != nil {
			return s.Context().Err()
		}
		if time.Now().After(limit) {
			break
		}
	}
	return nil
}

// quantile is a time that so large a part of the times does not exceed.
func (t *RecoveryTrial) quantile(part float64) float64 {
	if len(t.Times) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(t.Times))
	return v[min(len(v)-1, int(part*float64(len(v))))]
}

func (t *RecoveryTrial) summary() string {
	text := fmt.Sprintf("%-10s %-24s n %3d  p50 %7.0f ms  p99 %7.0f ms", t.Wire, t.Fault, len(t.Times), t.quantile(0.5), t.quantile(0.99))
	if t.Error != "" {
		text += "  FAILED: " + t.Error
	}
	return text
}
