package stream

import (
	"encoding/binary"
	"errors"

	"culvert/transport"
)

// headerSize is the length before each datagram, in bytes.
const headerSize = 2

// errFrame ends a stream on which something else than frames came.
var errFrame = errors.New("stream: no frame (is the far end culvert?)")

// splitter takes apart what was read of a stream. Datagrams longer than limit are passed over, so that its memory is
// bounded by that and not by what the far end says. Up to there it grows with the longest that has come.
type splitter struct {
	buf    []byte // what was read and not taken apart yet is buf[lo:hi]
	lo, hi int
	skip   int // bytes of a datagram that is passed over, still to come
	limit  int
	passed int // datagrams passed over
}

// newSplitter returns a splitter for datagrams of up to limit bytes.
func newSplitter(limit int) *splitter {
	return &splitter{buf: make([]byte, headerSize+min(limit, usualDatagram)+readSize), limit: limit}
}

// usualDatagram is as long as datagrams are over most paths.
const usualDatagram = 2 << 10

// readSize is what is read at once at most: what a TLS record holds (RFC 8446 section 5.1).
const readSize = 16 << 10

// grow makes room for a datagram of size bytes.
func (s *splitter) grow(size int) {
	if need := headerSize + size + readSize; need > len(s.buf) {
		buf := make([]byte, need)
		s.lo, s.hi = 0, copy(buf, s.buf[s.lo:s.hi])
		s.buf = buf
	}
}

// space is where to read to: readSize bytes at least, once next has returned nothing more.
func (s *splitter) space() []byte {
	if s.lo > 0 {
		s.lo, s.hi = 0, copy(s.buf, s.buf[s.lo:s.hi])
	}
	return s.buf[s.hi:]
}

// read notes that n bytes were read into space.
func (s *splitter) read(n int) { s.hi += n }

// next returns the next whole datagram, nil where there is none yet. It is good until the next call of space. An error
// is for good.
func (s *splitter) next() ([]byte, error) {
	for {
		if s.skip > 0 {
			n := min(s.skip, s.hi-s.lo)
			s.skip -= n
			if s.lo += n; s.skip > 0 {
				return nil, nil
			}
		}
		if s.hi-s.lo < headerSize {
			return nil, nil
		}
		size := int(binary.BigEndian.Uint16(s.buf[s.lo:]))
		switch {
		case size == 0 || size > transport.MaxTrainBytes:
			return nil, errFrame
		case size > s.limit:
			s.skip = headerSize + size
			s.passed++
		case s.hi-s.lo < headerSize+size:
			s.grow(size)
			return nil, nil
		default:
			from := s.lo + headerSize
			s.lo = from + size
			return s.buf[from:s.lo:s.lo], nil
		}
	}
}
