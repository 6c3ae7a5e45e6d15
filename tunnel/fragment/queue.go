package fragment

// queue is the incomplete packets of a session, or of all, in the order of their first fragments. A packet is in both.
type queue[K comparable] struct {
	which          int
	oldest, newest *packet[K]
}

const (
	inAll = iota
	inSession
)

type link[K comparable] struct{ older, newer *packet[K] }

func (q *queue[K]) add(p *packet[K]) {
	p.links[q.which].older = q.newest
	if q.newest != nil {
		q.newest.links[q.which].newer = p
	} else {
		q.oldest = p
	}
	q.newest = p
}

func (q *queue[K]) remove(p *packet[K]) {
	l := p.links[q.which]
	if l.older != nil {
		l.older.links[q.which].newer = l.newer
	} else {
		q.oldest = l.newer
	}
	if l.newer != nil {
		l.newer.links[q.which].older = l.older
	} else {
		q.newest = l.older
	}
}

// oldestBut is the oldest packet that is not p; nil where there is none.
func (q *queue[K]) oldestBut(p *packet[K]) *packet[K] {
	if q.oldest != p || p == nil {
		return q.oldest
	}
	return p.links[q.which].newer
}
