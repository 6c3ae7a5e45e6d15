package fragment

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// model is a second, simple implementation of the Reassembler: lists that are searched, rules that look at all fragments.
type model struct {
	limits  Limits
	packets []*modelPacket // oldest first
}

type modelPacket struct {
	key   byte
	id    uint32
	born  time.Duration
	parts []part // in the order of arrival
}

func (p *modelPacket) chunks() int {
	n := 0
	for _, f := range p.parts {
		n += len(f.piece)
	}
	return (n + chunkData - 1) / chunkData
}

// possible reports whether some plaintext would be cut to all these parts, and more.
func possible(parts []part) bool {
	length, atLeast, last, lastLength, highest := 0, 0, -1, 0, -1
	for _, f := range parts {
		if len(f.piece) == 0 || f.index >= MaxCount {
			return false
		}
		if f.last {
			if last >= 0 {
				return false
			}
			last, lastLength, atLeast = int(f.index), len(f.piece), len(f.piece)
			continue
		}
		if length != 0 && length != len(f.piece) {
			return false
		}
		length, highest = len(f.piece), max(highest, int(f.index))
	}
	if last >= 0 {
		return highest < last && (length == 0 || lastLength <= length) && last*max(length, atLeast)+lastLength <= MaxPlaintext
	}
	return highest+1 < MaxCount && (highest+1)*length+1 <= MaxPlaintext
}

func whole(parts []part) []byte {
	parts = slices.Clone(parts)
	slices.SortFunc(parts, func(a, b part) int { return int(a.index) - int(b.index) })
	if !parts[len(parts)-1].last || int(parts[len(parts)-1].index) != len(parts)-1 {
		return nil
	}
	var b []byte
	for _, f := range parts {
		b = append(b, f.piece...)
	}
	return b
}

func (m *model) remove(p *modelPacket) {
	m.packets = slices.DeleteFunc(m.packets, func(q *modelPacket) bool { return p == q })
}

// measure is what a session holds (of everybody's, with key < 0), and how many sessions there are.
func (m *model) measure(key int) (packets, chunks, sessions int) {
	keys := map[byte]bool{}
	for _, p := range m.packets {
		keys[p.key] = true
		if key < 0 || int(p.key) == key {
			packets, chunks = packets+1, chunks+p.chunks()
		}
	}
	return packets, chunks, len(keys)
}

// evict gives up the oldest packet but p, of the session key (of all, with key < 0) where that has one.
func (m *model) evict(key int, p *modelPacket, now time.Duration, lost *Loss) {
	var victim *modelPacket
	for _, q := range slices.Backward(m.packets) {
		if q != p && (key < 0 || int(q.key) == key) {
			victim = q
		}
	}
	if victim == nil {
		m.evict(-1, p, now, lost)
		return
	}
	if now-victim.born >= m.limits.Timeout {
		lost.Expired++
	} else {
		lost.Evicted++
	}
	m.remove(victim)
}

func (m *model) add(key byte, id uint32, f part, now time.Duration) (plaintext []byte, lost Loss) {
	for range expiredAtOnce {
		if len(m.packets) > 0 && now-m.packets[0].born >= m.limits.Timeout {
			m.packets = m.packets[1:]
			lost.Expired++
		}
	}
	var p *modelPacket
	for _, q := range m.packets {
		if q.key == key && q.id == id {
			p = q
		}
	}
	if p != nil && now-p.born >= m.limits.Timeout {
		m.remove(p)
		lost.Expired++
		p = nil
	}
	parts := []part{f}
	if p != nil {
		parts = append(slices.Clone(p.parts), f)
		if slices.ContainsFunc(p.parts, func(g part) bool { return g.index == f.index }) && len(f.piece) > 0 {
			m.remove(p)
			lost.Duplicate++
			return nil, lost
		}
	}
	if !possible(parts) {
		m.remove(p)
		lost.Inconsistent++
		return nil, lost
	}
	if plaintext = whole(parts); plaintext != nil {
		m.remove(p)
		return plaintext, lost
	}
	if p == nil {
		own, _, sessions := m.measure(int(key))
		switch all, _, _ := m.measure(-1); {
		case own == m.limits.PerKey:
			m.evict(int(key), nil, now, &lost)
		case all == m.limits.Packets && own*sessions > m.limits.Packets:
			m.evict(int(key), nil, now, &lost)
		case all == m.limits.Packets:
			m.evict(-1, nil, now, &lost)
		}
		p = &modelPacket{key: key, id: id, born: now}
		m.packets = append(m.packets, p)
	}
	need := (&modelPacket{parts: parts}).chunks() - p.chunks()
	for {
		if _, own, _ := m.measure(int(key)); own+need <= m.limits.PerKeyBytes/chunkSize {
			break
		}
		m.evict(int(key), p, now, &lost)
	}
	for {
		_, own, sessions := m.measure(int(key))
		if _, all, _ := m.measure(-1); all+need <= m.limits.Bytes/chunkSize {
			break
		}
		if own*sessions > m.limits.Bytes/chunkSize {
			m.evict(int(key), p, now, &lost)
		} else {
			m.evict(-1, p, now, &lost)
		}
	}
	p.parts = parts
	return nil, lost
}

// FuzzReassembler reads its input as a list of fragments, and compares with the model.
func FuzzReassembler(f *testing.F) {
	// Each is session and id, index, length (two bytes), time passed.
	f.Add([]byte("\x00\x00\x64\x00\x00\x00\x81\x32\x00\x00"))
	f.Add([]byte("\x10\x82\x64\x00\x01\x11\x00\x00\x04\x01\x10\x00\x64\x00\x01\x11\x81\x00\x02\x01\x10\x01\x64\x00\x01"))
	f.Add([]byte("\x00\x00\x64\x00\x00\x01\x00\x64\x00\x00\x02\x00\x64\x00\x00\x03\x00\x64\x00\x00\x04\x00\x64\x00\x00"))
	f.Add([]byte("\x00\x00\x64\x00\x00\x00\x00\x64\x00\x00\x01\x00\x64\x00\x70\x02\x00\x64\x00\x70\x01\x81\x64\x00\x70"))
	f.Add([]byte("\x00\x00\x00\x7f\x00\x10\x00\x00\x7f\x00\x20\x00\x00\x7f\x00\x30\x00\x00\x7f\x00\x00\x81\x00\x7f\x00\x10\x81\x01\x00\x00"))
	f.Fuzz(compare)
}

// TestModel does what FuzzReassembler does, with fragments more likely to go with each other than a fuzzer's.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	pick := func(of ...int) int { return of[r.IntN(len(of))] }
	for range 300 {
		var in []byte
		sizes := []int{pick(1, 100, 1000, 2040, 21846), pick(1, 99, 2041, 6000, 60000, MaxPlaintext/2)}
		keys, ids, pass := 1+r.IntN(7), 1+r.IntN(8), pick(0, 1, 10, 100)
		for range 200 {
			op := byte(r.IntN(keys)<<4 | r.IntN(ids))
			if n := r.IntN(100); n < 2 {
				op |= 8 // an index out of bounds
			} else if n < 4 {
				op = 0xff - byte(n-2)
			}
			index := byte(pick(0, 0, 1, 1, 2, 3, 4, 32, 127) | pick(0, 0, 0x80))
			in = append(in, op, index)
			in = binary.LittleEndian.AppendUint16(in, uint16(pick(sizes[0], sizes[0], sizes[0], sizes[1], 1)))
			in = append(in, byte(r.IntN(pass+1)))
		}
		compare(t, in)
	}
}

// compare gives the Reassembler and the model what in says.
func compare(t *testing.T, in []byte) {
	l := Limits{PerKey: 3, PerKeyBytes: MinBytes + 2*chunkSize, Packets: 6, Bytes: MinBytes + 20*chunkSize, Timeout: 300}
	r, m := New[byte](l), &model{limits: l}
	now, data := time.Duration(0), byte(0)
	for range min(len(in)/5, 500) {
		op, at, size, pass := in[0], in[1], int(binary.LittleEndian.Uint16(in[2:])), in[4]
		in = in[5:]
		now += time.Duration(pass)
		key, id := op>>4&7, uint32(op&7)
		if op == 0xff {
			want, _, _ := m.measure(int(key))
			m.packets = slices.DeleteFunc(m.packets, func(p *modelPacket) bool { return p.key == key })
			if n := r.Forget(key); n != want {
				t.Fatalf("forgot %d packets, want %d", n, want)
			}
			continue
		}
		if op == 0xfe {
			before := len(m.packets)
			m.packets = slices.DeleteFunc(m.packets, func(p *modelPacket) bool { return now-p.born >= l.Timeout })
			if lost := r.Expire(now); lost != (Loss{Expired: before - len(m.packets)}) {
				t.Fatalf("lost %+v, want %d", lost, before-len(m.packets))
			}
			if _, chunks, _ := m.measure(-1); r.store.allocated != chunks {
				t.Fatalf("%d chunks kept, %d in use", r.store.allocated, chunks)
			}
			continue
		}
		piece := bytes.Repeat([]byte{data}, size)
		for i := range piece {
			piece[i] += byte(i)
		}
		data += 7
		fragment := part{at & 0x7f, at&0x80 != 0, piece}
		if op&8 != 0 {
			fragment.index |= 0x80
		}
		want, wantLost := m.add(key, id, part{fragment.index, fragment.last, bytes.Clone(piece)}, now)
		got, lost := r.Add(key, id, fragment.index, fragment.last, piece, false, now)
		clear(piece) // it is not kept
		if !bytes.Equal(got, want) || (got == nil) != (want == nil) || lost != wantLost {
			t.Fatalf("%d bytes, want %d; lost %+v, want %+v", len(got), len(want), lost, wantLost)
		}
		packets, used := r.Usage()
		wantPackets, chunks, sessions := m.measure(-1)
		if packets != wantPackets || len(r.sessions) != sessions || r.store.allocated-r.store.spares != chunks || used > l.Bytes {
			t.Fatalf("%d packets, want %d; %d bytes, %d chunks in use, want %d", packets, wantPackets, used, r.store.allocated-r.store.spares, chunks)
		}
	}
}
