package fragment

import "time"

// Limits bounds what a [Reassembler] holds. New refuses limits under which no plaintext of MaxPlaintext bytes could be put
// together.
type Limits struct {
	PerKey      int           // incomplete packets of a session
	PerKeyBytes int           // memory for the pieces of a session, in bytes; at least MinBytes
	Packets     int           // incomplete packets in all; at least PerKey
	Bytes       int           // memory for pieces in all, in bytes, used or kept for use; at least PerKeyBytes
	Timeout     time.Duration // from a packet's first fragment to its giving up
}

// Loss counts the packets that were given up, by reason. Fragments of such a packet that still come begin a new one, which
// is given up in turn.
type Loss struct {
	Expired      int // not complete in time
	Evicted      int // to make room
	Duplicate    int // an index came twice
	Inconsistent int // a fragment that does not go with the others, or with any
}

// Reassembler puts plaintexts together from fragments that come in any order. K tells sessions apart. Time is an argument
// that never decreases. A Reassembler is for one goroutine; it does not allocate in the long run.
//
// Pieces are kept packed in the order of their arrival, in chunks of one size. So what a session occupies grows with the
// bytes it has sent and not with what its indices claim; the least is one chunk for a packet. Besides the chunks there are
// some 400 bytes for each incomplete packet, and the last plaintext put together.
//
// A session that keeps to no rule cannot keep others from having their packets put together. Beyond PerKey and PerKeyBytes
// it loses its own oldest packets and nobody else's. While the other sessions need no more than Bytes-PerKeyBytes and
// Packets-PerKey between them, the whole is never full, and they lose nothing whatever it sends; with at most
// Bytes/PerKeyBytes sessions that is always so. Beyond that the oldest packet of all goes, unless the session that asks for
// room holds more than an equal share of the whole: then it is that session's own oldest. So somebody else's packet is only
// ever given up for a session that holds no more than its share, never for one that hoards.
type Reassembler[K comparable] struct {
	perKey, packetLimit int
	perKeyChunks        int
	timeout             time.Duration
	store               store

	packets  map[name[K]]*packet[K]
	sessions map[K]*session[K]
	all      queue[K]
	plain    []byte // the last complete plaintext
	marked   bool   // one of its fragments was

	sparePackets  *packet[K]
	spareSessions *session[K]
}

// name is what fragments of one packet have in common.
type name[K comparable] struct {
	key K
	id  uint32
}

// session is a session that has incomplete packets.
type session[K comparable] struct {
	key     K
	own     queue[K]
	packets int
	chunks  int
	spare   *session[K]
}

// packet is an incomplete packet.
type packet[K comparable] struct {
	name    name[K]
	session *session[K]
	born    time.Duration
	links   [2]link[K]
	pieces
}

// New returns an empty Reassembler. It panics where the limits contradict each other.
func New[K comparable](l Limits) *Reassembler[K] {
	if l.PerKey < 1 || l.Packets < l.PerKey || l.PerKeyBytes < MinBytes || l.Bytes < l.PerKeyBytes || l.Timeout <= 0 {
		panic("fragment: limits under which nothing can be put together")
	}
	return &Reassembler[K]{
		perKey: l.PerKey, packetLimit: l.Packets, perKeyChunks: l.PerKeyBytes / chunkSize, timeout: l.Timeout,
		store:    store{limit: l.Bytes / chunkSize},
		packets:  make(map[name[K]]*packet[K]),
		sessions: make(map[K]*session[K]),
		all:      queue[K]{which: inAll},
		plain:    make([]byte, MaxPlaintext),
	}
}

// expiredAtOnce bounds how many packets one Add looks at because of their age. It is more than one Add can bring.
const expiredAtOnce = 4

// Add takes the fragment of the packet id that [ParseTail] found, of the session key. When the packet is complete, its
// plaintext is returned, which is valid until the next call; otherwise nil. lost counts the packets given up on the
// occasion. marked is whether the fragment met congestion on its way (CE, see [Reassembler.Marked]). piece is not kept.
func (r *Reassembler[K]) Add(key K, id uint32, index uint8, last bool, piece []byte, marked bool, now time.Duration) (plaintext []byte, lost Loss) {
	r.expire(expiredAtOnce, now, &lost)
	p := r.packets[name[K]{key, id}]
	if p != nil && r.stale(p, now) {
		lost.Expired++
		r.drop(p)
		p = nil
	}
	var none pieces
	have := &none
	if p != nil {
		have = &p.pieces
	}
	switch have.check(int(index), last, len(piece)) {
	case duplicate:
		lost.Duplicate++
		r.drop(p)
		return nil, lost
	case inconsistent:
		lost.Inconsistent++
		if p != nil {
			r.drop(p)
		}
		return nil, lost
	case completes:
		r.marked = marked || have.marked
		plaintext = have.assemble(r.plain, int(index), last, piece)
		if p != nil {
			r.drop(p)
		}
		return plaintext, lost
	}
	if p == nil {
		p = r.begin(key, id, now, &lost)
	}
	r.makeRoom(p, len(piece), now, &lost)
	p.marked = p.marked || marked
	p.session.chunks += p.add(int(index), last, piece, &r.store)
	return nil, lost
}

// Marked reports whether a fragment of the plaintext that Add returned last met congestion: then the whole did (RFC 3168
// §5.3).
func (r *Reassembler[K]) Marked() bool { return r.marked }

// begin makes an empty packet.
func (r *Reassembler[K]) begin(key K, id uint32, now time.Duration, lost *Loss) *packet[K] {
	s := r.sessions[key]
	if s != nil && s.packets >= r.perKey {
		r.evict(s.own.oldest, now, lost)
	} else if len(r.packets) >= r.packetLimit {
		r.evict(r.victim(s, nil, s != nil && s.packets*len(r.sessions) > r.packetLimit), now, lost)
	}
	if s = r.sessions[key]; s == nil { // also when its only packet was evicted
		if s = r.spareSessions; s == nil {
			s = new(session[K])
		}
		r.spareSessions = s.spare
		*s = session[K]{key: key, own: queue[K]{which: inSession}}
		r.sessions[key] = s
	}
	p := r.sparePackets
	if p == nil {
		p = new(packet[K])
	}
	r.sparePackets = p.links[inAll].newer
	*p = packet[K]{name: name[K]{key, id}, session: s, born: now}
	r.packets[p.name] = p
	r.all.add(p)
	s.own.add(p)
	s.packets++
	return p
}

// makeRoom gives up packets other than p until n more bytes of p can be stored.
func (r *Reassembler[K]) makeRoom(p *packet[K], n int, now time.Duration, lost *Loss) {
	s, need := p.session, p.needs(n)
	for s.chunks+need > r.perKeyChunks { // p alone fits, as MinBytes do
		r.evict(s.own.oldestBut(p), now, lost)
	}
	for r.store.available() < need {
		r.evict(r.victim(s, p, s.chunks*len(r.sessions) > r.store.limit), now, lost)
	}
}

// victim is the oldest packet but p: of the session s where that is greedy and has another, else of all.
func (r *Reassembler[K]) victim(s *session[K], p *packet[K], greedy bool) *packet[K] {
	if greedy {
		if v := s.own.oldestBut(p); v != nil {
			return v
		}
	}
	return r.all.oldestBut(p)
}

func (r *Reassembler[K]) evict(p *packet[K], now time.Duration, lost *Loss) {
	if r.stale(p, now) {
		lost.Expired++
	} else {
		lost.Evicted++
	}
	r.drop(p)
}

func (r *Reassembler[K]) stale(p *packet[K], now time.Duration) bool { return now-p.born >= r.timeout }

// expire gives up at most limit packets whose time is over.
func (r *Reassembler[K]) expire(limit int, now time.Duration, lost *Loss) {
	for p := r.all.oldest; p != nil && limit > 0 && r.stale(p, now); p = r.all.oldest {
		lost.Expired++
		r.drop(p)
		limit--
	}
}

// drop forgets p.
func (r *Reassembler[K]) drop(p *packet[K]) {
	s := p.session
	r.store.release(&p.pieces)
	delete(r.packets, p.name)
	r.all.remove(p)
	s.own.remove(p)
	s.packets--
	s.chunks -= p.chunks
	if s.packets == 0 {
		delete(r.sessions, s.key)
		*s = session[K]{spare: r.spareSessions}
		r.spareSessions = s
	}
	*p = packet[K]{}
	p.links[inAll].newer = r.sparePackets
	r.sparePackets = p
}

// Expire gives up all packets whose time is over, for when no fragments come in that would. What memory is not in use after
// that is given back, so it should not be called much more often than every Timeout.
func (r *Reassembler[K]) Expire(now time.Duration) (lost Loss) {
	r.expire(len(r.packets), now, &lost)
	r.store.trim()
	r.sparePackets, r.spareSessions = nil, nil
	return lost
}

// Forget drops the packets of a session that has ended, and returns how many those were.
func (r *Reassembler[K]) Forget(key K) int {
	s := r.sessions[key]
	if s == nil {
		return 0
	}
	n := s.packets
	for range n {
		r.drop(s.own.oldest)
	}
	return n
}

// Usage is how many packets are incomplete, and the memory allocated for pieces in bytes.
func (r *Reassembler[K]) Usage() (packets, bytes int) {
	return len(r.packets), r.store.allocated * chunkSize
}
