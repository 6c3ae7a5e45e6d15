package config

import (
	"net/netip"
	"reflect"
	"strings"

	"culvert/setup/spec"
)

// Monitor is where a running instance tells of itself over HTTP. Nothing in it changes what the tunnels do.
type Monitor struct {
	spec.Place
	Metrics Listen  // metrics and health; the zero Listen is nowhere
	Page    Listen  // the status page, on loopback or a unix socket alone
	Peers   *bool   // whether the metrics have series of each peer; nil: they have
	Group   *uint32 // whose members may connect to unix sockets; nil: the group of who runs culvert
}

// PeerSeries reports whether the metrics have series of each peer.
func (m *Monitor) PeerSeries() bool { return m.Peers == nil || *m.Peers }

// On reports whether anything is listened to.
func (m *Monitor) On() bool { return m.Metrics != Listen{} || m.Page != Listen{} }

// A Listen is a place that HTTP is served at: a TCP address, or a unix socket.
type Listen struct {
	Address netip.AddrPort // an unspecified address is all of the host's
	Socket  string         // absolute path
}

// String gives what a file says: 127.0.0.1:9586 or unix:/run/x.sock; "" for nowhere.
func (l Listen) String() string {
	switch {
	case l.Socket != "":
		return "unix:" + l.Socket
	case l.Address.IsValid():
		return l.Address.String()
	}
	return ""
}

// maxMonitorSocket leaves room below [maxSocketPath] for the folder that a socket is made in before it has its place.
const maxMonitorSocket = maxSocketPath - 12

const listenRule = `write an address and a port, such as 127.0.0.1:9586 or "[::1]:9586", or unix:/run/NAME.sock`

// parseMonitorListen reads an address and a port, or a unix socket.
func parseMonitorListen(s string) (Listen, *problem) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if p := absolute(path, maxMonitorSocket); p != nil {
			return Listen{}, p
		}
		return Listen{Socket: path}, nil
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		return Listen{}, wrong(listenRule, "%s is no place to listen", quote(s))
	}
	switch a := at.Addr(); {
	case at.Port() == 0:
		return Listen{}, wrong(listenRule, "%s has no port", quote(s))
	case a.Is4In6(), a.Zone() != "", a.IsMulticast():
		return Listen{}, wrong(listenRule, "%s is not the address of one host", quote(a.String()))
	}
	return Listen{Address: at}, nil
}

// parseMonitorPage reads where the page is: nowhere that others than the machine's own users could reach.
func parseMonitorPage(s string) (Listen, *problem) {
	l, p := parseMonitorListen(s)
	if p == nil && l.Socket == "" && !l.Address.Addr().IsLoopback() {
		return Listen{}, wrong(`write 127.0.0.1:PORT or "[::1]:PORT", and reach it from elsewhere by: ssh -L PORT:127.0.0.1:PORT HOST`,
			"the page asks nobody who they are, so it cannot be at %s, which others reach", quote(s))
	}
	return l, p
}

// listening makes a form of a place to listen. A lone port is told what it lacks.
func listening(parse func(string) (Listen, *problem)) scalar {
	s := written("`address:port`, or `unix:/path` of a socket", pattern("^(unix:/.+|.+:[0-9]+)$"), parse)
	s.parse = func(y *yamlReader, v value) (any, bool) {
		text, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		l, p := parse(text)
		return l, y.take(v.pos, p)
	}
	return s
}

var monitorShape = &shape{name: "monitor", where: "monitor", keys: []key{
	{name: "metrics", field: "Metrics", absent: "no metrics", doc: "where metrics and health are read",
		form: listening(parseMonitorListen)},
	{name: "peers", field: "Peers", absent: "`true`", doc: "whether the metrics have series of each peer", form: truth},
	{name: "page", field: "Page", absent: "no page", doc: "where the status page is read: on a loopback address, or a socket",
		form: listening(parseMonitorPage)},
	{name: "group", field: "Group", form: account("group", "-g"), absent: "that of who runs culvert", doc: "whose members may connect to the sockets, besides their owner"},
}}

// monitor reads it and checks what holds between its parts.
func (y *yamlReader) monitor(e entry) {
	m := &y.file.Monitor
	m.Place = spec.Place{Origin: spec.Origin(e.pos)}
	before := len(y.errs) + y.more
	monitorShape.readFor(y, e.value, e.pos, reflect.ValueOf(m).Elem(), spot{place: &m.Place}, variant{})
	switch {
	case len(y.errs)+y.more > before:
	case !m.On():
		y.fail(e.pos, "add \"metrics: 127.0.0.1:9586\" or \"page: 127.0.0.1:9587\", or take it out", "monitor does not say where to listen")
	case m.Group != nil && m.Metrics.Socket == "" && m.Page.Socket == "":
		y.fail(Position(m.Fields["group"]), "take it out, or listen at unix:/run/NAME.sock", "only unix sockets have a group")
	}
}
