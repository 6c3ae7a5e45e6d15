package capture

import (
	"encoding/binary"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"culvert/crypto"
	"culvert/tunnel/device"
)

// Interface is what a Writer tells of where its records come from.
type Interface struct {
	Name        string
	Description string
	Program     string // that writes
	Layer       device.Layer
	Snap        int       // of the ring
	Epoch       time.Time // the wall clock's time at Meta.At zero
	// Peer gives a peer's name for the comment of its packets; where it is nil or returns "", the start of the peer's key
	// stands there.
	Peer func(crypto.PublicKey) string
}

// Statistics is how a capture went.
type Statistics struct {
	Delivered uint64 // records written
	Dropped   uint64 // records there was no room for
}

// Writer writes records as pcapng. Each block is one Write.
type Writer struct {
	to       io.Writer
	in       Interface
	start    time.Time
	buf      []byte
	comments map[crypto.PublicKey]string
}

// maxComments bounds the peers whose names are remembered.
const maxComments = 4096

// NewWriter writes the headers of a section whose capture began at start.
func NewWriter(to io.Writer, in Interface, start time.Time) (*Writer, error) {
	w := &Writer{to: to, in: in, start: start, comments: make(map[crypto.PublicKey]string)}
	w.begin(blockSection)
	w.u32(byteOrderMagic)
	w.u16(1)
	w.u16(0)
	w.u64(1<<64 - 1) // the section's length is not known
	w.text(sectionProgram, in.Program)
	w.endOptions()
	if err := w.end(); err != nil {
		return nil, err
	}
	w.begin(blockInterface)
	if in.Layer == device.LayerEthernet {
		w.u16(linkEthernet)
	} else {
		w.u16(linkRaw)
	}
	w.u16(0)
	w.u32(uint32(in.Snap))
	w.text(interfaceName, in.Name)
	w.text(interfaceDescription, in.Description)
	w.option(interfaceResolution, []byte{nanoseconds})
	w.endOptions()
	return w, w.end()
}

// Packet writes a record. An elided checksum is completed in rec.Data first, where the whole packet is there.
func (w *Writer) Packet(rec Record) error {
	flags := uint32(flagsInbound)
	if rec.Out {
		flags = flagsOutbound
	}
	whole := len(rec.Data) == rec.Length
	if rec.Partial || rec.Elided && !(whole && device.CompleteChecksum(rec.Data, w.in.Layer == device.LayerEthernet)) {
		flags |= flagsNoChecksum
	}
	if rec.Super {
		flags |= flagsSegmentable
	}
	w.begin(blockPacket)
	w.u32(0) // the interface
	w.time(w.in.Epoch.Add(rec.At))
	w.u32(uint32(len(rec.Data)))
	w.u32(uint32(rec.Length))
	w.buf = append(w.buf, rec.Data...)
	w.pad()
	w.text(optComment, w.comment(rec.Peer, rec.Out))
	w.option(packetFlags, binary.LittleEndian.AppendUint32(nil, flags))
	if rec.Dropped != 0 {
		w.option(packetDropped, binary.LittleEndian.AppendUint64(nil, rec.Dropped))
	}
	w.endOptions()
	return w.end()
}

// Finish writes how the capture went, which ended at the given time. Nothing may be written after.
func (w *Writer) Finish(end time.Time, s Statistics) error {
	w.begin(blockStatistics)
	w.u32(0)
	w.time(end)
	w.u16(statisticsStart)
	w.u16(8)
	w.time(w.start)
	w.u16(statisticsEnd)
	w.u16(8)
	w.time(end)
	w.option(statisticsReceived, binary.LittleEndian.AppendUint64(nil, s.Delivered+s.Dropped))
	w.option(statisticsDropped, binary.LittleEndian.AppendUint64(nil, s.Dropped))
	w.option(statisticsDelivered, binary.LittleEndian.AppendUint64(nil, s.Delivered))
	w.endOptions()
	return w.end()
}

// comment names a packet's peer: "from branch", "to branch".
func (w *Writer) comment(peer crypto.PublicKey, out bool) string {
	if peer.IsZero() {
		return ""
	}
	name, ok := w.comments[peer]
	if !ok {
		if w.in.Peer != nil {
			name = w.in.Peer(peer)
		}
		if name == "" {
			name = ShortKey(peer)
		}
		if len(w.comments) >= maxComments {
			clear(w.comments)
		}
		w.comments[peer] = name
	}
	if out {
		return "to " + name
	}
	return "from " + name
}

// ShortKey is the start of a key, enough to tell peers apart.
func ShortKey(k crypto.PublicKey) string { return k.Base64()[:8] + "…" }

func (w *Writer) begin(kind uint32) {
	w.buf = w.buf[:0]
	w.u32(kind)
	w.u32(0) // the length, put in by end
}

func (w *Writer) end() error {
	length := uint32(len(w.buf) + 4)
	binary.LittleEndian.PutUint32(w.buf[4:], length)
	w.u32(length)
	_, err := w.to.Write(w.buf)
	return err
}

func (w *Writer) u16(v uint16) { w.buf = binary.LittleEndian.AppendUint16(w.buf, v) }
func (w *Writer) u32(v uint32) { w.buf = binary.LittleEndian.AppendUint32(w.buf, v) }
func (w *Writer) u64(v uint64) { w.buf = binary.LittleEndian.AppendUint64(w.buf, v) }

// time writes a time stamp, its high half first.
func (w *Writer) time(t time.Time) {
	ns := uint64(t.UnixNano())
	w.u32(uint32(ns >> 32))
	w.u32(uint32(ns))
}

func (w *Writer) pad() {
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}

func (w *Writer) option(code uint16, value []byte) {
	w.u16(code)
	w.u16(uint16(len(value)))
	w.buf = append(w.buf, value...)
	w.pad()
}

// text writes an option that is UTF-8, unless it is empty.
func (w *Writer) text(code uint16, s string) {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if cut := maxText; len(s) > cut {
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	if s != "" {
		w.option(code, []byte(s))
	}
}

func (w *Writer) endOptions() { w.option(optEnd, nil) }
