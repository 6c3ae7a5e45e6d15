package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/control"
	"culvert/crypto"
)

// sampleTime is when the sample was taken.
var sampleTime = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// hostile is a name as nobody should give one.
const hostile = `"><script>alert(1)</script>\'{x="` + "\n"

func keyOf(n int) (k crypto.PublicKey) {
	k[0], k[1], k[31] = byte(n), byte(n>>8), 0x40
	return k
}

// sample is an instance with something of everything.
func sample() Snapshot {
	loss := 0.0125
	at := func(ago time.Duration) time.Time { return sampleTime.Add(-ago) }
	prefix := netip.MustParsePrefix
	many := make([]netip.Prefix, maxAllowed+3)
	for i := range many {
		many[i] = prefix(fmt.Sprintf("10.%d.0.0/16", 100+i))
	}
	return Snapshot{
		Ready: true,
		Instance: control.Instance{
			Name: "site-a", Kind: "up", PID: 4711, Version: "v1.2.3, go1.26", Started: at(26 * time.Hour), File: "/etc/culvert/site-a.yaml",
			Tunnels: []control.Tunnel{{
				Interface: "office", Mode: "tun", Up: true, PublicKey: keyOf(9).Base64(), ListenPort: 51820, MTU: 1416, Workers: 2,
				Peers: []control.Peer{
					{PublicKey: keyOf(1), Name: "branch", Endpoint: "192.0.2.7:51820", AllowedIPs: []netip.Prefix{prefix("10.30.0.0/16"), prefix("fd30::/64")},
						LatestHandshake: at(40 * time.Second), Connected: true, Wire: "culvert", Suite: "AES-256-GCM", PostQuantum: true,
						ReceivedBytes: 5_000_000_000, SentBytes: 700_000_000, ReceivedPackets: 4_000_000, SentPackets: 2_000_000,
						Native: &control.Native{PathMTU: 1472, InnerMTU: 1439, PathSettled: true, RTT: 0.0123, RTTMin: 0.011, RTTVar: 0.0008, Loss: &loss},
						Access: &control.Access{Default: "deny", Rules: 3, Quota: &control.Quota{Bytes: 1 << 40, Every: "month", Used: 5_700_000_000},
							FromPeer: control.AccessDrops{Denied: 12, OverRate: 3}, ToPeer: control.AccessDrops{OverQuota: 1}}},
					{PublicKey: keyOf(2), Name: hostile, Endpoint: "[2001:db8::7]:443", TCP: true, AllowedIPs: many, LatestHandshake: at(10 * time.Minute),
						HandshakeAttempts: 4, Wire: "wireguard", Suite: "ChaCha20-Poly1305", ReceivedBytes: 1, SentBytes: 2, StagedBytes: 1500},
					{PublicKey: keyOf(3), Name: "new", Wire: "culvert", Native: &control.Native{PathMTU: 1232, InnerMTU: 1199},
						Access: &control.Access{Default: "allow", Held: true}},
				},
				Drops:      map[string]uint64{"in: replayed": 7, "out: no peer for destination": 21, "in: unknown peer": 2, "in: denied by rule": 12},
				Handshakes: control.Handshakes{InitiationsSent: 9, InitiationsReceived: 4, ResponsesSent: 4, ResponsesReceived: 5, Completed: 9},
				Transport: control.Transport{SentDatagrams: 2_000_100, SentBytes: 700_000_100, SentCalls: 60_000, ReceivedDatagrams: 4_000_100,
					ReceivedBytes: 5_000_000_100, ReceivedCalls: 90_000, SegmentOffload: true, ReceiveOffload: true,
					Streams: &control.Streams{Open: 1, Accepted: 3, Refused: 1, SentDatagrams: 5, SentBytes: 500, ReceivedDatagrams: 6, ReceivedBytes: 600, Full: 2}},
				Server: true,
			}, {
				Interface: "lan", Mode: "tap", MTU: 1500, Workers: 1, Peers: []control.Peer{
					{PublicKey: keyOf(4), Name: "site-b", Wire: "culvert", LatestHandshake: at(time.Second), Connected: true, Suite: "AES-256-GCM", PostQuantum: true,
						Native: &control.Native{PathMTU: 1472, InnerMTU: 1439, RTT: 0.2, RTTMin: 0.1, RTTVar: 0.05}, Port: &control.Port{Alive: true, Addresses: 2}},
				},
				Drops: map[string]uint64{},
				Switch: &control.Switch{Wire: true, Carrier: true, Moves: 3, Addresses: []control.Address{
					{MAC: "02:00:00:00:00:01", Local: true}, {MAC: "02:00:00:00:00:02", Peer: keyOf(4)}, {MAC: "02:00:00:00:00:03", Peer: keyOf(4)}}},
			}},
			Network: &control.Network{Items: 14, Checked: at(5 * time.Second), Drift: []control.Drift{
				{ID: "link br0", Is: "gone", Text: "br0: gone", Line: "site-a.yaml:20:3"}, {ID: "address office", Is: "changed", Text: hostile}}},
		},
		Servers: []Server{{Interface: "office", Invitations: 2, Clients: []control.ServerClient{
			{Tunnel: "office", Name: "alice", Group: "staff", PublicKey: keyOf(5), Wire: "culvert", Joined: at(300 * time.Hour), Says: hostile,
				Addresses: []netip.Addr{netip.MustParseAddr("10.20.0.9"), netip.MustParseAddr("fd20::9")}, LatestHandshake: at(time.Minute), Connected: true,
				Endpoint: "198.51.100.4:40000", Seen: at(time.Minute), ReceivedBytes: 12345678, SentBytes: 987654321},
			{Tunnel: "office", Name: "bob", PublicKey: keyOf(6), Wire: "wireguard", Joined: at(30 * time.Hour), Seen: at(20 * time.Hour),
				Addresses: []netip.Addr{netip.MustParseAddr("10.20.0.10")}, SignIn: &control.ClientSignIn{By: "totp"}},
		}}},
		Reloads: Reloads{Done: 3, Failed: 1, Last: at(time.Hour), LastGood: at(2 * time.Hour), LastFailed: true, Took: 125 * time.Millisecond},
	}
}

// fixed is a source that a test changes.
type fixed struct {
	mu     sync.Mutex
	now    Snapshot
	taken  int // snapshots
	looked int // at the tunnels alone
	dead   error
	slow   chan struct{} // Alive waits for it
}

func (f *fixed) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken++
	s := f.now
	s.Tunnels = append([]control.Tunnel(nil), s.Tunnels...)
	return s
}

func (f *fixed) Tunnels() []control.Tunnel {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked++
	return append([]control.Tunnel(nil), f.now.Tunnels...)
}

func (f *fixed) Alive(ctx context.Context) error {
	if f.slow != nil {
		select {
		case <-f.slow:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func newMonitor(t *testing.T, s Source) *Monitor {
	m := New(s, slog.New(slog.DiscardHandler))
	t.Cleanup(m.Close)
	return m
}

func groupOf(st os.FileInfo) uint32 { return st.Sys().(*syscall.Stat_t).Gid }
