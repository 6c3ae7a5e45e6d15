package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/config"
	"culvert/internal/lab"
)

// TestQuickTap measures a little of all Ethernet tunnels; TestQuick measures all of some others.
func TestQuickTap(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	lab.NeedProgram(t, "go")
	for _, r := range rivals {
		lab.NeedProgram(t, r.program)
	}
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	err := run(t.Context(), []string{"-quick", "-parts", "tap", "-cells", "rtt", "-window", "200ms", "-warmup", "50ms", "-underlay", "no-offloads", "-out", file},
		&stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, trial := range r.Trials {
		names = append(names, trial.Implementation)
		checkTrial(t, trial.Implementation, trial, &r.Options)
	}
	if want := []string{plain, nativeTun, nativeTap, tapWide, fastd.name, openVPN.name, tinc.name}; !slices.Equal(names, want) {
		t.Errorf("measured %v, want %v", names, want)
	}
	for _, impl := range r.Implementations {
		if impl.Name != plain && (impl.Version == "" || len(impl.Command) == 0 || impl.MTU == 0) {
			t.Errorf("%s: of unknown make: %+v", impl.Name, impl)
		}
	}
}

// tunnelFileOf returns the name of a file for culvert, which goes with the test.
func tunnelFileOf(t *testing.T, impl Implementation) string {
	t.Helper()
	private, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{ctx: t.Context()}
	t.Cleanup(s.clean)
	name, err := writeTunnelFile(s, impl, private, netip.MustParsePrefix("198.51.100.1/24"),
		peerText{public, netip.MustParseAddrPort("192.0.2.2:51820"), netip.MustParsePrefix("198.51.100.2/32")})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTunnelFile(t *testing.T) {
	file, err := config.Load(tunnelFileOf(t, Implementation{}))
	if err != nil {
		t.Fatal(err)
	}
	tun := file.Tunnels[0]
	if tun.Mode != config.ModeTun || tun.MTU != tunnelMTU || len(tun.Peers) != 1 || len(tun.Peers[0].AllowedIPs) != 1 {
		t.Errorf("tun: %+v", tun)
	}
	text, err := os.ReadFile(tunnelFileOf(t, Implementation{Ethernet: true, MTU: wideMTU}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"    mode: tap\n", "    mtu: 1500\n", "    addresses: [198.51.100.1/24]\n", `        endpoints: ["192.0.2.2:51820"]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("tap: no line %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "allowed_ips") {
		t.Errorf("tap: has allowed IPs:\n%s", text)
	}
}

// TestRivals has each carry frames, both ways, and checks what the comparison rests on.
func TestRivals(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	for _, r := range rivals {
		t.Run(r.name, func(t *testing.T) {
			lab.NeedProgram(t, r.program)
			err := onStage(t.Context(), func(s *stage) error {
				o := &options{Window: 300 * time.Millisecond, Warmup: 100 * time.Millisecond, rivals: []*rival{r}, native: "true"}
				list, missing, err := tapImplementations(s, o, Machine{})
				if err != nil {
					return err
				}
				impl := list[len(list)-1]
				if impl.Name != r.name || len(missing) > 0 || !regexp.MustCompile(`^[0-9.]+$`).MatchString(impl.Version) {
					return fmt.Errorf("%+v, missing %q", impl, missing)
				}
				sc, err := newScene(s, o, withoutOffloads, impl)
				if err != nil {
					return err
				}
				for i, h := range sc.hosts {
					h.Must(func() error {
						dev, err := net.InterfaceByName(tunnelDevice)
						if err == nil && (dev.MTU != tapMTU || len(dev.HardwareAddr) != 6) {
							err = fmt.Errorf("host %s has %+v", h.Name, dev)
						}
						return err
					})
					if d := sc.daemons[i]; d == nil || !strings.HasPrefix(readText(fmt.Sprintf("/proc/%d/comm", d.pid)), r.program) {
						t.Errorf("daemon %d is not %s", i, r.program)
					}
				}
				there, _, err := sc.tcp(1, forward, false)
				if err != nil {
					return err
				}
				checkDatagrams(t, sc, sc.hosts[1], there.Bytes)
				back, _, err := sc.tcp(1, reverse, false)
				if err != nil {
					return err
				}
				checkDatagrams(t, sc, sc.hosts[0], back.Bytes)
				return sc.wholeDatagrams()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// checkDatagrams wants the host to have received as many UDP datagrams as it takes to carry that much in frames.
func checkDatagrams(t *testing.T, sc *scene, h *lab.Host, bytes int64) {
	t.Helper()
	n, err := counterOf(h, "Udp:", "InDatagrams")
	if err != nil || n < bytes/tapMTU {
		t.Errorf("host %s got %d bytes in %d datagrams, %v", h.Name, bytes, n, err)
	}
}

// TestWholeDatagrams wants fragments to be noticed.
func TestWholeDatagrams(t *testing.T) {
	lab.NeedNetns(t)
	err := onStage(t.Context(), func(s *stage) error {
		sc, err := newScene(s, &options{}, withOffloads, Implementation{Name: plain, Part: partTap})
		if err != nil {
			return err
		}
		if err := sc.hosts[0].PingSize(sc.target, 1400); err != nil {
			return err
		}
		if err := sc.wholeDatagrams(); err != nil {
			t.Error("none was cut: ", err)
		}
		if err := sc.hosts[0].PingSize(sc.target, 1600); err != nil {
			return err
		}
		if err := sc.wholeDatagrams(); err == nil || !strings.Contains(err.Error(), "IP fragments") {
			t.Errorf("one was cut: error %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestMissingRival wants a run without another project's program to say so and to measure the rest.
func TestMissingRival(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	const want = "no-such-program is not installed (apt-get install no-such-package)"
	o := &options{Rounds: 1, Window: minDuration, Cells: []cellGroup{cellRTT}, Underlays: []underlay{withOffloads}, Parts: []part{partTap}, native: "false",
		rivals: []*rival{{name: "nobody", program: "no-such-program", debian: "no-such-package"}}}
	var r *Results
	var progress, table strings.Builder
	err := onStage(t.Context(), func(s *stage) (err error) {
		r, err = measure(s, o, &progress)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.NotMeasured, []string{want}) || !strings.Contains(progress.String(), "not measured: "+want+"\n") {
		t.Errorf("%q, and on stderr\n%s", r.NotMeasured, progress.String())
	}
	if len(r.Trials) != 4 || r.Trials[0].Error != "" || r.Trials[0].RTTLoaded == nil {
		t.Errorf("trials: %+v", r.Trials)
	}
	for _, trial := range r.Trials[1:] { // culvert is a program that ends at once
		if !strings.Contains(trial.Error, "ended at once") {
			t.Errorf("%s: error %q", trial.Implementation, trial.Error)
		}
	}
	if err := writeTables(&table, r); err != nil || !strings.Contains(table.String(), "not measured: "+want+"\n") {
		t.Errorf("%v\n%s", err, table.String())
	}
	if strings.Contains(table.String(), "best of others") {
		t.Errorf("compared with nobody:\n%s", table.String())
	}
}

// TestTapTable compares with testdata/table-tap.txt; with CULVERT_UPDATE=1 it writes that file.
func TestTapTable(t *testing.T) {
	compareTable(t, exampleTapResults(), "testdata/table-tap.txt")
}

// TestBestOfOthers: the best differs from round to round and from line to line.
func TestBestOfOthers(t *testing.T) {
	r := exampleTapResults()
	_, pairs := r.columns(partTap)
	find := func(name string) quantity {
		all := slices.Concat(quantities...)
		i := slices.IndexFunc(all, func(q quantity) bool { return q.name == name })
		return all[i]
	}
	for _, c := range []struct {
		line, ratio, verdict string
	}{
		{"TCP 1 flow", "3.00 (2.00-4.00)", "ahead"},                      // 4 to fastd's 2, 4 to OpenVPN's 1
		{"CPU of both daemons, TCP 1 flow", "0.56 (0.38-0.75)", "ahead"}, // 3 J to OpenVPN's 4, 3 to fastd's 8
		{"TCP 1 flow, reverse", "0.50", ""},                              // one round only
		{"CPU used by others, TCP 1 flow", "-", ""},                      // no one is best
		{"peak memory, the larger end", "2.50 (2.00-3.00)", "behind"},    //
		{"RTT idle, mean", "-", ""},                                      // no other has it
	} {
		if ratio, verdict := r.ratios(partTap, withOffloads, find(c.line), pairs[0]); ratio != c.ratio || verdict != c.verdict {
			t.Errorf("%s: %q %q, want %q %q", c.line, ratio, verdict, c.ratio, c.verdict)
		}
	}
	if names, pairs := r.columns(partTunnel); len(names)+len(pairs) > 0 {
		t.Errorf("tunnels of packets: %v, %v", names, pairs)
	}
}

// exampleTapResults are two rounds, with one of the others missing and one that fails once.
func exampleTapResults() *Results {
	tcp := func(gbits, cost float64) *TCP {
		m := &TCP{Bytes: int64(gbits * 1e9 / 8 * 5), Seconds: 5, CPU: CPU{Load: 1, Machine: 10}}
		if cost > 0 {
			half := cost * float64(m.Bytes) / 1e9 / 2
			m.CPU.Daemons = []float64{half, half}
		}
		return m
	}
	trial := func(round int, name string, m *TCP, peak int64) Trial {
		t := Trial{Round: round, Underlay: withOffloads, Part: partTap, Implementation: name}
		if m != nil {
			m.Flows, m.Way = 1, forward
			t.TCP = []TCP{*m}
		}
		if peak > 0 {
			t.PeakMemory = []int64{peak, peak / 2}
		}
		return t
	}
	trials := []Trial{
		trial(1, plain, tcp(20, 0), 0),
		trial(1, nativeTun, tcp(5, 2), 9e6),
		trial(1, nativeTap, tcp(4, 3), 9e6),
		trial(1, fastd.name, tcp(2, 9), 3e6),
		trial(1, openVPN.name, tcp(1, 4), 8e6),
		trial(2, openVPN.name, tcp(1, 8.5), 9e6),
		trial(2, fastd.name, tcp(0.5, 8), 4.5e6),
		trial(2, tapWide, tcp(3, 4), 9e6),
		trial(2, nativeTap, tcp(4, 3), 9e6),
		trial(2, plain, nil, 0),
	}
	for i, m := range map[int]*TCP{2: tcp(1, 3), 3: tcp(2, 9)} {
		m.Flows, m.Way = 1, reverse
		trials[i].TCP = append(trials[i].TCP, *m)
	}
	trials[2].RTTIdle = &Times{Count: 500, Mean: 0.1, Median: 0.1, P99: 0.2, Max: 0.3}
	trials[9].Error = "no reply came"
	impl := func(name string, mtu int) Implementation {
		return Implementation{Name: name, Part: partTap, Command: []string{"c"}, File: true, Ethernet: name != nativeTun, MTU: mtu,
			Version: "(devel)", Go: "go1.26.8"}
	}
	other := func(r rival, version string) Implementation {
		return Implementation{Name: r.name, Part: partTap, Command: []string{r.program}, Ethernet: true, MTU: tapMTU, Version: version,
			Settings: r.settings}
	}
	return &Results{
		Format:  resultsFormat,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Options: options{Rounds: 2, Duration: 5 * time.Second, Underlays: []underlay{withOffloads}, Parts: []part{partTap}},
		Machine: Machine{CPU: "Abacus", Cores: 2, MemoryBytes: 8e9, Kernel: "linux/amd64 6.18", Go: "go1.26.8", TCP: "cubic"},
		Implementations: []Implementation{{Name: plain, Part: partTap}, impl(nativeTun, tapMTU), impl(nativeTap, tapMTU),
			impl(tapWide, wideMTU), other(fastd, "22"), other(openVPN, "2.6.14")},
		NotMeasured: []string{"tincd is not installed (apt-get install tinc)"},
		Trials:      trials,
	}
}

func TestTapResultsSurviveAFile(t *testing.T) {
	r := exampleTapResults()
	file := filepath.Join(t.TempDir(), "r.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	got, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	var before, after strings.Builder
	if err := writeTables(&before, r); err != nil {
		t.Fatal(err)
	}
	if err := writeTables(&after, got); err != nil || before.String() != after.String() {
		t.Errorf("%v\n%s\nbefore\n%s", err, after.String(), before.String())
	}
}

// configured writes the files of both ends and returns them by name, and the arguments.
func configured(t *testing.T, r rival, program string, tap bool, mtu int) (files [2]map[string]string, arguments [2][]string) {
	t.Helper()
	ends := [2]rivalEnd{
		{t.TempDir(), netip.MustParseAddr("192.0.2.1"), netip.MustParsePrefix("198.51.100.1/24"), tap, mtu},
		{t.TempDir(), netip.MustParseAddr("192.0.2.2"), netip.MustParsePrefix("198.51.100.2/24"), tap, mtu},
	}
	arguments, err := r.configure(program, ends)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range ends {
		files[i] = map[string]string{}
		err := filepath.WalkDir(e.folder, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v", path, info.Mode())
			}
			text, err := os.ReadFile(path)
			name, _ := filepath.Rel(e.folder, path)
			files[i][name] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(arguments[i], " "), e.folder) {
			t.Errorf("end %d is started with %q, its folder is %s", i, arguments[i], e.folder)
		}
	}
	return files, arguments
}

// wantLines wants each line to be one of text's.
func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	have := strings.Split(text, "\n")
	for _, line := range lines {
		if !slices.Contains(have, line) {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

func TestFastdFiles(t *testing.T) {
	// In place of fastd: keys of its process's number, which is another each time.
	program := filepath.Join(t.TempDir(), "fastd")
	script := "#!/bin/sh\n[ \"$*\" = --generate-key ] || exit 1\nprintf 'Secret: aa%062d\\nPublic: bb%062d\\n' $$ $$\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	files, _ := configured(t, fastd, program, true, tapMTU)
	secret := func(i int) string {
		return regexp.MustCompile(`secret "aa([0-9]{62})"`).FindStringSubmatch(files[i]["fastd.conf"])[1]
	}
	if secret(0) == secret(1) {
		t.Error("both ends have the same key")
	}
	for i := range files {
		wantLines(t, files[i]["fastd.conf"], "mode tap;", "mtu 1400;", `interface "wg0";`, `method "salsa2012+umac";`,
			fmt.Sprintf("bind 192.0.2.%d:10000;", 1+i), fmt.Sprintf("\tremote 192.0.2.%d:10000;", 2-i),
			fmt.Sprintf("\tkey \"bb%s\";", secret(1-i)))
	}
	for _, text := range []string{"", "Secret: 12\nPublic: 34\n", "Secret: " + strings.Repeat("0", 64)} {
		if _, _, err := parseFastdKeys(text); err == nil {
			t.Errorf("%q: keys", text)
		}
	}
	if _, err := fastd.configure("/bin/false", [2]rivalEnd{}); err == nil {
		t.Error("no keys, no error")
	}
}

func TestOpenVPNFiles(t *testing.T) {
	files, _ := configured(t, openVPN, "", true, tapMTU)
	for i := range files {
		pair, err := tls.X509KeyPair([]byte(files[i]["own.crt"]), []byte(files[i]["own.key"]))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(pair.Certificate[0])
		var fingerprint []string
		for _, b := range sum {
			fingerprint = append(fingerprint, fmt.Sprintf("%02X", b))
		}
		wantLines(t, files[1-i]["bench.conf"], "peer-fingerprint "+strings.Join(fingerprint, ":"))
		wantLines(t, files[i]["bench.conf"], "dev wg0", "dev-type tap", "tun-mtu 1400", "disable-dco", "data-ciphers AES-256-GCM",
			fmt.Sprintf("local 192.0.2.%d", 1+i), fmt.Sprintf("remote 192.0.2.%d", 2-i), [2]string{"tls-client", "tls-server"}[i])
		if certificate, err := x509.ParseCertificate(pair.Certificate[0]); err != nil || time.Until(certificate.NotAfter) < time.Hour ||
			time.Now().Before(certificate.NotBefore) {
			t.Errorf("certificate: %v, %v", certificate, err)
		}
	}
}

func TestTincFiles(t *testing.T) {
	files, _ := configured(t, tinc, "", true, tapMTU)
	for i := range files {
		block, _ := pem.Decode([]byte(files[i]["rsa_key.priv"]))
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for j := range files { // both ends know this one
			host := files[j]["hosts/"+tincNames[i]]
			wantLines(t, host, fmt.Sprintf("Address = 192.0.2.%d 655", 1+i), "Cipher = aes-256-cbc", "Digest = sha256")
			block, _ := pem.Decode([]byte(host))
			public, err := x509.ParsePKCS1PublicKey(block.Bytes)
			if err != nil || !public.Equal(&key.PublicKey) {
				t.Errorf("end %d has another key of end %d, %v", j, i, err)
			}
		}
		own := files[i]["tinc.conf"]
		wantLines(t, own, "Name = "+tincNames[i], "Mode = switch", "Interface = wg0", fmt.Sprintf("BindToAddress = 192.0.2.%d 655", 1+i))
		if calls := strings.Contains(own, "ConnectTo = b\n"); calls != (i == 0) {
			t.Errorf("end %d calls: %v", i, calls)
		}
	}
}

func TestTincPathMTU(t *testing.T) {
	const log = `Nodes:
 a at MYSELF cipher 0 digest 0 maclength 0 compression 0 options c status 0018 nexthop a via a pmtu 1518 (min 0 max 1518)
 b at 192.0.2.2 port 655 cipher 427 digest 672 maclength 4 compression 0 options c status 001a nexthop b via b pmtu 1518 (min %d max 1518)
End of nodes.
`
	if size, ok := tincPathMTU(fmt.Sprintf(log, 0) + fmt.Sprintf(log, 1417)); !ok || size != 1417 {
		t.Errorf("%d, %v, want 1417", size, ok)
	}
	// The end of a log that was cut has the daemon itself only.
	for _, text := range []string{"", "Ready\n", log[:strings.Index(log, " b at")]} {
		if size, ok := tincPathMTU(text); ok {
			t.Errorf("%q: %d", text, size)
		}
	}
}

func TestVersionIn(t *testing.T) {
	for text, want := range map[string]string{"fastd v22\n": "22", "tinc version 1.0.36\nCopyright (C) 1998": "1.0.36",
		"OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)]": "2.6.14", "no version v at all": "", "": ""} {
		if got, ok := versionIn(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v, want %q", text, got, ok, want)
		}
	}
}
