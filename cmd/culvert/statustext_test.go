package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/internal/golden"
)

var goldenNow = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func goldenInstances() []control.Instance {
	office := control.Tunnel{
		Interface: "office", Mode: "tun", Up: true, PublicKey: crypto.PublicKey{9}.Base64(), ListenPort: 51820, FwMark: 0xca6c, MTU: 1420,
		Drops: map[string]uint64{"no peer": 3, "bad tag": 20000},
		Peers: []control.Peer{
			{
				PublicKey: crypto.PublicKey{1}, Name: "branch", PresharedKey: true, Endpoint: "192.0.2.1:51820", Source: "192.0.2.9",
				AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.30.0.0/16"), netip.MustParsePrefix("fd20::/64")},
				Keepalive:  25, LatestHandshake: goldenNow.Add(-63 * time.Second), Connected: true, Wire: "culvert", Suite: "AES-256-GCM", PostQuantum: true,
				ReceivedBytes: 1536, SentBytes: 5 << 20, ReceivedPackets: 3, SentPackets: 4096,
				Native: &control.Native{
					PathMTU: 1449, InnerMTU: 1416, PathSettled: true, RTT: 0.0123, RTTMin: 0.0095, RTTVar: 0.001, Loss: new(0.0125),
					Agent: `culvert "v1"`, PeerMTU: 1416,
					Lanes: []control.Lane{
						{Open: true, Endpoint: "192.0.2.1:51820", SentBytes: 1 << 20, ReceivedBytes: 512, SentPackets: 900, ReceivedPackets: 1},
						{Number: 1, Open: true, Endpoint: "192.0.2.1:40001", SentBytes: 4 << 20, ReceivedBytes: 1024, SentPackets: 3196, ReceivedPackets: 2},
						{Number: 2},
					},
				},
			},
			{
				PublicKey: crypto.PublicKey{2}, AllowedIPs: []netip.Prefix{}, Wire: "culvert", PostQuantum: true, HandshakeAttempts: 4, StagedBytes: 84,
				Native: &control.Native{PathMTU: 1232, InnerMTU: 1199},
			},
			{
				PublicKey: crypto.PublicKey{4}, AllowedIPs: []netip.Prefix{}, Wire: "culvert", Suite: "ChaCha20-Poly1305", PostQuantum: true,
				LatestHandshake: goldenNow, Connected: true, Native: &control.Native{PathMTU: 1232, InnerMTU: 1199},
				Access: &control.Access{
					Default: "deny", Rules: 2, Flows: 3, Scheduled: true, Expires: goldenNow.Add(time.Hour), FromPeerRate: 20e6,
					Quota: &control.Quota{Bytes: 5e10, Every: "month", Used: 1 << 30, Since: goldenNow}, FromPeer: control.AccessDrops{Denied: 4},
				},
			},
			{
				PublicKey: crypto.PublicKey{3}, Endpoint: "[2001:db8::1]:1", TCP: true, Wire: "wireguard", Suite: "ChaCha20-Poly1305",
				AllowedIPs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, LatestHandshake: goldenNow, Connected: true, SentBytes: 148,
			},
		},
		Transport:  control.Transport{SentDatagrams: 100, SentBytes: 5 << 20, SentCalls: 7, SegmentOffload: true, Streams: &control.Streams{Open: 1, Accepted: 2, Full: 3}},
		Handshakes: control.Handshakes{InitiationsSent: 5, Completed: 2},
	}
	return []control.Instance{
		{
			Name: "site-a", Kind: "up", PID: 4711, Version: "v1", Started: goldenNow.Add(-time.Hour), File: "/etc/culvert/site-a.yaml",
			Tunnels: []control.Tunnel{office, {Interface: "spare", Mode: "tun", MTU: 1420, Peers: []control.Peer{}, Drops: map[string]uint64{}}},
		},
		{Name: "wg0", Kind: "wg", PID: 4712, Version: "v1", Started: goldenNow, Tunnels: []control.Tunnel{{Interface: "wg0", Mode: "tun", Up: true, MTU: 1420, UnderLoad: true}}},
	}
}

func TestStatusText(t *testing.T) {
	var out bytes.Buffer
	if err := writeStatus(&out, goldenInstances(), goldenNow); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/status.txt", out.String())
}

// The JSON form is a promise: this file changes only by additions.
func TestStatusJSON(t *testing.T) {
	out, err := json.MarshalIndent(goldenInstances(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/status.json", string(out)+"\n")
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "now", 999 * time.Millisecond: "now", time.Second: "1 second ago", 63 * time.Second: "1 minute, 3 seconds ago",
		2*time.Hour + 5*time.Second:     "2 hours, 5 seconds ago",
		(365 + 1) * 86400 * time.Second: "1 year, 1 day ago",
		-time.Minute:                    "in the future: the clock was set back",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 1 << 20: "1.00 MiB", 1 << 30: "1.00 GiB",
		3 << 40: "3.00 TiB", 1 << 60: "1048576.00 TiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}
