package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"culvert/tunnel/device"
)

// ErrFormat is returned by [Reader.Next] for what no [Writer] writes.
var ErrFormat = errors.New("not a capture as culvert writes it")

// Kind is what a block is.
type Kind uint8

const (
	KindHeader     Kind = iota // of the section or the interface
	KindPacket                 // Block.Packet holds it
	KindStatistics             // Block.Statistics holds them
	KindOther
)

// Block is one block of a capture. It is valid until the next is read.
type Block struct {
	Kind       Kind
	Raw        []byte // all of it, as it was read
	Packet     Packet
	Statistics Statistics
}

// Packet is a packet of a capture.
type Packet struct {
	At      time.Time
	Out     bool   // outbound
	Comment string // names the peer
	Length  int    // of the packet, in bytes
	Data    []byte // its first bytes
	Dropped uint64 // packets dropped before it
}

// maxBlock is the longest block that is read, in bytes: a packet with its options.
const maxBlock = MaxSnap + 8<<10

// Reader reads what a [Writer] wrote, block by block: one section, in little-endian order, with one interface. It keeps one
// block, which is less than 74 KiB.
type Reader struct {
	from    io.Reader
	buf     []byte
	blocks  int
	layer   device.Layer
	ended   bool
	lastErr error
}

// NewReader returns a Reader of the capture that begins with from's next byte.
func NewReader(from io.Reader) *Reader { return &Reader{from: from, buf: make([]byte, 0, 4096)} }

// Layer is what the packets are, known once a packet was read.
func (r *Reader) Layer() device.Layer { return r.layer }

// Ended reports whether the capture's end was read: its statistics.
func (r *Reader) Ended() bool { return r.ended }

// Next reads the next block. Errors: io.EOF behind the last; io.ErrUnexpectedEOF within a block; ErrFormat; what reading
// gave. After an error there is only that error.
func (r *Reader) Next() (Block, error) {
	if r.lastErr != nil {
		return Block{}, r.lastErr
	}
	b, err := r.next()
	if err != nil {
		r.lastErr = err
		return Block{}, err
	}
	r.blocks++
	return b, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}

func (r *Reader) next() (Block, error) {
	r.buf = r.buf[:8]
	if _, err := io.ReadFull(r.from, r.buf); err != nil {
		return Block{}, err // io.EOF where there was nothing
	}
	kind, length := binary.LittleEndian.Uint32(r.buf), binary.LittleEndian.Uint32(r.buf[4:])
	if (kind == blockSection) != (r.blocks == 0) {
		return Block{}, malformed("block %d is of type %#x", r.blocks+1, kind)
	}
	if length < blockOverhead || length > maxBlock || length%4 != 0 {
		return Block{}, malformed("a block of %d bytes", length)
	}
	if int(length) > cap(r.buf) {
		r.buf = append(make([]byte, 0, maxBlock), r.buf...)
	}
	r.buf = r.buf[:length]
	if _, err := io.ReadFull(r.from, r.buf[8:]); err == io.EOF {
		return Block{}, io.ErrUnexpectedEOF
	} else if err != nil {
		return Block{}, err
	}
	if binary.LittleEndian.Uint32(r.buf[length-4:]) != length {
		return Block{}, malformed("a block's two lengths differ")
	}
	b, err := Block{Kind: KindOther, Raw: r.buf}, error(nil)
	switch body := r.buf[8 : length-4]; kind {
	case blockSection:
		b.Kind = KindHeader
		if len(body) < sectionFixed || binary.LittleEndian.Uint32(body) != byteOrderMagic || binary.LittleEndian.Uint16(body[4:]) != 1 {
			err = malformed("not a little-endian section of version 1")
		}
	case blockInterface:
		b.Kind = KindHeader
		err = r.iface(body)
	case blockPacket:
		b.Kind = KindPacket
		b.Packet, err = r.packet(body)
	case blockStatistics:
		b.Kind = KindStatistics
		b.Statistics, err = r.statistics(body)
	}
	return b, err
}

func (r *Reader) iface(body []byte) error {
	if r.blocks != 1 || len(body) < interfaceFixed {
		return malformed("a second or short interface description")
	}
	switch link := binary.LittleEndian.Uint16(body); link {
	case linkRaw:
		r.layer = device.LayerIP
	case linkEthernet:
		r.layer = device.LayerEthernet
	default:
		return malformed("link type %d", link)
	}
	resolution := false
	err := options(body[interfaceFixed:], func(code uint16, value []byte) {
		resolution = resolution || code == interfaceResolution && len(value) == 1 && value[0] == nanoseconds
	})
	if err == nil && !resolution {
		err = malformed("time stamps are not in nanoseconds")
	}
	return err
}

// common checks what blocks of an interface begin with, and reads their time stamp.
func (r *Reader) common(body []byte, fixed int) (time.Time, error) {
	if r.blocks < 2 || len(body) < fixed || binary.LittleEndian.Uint32(body) != 0 {
		return time.Time{}, malformed("a block that is short, or of no described interface")
	}
	return time.Unix(0, int64(uint64(binary.LittleEndian.Uint32(body[4:]))<<32|uint64(binary.LittleEndian.Uint32(body[8:])))), nil
}

func (r *Reader) packet(body []byte) (p Packet, err error) {
	if p.At, err = r.common(body, packetFixed); err != nil {
		return p, err
	}
	stored, length := binary.LittleEndian.Uint32(body[12:]), binary.LittleEndian.Uint32(body[16:])
	padded := (uint64(stored) + 3) &^ 3
	if uint64(len(body)-packetFixed) < padded || stored > length || length > MaxSnap {
		return p, malformed("%d bytes of a packet of %d", stored, length)
	}
	p.Data, p.Length = body[packetFixed:packetFixed+stored], int(length)
	err = options(body[packetFixed+padded:], func(code uint16, value []byte) {
		switch {
		case code == optComment:
			p.Comment = string(value)
		case code == packetFlags && len(value) == 4:
			p.Out = binary.LittleEndian.Uint32(value)&flagsDirection == flagsOutbound
		case code == packetDropped && len(value) == 8:
			p.Dropped = binary.LittleEndian.Uint64(value)
		}
	})
	return p, err
}

func (r *Reader) statistics(body []byte) (s Statistics, err error) {
	if _, err := r.common(body, statisticsFixed); err != nil {
		return s, err
	}
	r.ended = true
	return s, options(body[statisticsFixed:], func(code uint16, value []byte) {
		switch {
		case code == statisticsDelivered && len(value) == 8:
			s.Delivered = binary.LittleEndian.Uint64(value)
		case code == statisticsDropped && len(value) == 8:
			s.Dropped = binary.LittleEndian.Uint64(value)
		}
	})
}

// options goes through the options of a block.
func options(b []byte, each func(code uint16, value []byte)) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return malformed("an option without length")
		}
		code, length := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		b = b[4:]
		if code == optEnd {
			return nil
		}
		padded := (length + 3) &^ 3
		if padded > len(b) {
			return malformed("an option of %d bytes", length)
		}
		each(code, b[:length])
		b = b[padded:]
	}
	return nil
}
