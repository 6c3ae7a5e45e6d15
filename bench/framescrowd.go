package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/payload"
)

// crowdRun says whose sessions with the switch are made, the hostile peer's first, and where that is.
type crowdRun struct {
	Private []string
	Far     victimAddress
}

// crowd is an agent's part as all peers of a switch but the good one: sessions that are no engines, so that a core is enough for
// them. What is sent to them nobody reads.
type crowd struct {
	members []*member
	nonce   session.Nonce
	start   time.Time
}

// member is one of them.
type member struct {
	conn    *net.UDPConn
	to      *net.UDPAddr
	session *session.Session
}

// join makes the sessions, and each member's station known.
func (c *crowd) join(run crowdRun) (none, error) {
	if c.members != nil {
		return none{}, errors.New("joined already")
	}
	far, err := crypto.ParsePublicKeyHex(run.Far.Public)
	if err != nil {
		return none{}, err
	}
	c.start = time.Now()
	for i, private := range run.Private {
		m := &member{to: net.UDPAddrFromAddrPort(netip.AddrPortFrom(victimHost, run.Far.Port))}
		// Each from an address of its own, as limits count addresses.
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), 0)
		if m.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(from)); err != nil {
			return none{}, err
		}
		c.members = append(c.members, m)
		if err := m.handshake(private, far, uint32(i+1), time.Since(c.start)); err != nil {
			return none{}, fmt.Errorf("peer %d: %w", i+1, err)
		}
		hello := appendFrame(nil, ethernet.Broadcast, stationOf(i+1), make([]byte, frameContent))
		if _, err := m.conn.WriteTo(c.seal(nil, m, hello), m.to); err != nil {
			return none{}, err
		}
		time.Sleep(time.Millisecond) // within what an engine takes without asking for cookies
	}
	return none{}, nil
}

func (m *member) handshake(private string, far crypto.PublicKey, index uint32, now time.Duration) error {
	key, err := crypto.ParsePrivateKeyHex(private)
	if err != nil {
		return err
	}
	identity, err := noise.NewIdentity(key)
	if err != nil {
		return err
	}
	offer := noise.Parameters{Suites: hybridOffer.Suites, Layer: noise.LayerEthernet}
	both, pending, err := noise.NewRemote(identity, far).InitiateHybrid(nil, index, tai64n.From(time.Now()), offer, noise.Randomness{})
	if err != nil {
		return err
	}
	first, second := both[:noise.HybridInitiationSize], both[noise.HybridInitiationSize:]
	stamper := cookie.NewStamper(far)
	stamper.Stamp(first, 0)
	stamper.StampKEM(second)
	for _, msg := range [][]byte{first, second} {
		if _, err := m.conn.WriteTo(msg, m.to); err != nil {
			return err
		}
	}
	if err := m.conn.SetReadDeadline(time.Now().Add(engineWait)); err != nil {
		return err
	}
	buf := make([]byte, maxUDPDatagram)
	n, err := m.conn.Read(buf)
	if err != nil {
		return err
	}
	keys, chosen, remote, err := pending.Consume(buf[:n], crypto.PresharedKey{})
	if err != nil {
		return err
	}
	suite, ok := chosen.Suites.Only()
	if !ok {
		return errors.New("no suite was chosen")
	}
	m.session, err = session.New(&keys, suite, true, index, remote, now)
	return err
}

// seal appends the message of a frame, which has no padding, to b.
func (c *crowd) seal(b []byte, m *member, frame []byte) []byte {
	plaintext := append(frame, payload.Trailer(payload.Ethernet, 0))
	counter, ok := m.session.Reserve(1, len(plaintext)+noise.TagSize)
	if !ok {
		return b
	}
	at, size := len(b), len(plaintext)+session.Overhead
	b = append(b, make([]byte, size)...)
	return b[:at+m.session.Seal(b[at:], counter, plaintext, &c.nonce)]
}

// framesRun says what the hostile peer sends, how many frames per second (0: as many as possible), and for how long.
type framesRun struct {
	Frames string
	Rate   int
	For    time.Duration
}

type framesSent struct{ Frames, Bytes int64 }

func (c *crowd) send(run framesRun) (sent framesSent, err error) {
	if len(c.members) == 0 {
		return sent, errors.New("nobody has joined")
	}
	m := c.members[0]
	batch := ipv4.NewPacketConn(m.conn)
	messages := make([]ipv4.Message, floodBatch)
	var sealed [floodBatch][]byte
	content, frame, next := make([]byte, frameContent), []byte(nil), uint64(0)
	start := time.Now()
	for due := start; time.Since(start) < run.For; {
		if run.Rate > 0 {
			time.Sleep(time.Until(due))
			// A sender that fell behind makes up for no more than this.
			if late := time.Now().Add(-udpLongestRun); due.Before(late) {
				due = late
			}
			due = due.Add(floodBatch * interval(run.Rate))
		}
		for i := range messages {
			frame = hostileFrame(frame[:0], run.Frames, next, content)
			next++
			if sealed[i] = c.seal(sealed[i][:0], m, frame); len(sealed[i]) == 0 {
				return sent, errors.New("the session is used up")
			}
			messages[i] = ipv4.Message{Buffers: [][]byte{sealed[i]}, Addr: m.to}
		}
		n, err := batch.WriteBatch(messages, 0)
		if err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return sent, err
		}
		for i := range messages[:max(n, 0)] {
			sent.Frames++
			sent.Bytes += int64(len(sealed[i]))
		}
	}
	time.Sleep(udpQuiet)
	return sent, nil
}

func (c *crowd) close() {
	for _, m := range c.members {
		m.conn.Close()
	}
}
