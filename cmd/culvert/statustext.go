package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"culvert/control"
)

// writeStatus writes instances in the manner of wg show.
func writeStatus(w io.Writer, instances []control.Instance, now time.Time) error {
	b := bufio.NewWriter(w)
	first := true
	for _, in := range instances {
		for _, t := range in.Tunnels {
			if !first {
				fmt.Fprintln(b)
			}
			first = false
			writeTunnel(b, in, t, now)
		}
		if c := in.Confinement; c != nil {
			if !first {
				fmt.Fprintln(b)
			}
			first = false
			fmt.Fprintf(b, "instance: %s\n  confinement: files %s, system calls %s\n", in.Name, c.Files, c.Calls)
		}
		if in.Network != nil {
			if !first {
				fmt.Fprintln(b)
			}
			first = false
			writeNetwork(b, in)
		}
	}
	return b.Flush()
}

// writeNetwork writes what is around the tunnels of an instance, and how it differs from what is declared.
func writeNetwork(b io.Writer, in control.Instance) {
	n := in.Network
	fmt.Fprintf(b, "network: %s\n", in.Name)
	if in.Kind == kindApplied {
		fmt.Fprintf(b, "  state: applied, no process runs; culvert destroy %s takes it away\n", in.Name)
	}
	if n.Items > 0 || in.Kind != kindApplied {
		fmt.Fprintf(b, "  things: %d\n", n.Items)
	}
	if n.Interrupted {
		fmt.Fprintf(b, "  half-way: an apply or destroy is at work, or was killed; the next one repairs what it left\n")
	}
	if n.Abandoned {
		fmt.Fprintf(b, "  unconfirmed: the process that was to undo the last change is gone; %s\n", abandonedAdvice(in.Name))
	}
	if n.Unconfirmed > 0 {
		fmt.Fprintf(b, "  on trial: undone in %s unless confirmed\n", duration(time.Duration(n.Unconfirmed*float64(time.Second)).Round(time.Second)))
	}
	for _, d := range n.Drift {
		fmt.Fprintf(b, "  drift: %s\n", d.Text)
	}
	if n.Error != "" {
		fmt.Fprintf(b, "  not compared: %s\n", n.Error)
	}
}

func writeTunnel(b io.Writer, in control.Instance, t control.Tunnel, now time.Time) {
	fmt.Fprintf(b, "interface: %s\n", t.Interface)
	field := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %s: %s\n", name, fmt.Sprintf(format, args...))
	}
	if in.Name != t.Interface {
		field("instance", "%s", in.Name)
	}
	if !t.Up {
		field("state", "down")
	}
	if t.PublicKey != "" {
		field("public key", "%s", t.PublicKey)
		field("private key", "(hidden)")
	}
	if t.ListenPort != 0 {
		field("listening port", "%d", t.ListenPort)
	}
	if t.FwMark != 0 {
		field("fwmark", "%#x", t.FwMark)
	}
	field("mtu", "%d", t.MTU)
	if t.Pulls && !t.Pulled && t.SignIn == nil {
		field("server", "none has answered yet, so no addresses and routes are there")
	}
	writeGiven(field, t.Given)
	if t.SignIn != nil {
		field("sign-in", "%s", signInText(in.Name, t.SignIn))
	}
	if t.Switch != nil {
		writeSwitch(field, t.Switch)
	}
	if t.UnderLoad {
		field("under load", "handshakes need a cookie")
	}
	if len(t.Drops) > 0 {
		var list []string
		for _, reason := range slices.Sorted(maps.Keys(t.Drops)) {
			list = append(list, fmt.Sprintf("%s %d", reason, t.Drops[reason]))
		}
		field("dropped packets", "%s", strings.Join(list, ", "))
	}
	for _, p := range byHandshake(t.Peers) {
		fmt.Fprintf(b, "\npeer: %s\n", p.PublicKey)
		if p.Name != "" {
			field("name", "%s", p.Name)
		}
		if p.PresharedKey {
			field("preshared key", "(hidden)")
		}
		switch {
		case p.TCP:
			field("endpoint", "%s over TCP, since UDP does not get through", p.Endpoint)
		case p.Endpoint != "":
			field("endpoint", "%s", p.Endpoint)
		}
		if t.Switch == nil {
			field("allowed ips", "%s", allowedText(p))
		}
		if p.Port != nil {
			field("port", "%s", portText(p.Port, t.Switch != nil && t.Switch.Wire))
		}
		if p.Access != nil {
			writeAccess(field, p.Access)
		}
		field("wire", "%s", wireText(p))
		if !p.LatestHandshake.IsZero() {
			field("latest handshake", "%s", ago(now.Sub(p.LatestHandshake)))
		}
		if p.HandshakeAttempts > 0 {
			field("unanswered handshakes", "%s", unansweredText(&t, &p))
		}
		if p.Native != nil && p.Suite != "" { // there is a session
			writeNative(field, p.Native, p.TCP)
		}
		if p.ReceivedBytes|p.SentBytes != 0 {
			field("transfer", "%s received, %s sent", bytesText(p.ReceivedBytes), bytesText(p.SentBytes))
		}
		if p.Keepalive != 0 {
			field("persistent keepalive", "every %s", duration(time.Duration(p.Keepalive)*time.Second))
		}
	}
	if t.Switch != nil {
		writeFewMACs(b, in, t.Switch)
	}
}

// unansweredText has what a client cannot see by itself: to one that is not known nobody answers.
func unansweredText(t *control.Tunnel, p *control.Peer) string {
	text := strconv.Itoa(p.HandshakeAttempts)
	const some = 3
	if t.Pulls && p.HandshakeAttempts >= some {
		text += " (the server is not reached, or does not know this client's key any more)"
	}
	return text
}

func allowedText(p control.Peer) string {
	if len(p.AllowedIPs) == 0 {
		return "(none)"
	}
	var list []string
	for _, a := range p.AllowedIPs {
		list = append(list, a.String())
	}
	return strings.Join(list, ", ")
}

// wireText words the protocol spoken with a peer, and what it is made of.
func wireText(p control.Peer) string {
	parts := []string{"X25519"}
	if p.PostQuantum {
		parts[0] += " + ML-KEM-768"
	}
	if p.Suite != "" {
		parts = append(parts, p.Suite)
	}
	return fmt.Sprintf("%s (%s)", p.Wire, strings.Join(parts, ", "))
}

// writeNative writes what is known of a peer on the native wire besides. What the peer says of itself is quoted.
func writeNative(field func(name, format string, args ...any), n *control.Native, tcp bool) {
	if !tcp { // which takes all sizes
		field("path mtu", "%s", pathText(n))
	}
	if n.RTT != 0 {
		field("round trip", "%s, min %s", secondsText(n.RTT), secondsText(n.RTTMin))
	}
	if n.Loss != nil {
		field("loss to peer", "%.1f %%", 100**n.Loss)
	}
	for _, l := range n.Lanes {
		field(fmt.Sprintf("lane %d", l.Number), "%s", laneText(&l))
	}
	if n.Agent != "" {
		field("peer's program", "%q", n.Agent)
	}
}

// laneText words a lane.
func laneText(l *control.Lane) string {
	text := fmt.Sprintf("%s received, %s sent", bytesText(l.ReceivedBytes), bytesText(l.SentBytes))
	if l.Endpoint != "" {
		text += ", to " + l.Endpoint
	}
	if !l.Open {
		text += " (not in use: what would go on it goes on lane 0)"
	}
	return text
}

// pathText words what the path takes.
func pathText(n *control.Native) string {
	text := fmt.Sprintf("%d bytes of UDP, %d in the tunnel", n.PathMTU, n.InnerMTU)
	if !n.PathSettled {
		text += " (the search for more goes on)"
	}
	return text
}

// secondsText words a short time.
func secondsText(s float64) string {
	if s >= 1 {
		return strconv.FormatFloat(s, 'f', 2, 64) + " s"
	}
	return strconv.FormatFloat(1000*s, 'f', 2, 64) + " ms"
}

// byHandshake sorts peers as wg show does: the latest handshake first.
func byHandshake(peers []control.Peer) []control.Peer {
	out := slices.Clone(peers)
	slices.SortStableFunc(out, func(a, b control.Peer) int { return b.LatestHandshake.Compare(a.LatestHandshake) })
	return out
}

// ago words how long something is past.
func ago(d time.Duration) string {
	switch {
	case d <= -time.Second:
		return "in the future: the clock was set back"
	case d < time.Second:
		return "now"
	}
	return duration(d) + " ago"
}

// duration words whole seconds: "1 hour, 2 minutes, 3 seconds". Parts that are zero are left out.
func duration(d time.Duration) string {
	left := int64(d / time.Second)
	var parts []string
	for _, u := range []struct {
		name    string
		seconds int64
	}{{"year", 365 * 86400}, {"day", 86400}, {"hour", 3600}, {"minute", 60}, {"second", 1}} {
		n := left / u.seconds
		left %= u.seconds
		switch {
		case n == 1:
			parts = append(parts, "1 "+u.name)
		case n > 1:
			parts = append(parts, strconv.FormatInt(n, 10)+" "+u.name+"s")
		}
	}
	if parts == nil {
		return "0 seconds"
	}
	return strings.Join(parts, ", ")
}

// bytesText words an amount in the binary units wg uses.
func bytesText(n uint64) string {
	if n < 1<<10 {
		return strconv.FormatUint(n, 10) + " B"
	}
	unit := 0
	v := float64(n)
	for v >= 1<<10 && unit < 4 {
		v /= 1 << 10
		unit++
	}
	return strconv.FormatFloat(v, 'f', 2, 64) + " " + []string{"", "KiB", "MiB", "GiB", "TiB"}[unit]
}
