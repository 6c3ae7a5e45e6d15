package main

import (
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
)

// attackerRun says whom to flood with what. Keys are those of configured peers.
type attackerRun struct {
	Victim victimAddress
	Flood  string
	Keys   []string
}

// attacker is an agent's part as the one who floods.
type attacker struct {
	conn    *net.UDPConn
	to      net.Addr
	packets [][]byte

	mu     sync.Mutex
	got    floodSent // answers only
	reader sync.WaitGroup
}

// attackerHost is another address of this host, as limits count addresses.
var attackerHost = netip.MustParseAddr("127.0.0.2")

// floodVariety is how many different messages a flood has, or pairs of them.
const floodVariety = 64

// prepare makes the flood's messages, and does what has to come before it.
func (a *attacker) prepare(run attackerRun) (none, error) {
	if a.conn != nil {
		return none{}, errors.New("prepared already")
	}
	public, err := crypto.ParsePublicKeyHex(run.Victim.Public)
	if err != nil {
		return none{}, err
	}
	if a.packets, err = floodMessages(run, public); err != nil {
		return none{}, err
	}
	if a.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(attackerHost, 0))); err != nil {
		return none{}, err
	}
	a.to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(victimHost, run.Victim.Port))
	if run.Flood == floodReplays {
		for _, msg := range a.packets {
			if _, err := a.conn.WriteTo(msg, a.to); err != nil {
				return none{}, err
			}
		}
		if err := a.conn.SetReadDeadline(time.Now().Add(engineWait)); err != nil {
			return none{}, err
		}
		if n, err := a.conn.Read(make([]byte, maxUDPDatagram)); err != nil || n != noise.HybridResponseSize {
			return none{}, errors.Join(errors.New("the initiation to be replayed was not answered"), err)
		}
		if err := a.conn.SetReadDeadline(time.Time{}); err != nil {
			return none{}, err
		}
	}
	a.reader.Go(a.read)
	return none{}, nil
}

func floodMessages(run attackerRun, victim crypto.PublicKey) (messages [][]byte, err error) {
	stamper := cookie.NewStamper(victim)
	pair := func(private string, index uint32) error {
		key, err := crypto.GeneratePrivateKey()
		if private != "" {
			key, err = crypto.ParsePrivateKeyHex(private)
		}
		if err != nil {
			return err
		}
		identity, err := noise.NewIdentity(key)
		if err != nil {
			return err
		}
		p := enginePeer{identity: identity, engine: noise.NewRemote(identity, victim), stamper: stamper}
		parts, err := p.initiation(wireCulvert, index, time.Now())
		messages = append(messages, parts...)
		return err
	}
	for i := range floodVariety {
		switch run.Flood {
		case floodJunk, floodSeconds:
			first, second := make([]byte, noise.HybridInitiationSize), make([]byte, noise.KEMSize)
			rand.Read(first)
			rand.Read(second)
			copy(first, []byte{noise.TypeHybridInitiation, 0, 0, 0})
			copy(second, []byte{noise.TypeKEM, 0, 0, 0})
			stamper.Stamp(first, 0)
			stamper.StampKEM(second)
			if run.Flood == floodJunk {
				messages = append(messages, first)
			}
			messages = append(messages, second)
		case floodStrangers:
			err = pair("", uint32(i))
		case floodImpostors:
			if err = pair(run.Keys[i%len(run.Keys)], uint32(i)); err == nil {
				first := messages[len(messages)-2]
				first[noise.HybridInitiationSize-2*noise.MACSize-1] ^= 1 // the hello's tag
				stamper.Stamp(first, 0)
			}
		case floodReplays:
			if i == 0 {
				err = pair(run.Keys[0], 1)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// read counts answers until the socket is closed.
func (a *attacker) read() {
	for buf := make([]byte, maxUDPDatagram); ; {
		n, err := a.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		a.mu.Lock()
		a.got.Answers++
		a.got.AnswerBytes += int64(n)
		a.mu.Unlock()
	}
}

// floodRun says how many messages per second are sent, 0 for as many as possible, and for how long.
type floodRun struct {
	Rate int
	For  time.Duration
}

// floodSent is what was sent, and what came back.
type floodSent struct {
	Messages, Bytes      int64
	Answers, AnswerBytes int64
}

// floodBatch is how many messages leave at once.
const floodBatch = 16

func (a *attacker) send(run floodRun) (sent floodSent, err error) {
	if a.conn == nil || len(a.packets) == 0 {
		return sent, errors.New("nothing to send")
	}
	batch := ipv4.NewPacketConn(a.conn)
	messages := make([]ipv4.Message, floodBatch)
	start, next := time.Now(), 0
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
			messages[i] = ipv4.Message{Buffers: [][]byte{a.packets[next%len(a.packets)]}, Addr: a.to}
			next++
		}
		n, err := batch.WriteBatch(messages, 0)
		if err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return sent, err
		}
		for i := range messages[:max(n, 0)] {
			sent.Messages++
			sent.Bytes += int64(len(messages[i].Buffers[0]))
		}
	}
	time.Sleep(udpQuiet) // for the last answers
	a.mu.Lock()
	defer a.mu.Unlock()
	sent.Answers, sent.AnswerBytes = a.got.Answers, a.got.AnswerBytes
	return sent, nil
}

func (a *attacker) close() {
	if a.conn != nil {
		a.conn.Close()
		a.reader.Wait()
	}
}
