package monitor

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"culvert/config"
	"culvert/control"
)

// moving is a source whose numbers go up, with many peers.
type moving struct {
	fixed
	began time.Time
}

func (m *moving) Snapshot() Snapshot {
	s := m.fixed.Snapshot()
	now, n := time.Now(), uint64(time.Since(m.began).Milliseconds())
	s.Started = now.Add(-50 * time.Hour)
	shift := now.Sub(sampleTime)
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		t.Up = true
		t.Peers = append([]control.Peer(nil), t.Peers...)
		t.Transport.ReceivedBytes += n * 40_000 * uint64(1+i)
		t.Transport.SentBytes += n * 9_000
		for j := range t.Peers {
			p := &t.Peers[j]
			if !p.LatestHandshake.IsZero() {
				p.LatestHandshake = p.LatestHandshake.Add(shift)
				p.ReceivedBytes += n * uint64(1000*(j+1))
				p.SentBytes += n * 300
			}
			if p.Native != nil && p.Native.RTT > 0 {
				native := *p.Native
				native.RTT *= 1 + 0.3*float64(n/1000%5)/5
				p.Native = &native
			}
		}
	}
	for i := range s.Servers {
		s.Servers[i].Clients = append([]control.ServerClient(nil), s.Servers[i].Clients...)
		for j := range s.Servers[i].Clients {
			c := &s.Servers[i].Clients[j]
			c.Seen = c.Seen.Add(shift)
			if !c.LatestHandshake.IsZero() {
				c.LatestHandshake = c.LatestHandshake.Add(shift)
			}
		}
	}
	if s.Network != nil {
		s.Network = new(*s.Network)
		s.Network.Checked = now
	}
	return s
}

func (m *moving) Tunnels() []control.Tunnel { return m.Snapshot().Tunnels }

func (*moving) Graph() ([]byte, error) {
	return []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 60" width="300" height="60"><style>rect{fill:#0f766e}</style><rect width="100" height="40"/></svg>`), nil
}

// The page in a browser: numbers move, hostile names stay text, a thousand peers can be searched, nothing is asked of anybody else, and nothing is
// wider than a phone.
func TestPage(t *testing.T) {
	b := openBrowser(t)
	source := &moving{fixed: fixed{now: sample()}, began: time.Now()}
	office := &source.now.Tunnels[0]
	for i := range 1000 {
		p := control.Peer{PublicKey: keyOf(1000 + i), Name: fmt.Sprintf("spoke-%04d", i), Wire: "culvert", Suite: "AES-256-GCM",
			Endpoint:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i / 250), byte(i % 250)}), 51820).String(),
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 60, byte(i / 250), byte(i % 250)}), 32)}}
		if i%3 > 0 {
			p.LatestHandshake, p.Connected = sampleTime.Add(-time.Duration(i)*100*time.Millisecond), true
			p.Native = &control.Native{PathMTU: 1472, InnerMTU: 1439, RTT: 0.01 + float64(i)/10000, RTTMin: 0.01}
		}
		office.Peers = append(office.Peers, p)
	}
	m := newMonitor(t, source)
	at := freePort(t)
	m.Start(config.Monitor{Page: at}, func(text string) { t.Error(text) })
	origin := "http://" + at.String() + "/"

	b.size(1280, 900, false)
	b.call("Page.navigate", map[string]any{"url": origin}, nil)
	b.await(`document.querySelectorAll("#peers button.row").length == 25`)
	b.await(`document.querySelectorAll(".numbers dd")[0].textContent.includes("bit/s")`)
	b.await(`document.querySelectorAll(".chart path.in")[0].getAttribute("d").includes("L")`)
	if got := b.eval(`document.querySelector("#state").textContent`); got != "last reload failed" {
		t.Errorf("state %q", got)
	}
	first := b.eval(`document.querySelector(".card .spans .dim").parentElement.parentElement.innerText`)
	b.await(`document.querySelector(".card .spans .dim").parentElement.parentElement.innerText != ` + strconv.Quote(first))

	source.mu.Lock()
	source.now.Reloads.LastFailed, source.now.Network = false, nil
	source.mu.Unlock()
	b.await(`document.querySelector("#state").textContent == "1 peer does not answer"`)
	source.mu.Lock()
	source.now.Reloads.LastFailed, source.now.Network = true, sample().Network
	source.mu.Unlock()
	b.await(`document.querySelector("#state").textContent == "last reload failed"`)

	// What would be markup is text.
	if got := b.eval(`document.querySelectorAll("body script").length + document.querySelectorAll("main script, main [onerror]").length`); got != "0" {
		t.Errorf("%s scripts in the body", got)
	}
	b.await(`document.querySelector("#net").textContent.includes("<script>alert(1)</script>")`)
	if got := b.eval(`document.querySelector("#clients").textContent.includes("alice")`); got != "true" {
		t.Error("no clients")
	}
	b.picture("page-desktop")

	// Search, paging, details.
	b.eval(`document.querySelector("#next").click()`)
	b.await(`document.querySelector("#where").textContent == "26 to 50 of 1,004"`)
	b.eval(`s = document.querySelector("#search"), s.value = "SCRIPT", s.dispatchEvent(new Event("input")), 1`)
	b.await(`document.querySelector("#peer-count").textContent == "1 of 1,004" && document.querySelector("#peers b").textContent.includes("<script>")`)
	if got := b.eval(`document.querySelectorAll("#peers .dot.bad").length + document.querySelector("#peers .sub").textContent`); !strings.HasPrefix(got, "1") || !strings.HasSuffix(got, "does not answer") {
		t.Errorf("a peer that does not answer: %s", got)
	}
	b.eval(`s.value = "branch", s.dispatchEvent(new Event("input")), 1`)
	b.await(`document.querySelector("#peers b") != null && document.querySelector("#peers b").textContent == "branch"`)
	b.eval(`document.querySelector("#peers button.row").click()`)
	b.await(`document.querySelector(".more .chart path.rtt") != null`)
	b.await(`document.querySelector(".more").textContent.includes("10.30.0.0/16")`)
	b.eval(`s.value = "10.60.3.", s.dispatchEvent(new Event("input")), 1`)
	b.await(`document.querySelector("#peer-count").textContent == "250 of 1,004"`)
	b.eval(`s.value = "nobody at all", s.dispatchEvent(new Event("input")), 1`)
	b.await(`document.querySelector("#peers").textContent == "No peer fits the search."`)
	b.eval(`s.value = "", s.dispatchEvent(new Event("input")), 1`)
	b.await(`document.querySelectorAll("#peers button.row").length == 25`)

	b.size(390, 844, true)
	b.await(`document.documentElement.clientWidth == 390`)
	if got := b.eval(`document.documentElement.scrollWidth`); got != "390" {
		t.Errorf("on a phone of 390 the page is %s wide", got)
	}
	b.picture("page-phone")
	if list := b.complaints(origin); len(list) > 0 {
		t.Errorf("the page complains:\n%s", strings.Join(list, "\n"))
	}

	m.Close()
	b.await(`document.querySelector("#state").textContent == "no answer" && !document.querySelector("#trouble").hidden`)
}
