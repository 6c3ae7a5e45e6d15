package monitor

import "github.com/prometheus/client_golang/prometheus"

// A family is a metric with all its series.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	peer       bool // of each peer: absent with "peers: false"
	desc       *prometheus.Desc
}

// families are all of them but those of the process and of Go's runtime, in the order of the document.
var families []*family

func counter(name, help string, labels ...string) *family {
	return declare(prometheus.CounterValue, name, help, labels)
}

func gauge(name, help string, labels ...string) *family {
	return declare(prometheus.GaugeValue, name, help, labels)
}

func declare(kind prometheus.ValueType, name, help string, labels []string) *family {
	f := &family{name: name, help: help, kind: kind, labels: labels, desc: prometheus.NewDesc(name, help, labels, nil)}
	families = append(families, f)
	return f
}

// ofPeer makes a family one that has series of each peer.
func (f *family) ofPeer() *family {
	f.peer = true
	return f
}

// peerLabels tell a peer in culvert's own families.
var peerLabels = []string{"interface", "public_key", "friendly_name"}

func peerGauge(name, help string, more ...string) *family {
	return gauge(name, help, append(peerLabels[:3:3], more...)...).ofPeer()
}

func peerCounter(name, help string, more ...string) *family {
	return counter(name, help, append(peerLabels[:3:3], more...)...).ofPeer()
}

// The instance.
var (
	buildInfo    = gauge("culvert_build_info", "1, with what the program is", "version", "goversion")
	instanceInfo = gauge("culvert_instance_info", "1, with the instance's name", "name")
	startTime    = gauge("culvert_start_time_seconds", "when the instance was started, in seconds since 1970")
	reloads      = counter("culvert_reloads_total", "how often the file was read again, and whether it came into force", "result")
	reloadOK     = gauge("culvert_config_last_reload_successful", "whether the last reload succeeded; 1 before the first")
	reloadTime   = gauge("culvert_config_last_reload_success_timestamp_seconds", "when the file in force was read, in seconds since 1970")
	reloadTook   = gauge("culvert_config_last_reload_duration_seconds", "how long the last reload took; 0 before the first")
	seriesLess   = gauge("culvert_peers_without_series", "peers left out of the series of each peer: beyond the bound, or all of them where the file says so")
)

// Tunnels.
var (
	tunnelUp       = gauge("culvert_tunnel_up", "whether the interface is up and its port open", "interface", "mode")
	tunnelMTU      = gauge("culvert_tunnel_mtu_bytes", "MTU of the interface", "interface")
	tunnelWorkers  = gauge("culvert_tunnel_workers", "queues of the interface, and workers each way", "interface")
	tunnelPeers    = gauge("culvert_tunnel_peers", "peers configured, clients among them", "interface")
	tunnelSessions = gauge("culvert_tunnel_sessions", "peers with a session", "interface")
	underLoad      = gauge("culvert_tunnel_under_load", "whether handshakes need a cookie now", "interface")
	waiting        = gauge("culvert_tunnel_staged_bytes", "memory of packets that wait for a handshake", "interface")
	drops          = counter("culvert_drops_total", "packets and messages that went no further, by reason; out is from the interface to peers", "interface", "direction", "reason")
	handshakes     = counter("culvert_handshakes_total", "handshakes completed, and messages of handshakes refused, by why", "interface", "result")
	messages       = counter("culvert_handshake_messages_total", "messages of handshakes, those received being verified ones", "interface", "direction", "message")
)

// The underlay.
var (
	datagrams       = counter("culvert_underlay_datagrams_total", "UDP datagrams since the port was opened", "interface", "direction")
	underlayBytes   = counter("culvert_underlay_bytes_total", "their payload", "interface", "direction")
	calls           = counter("culvert_underlay_calls_total", "system calls they took", "interface", "direction")
	sendErrors      = counter("culvert_underlay_send_errors_total", "sends that the kernel refused", "interface")
	truncated       = counter("culvert_underlay_truncated_total", "datagrams received that were too large to be read", "interface")
	fallbacks       = counter("culvert_underlay_fallbacks_total", "sends repeated in a simpler way: without segmentation offload (segment), without the source address used last (source)", "interface", "without")
	offload         = gauge("culvert_underlay_offload", "whether the kernel takes segments together (send, UDP_SEGMENT) and gives them together (receive, UDP_GRO)", "interface", "direction")
	streams         = gauge("culvert_streams", "TCP connections that carry peers now", "interface")
	streamsMade     = counter("culvert_streams_total", "TCP connections by what became of them first", "interface", "result")
	streamDatagrams = counter("culvert_stream_datagrams_total", "datagrams over TCP", "interface", "direction")
	streamBytes     = counter("culvert_stream_bytes_total", "their payload", "interface", "direction")
	streamFull      = counter("culvert_stream_full_total", "datagrams dropped as a TCP connection took no more", "interface")
)

// Tunnels of Ethernet frames.
var (
	carrier   = gauge("culvert_switch_carrier", "whether the interface has carrier", "interface")
	blocked   = gauge("culvert_switch_blocked", "whether a loop was found, and no frames cross", "interface")
	loops     = counter("culvert_switch_loops_total", "loops found", "interface")
	moves     = counter("culvert_switch_moves_total", "MAC addresses that turned up elsewhere", "interface")
	addresses = gauge("culvert_switch_addresses", "MAC addresses known, on this side (local) and behind peers (peer)", "interface", "side")
)

// Servers.
var (
	clients     = gauge("culvert_server_clients", "clients that have joined", "interface")
	clientsOn   = gauge("culvert_server_clients_connected", "those with a session", "interface")
	leases      = gauge("culvert_server_leases", "addresses given to clients", "interface", "family")
	invitations = gauge("culvert_server_invitations", "invitations that nobody has used yet", "interface")
	signedOut   = gauge("culvert_server_clients_signed_out", "clients that have to sign in before anything passes", "interface")
)

// The network around the tunnels.
var (
	things        = gauge("culvert_setup_things", "devices, addresses, rules and so on that the file declares")
	drift         = gauge("culvert_setup_drift", "those that are not as declared, by how they differ", "is")
	driftChecked  = gauge("culvert_setup_checked_timestamp_seconds", "when the running system was last compared with the file, in seconds since 1970")
	driftUnknown  = gauge("culvert_setup_check_failed", "whether the last comparison failed")
	setupOnTrial  = gauge("culvert_setup_unconfirmed", "whether a change is undone unless it is confirmed")
	setupDisorder = gauge("culvert_setup_interrupted", "whether an apply or destroy is half-way")
)

// Peers, by the names of prometheus_wireguard_exporter, so that its dashboards and alerts work.
var (
	wgLabels    = []string{"interface", "public_key", "allowed_ips", "friendly_name"}
	wgSent      = counter("wireguard_sent_bytes_total", "bytes sent to the peer: payload of UDP or TCP", wgLabels...).ofPeer()
	wgReceived  = counter("wireguard_received_bytes_total", "bytes received from the peer", wgLabels...).ofPeer()
	wgHandshake = gauge("wireguard_latest_handshake_seconds", "when the latest handshake was, in seconds since 1970; 0: never", wgLabels...).ofPeer()
)

// Peers.
var (
	peerInfo      = peerGauge("culvert_peer_info", "1, with what is spoken with the peer", "wire", "suite", "transport")
	peerSession   = peerGauge("culvert_peer_session", "whether there is a session")
	peerAttempts  = peerGauge("culvert_peer_handshake_attempts", "handshakes sent since the last answer")
	peerPackets   = peerCounter("culvert_peer_packets_total", "messages carried", "direction")
	peerWaiting   = peerGauge("culvert_peer_staged_bytes", "memory of packets that wait for a handshake")
	peerRTT       = peerGauge("culvert_peer_rtt_seconds", "round trip through the tunnel, smoothed; absent before it is known, and on the wireguard wire")
	peerRTTMin    = peerGauge("culvert_peer_rtt_min_seconds", "the least of the last minute")
	peerRTTVar    = peerGauge("culvert_peer_rtt_deviation_seconds", "its mean deviation")
	peerLoss      = peerGauge("culvert_peer_loss_ratio", "share of what is sent to the peer that is lost on the way, over about a minute")
	peerPath      = peerGauge("culvert_peer_path_mtu_bytes", "largest UDP payload that the path takes")
	peerInner     = peerGauge("culvert_peer_inner_mtu_bytes", "largest packet that goes to the peer in one datagram")
	peerRefused   = peerCounter("culvert_peer_access_refused_total", "packets refused by the peer's access; out is to the peer", "direction", "reason")
	peerQuota     = peerGauge("culvert_peer_quota_bytes", "bytes that the peer may have carried")
	peerQuotaUsed = peerGauge("culvert_peer_quota_used_bytes", "of these what it has")
	peerShut      = peerGauge("culvert_peer_shut_out", "whether the peer is held, expired or outside its schedule")
	peerAddresses = peerGauge("culvert_peer_addresses", "MAC addresses learned of the peer, in tunnels of Ethernet frames")
)
