package monitor

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"math"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"culvert/control"
	"culvert/crypto"
)

//go:embed page
var pageFiles embed.FS

// Drawer is a [Source] that can draw the devices that its file declares.
type Drawer interface {
	// Graph is an SVG picture.
	Graph() ([]byte, error)
}

// Bounds of one answer to the page.
const (
	rowsAtMost  = 200 // peers, or clients, that are shown at once
	driftAtMost = 100
	maxSearch   = 100 // bytes
)

// pagePolicy lets the page have what this server gives, and nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// graphPolicy is of the picture, whose style is inside.
const graphPolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

// servePage puts the page into a mux.
func (m *Monitor) servePage(mux *http.ServeMux) {
	for at, file := range map[string]string{"/{$}": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"} {
		text, err := pageFiles.ReadFile(path.Join("page", file))
		if err != nil {
			panic(err) // it is part of the program
		}
		mux.HandleFunc(at, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", pagePolicy)
			http.ServeContent(w, r, file, time.Time{}, bytes.NewReader(text))
		})
	}
	mux.HandleFunc("/api/now", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, m.now(parseView(r))) })
	mux.HandleFunc("/api/course", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		var peer *crypto.PublicKey
		if text := q.Get("peer"); text != "" {
			key, err := crypto.ParsePublicKey(text)
			if err != nil {
				http.Error(w, "this is no key", http.StatusBadRequest)
				return
			}
			peer = &key
		}
		c, ok := m.history.of(q.Get("tunnel"), peer, q.Get("hours") != "")
		if !ok {
			http.Error(w, "nothing is remembered of this", http.StatusNotFound)
			return
		}
		writeJSON(w, c)
	})
	mux.HandleFunc("/graph.svg", func(w http.ResponseWriter, _ *http.Request) {
		d, ok := m.source.(Drawer)
		if !ok {
			http.Error(w, "there is no picture", http.StatusNotFound)
			return
		}
		svg, err := d.Graph()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Security-Policy", graphPolicy)
		w.Header().Set("Content-Type", "image/svg+xml")
		w.Write(svg)
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// view is what part of the instance somebody looks at.
type view struct {
	search string
	sort   string
	from   int
	show   int
	client int // from
}

func parseView(r *http.Request) view {
	q := r.URL.Query()
	number := func(name string, most int) int {
		n, err := strconv.Atoi(q.Get(name))
		if err != nil {
			return 0
		}
		return min(max(n, 0), most)
	}
	v := view{search: q.Get("q"), sort: q.Get("sort"), from: number("from", 1<<20), show: number("show", rowsAtMost), client: number("clients", 1<<20)}
	if len(v.search) > maxSearch {
		v.search = v.search[:maxSearch]
	}
	v.search = strings.ToLower(strings.ToValidUTF8(v.search, ""))
	if v.show == 0 {
		v.show = 25
	}
	return v
}

// What the page shows. Texts are given as they are: the page never makes markup of them.
type (
	pageNow struct {
		Name     string       `json:"name"`
		Version  string       `json:"version"`
		File     string       `json:"file"`
		Up       float64      `json:"up"` // seconds
		Ready    bool         `json:"ready"`
		Time     time.Time    `json:"time"`
		Reload   *pageReload  `json:"reload,omitempty"`
		Tunnels  []pageTunnel `json:"tunnels"`
		Peers    []pagePeer   `json:"peers"`
		Found    int          `json:"found"` // peers that fit the search, of
		All      int          `json:"all"`
		Drops    []pageDrop   `json:"drops"`
		Clients  []pageClient `json:"clients"`
		Joined   int          `json:"joined"`
		Invited  int          `json:"invited"`
		Serves   bool         `json:"serves"`
		Network  *pageNetwork `json:"network,omitempty"`
		HasGraph bool         `json:"graph"`
	}
	pageReload struct {
		Ago    float64 `json:"ago"`
		Failed bool    `json:"failed"`
	}
	pageTunnel struct {
		Name      string   `json:"name"`
		Mode      string   `json:"mode"`
		Up        bool     `json:"up"`
		Port      uint16   `json:"port,omitempty"`
		MTU       int      `json:"mtu"`
		Peers     int      `json:"peers"`
		Connected int      `json:"connected"`
		Silent    int      `json:"silent,omitempty"` // peers that do not answer
		In        rate     `json:"in"`
		Out       rate     `json:"out"`
		RTT       rate     `json:"rtt"`
		Received  uint64   `json:"received"`
		Sent      uint64   `json:"sent"`
		Server    bool     `json:"server,omitempty"`
		Notes     []string `json:"notes,omitempty"`
	}
	pagePeer struct {
		Tunnel    string   `json:"tunnel"`
		Key       string   `json:"key"`
		Name      string   `json:"name"`
		Endpoint  string   `json:"endpoint,omitempty"`
		TCP       bool     `json:"tcp,omitempty"`
		Wire      string   `json:"wire"`
		Suite     string   `json:"suite,omitempty"`
		Allowed   []string `json:"allowed,omitempty"`
		MoreIPs   int      `json:"more_ips,omitempty"`
		Connected bool     `json:"connected"`
		Handshake float64  `json:"handshake"` // seconds ago, -1: never
		Attempts  int      `json:"attempts,omitempty"`
		Silent    bool     `json:"silent,omitempty"`
		In        rate     `json:"in"`
		Out       rate     `json:"out"`
		Received  uint64   `json:"received"`
		Sent      uint64   `json:"sent"`
		RTT       rate     `json:"rtt"`
		Loss      *float64 `json:"loss,omitempty"`
		Path      int      `json:"path,omitempty"`
		Spark     numbers  `json:"spark,omitempty"`
		Course    bool     `json:"course"`
		Refused   uint64   `json:"refused,omitempty"`
		Shut      string   `json:"shut,omitempty"`
	}
	pageDrop struct {
		Tunnel string `json:"tunnel"`
		Reason string `json:"reason"`
		Total  uint64 `json:"total"`
		Rate   rate   `json:"rate"`
	}
	pageClient struct {
		Tunnel    string   `json:"tunnel"`
		Name      string   `json:"name"`
		Group     string   `json:"group,omitempty"`
		Addresses []string `json:"addresses"`
		Connected bool     `json:"connected"`
		Seen      float64  `json:"seen"` // seconds ago, -1: never
		Received  uint64   `json:"received"`
		Sent      uint64   `json:"sent"`
		SignIn    bool     `json:"sign_in,omitempty"` // it has to
	}
	pageNetwork struct {
		Things  int         `json:"things"`
		Checked float64     `json:"checked"` // seconds ago
		Error   string      `json:"error,omitempty"`
		Drift   []pageDrift `json:"drift"`
		More    int         `json:"more,omitempty"`
		Trial   bool        `json:"trial,omitempty"`
	}
	pageDrift struct {
		Is   string `json:"is"`
		Text string `json:"text"`
		Line string `json:"line,omitempty"`
	}
)

// rate is a JSON number of few digits; NaN is null.
type rate float32

// MarshalJSON implements [json.Marshaler].
func (r rate) MarshalJSON() ([]byte, error) { return appendNumber(nil, float32(r)), nil }

func ago(at, now time.Time) float64 {
	if at.IsZero() {
		return -1
	}
	return math.Round(max(0, now.Sub(at).Seconds()))
}

// now is what the page shows of the instance.
func (m *Monitor) now(v view) *pageNow {
	s, at := m.shared.snapshot()
	h := m.history
	h.mu.Lock()
	defer h.mu.Unlock()
	release, _, _ := strings.Cut(s.Version, ", ")
	p := &pageNow{Name: s.Name, Version: release, File: s.File, Up: ago(s.Started, at), Ready: s.Ready, Time: at.UTC(), Tunnels: []pageTunnel{},
		Peers: []pagePeer{}, Drops: []pageDrop{}, Clients: []pageClient{}}
	_, p.HasGraph = m.source.(Drawer)
	if s.Reloads.Done > 0 {
		p.Reload = &pageReload{ago(s.Reloads.Last, at), s.Reloads.LastFailed}
	}
	var found []foundPeer
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		p.Tunnels = append(p.Tunnels, h.tunnel(t, at))
		p.All += len(t.Peers)
		for j := range t.Peers {
			if fits(v.search, t.Interface, &t.Peers[j]) {
				found = append(found, foundPeer{t, &t.Peers[j], h.before[peerKey{t.Interface, t.Peers[j].PublicKey}]})
			}
		}
		for reason, d := range h.drops[t.Interface] {
			p.Drops = append(p.Drops, pageDrop{t.Interface, reason, d.total, rate(d.rate)})
		}
	}
	p.Found = len(found)
	slices.SortStableFunc(found, order(v.sort))
	for _, f := range cut(found, v.from, v.show) {
		p.Peers = append(p.Peers, h.peer(f, at))
	}
	slices.SortFunc(p.Drops, func(a, b pageDrop) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Total, a.Total), cmp.Compare(a.Tunnel, b.Tunnel), cmp.Compare(a.Reason, b.Reason))
	})
	p.Drops = cut(p.Drops, 0, 30)
	for i := range s.Servers {
		sv := &s.Servers[i]
		p.Serves, p.Invited = true, p.Invited+sv.Invitations
		for j := range sv.Clients {
			if c := &sv.Clients[j]; v.search == "" || holds(v.search, c.Name, c.Group, c.Tunnel) {
				p.Joined++
				if p.Joined > v.client && len(p.Clients) < v.show {
					p.Clients = append(p.Clients, pageClientOf(c, at))
				}
			}
		}
	}
	p.Network = pageNetworkOf(s.Network, at)
	return p
}

// cut is a part of a list.
func cut[T any](list []T, from, most int) []T {
	from = min(from, len(list))
	return list[from:min(from+most, len(list))]
}

type foundPeer struct {
	t     *control.Tunnel
	p     *control.Peer
	rates rates
}

func holds(search string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), search) })
}

func fits(search, tunnel string, p *control.Peer) bool {
	if search == "" || holds(search, p.Name, p.Endpoint, tunnel, p.PublicKey.Base64()) {
		return true
	}
	return slices.ContainsFunc(p.AllowedIPs, func(a netip.Prefix) bool { return strings.HasPrefix(a.String(), search) })
}

// order is how peers are sorted. Equal ones stay in the order of tunnels and keys.
func order(by string) func(a, b foundPeer) int {
	rtt := func(f foundPeer) float64 {
		if f.p.Native == nil || f.p.Native.RTT == 0 {
			return -1
		}
		return f.p.Native.RTT
	}
	return func(a, b foundPeer) int {
		name := cmp.Compare(strings.ToLower(a.p.Name), strings.ToLower(b.p.Name))
		switch by {
		case "name":
			return name
		case "traffic":
			return cmp.Or(cmp.Compare(b.p.ReceivedBytes+b.p.SentBytes, a.p.ReceivedBytes+a.p.SentBytes), name)
		case "rtt":
			return cmp.Or(cmp.Compare(rtt(b), rtt(a)), name)
		case "handshake":
			return cmp.Or(b.p.LatestHandshake.Compare(a.p.LatestHandshake), name)
		}
		return cmp.Or(cmp.Compare(b.rates.in+b.rates.out, a.rates.in+a.rates.out), b.p.LatestHandshake.Compare(a.p.LatestHandshake), name)
	}
}

func (h *history) tunnel(t *control.Tunnel, now time.Time) pageTunnel {
	p := pageTunnel{Name: t.Interface, Mode: t.Mode, Up: t.Up, Port: t.ListenPort, MTU: t.MTU, Peers: len(t.Peers), Connected: sessions(t), Server: t.Server}
	for i := range t.Peers {
		if t.Peers[i].Silent() {
			p.Silent++
		}
	}
	p.Received, p.Sent = carried(&t.Transport)
	m := unknown
	if c := h.tunnels[t.Interface]; c != nil {
		m = c.now
	}
	p.In, p.Out, p.RTT = rate(m[in]), rate(m[out]), rate(m[rtt])
	if t.UnderLoad {
		p.Notes = append(p.Notes, "under load: handshakes need a cookie")
	}
	if s := t.Switch; s != nil && s.Blocked {
		p.Notes = append(p.Notes, "a loop was found: no frames cross")
	}
	return p
}

func (h *history) peer(f foundPeer, now time.Time) pagePeer {
	key := peerKey{f.t.Interface, f.p.PublicKey}
	p := pagePeer{
		Tunnel: f.t.Interface, Key: f.p.PublicKey.Base64(), Name: f.p.Name, Endpoint: f.p.Endpoint, TCP: f.p.TCP, Wire: f.p.Wire, Suite: f.p.Suite,
		Connected: f.p.Connected, Handshake: ago(f.p.LatestHandshake, now), Attempts: f.p.HandshakeAttempts, Silent: f.p.Silent(),
		In: rate(f.rates.in), Out: rate(f.rates.out), Received: f.p.ReceivedBytes, Sent: f.p.SentBytes, RTT: rate(unknown[rtt]),
		Spark: h.spark(key), Course: h.peers[key] != nil,
	}
	for _, a := range cut(f.p.AllowedIPs, 0, maxAllowed) {
		p.Allowed = append(p.Allowed, a.String())
	}
	p.MoreIPs = len(f.p.AllowedIPs) - len(p.Allowed)
	if n := f.p.Native; n != nil {
		if n.RTT > 0 {
			p.RTT = rate(n.RTT)
		}
		p.Loss, p.Path = n.Loss, n.PathMTU
	}
	if a := f.p.Access; a != nil {
		p.Refused = a.FromPeer.Denied + a.FromPeer.OverRate + a.FromPeer.OverQuota + a.FromPeer.ShutOut +
			a.ToPeer.Denied + a.ToPeer.OverRate + a.ToPeer.OverQuota + a.ToPeer.ShutOut
		if p.Shut = a.Closed; a.Held {
			p.Shut = "held"
		}
	}
	return p
}

func pageClientOf(c *control.ServerClient, now time.Time) pageClient {
	p := pageClient{Tunnel: c.Tunnel, Name: c.Name, Group: c.Group, Seen: ago(c.Seen, now), Received: c.ReceivedBytes, Sent: c.SentBytes,
		Connected: c.Connected, SignIn: c.SignIn != nil && c.SignIn.Until.IsZero()}
	for _, a := range cut(c.Addresses, 0, maxAllowed) {
		p.Addresses = append(p.Addresses, a.String())
	}
	return p
}

func pageNetworkOf(n *control.Network, now time.Time) *pageNetwork {
	if n == nil {
		return nil
	}
	p := &pageNetwork{Things: n.Items, Checked: ago(n.Checked, now), Error: n.Error, Drift: []pageDrift{}, Trial: n.Unconfirmed > 0 || n.Abandoned}
	for _, d := range cut(n.Drift, 0, driftAtMost) {
		p.Drift = append(p.Drift, pageDrift{d.Is, d.Text, d.Line})
	}
	p.More = len(n.Drift) - len(p.Drift)
	return p
}
