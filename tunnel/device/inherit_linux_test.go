package device

import (
	"os"
	"testing"

	"culvert/internal/lab"
)

// A device goes on in what was made of its descriptors: the interface stays when the first is closed, and goes with the second.
func TestInherit(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range []Layer{LayerIP, LayerEthernet} {
		for _, queues := range []int{1, 3} {
			h := lab.NewHost(t, "heir")
			first := openIn(t, h, layer, TunOptions{Name: "culvert%d", MTU: 1380, Queues: queues})
			name, err := first.Name()
			if err != nil {
				t.Fatal(err)
			}
			configure(t, h, first, "10.9.0.1/24")
			files, err := first.(Bequeather).Files()
			if err != nil || len(files) != queues {
				t.Fatalf("%d files: %v", len(files), err)
			}
			var d Device
			h.Must(func() (err error) {
				d, err = Inherit(layer, files)
				return err
			})
			t.Cleanup(func() { d.Close() })
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := d.Name()
			mtu, err2 := d.MTU()
			if err != nil || err2 != nil || again != name || mtu != 1380 || d.Layer() != layer || len(d.Queues()) != queues {
				t.Errorf("%s with MTU %d, %d queues, %v, %v", again, mtu, len(d.Queues()), err, err2)
			}
			if e := <-d.Events(); e != EventUp {
				t.Errorf("event %v", e)
			}
			h.Shell("sh", "-c", "ping -c 1 -W 0.1 10.9.0.2 || true")
			read := make(chan error, queues) // of any of them, which end with the device
			for _, q := range d.Queues() {
				go func() { _, _, _, err := q.Read(make([]byte, BufferSize), true); read <- err }()
			}
			if err := <-read; err != nil {
				t.Errorf("nothing can be read: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			h.Shell("sh", "-c", "! ip link show "+name+" 2>/dev/null")
		}
	}
}

// What is no queue, or one of another kind or device, is refused.
func TestInheritRefuses(t *testing.T) {
	lab.NeedTun(t)
	h := lab.NewHost(t, "heir")
	files := func(layer Layer) []*os.File {
		f, err := openIn(t, h, layer, TunOptions{Name: "culvert%d"}).(Bequeather).Files()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for what, list := range map[string][]*os.File{
		"none": nil, "no tun": {null}, "a tap": files(LayerEthernet), "two tuns": append(files(LayerIP), files(LayerIP)...),
	} {
		h.Must(func() error {
			if d, err := Inherit(LayerIP, list); err == nil {
				d.Close()
				t.Errorf("%s: taken", what)
			}
			return nil
		})
		for _, f := range list {
			if f.Close() == nil {
				t.Errorf("%s: a descriptor is still open", what)
			}
		}
	}
}
