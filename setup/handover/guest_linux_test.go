package handover_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup/handover"
)

// guestScript talks to the host at the other end: it is reached, and reaches.
const guestScript = `
ip addr add 10.9.0.2/24 dev eth0
ip link set eth0 up
ping -c 1 -w 20 10.9.0.1 >/dev/null || { echo "no answer from the host"; exit 1; }
echo "queues $(grep -c -- '-input\.' /proc/interrupts)"
echo reached
read line # until the host has reached this guest
echo "$line"
`

// guestOn starts a guest on the descriptors a socket gives, has it talk to a host and returns its output.
func guestOn(t *testing.T, socket string, host *lab.Host, mac string) string {
	t.Helper()
	offer, files, err := handover.Receive(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if mac == "" {
		mac = offer.MAC
	}
	g := lab.NewGuest(t, lab.GuestOptions{Script: guestScript, NICs: []lab.GuestNIC{{Queues: files, MAC: mac}}})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Await("reached"); err != nil {
		t.Fatal(err)
	}
	host.Shell("ping", "-c", "3", "-i", "0.2", "-w", "20", "10.9.0.2")
	if err := g.Send("enough"); err != nil {
		t.Fatal(err)
	}
	output, code, err := g.Wait()
	if err != nil || code != 0 || !strings.Contains(output, "enough") {
		t.Fatalf("the guest ended with %d, %v:\n%s", code, err, output)
	}
	return output
}

// TestGuestOnTap: a bridge with the machine's tap and a cable as ports. The machine is started twice.
func TestGuestOnTap(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a guest")
	}
	lab.NeedTun(t)
	vm, far := lab.NewHost(t, "vm"), lab.NewHost(t, "far")
	lab.Link(t, vm, far, lab.Names("cable", "eth0"), lab.Addresses("", "10.9.0.1/24"))
	vm.Shell("ip", "link", "add", "br0", "type", "bridge")
	vm.Shell("ip", "tuntap", "add", "name", "vnet1", "mode", "tap", "vnet_hdr", "multi_queue")
	for _, port := range []string{"cable", "vnet1"} {
		vm.Shell("ip", "link", "set", port, "master", "br0", "up")
	}
	vm.Shell("ip", "link", "set", "br0", "up")
	socket := filepath.Join(folder(t), "vm.sock")
	listen(t, handover.Device{Netns: vm.Namespace.Name(), Name: "vnet1", Queues: 2, Socket: socket})
	for range 2 {
		if out := guestOn(t, socket, far, "52:54:00:09:00:02"); !strings.Contains(out, "queues 2") {
			t.Errorf("the guest said:\n%s\nwant two queues", out)
		}
	}
}

// TestGuestOnMacvtap: no bridge, the machine is a station on the cable itself.
func TestGuestOnMacvtap(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a guest")
	}
	vm, far := lab.NewHost(t, "vm"), lab.NewHost(t, "far")
	lab.Link(t, vm, far, lab.Names("eth0", "eth0"), lab.Addresses("", "10.9.0.1/24"))
	if err := vm.Run(vm.Command(t.Context(), "ip", "link", "add", "link", "eth0", "name", "macvtap0", "type", "macvtap", "mode", "bridge")); err != nil {
		lab.Skip(t, "needs macvtap: "+err.Error())
	}
	vm.Shell("ip", "link", "set", "macvtap0", "up")
	socket := filepath.Join(folder(t), "vm.sock")
	listen(t, handover.Device{Netns: vm.Namespace.Name(), Name: "macvtap0", Queues: 1, Socket: socket})
	if out := guestOn(t, socket, far, ""); !strings.Contains(out, "queues 1") {
		t.Errorf("the guest said:\n%s", out)
	}
}

// inGuest says that this process runs inside the guest of TestIPvtaps.
const inGuest = "CULVERT_HANDOVER_GUEST"

// TestIPvtaps runs the test after it in a guest: few kernels of hosts have ipvtap.
func TestIPvtaps(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a guest")
	}
	if os.Getenv(inGuest) != "" {
		t.Skip("this is the guest")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const tests = "^Test(IPvtapIsHandedOver|MacvtapIsHandedOver|TapIsHandedOver|SeveralQueues)$"
	g := lab.NewGuest(t, lab.GuestOptions{
		Modules:  []string{"veth", "tun", "macvtap", "ipvtap"},
		Programs: []string{"ip"},
		Files:    map[string]string{"/opt/handover.test": self},
		Script:   "export " + inGuest + "=1 CULVERT_NO_SKIP=1 HOME=/tmp\nexec /opt/handover.test -test.v -test.run '" + tests + "'\n",
	})
	out, code := g.Run(t.Context())
	if ran, want := strings.Count(out, "\n--- PASS: "), strings.Count(tests, "|")+1; code != 0 || ran != want {
		t.Errorf("the tests in the guest ended with %d, %d passed, want %d:\n%s", code, ran, want, out)
	}
}

func TestIPvtapIsHandedOver(t *testing.T) {
	t.Parallel()
	if os.Getenv(inGuest) == "" {
		t.Skip("runs in the guest of TestIPvtaps")
	}
	h, far := lab.NewHost(t, "vm"), lab.NewHost(t, "far")
	lab.Link(t, h, far, lab.Names("eth0", "eth0"), lab.Addresses("", "10.2.0.1/24"))
	h.Shell("ip", "link", "add", "link", "eth0", "name", "ipvtap0", "type", "ipvtap", "mode", "l2")
	h.Shell("ip", "addr", "add", "10.2.0.5/24", "dev", "ipvtap0") // the guest's: without it on the host's side nothing is delivered
	h.Shell("ip", "link", "set", "ipvtap0", "up")
	socket := filepath.Join(folder(t), "vm.sock")
	listen(t, handover.Device{Netns: h.Namespace.Name(), Name: "ipvtap0", Queues: 1, Socket: socket})
	offer, files, err := handover.Receive(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer close(files)
	if len(files) != 1 || offer.Kind != "ipvtap" || !strings.Contains(h.Shell("ip", "link", "show", "eth0"), offer.MAC) {
		t.Errorf("%d files, %+v, want the parent's address", len(files), offer)
	}
	far.Shell("ip", "neigh", "add", "10.2.0.5", "lladdr", offer.MAC, "dev", "eth0")
	// Nobody behind the queue answers; what comes out of it is the request.
	_ = far.Run(far.Command(t.Context(), "ping", "-c", "1", "-W", "1", "10.2.0.5"))
	readFrame(t, files, []byte{10, 2, 0, 1, 10, 2, 0, 5, 8, 0}) // source, destination, echo request
}
