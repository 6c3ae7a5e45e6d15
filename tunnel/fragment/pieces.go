package fragment

// pieces is what has come of a plaintext. The zero value is nothing.
type pieces struct {
	length     int  // of all pieces but the last; 0 until one of them has come
	hasLast    bool // the last piece has come, and with it
	last       int  // its index
	lastLength int  // and length
	above      int  // one more than the highest index that has come, the last piece aside

	marked  bool // one of them was
	count   int
	seen    [MaxCount / 64]uint64
	arrived [MaxCount]uint8 // the index of each piece, in the order of arrival

	oldest, newest *chunk // the pieces' bytes, in the order of arrival
	chunks         int
	size           int
}

// verdict is what becomes of a packet by a fragment.
type verdict uint8

const (
	goesOn verdict = iota
	completes
	duplicate
	inconsistent
)

// check says what a fragment of n bytes does to the packet.
func (p *pieces) check(index int, last bool, n int) verdict {
	switch {
	case n <= 0 || index >= MaxCount:
		return inconsistent
	case p.seen[index/64]&(1<<(index%64)) != 0:
		return duplicate
	case last:
		// Until another piece has come, this one's length is the least that theirs can be.
		if p.hasLast || index < p.above || p.length > 0 && n > p.length || index*max(p.length, n)+n > MaxPlaintext {
			return inconsistent
		}
		if p.count == index {
			return completes
		}
	default:
		if p.length > 0 && n != p.length || index == MaxCount-1 || (index+1)*n+1 > MaxPlaintext {
			return inconsistent
		}
		if p.hasLast {
			if index > p.last || n < p.lastLength || p.last*n+p.lastLength > MaxPlaintext {
				return inconsistent
			}
			if p.count == p.last {
				return completes
			}
		}
	}
	return goesOn
}

// note remembers the form of a piece of n bytes.
func (p *pieces) note(index int, last bool, n int) {
	if last {
		p.hasLast, p.last, p.lastLength = true, index, n
	} else {
		p.length, p.above = n, max(p.above, index+1)
	}
	p.seen[index/64] |= 1 << (index % 64)
	p.arrived[p.count] = uint8(index)
	p.count++
}

// needs is how many chunks more n more bytes take.
func (p *pieces) needs(n int) int { return (p.size+n+chunkData-1)/chunkData - p.chunks }

// add takes a piece after which the packet goes on, and returns how many chunks it took from s, which has them.
func (p *pieces) add(index int, last bool, piece []byte, s *store) (taken int) {
	p.note(index, last, len(piece))
	for len(piece) > 0 {
		at := p.size % chunkData
		if at == 0 {
			c := s.take()
			if p.newest == nil {
				p.oldest = c
			} else {
				p.newest.next = c
			}
			p.newest = c
			p.chunks++
			taken++
		}
		n := copy(p.newest.data[at:], piece)
		p.size += n
		piece = piece[n:]
	}
	return taken
}

// assemble writes to dst the plaintext that piece completes.
func (p *pieces) assemble(dst []byte, index int, last bool, piece []byte) []byte {
	stored := p.count
	p.note(index, last, len(piece))
	copy(dst[index*p.length:], piece)
	c, at := p.oldest, 0
	for _, i := range p.arrived[:stored] {
		n := p.length
		if int(i) == p.last {
			n = p.lastLength
		}
		for to := dst[int(i)*p.length:][:n]; len(to) > 0; {
			if at == chunkData {
				c, at = c.next, 0
			}
			n := copy(to, c.data[at:])
			at += n
			to = to[n:]
		}
	}
	return dst[:p.last*p.length+p.lastLength]
}
