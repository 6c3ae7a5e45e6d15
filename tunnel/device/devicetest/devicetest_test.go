package devicetest

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"culvert/tunnel/device"
)

func TestReadAndPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New("test0", 1420, 2)
		if name, err := d.Name(); name != "test0" || err != nil {
			t.Errorf("name %q: %v", name, err)
		}
		q := d.Queue(1)
		buf := make([]byte, device.BufferSize)
		if _, _, _, err := q.Read(buf, false); err != device.ErrWouldBlock {
			t.Errorf("read of nothing: %v", err)
		}
		type result struct {
			packet []byte
			o      device.Offload
			err    error
		}
		results := make(chan result)
		go func() {
			for {
				lo, hi, o, err := d.Queues()[1].Read(buf, true)
				results <- result{bytes.Clone(buf[lo:hi]), o, err}
				if err != nil {
					return
				}
			}
		}()
		synctest.Wait() // the reader waits
		o := device.Offload{NeedsChecksum: true, ChecksumStart: 20}
		data := []byte("packet")
		q.Push(data, o)
		clear(data)
		if r := <-results; string(r.packet) != "packet" || r.o != o || r.err != nil {
			t.Errorf("read %+v", r)
		}
		for i := range 100 {
			q.Push([]byte{byte(i)}, device.Offload{})
		}
		for i := range 100 {
			if r := <-results; len(r.packet) != 1 || r.packet[0] != byte(i) {
				t.Errorf("read %+v as packet %d", r, i)
			}
		}
		if n := q.Pending(); n != 0 {
			t.Errorf("%d pending", n)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if r := <-results; r.err != os.ErrClosed {
			t.Errorf("read ended with %v", r.err)
		}
	})
}

func TestWriteAndNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New("test0", 1420, 1)
		q := d.Queue(0)
		buf := make([]byte, 100)
		copy(buf[device.Headroom:], "packet")
		write := func() error { return q.Write(buf, device.Headroom, device.Headroom+6, device.Offload{}) }
		if _, _, ok := q.TryNext(nil); ok {
			t.Error("a packet nobody wrote")
		}
		done := make(chan bool)
		go func() {
			packet, o, ok := q.Next(nil)
			if string(packet) != "packet" || o != (device.Offload{}) || !ok {
				t.Errorf("next %q %+v %v", packet, o, ok)
			}
			_, _, ok = q.Next(packet)
			done <- ok
		}()
		if err := write(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		broken := errors.New("broken")
		q.FailWrites(broken)
		if err := write(); err != broken {
			t.Errorf("error %v", err)
		}
		q.FailWrites(nil)
		d.SetUp(false)
		if err := write(); err != errDown {
			t.Errorf("write while down: %v", err)
		}
		d.SetUp(true)
		var sunk []byte
		q.SetSink(func(packet []byte, _ device.Offload) { sunk = append(sunk, packet...) })
		if err := write(); err != nil || string(sunk) != "packet" {
			t.Errorf("sunk %q: %v", sunk, err)
		}
		d.Remove()
		if ok := <-done; ok {
			t.Error("a packet after the end")
		}
		if err := write(); err != ErrGone {
			t.Errorf("write to a removed device: %v", err)
		}
		if _, _, _, err := q.Read(make([]byte, device.BufferSize), true); err != ErrGone {
			t.Errorf("read of a removed device: %v", err)
		}
	})
}

func TestWriteSegmentsWhatIsNotTaken(t *testing.T) {
	d := New("test0", 1420, 1)
	q := d.Queue(0)
	// 28 bytes of headers and three datagrams of two bytes.
	packet := append(make([]byte, 28), "aabbcc"...)
	packet[0], packet[3], packet[9], packet[25] = 0x45, 34, 17, 14
	o := device.Offload{NeedsChecksum: true, GSO: device.GSOUDP, SegmentSize: 2, ChecksumStart: 20, ChecksumOffset: 6}
	for _, test := range []struct {
		takes device.Offloads
		want  int
	}{
		{device.Offloads{Checksum: true, TCP: true, UDP: true}, 1},
		{device.Offloads{Checksum: true, TCP: true}, 3},
		{device.Offloads{UDP: true}, 3},
	} {
		q.SetOffloads(test.takes)
		if got := q.Offloads(); got != test.takes {
			t.Errorf("offloads %+v", got)
		}
		buf := make([]byte, 100)
		copy(buf[device.Headroom:], packet)
		if err := q.Write(buf, device.Headroom, device.Headroom+len(packet), o); err != nil {
			t.Fatal(err)
		}
		count := 0
		for _, _, ok := q.TryNext(nil); ok; _, _, ok = q.TryNext(nil) {
			count++
		}
		if count != test.want {
			t.Errorf("%+v: %d packets, want %d", test.takes, count, test.want)
		}
	}
	q.SetOffloads(device.Offloads{})
	if err := q.Write(make([]byte, 100), 50, 60, o); !errors.Is(err, device.ErrMalformed) {
		t.Errorf("error %v", err)
	}
}

// An Ethernet device cuts frames: what it does not take counts from the frame's first byte, and anything else crosses.
func TestEthernet(t *testing.T) {
	d := NewEthernet("test0", 1500, 1)
	if d.Layer() != device.LayerEthernet || !d.Carrier() {
		t.Error("no Ethernet device with its carrier on")
	}
	if err := d.SetCarrier(false); err != nil || d.Carrier() {
		t.Error("the carrier is on still")
	}
	q := d.Queue(0)
	q.SetOffloads(device.Offloads{})
	header := "targetsource\x81\x00\x00\x07\x08\x00"
	packet := append(make([]byte, 28), "aabbcc"...)
	packet[0], packet[3], packet[9], packet[25] = 0x45, 34, 17, 14
	write := func(frame string, o device.Offload) error {
		buf := make([]byte, device.Headroom+len(frame)+device.Tailroom)
		copy(buf[device.Headroom:], frame)
		return q.Write(buf, device.Headroom, device.Headroom+len(frame), o)
	}
	o := device.Offload{NeedsChecksum: true, GSO: device.GSOUDP, SegmentSize: 2, ChecksumStart: 18 + 20, ChecksumOffset: 6}
	if err := write(header+string(packet), o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"aa", "bb", "cc"} {
		frame, _, ok := q.TryNext(nil)
		if !ok || len(frame) != 18+28+2 || string(frame[:18]) != header || string(frame[46:]) != want {
			t.Errorf("frame %q", frame)
		}
	}
	arp := "targetsource\x08\x06" + string(make([]byte, 46))
	if err := write(arp, device.Offload{}); err != nil {
		t.Fatal(err)
	}
	if frame, _, ok := q.TryNext(nil); !ok || string(frame) != arp {
		t.Errorf("frame %q", frame)
	}
	o.ChecksumStart -= 18
	if err := write(header+string(packet), o); !errors.Is(err, device.ErrOffload) {
		t.Errorf("error %v", err)
	}
	q.Push([]byte(arp), device.Offload{})
	buf := make([]byte, device.BufferSize)
	if lo, hi, _, err := q.Read(buf, false); err != nil || string(buf[lo:hi]) != arp {
		t.Errorf("read %q: %v", buf[lo:hi], err)
	}
}

func TestEvents(t *testing.T) {
	d := New("test0", 1420, 1)
	d.SetUp(true) // changes nothing
	d.SetUp(false)
	for range 2 {
		if err := d.SetMTU(1300); err != nil {
			t.Error(err)
		}
	}
	d.SetName("test1")
	d.SetUp(true)
	_ = d.Close()
	_ = d.Close()
	d.SetUp(false) // not reported any more
	var got []device.Event
	for e := range d.Events() {
		got = append(got, e)
	}
	want := []device.Event{device.EventUp, device.EventDown, device.EventMTU, device.EventUp}
	if len(got) != len(want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("events %v, want %v", got, want)
		}
	}
	if mtu, _ := d.MTU(); mtu != 1300 {
		t.Errorf("MTU %d", mtu)
	}
	if name, _ := d.Name(); name != "test1" {
		t.Errorf("name %q", name)
	}
}

func TestAllocate(t *testing.T) {
	q := New("test0", 1420, 1).Queue(0)
	packet, buf, got := make([]byte, 1400), make([]byte, device.BufferSize), make([]byte, 0, 1500)
	round := func() {
		for range 20 {
			q.Push(packet, device.Offload{})
		}
		for range 20 {
			lo, hi, o, err := q.Read(buf, true)
			if err != nil {
				panic(err)
			}
			if err := q.Write(buf, lo, hi, o); err != nil {
				panic(err)
			}
		}
		for range 20 {
			var ok bool
			if got, _, ok = q.Next(got); !ok {
				panic("ended")
			}
		}
	}
	round()
	round() // by now each place in the rings has a buffer
	if n := testing.AllocsPerRun(50, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
