package kernel_test

import (
	"fmt"
	"testing"

	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// BenchmarkThousandLinks creates 1,000 links of a bridge, a veth each with an address, attached and up, and reads them: one operation is all of
// that. The deletion is not measured.
func BenchmarkThousandLinks(b *testing.B) {
	const pairs = 500
	for b.Loop() {
		m := newMachine(b)
		m.link("br0", "bridge", nil)
		for i := range pairs {
			name := model.Ref(fmt.Sprint("v", i))
			peer := m.ref(fmt.Sprint("other/v", i))
			m.create(model.LinkID(name), "veth", model.Fields{"type": "veth", "peer": model.Link(peer), "mtu": "1400"})
			m.create(model.AttachmentID(name), "bridge", model.Fields{"master": "br0", "isolated": "yes"})
			m.create(model.AddressID(peer, fmt.Sprintf("10.0.%d.%d/16", i/250, i%250+1)), "", nil)
			m.up(string(name))
		}
		if n := len(m.read().Objects); n < 4*pairs {
			b.Fatalf("%d objects read", n)
		}
		b.StopTimer()
		m.remove(m.object(model.LinkID("br0")))
		for i := range pairs {
			m.do(plan.Step{Op: plan.Delete, ID: model.LinkID(model.Ref(fmt.Sprint("v", i)))})
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/(2*pairs), "ms/link")
}

// BenchmarkRead reads a namespace with 1,000 macvlans and their addresses.
func BenchmarkRead(b *testing.B) {
	m := newMachine(b)
	withParent(m)
	for i := range 1000 {
		name := model.Ref(fmt.Sprint("m", i))
		m.create(model.LinkID(name), "macvlan", model.Fields{"type": "macvlan", "parent": "eth0", "mode": "bridge",
			"mac": model.MAC(spec.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)})})
		m.create(model.AddressID(name, fmt.Sprintf("10.0.%d.%d/32", i/250, i%250+1)), "", nil)
	}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(m.read().Objects); n < 2000 {
			b.Fatalf("%d objects read", n)
		}
	}
}
