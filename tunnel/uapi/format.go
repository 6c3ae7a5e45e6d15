package uapi

import (
	"encoding/hex"
	"io"
	"strconv"
	"time"

	"culvert/tunnel"
)

// writeBuffer is about how much is written at once.
const writeBuffer = 16 << 10

// output is a stream of key=value lines. The first error ends it and stays.
type output struct {
	w   io.Writer
	buf []byte
	err error
}

func newOutput(w io.Writer) *output { return &output{w: w, buf: make([]byte, 0, writeBuffer+maxLine)} }

func (o *output) line(key string, value func(b []byte) []byte) {
	o.buf = append(o.buf, key...)
	o.buf = append(o.buf, '=')
	o.buf = append(value(o.buf), '\n')
	if len(o.buf) >= writeBuffer {
		o.flush()
	}
}

func (o *output) key(key string, value *[32]byte) {
	o.line(key, func(b []byte) []byte { return hex.AppendEncode(b, value[:]) })
}

func (o *output) number(key string, n uint64) {
	o.line(key, func(b []byte) []byte { return strconv.AppendUint(b, n, 10) })
}

// flush sends what has gathered and erases it.
func (o *output) flush() {
	if o.err == nil && len(o.buf) > 0 {
		_, o.err = o.w.Write(o.buf)
	}
	clear(o.buf)
	o.buf = o.buf[:0]
}

// end finishes an answer with its error number.
func (o *output) end(errno int) error {
	o.line("errno", func(b []byte) []byte { return strconv.AppendInt(b, int64(errno), 10) })
	o.buf = append(o.buf, '\n')
	o.flush()
	return o.err
}

// status writes a tunnel's state. What is unset at the device is left out; a peer always has all lines but its endpoint.
func (o *output) status(s *tunnel.Status) {
	if !s.PrivateKey.IsZero() {
		o.key("private_key", (*[32]byte)(&s.PrivateKey))
	}
	if s.ListenPort != 0 {
		o.number("listen_port", uint64(s.ListenPort))
	}
	if s.Mark != 0 {
		o.number("fwmark", uint64(s.Mark))
	}
	for i := range s.Peers {
		if o.err != nil {
			return
		}
		o.peer(&s.Peers[i])
	}
}

func (o *output) peer(p *tunnel.PeerStatus) {
	o.key("public_key", (*[32]byte)(&p.PublicKey))
	o.key("preshared_key", (*[32]byte)(&p.PresharedKey))
	o.number("protocol_version", 1)
	if p.Endpoint.Remote.IsValid() {
		o.line("endpoint", p.Endpoint.Remote.AppendTo)
	}
	var seconds, nanoseconds uint64
	if unix := p.LastHandshake.Unix(); unix > 0 {
		seconds, nanoseconds = uint64(unix), uint64(p.LastHandshake.Nanosecond())
	}
	o.number("last_handshake_time_sec", seconds)
	o.number("last_handshake_time_nsec", nanoseconds)
	o.number("tx_bytes", p.SentBytes)
	o.number("rx_bytes", p.ReceivedBytes)
	o.number("persistent_keepalive_interval", uint64(max(p.Keepalive, 0)/time.Second))
	for _, prefix := range p.AllowedIPs {
		o.line("allowed_ip", prefix.AppendTo)
	}
}
