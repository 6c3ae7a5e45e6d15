package fragment

const (
	chunkSize = 2048
	chunkData = chunkSize - 8
	maxChunks = (MaxPlaintext + chunkData - 1) / chunkData
	// MinBytes is the memory that the pieces of one packet take at most, in bytes.
	MinBytes = maxChunks * chunkSize
)

// chunk is a part of a packet's memory, chunkSize bytes.
type chunk struct {
	next *chunk
	data [chunkData]byte
}

// store is all chunks there are: those in use, and those kept for use.
type store struct {
	limit     int
	allocated int
	spare     *chunk
	spares    int
}

// available is how many chunks take can hand out.
func (s *store) available() int { return s.limit - s.allocated + s.spares }

func (s *store) take() *chunk {
	c := s.spare
	if c == nil {
		s.allocated++
		return new(chunk)
	}
	s.spare, c.next = c.next, nil
	s.spares--
	return c
}

// release takes the chunks of p back.
func (s *store) release(p *pieces) {
	if p.newest != nil {
		p.newest.next = s.spare
		s.spare = p.oldest
		s.spares += p.chunks
	}
}

// trim lets go of the chunks not in use.
func (s *store) trim() {
	s.allocated -= s.spares
	s.spare, s.spares = nil, 0
}
