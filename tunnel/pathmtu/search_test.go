package pathmtu

import (
	"testing"
	"time"
)

func TestShow(t *testing.T) {
	for _, c := range []int{1232, 1240, 1300, 1352, 1372, 1392, 1400, 1444, 1452, 1455, 1456, 1500} {
		p := newPath(1456, c)
		p.begin()
		d := p.settle(t, time.Minute)
		t.Log(c, p.search.Size(), d, p.probes)
		q := newPath(1456, c)
		q.search.Begin(q.now)
		q.pump()
		d = q.settle(t, time.Minute)
		t.Log("   no rtt", q.search.Size(), d, q.probes)
	}
	p := newPath(1456, 1392)
	p.begin()
	p.settle(t, time.Minute)
	t.Log(p.sent)
	p = newPath(65507, 8972)
	p.begin()
	t.Log(p.settle(t, time.Minute), p.search.Size(), p.probes)
	p = newPath(65507, 4000)
	p.begin()
	t.Log(p.settle(t, time.Minute), p.search.Size(), p.probes)
}
