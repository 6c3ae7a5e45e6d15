package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"culvert/crypto"
	"culvert/crypto/noise"
)

// newReferenceResponder is wireguard-go's engine as a responder, its network and device in memory too.
func newReferenceResponder(peers int) (*responder, error) {
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	bind := &memoryBind{closed: make(chan struct{}), incoming: make(chan memoryDatagram, handshakeWindow)}
	r := &responder{
		inject:   func(from netip.AddrPort, msg []byte) { bind.incoming <- memoryDatagram{from, msg} },
		answered: func(f func()) { bind.answered = f },
		stuck:    func(what string) error { return fmt.Errorf("%s of wireguard-go did not come", what) },
	}
	config := &strings.Builder{}
	fmt.Fprintf(config, "private_key=%s\n", key.Hex())
	for i := range peers {
		p, err := newEnginePeer(i, key.Public())
		if err != nil {
			return nil, err
		}
		r.peers = append(r.peers, p)
		fmt.Fprintf(config, "public_key=%s\nallowed_ip=%v/32\n", p.identity.Public().Hex(), p.inner)
	}
	dev := device.NewDevice(tuntest.NewChannelTUN().TUN(), bind, device.NewLogger(device.LogLevelSilent, ""))
	r.close = dev.Close
	if err = dev.IpcSet(config.String()); err == nil {
		err = dev.Up()
	}
	if err != nil {
		dev.Close()
		return nil, err
	}
	return r, nil
}

// memoryDatagram is a message to wireguard-go.
type memoryDatagram struct {
	from netip.AddrPort
	msg  []byte
}

// memoryBind is wireguard-go's network: a channel in, and a call for each response out.
type memoryBind struct {
	incoming chan memoryDatagram
	answered func() // set before anything comes in

	mu     sync.Mutex
	closed chan struct{} // by Close; wireguard-go opens and closes as its device goes up and down
}

// Open implements [conn.Bind].
func (b *memoryBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := make(chan struct{})
	b.closed = closed
	return []conn.ReceiveFunc{func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case d := <-b.incoming:
			sizes[0], eps[0] = copy(packets[0], d.msg), memoryEndpoint(d.from)
			return 1, nil
		case <-closed:
			return 0, net.ErrClosed
		}
	}}, port, nil
}

// Close implements [conn.Bind].
func (b *memoryBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
	default:
		close(b.closed)
	}
	return nil
}

// Send implements [conn.Bind].
func (b *memoryBind) Send(bufs [][]byte, _ conn.Endpoint) error {
	for _, msg := range bufs {
		if msg[0] == noise.TypeResponse {
			b.answered()
		}
	}
	return nil
}

func (b *memoryBind) SetMark(uint32) error { return nil }
func (b *memoryBind) BatchSize() int       { return 1 }

// ParseEndpoint implements [conn.Bind].
func (b *memoryBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return memoryEndpoint(a), err
}

// memoryEndpoint is an address in wireguard-go's network.
type memoryEndpoint netip.AddrPort

func (e memoryEndpoint) ClearSrc()           {}
func (e memoryEndpoint) SrcToString() string { return "" }
func (e memoryEndpoint) DstToString() string { return netip.AddrPort(e).String() }
func (e memoryEndpoint) DstIP() netip.Addr   { return netip.AddrPort(e).Addr() }
func (e memoryEndpoint) SrcIP() netip.Addr   { return netip.Addr{} }

func (e memoryEndpoint) DstToBytes() []byte {
	b, _ := netip.AddrPort(e).MarshalBinary() // never fails
	return b
}
