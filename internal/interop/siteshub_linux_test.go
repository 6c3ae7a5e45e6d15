package interop

import (
	"testing"

	"culvert/internal/lab"
)

// Three sites reach each other through a hub that is no site itself: it has an interface, but nothing on it.
func TestHubAndSpokes(t *testing.T) {
	t.Parallel()
	hub := newSite(t, "hub")
	center := hub.tap("office", etherPort)
	ends := []*tap{center}
	var stations []*station
	for i, name := range []string{"a", "b", "c"} {
		s := newSite(t, name)
		mtu := []int{1500, 1280, 1400}[i]
		wire := lab.Link(t, hub.host, s.host, lab.MTU(mtu), lab.NoOffloads())
		s.bridge()
		stations = append(stations, s.station("host"+name, i+1))
		e := s.tap("office", etherPort)
		_, atHub := connect(e, center, wire)
		atHub.extra = "        spoke: true\n"
		ends = append(ends, e)
	}
	up(ends...)
	allReach(t, stations...)
	for i, st := range stations {
		other := stations[(i+1)%3]
		st.pingsWhole(t, other)
		st.answeredOnce(t, other)
		transfer(t, st.host, other.host, other.v4, 4<<20)
		transfer(t, st.host, other.host, other.v6, 1<<20)
	}
	for i, st := range stations {
		if got, want := center.where(st), ends[i+1].host.Name; got != want {
			t.Errorf("the hub has the station of %s at %q", want, got)
		}
	}
	s := center.status()
	if s.Switch.Wire || s.Switch.Blocked || s.Switch.Loops != 0 {
		t.Errorf("the hub's switch is %+v", s.Switch)
	}
	for _, p := range s.Peers {
		if !p.Port.Spoke || !p.Port.Alive || p.Port.Addresses == 0 {
			t.Errorf("the hub's peer %s has the port %+v", p.Name, p.Port)
		}
	}
	for _, e := range ends[1:] {
		if s := e.status().Switch; !s.Wire {
			t.Errorf("a spoke's switch is %+v, want a wire", s)
		}
	}

	// Without spoke: true they reach the hub and not each other.
	for _, p := range center.peers {
		p.extra = ""
	}
	center.write()
	center.culvert("reload", center.device)
	for i, st := range stations {
		if st.host.Ping(stations[(i+1)%3].v4) == nil {
			t.Errorf("%s reaches another spoke's station beyond the split horizon", st.host.Name)
		}
	}
	if n := center.status().Drops["in: destination beyond the split horizon"]; n == 0 {
		t.Error("the hub has counted no frame for a destination beyond the split horizon")
	}
}
