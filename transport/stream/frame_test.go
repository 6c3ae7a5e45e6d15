package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"culvert/transport"
)

// frame puts a datagram into a frame.
func frame(datagram []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(datagram))), datagram...)
}

// split gives text to a splitter in pieces of the sizes given, the last one repeated, and returns what comes out.
func split(t testing.TB, text []byte, limit int, pieces []byte) (datagrams [][]byte, passed int, err error) {
	s := newSplitter(limit)
	for i := 0; len(text) > 0; i++ {
		space := s.space()
		if len(space) < readSize {
			t.Fatalf("%d bytes of space", len(space))
		}
		n := len(space)
		if len(pieces) > 0 {
			n = min(n, 1+int(pieces[min(i, len(pieces)-1)]))
		}
		n = copy(space[:n], text)
		text = text[n:]
		s.read(n)
		for {
			d, err := s.next()
			if err != nil {
				return datagrams, s.passed, err
			}
			if d == nil {
				break
			}
			datagrams = append(datagrams, bytes.Clone(d))
		}
		if bound := headerSize + max(limit, usualDatagram) + readSize; len(s.buf) > bound {
			t.Fatalf("grown to %d bytes", len(s.buf))
		}
	}
	return datagrams, s.passed, nil
}

// reference does the same in the simplest way.
func reference(text []byte, limit int) (datagrams [][]byte, passed int, err error) {
	for len(text) >= 2 {
		size := int(binary.BigEndian.Uint16(text))
		switch {
		case size == 0 || size > transport.MaxTrainBytes:
			return datagrams, passed, errFrame
		case size > limit:
			passed++
		case len(text) >= 2+size:
			datagrams = append(datagrams, text[2:2+size])
		}
		text = text[min(len(text), 2+size):]
	}
	return datagrams, passed, nil
}

func FuzzSplitter(f *testing.F) {
	f.Add(append(frame([]byte("one")), frame([]byte("three"))...), uint16(4), []byte{0})
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), uint16(4096), []byte{3, 200})
	f.Add(frame(make([]byte, 5000)), uint16(4096), []byte{255})
	f.Add([]byte{0, 0}, uint16(1), []byte{})
	f.Add([]byte{255, 255, 1}, uint16(65507), []byte{})
	f.Fuzz(func(t *testing.T, text []byte, limit uint16, pieces []byte) {
		most := min(max(1, int(limit)), transport.MaxTrainBytes)
		got, passed, err := split(t, text, most, pieces)
		want, wantPassed, wantErr := reference(text, most)
		if !errors.Is(err, wantErr) || passed != wantPassed || len(got) != len(want) {
			t.Fatalf("%d datagrams, %d passed over, %v; want %d, %d, %v", len(got), passed, err, len(want), wantPassed, wantErr)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("datagram %d: %x, want %x", i, got[i], want[i])
			}
		}
	})
}

func TestSplitterGrows(t *testing.T) {
	s := newSplitter(100)
	random := rand.New(rand.NewPCG(1, 2))
	small, large, end := make([]byte, 90), make([]byte, 60000), []byte("end")
	for i := range large {
		large[i] = byte(random.Uint32())
	}
	give := func(b []byte) {
		for len(b) > 0 {
			n := copy(s.space(), b)
			b = b[n:]
			s.read(n)
			if len(b) > 0 {
				if d, err := s.next(); d != nil || err != nil {
					t.Fatalf("%d bytes, %v", len(d), err)
				}
			}
		}
	}
	expect := func(want []byte) {
		t.Helper()
		if d, err := s.next(); !bytes.Equal(d, want) || err != nil {
			t.Fatalf("%d bytes, %v", len(d), err)
		}
	}
	give(frame(small))
	expect(small)
	give(frame(large)) // passed over
	expect(nil)
	give(frame(end)[:4])
	expect(nil)
	s.limit = transport.MaxTrainBytes
	give(frame(end)[4:])
	expect(end)
	give(frame(large))
	expect(large)
	if s.passed != 1 {
		t.Errorf("%d passed over", s.passed)
	}
}
