package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/capture"
	"culvert/tunnel/device"
)

// capturedEngine is an engine whose packets are what the test puts into its set.
type capturedEngine struct {
	*fakeEngine
	set   capture.Set
	layer device.Layer
	epoch time.Time
	stops atomic.Int32
	begun func(set *capture.Set) // called when a capture has begun
}

func (e *capturedEngine) Capture(r *capture.Ring) (capture.Feed, error) {
	remove, err := e.set.Add(r)
	if err != nil {
		return capture.Feed{}, err
	}
	if e.begun != nil {
		e.begun(&e.set)
	}
	return capture.Feed{Layer: e.layer, Epoch: e.epoch, Stop: func() { e.stops.Add(1); remove() }}, nil
}

const capturedFile = `    peers:
      branch: {public_key: "` + testPeer + `", allowed_ips: [10.30.0.0/16]}
`

// serveCaptures runs an instance on file with a control socket of its own. Its first tunnel has e as engine, others one
// like it.
func serveCaptures(t *testing.T, file *config.File, e *capturedEngine) *program {
	t.Helper()
	s := newSystem(t)
	in := newInstance(t, s, file)
	make, next := in.kernel.newEngine, e
	in.kernel.newEngine = func(d device.Device, n transport.Network, o tunnel.Options) (engine, error) {
		fake, err := make(d, n, o)
		if err != nil {
			return nil, err
		}
		e := next
		next = &capturedEngine{layer: e.layer, epoch: e.epoch, begun: e.begun}
		e.fakeEngine = fake.(*fakeEngine)
		return e, nil
	}
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	return serveDaemon(t, in.d)
}

func serveDaemon(t *testing.T, d *daemon) *program {
	t.Helper()
	p := &program{name: "culvert", runDir: filepath.Join(t.TempDir(), "run")}
	l, err := control.Listen(p.runDir, d.name)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(d) })
	t.Cleanup(func() { l.Close(); l.Wait(10 * time.Second); serving.Wait() })
	return p
}

// command runs a command line as the program would.
func (p *program) command(args ...string) (stdout, stderr []byte, code int) {
	var out, errs bytes.Buffer
	p.stdout, p.stderr = &out, &errs
	root := p.root()
	root.SetArgs(args)
	err := root.Execute()
	report(&errs, err)
	return out.Bytes(), errs.Bytes(), exitCode(err)
}

func peerKey(t *testing.T, text string) crypto.PublicKey {
	t.Helper()
	k, err := crypto.ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// echo is an ICMP echo request from 10.20.0.1 to 10.30.0.1.
func echo(number byte) []byte {
	return []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 20, 0, 1, 10, 30, 0, 1, 8, 0, 0, 0, 0, 9, 0, number}
}

// packetsOf reads a capture, which must be whole.
func packetsOf(t *testing.T, pcapng []byte) (list []capture.Packet, s capture.Statistics) {
	t.Helper()
	r := capture.NewReader(bytes.NewReader(pcapng))
	for {
		b, err := r.Next()
		if err == io.EOF && r.Ended() {
			return list, s
		}
		if err != nil {
			t.Fatalf("after %d packets: %v", len(list), err)
		}
		switch b.Kind {
		case capture.KindPacket:
			b.Packet.Data = bytes.Clone(b.Packet.Data)
			list = append(list, b.Packet)
		case capture.KindStatistics:
			s = b.Statistics
		}
	}
}

// threePackets are recorded as soon as a capture begins.
func threePackets(t *testing.T) func(*capture.Set) {
	branch, other := peerKey(t, testPeer), peerKey(t, testPeer2)
	return func(set *capture.Set) {
		set.Put(capture.Meta{At: time.Second, Peer: branch, Out: true}, echo(1))
		set.Put(capture.Meta{At: time.Second + time.Millisecond, Peer: other}, echo(2))
		set.Put(capture.Meta{At: 2 * time.Second, Out: true}, echo(3))
	}
}

func TestCaptureWrites(t *testing.T) {
	e := &capturedEngine{epoch: time.Unix(1.7e9, 0), begun: threePackets(t)}
	p := serveCaptures(t, yaml(t, capturedFile), e)
	path := filepath.Join(t.TempDir(), "packets")
	if err := os.WriteFile(path, make([]byte, 5000), 0o666); err != nil { // what is there goes
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-w", path}, {"-w", "-"}, {}} {
		out, errs, code := p.command(append([]string{"capture", "site", "-c", "3"}, args...)...)
		if code != 0 || string(errs) != "3 packets, 0 dropped\n" {
			t.Fatalf("%v: code %d, said %q", args, code, errs)
		}
		if len(args) == 2 && args[1] == path {
			if len(out) != 0 {
				t.Errorf("standard output: %q", out)
			}
			out = []byte(read(t, path))
		}
		list, s := packetsOf(t, out)
		if len(list) != 3 || s != (capture.Statistics{Delivered: 3}) {
			t.Fatalf("%v: %d packets, %+v", args, len(list), s)
		}
		for i, want := range []capture.Packet{
			{At: time.Unix(1.7e9+1, 0), Out: true, Comment: "to branch"},
			{At: time.Unix(1.7e9+1, 1e6), Comment: "from xgH7zx6E…"},
			{At: time.Unix(1.7e9+2, 0), Out: true},
		} {
			got := list[i]
			if !got.At.Equal(want.At) || got.Out != want.Out || got.Comment != want.Comment || !bytes.Equal(got.Data, echo(byte(i+1))) {
				t.Errorf("%v: packet %d is %+v, want %+v", args, i, got, want)
			}
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", st, err)
	}
	if e.set.Active() || e.stops.Load() == 0 {
		t.Error("a capture is left behind")
	}
}

func TestCapturePrints(t *testing.T) {
	e := &capturedEngine{epoch: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local), begun: threePackets(t)}
	p := serveCaptures(t, yaml(t, capturedFile), e)
	out, errs, code := p.command("capture", "site", "wg0", "--text", "--count=3")
	want := `03:04:06.000000 to branch: IP 10.20.0.1 > 10.30.0.1: ICMP echo request, id 9, seq 1, length 8
03:04:06.001000 from xgH7zx6E…: IP 10.20.0.1 > 10.30.0.1: ICMP echo request, id 9, seq 2, length 8
03:04:07.000000 out: IP 10.20.0.1 > 10.30.0.1: ICMP echo request, id 9, seq 3, length 8
`
	if code != 0 || string(out) != want || string(errs) != "3 packets, 0 dropped\n" {
		t.Errorf("code %d, said %q, printed\n%swant\n%s", code, errs, out, want)
	}

	e.layer = device.LayerEthernet
	e.begun = func(set *capture.Set) {
		set.Put(capture.Meta{}, append([]byte("\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x01\x81\x00\x00\x07\x08\x00"), echo(1)...))
	}
	out, _, _ = p.command("capture", "site", "--text", "-c1")
	want = "03:04:05.000000 in: 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff, vlan 7, IP 10.20.0.1 > 10.30.0.1: ICMP echo request, id 9, seq 1, length 8\n"
	if string(out) != want {
		t.Errorf("printed\n%swant\n%s", out, want)
	}
}

func TestCaptureCutsPackets(t *testing.T) {
	p := serveCaptures(t, yaml(t, capturedFile), &capturedEngine{begun: threePackets(t)})
	out, _, _ := p.command("capture", "site", "-c", "1", "-s", "20")
	list, _ := packetsOf(t, out)
	if len(list) != 1 || list[0].Length != 28 || !bytes.Equal(list[0].Data, echo(1)[:20]) {
		t.Errorf("%+v", list)
	}
}

func TestCaptureEndsInTime(t *testing.T) {
	p := serveCaptures(t, yaml(t, capturedFile), &capturedEngine{begun: threePackets(t)})
	start := time.Now()
	out, errs, code := p.command("capture", "site", "--duration", "200ms")
	if passed := time.Since(start); code != 0 || string(errs) != "3 packets, 0 dropped\n" || passed < 200*time.Millisecond {
		t.Errorf("code %d, said %q after %v", code, errs, passed)
	}
	packetsOf(t, out)
}

// Ctrl-C ends a capture in order.
func TestCaptureEndsBySignal(t *testing.T) {
	e := &capturedEngine{}
	e.begun = func(set *capture.Set) {
		threePackets(t)(set)
		syscall.Kill(os.Getpid(), syscall.SIGINT)
	}
	p := serveCaptures(t, yaml(t, capturedFile), e)
	out, errs, code := p.command("capture", "site")
	if code != 0 || string(errs) != "3 packets, 0 dropped\n" {
		t.Errorf("code %d, said %q", code, errs)
	}
	packetsOf(t, out)
}

// So does the end of the tunnel.
func TestCaptureEndsWithTheTunnel(t *testing.T) {
	e := &capturedEngine{}
	e.begun = func(set *capture.Set) {
		threePackets(t)(set)
		close(e.done)
	}
	p := serveCaptures(t, yaml(t, capturedFile), e)
	out, errs, code := p.command("capture", "site")
	if code != 0 || string(errs) != "3 packets, 0 dropped\n" {
		t.Errorf("code %d, said %q", code, errs)
	}
	packetsOf(t, out)
}

// Whoever does not read loses packets, which are counted, and holds up nobody.
func TestSlowCaptureLosesPackets(t *testing.T) {
	const packets, size = 2000, 64000
	e := &capturedEngine{}
	p := serveCaptures(t, yaml(t, capturedFile), e)
	stream, err := p.ask("site").Capture(t.Context(), control.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	packet := make([]byte, size)
	for range packets { // 128 MB into 17 MiB and the socket's buffers: none waits
		e.set.Put(capture.Meta{}, packet)
	}
	if err := stream.Stop(); err != nil {
		t.Fatal(err)
	}
	pcapng, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	list, s := packetsOf(t, pcapng)
	if s.Dropped == 0 || s.Delivered != uint64(len(list)) || s.Delivered+s.Dropped != packets {
		t.Errorf("%d packets, %+v of %d", len(list), s, packets)
	}
}

func TestCaptureRefusesFiles(t *testing.T) {
	e := &capturedEngine{begun: threePackets(t)}
	p := serveCaptures(t, yaml(t, capturedFile), e)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	kept := in("kept")
	if err := os.WriteFile(kept, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(kept, in("link")), syscall.Mkfifo(in("pipe"), 0o600), os.Mkdir(in("dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		in("link"): "symbolic link", in("pipe"): "cannot write the capture", in("dir"): "cannot write the capture",
		"/dev/null": "not a regular file", in("missing/file"): "cannot write the capture",
	}
	if os.Geteuid() == 0 {
		theirs := in("theirs")
		if err := errors.Join(os.WriteFile(theirs, []byte("theirs"), 0o600), os.Chown(theirs, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		cases[theirs] = "belongs to uid 65534"
	}
	// A pipe that somebody reads can be opened, and is refused all the same.
	if err := syscall.Mkfifo(in("read pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(in("read pipe"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	cases[in("read pipe")] = "not a regular file"
	for path, want := range cases {
		if _, errs, code := p.command("capture", "site", "-c", "3", "-w", path); code != 1 || !strings.Contains(string(errs), want) {
			t.Errorf("%s: code %d, said %q, want %q", path, code, errs, want)
		}
	}
	if got := read(t, kept); got != "kept" {
		t.Errorf("the link's file now holds %q", got)
	}
	if os.Geteuid() == 0 && read(t, in("theirs")) != "theirs" {
		t.Error("the other's file has changed")
	}
}

func TestCaptureChoosesTheTunnel(t *testing.T) {
	file := yaml(t, capturedFile+"  wg1:\n    wire: wireguard\n    private_key_file: key\n"+capturedFile)
	p := serveCaptures(t, file, &capturedEngine{begun: threePackets(t)})
	for want, args := range map[string][]string{
		"site has several tunnels: name one of wg0, wg1":      {"site"},
		`site has no tunnel "wg2": it has wg0, wg1`:           {"site", "wg2"},
		"nothing called there is running\n  hint: culvert st": {"there"},
	} {
		if _, errs, code := p.command(append([]string{"capture", "-c1"}, args...)...); code != 1 || !strings.Contains(string(errs), want) {
			t.Errorf("%v: code %d, said %q, want %q", args, code, errs, want)
		}
	}
	if _, errs, code := p.command("capture", "site", "wg1", "-c1"); code != 0 {
		t.Errorf("wg1: code %d, said %q", code, errs)
	}
}

// One instance serves four captures at once.
func TestCapturesAtOnce(t *testing.T) {
	p := serveCaptures(t, yaml(t, capturedFile), &capturedEngine{})
	for range capture.MaxCaptures {
		s, err := p.ask("site").Capture(t.Context(), control.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if _, errs, code := p.command("capture", "site"); code != 1 || !strings.Contains(string(errs), "4 captures") {
		t.Errorf("code %d, said %q", code, errs)
	}
}

func TestCaptureNeedsAnEngineThatCan(t *testing.T) {
	s := newSystem(t)
	in := newInstance(t, s, yaml(t, capturedFile))
	p := serveDaemon(t, in.d)
	if _, errs, code := p.command("capture", "site"); code != 1 || !strings.Contains(string(errs), "site has no tunnel up") {
		t.Errorf("before the start: code %d, said %q", code, errs)
	}
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := p.command("capture", "site"); code != 1 || !strings.Contains(string(errs), "packets of wg0 cannot be captured") {
		t.Errorf("code %d, said %q", code, errs)
	}
}

func TestCaptureOfWG(t *testing.T) {
	e := &capturedEngine{begun: threePackets(t), fakeEngine: &fakeEngine{done: make(chan struct{})}}
	d := &daemon{p: &program{}, name: "wg7", kind: "wg", log: slog.New(slog.DiscardHandler)}
	d.body = &wgInterface{d: d, engine: e}
	p := serveDaemon(t, d)
	out, errs, code := p.command("capture", "wg7", "-c", "3")
	if code != 0 {
		t.Fatalf("code %d, said %q", code, errs)
	}
	if list, _ := packetsOf(t, out); len(list) != 3 || list[0].Comment != "to 3p7bfXt9…" {
		t.Errorf("%+v", list)
	}
}

// A daemon that is killed in the middle is a failure, with what came written.
func TestCaptureCutShort(t *testing.T) {
	var whole bytes.Buffer
	w, err := capture.NewWriter(&whole, capture.Interface{}, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Packet(capture.Record{Length: 28, Data: echo(1), Dropped: 7}); err != nil {
		t.Fatal(err)
	}
	p := &program{name: "culvert", runDir: t.TempDir()}
	if err := os.Chmod(p.runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(p.runDir, "site")
	if err != nil {
		t.Fatal(err)
	}
	go l.Serve(dying{whole.Bytes()})
	defer l.Close()
	out, errs, code := p.command("capture", "site")
	if code != 1 || !strings.Contains(string(errs), "1 packet, 7 dropped\nculvert: the capture was cut short") {
		t.Errorf("code %d, said %q", code, errs)
	}
	if !bytes.Equal(out, whole.Bytes()) {
		t.Errorf("%d bytes written, want %d", len(out), whole.Len())
	}
}

type dying struct{ pcapng []byte }

func (dying) Status() control.Instance                 { return control.Instance{} }
func (dying) Reload(context.Context) ([]string, error) { return nil, nil }
func (dying) Down(context.Context) error               { return nil }
func (d dying) Capture(control.CaptureOptions) (func(context.Context, io.Writer) error, error) {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(d.pcapng)
		return err
	}, nil
}

// Names of peers come from a file and go to a terminal.
func TestDirectionIsPrintable(t *testing.T) {
	if got := direction(capture.Packet{Comment: "from a\x1b[31mb\nc"}); got != "from a?[31mb?c" {
		t.Errorf("got %q", got)
	}
}
