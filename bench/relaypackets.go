package main

import (
	"encoding/binary"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/tunnel/device"
	"culvert/tunnel/payload"
)

// segmentsOut sends packets one by one, in messages of the native wire's form and size: a header, the packet with padding and the
// trailer, and room for a tag.
type segmentsOut struct {
	queue    device.Queue
	batch    *relayBatch
	buf      []byte
	segments device.Segments
}

func (w *segmentsOut) run() error { return relayOut(w.queue, w.batch, w.buf, w.packet) }

func (w *segmentsOut) packet(lo, hi int, o device.Offload) {
	if err := w.segments.ResetFor(w.buf, lo, hi, o, device.Limits{Elide: true, MaxPacket: tunnelMTU}); err != nil {
		return
	}
	kind := payload.IP
	if w.segments.Elided() {
		kind = payload.IPElided
	}
	for lo, hi, ok := w.segments.Next(); ok; lo, hi, ok = w.segments.Next() {
		pad := payload.Padding(hi-lo, tunnelMTU+payload.TrailerSize)
		size := session.Overhead + hi - lo + pad + payload.TrailerSize
		msg := w.batch.room(size)
		clear(msg[:noise.DataHeaderSize])
		copy(msg[noise.DataHeaderSize:], w.buf[lo:hi])
		tail := msg[noise.DataHeaderSize+hi-lo:]
		clear(tail)
		tail[pad] = payload.Trailer(kind, pad)
		w.batch.add(size)
	}
}

// segmentsIn takes them apart and merges them.
type segmentsIn struct{ coalescer *device.Coalescer }

func (w *segmentsIn) datagram(msg []byte) {
	if len(msg) <= session.Overhead {
		return
	}
	size := len(msg) - session.Overhead
	slot := w.coalescer.Slot(size)
	copy(slot, msg[noise.DataHeaderSize:])
	switch kind, content, ok := payload.Split(slot); {
	case !ok:
		w.coalescer.Discard()
	case kind == payload.IPElided:
		w.coalescer.CommitElided(len(content))
	case kind == payload.IP:
		w.coalescer.Commit(len(content))
	default:
		w.coalescer.Discard()
	}
}

func (w *segmentsIn) flush() { w.coalescer.Flush() }

// A piece of a super-packet has a header: the number of the super-packet (8 bytes), the offset of the piece and the length of the
// whole (4 bytes each), then the offload: kind and whether it lacks the checksum (1 byte each), length of the headers, segment
// size, start and offset of the checksum (2 bytes each).
const (
	pieceHeader = 8 + 4 + 4 + 2 + 4*2
	// pieceContent makes datagrams as large as an underlay of 1500 takes.
	pieceContent = 1500 - 20 - 8 - pieceHeader
)

// wholeOut sends super-packets as the device hands them over, cut wherever a datagram is full.
type wholeOut struct {
	queue  device.Queue
	batch  *relayBatch
	buf    []byte
	number uint64
}

func (w *wholeOut) run() error { return relayOut(w.queue, w.batch, w.buf, w.packet) }

func (w *wholeOut) packet(lo, hi int, o device.Offload) {
	w.number++
	for at := lo; at < hi; at += pieceContent {
		content := w.buf[at:min(at+pieceContent, hi)]
		size := pieceHeader + len(content)
		msg := w.batch.room(size)
		putPieceHeader(msg, w.number, at-lo, hi-lo, o)
		copy(msg[pieceHeader:], content)
		w.batch.add(size)
	}
}

func putPieceHeader(msg []byte, number uint64, offset, length int, o device.Offload) {
	binary.LittleEndian.PutUint64(msg, number)
	binary.LittleEndian.PutUint32(msg[8:], uint32(offset))
	binary.LittleEndian.PutUint32(msg[12:], uint32(length))
	msg[16], msg[17] = byte(o.GSO), 0
	if o.NeedsChecksum {
		msg[17] = 1
	}
	for i, v := range []uint16{o.HeaderLen, o.SegmentSize, o.ChecksumStart, o.ChecksumOffset} {
		binary.LittleEndian.PutUint16(msg[18+2*i:], v)
	}
}

// wholeIn puts the pieces together, which must come in order: where one is missing the super-packet is lost.
type wholeIn struct {
	queue  device.Queue
	buf    []byte
	number uint64
	have   int
}

func (w *wholeIn) datagram(msg []byte) {
	if len(msg) <= pieceHeader {
		return
	}
	number, offset := binary.LittleEndian.Uint64(msg), int(binary.LittleEndian.Uint32(msg[8:]))
	length := int(binary.LittleEndian.Uint32(msg[12:]))
	if offset == 0 {
		w.number, w.have = number, 0
	}
	content := msg[pieceHeader:]
	if number != w.number || offset != w.have || length > device.MaxPacket || offset+len(content) > length {
		return
	}
	w.have += copy(w.buf[device.Headroom+offset:], content)
	if w.have < length {
		return
	}
	field := func(i int) uint16 { return binary.LittleEndian.Uint16(msg[18+2*i:]) }
	o := device.Offload{GSO: device.GSO(msg[16]), NeedsChecksum: msg[17] == 1, HeaderLen: field(0), SegmentSize: field(1),
		ChecksumStart: field(2), ChecksumOffset: field(3)}
	w.queue.Write(w.buf, device.Headroom, device.Headroom+length, o) // lost where the device does not take it
	w.number = 0
}

// flush does nothing: a super-packet is written as soon as it is whole.
func (w *wholeIn) flush() {}
