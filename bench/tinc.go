package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// tinc is version 1.0 with its default algorithms. It hands its cipher the same vector for every datagram, and a counter in the
// first block: fit for CBC, and for nothing faster. A datagram has the counter, the frame, padding and a shortened digest: at
// most 24 bytes more than the frame. Packets are frames to it as well, with an Ethernet header before each.
var (
	tinc = rival{name: "tinc tap", program: "tincd", debian: "tinc", settings: tincSettings,
		configure: configureTinc, settled: tincSettled(tapMTU)}
	tincTun = rival{name: "tinc", program: "tincd", debian: "tinc", settings: tincSettings,
		configure: configureTinc, settled: tincSettled(tunnelMTU)}
)

const (
	tincCipher   = "aes-256-cbc"
	tincDigest   = "sha256"
	tincSettings = tincCipher + ", " + tincDigest
	tincPort     = 655
)

// tincFile is an end's configuration. Its last line, of the calling end alone, tells whom to call.
const tincFile = `Name = %s
Mode = %s
Interface = %s
AddressFamily = ipv4
BindToAddress = %v %d
UDPSndBuf = %d
UDPRcvBuf = %d
%s`

// tincHost is what either end has of both; Subnet is for packets alone.
const tincHost = `Address = %v %d
Cipher = %s
Digest = %s
MACLength = 4
Compression = 0
%s%s`

// tincNames are the ends' names.
var tincNames = [2]string{"a", "b"}

func configureTinc(_ string, ends [2]rivalEnd) (arguments [2][]string, err error) {
	files := [2]map[string]string{{}, {}}
	for i, e := range ends {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return arguments, err
		}
		subnet := ""
		if !e.tap {
			subnet = fmt.Sprintf("Subnet = %v/32\n", e.inner.Addr())
		}
		host := fmt.Sprintf(tincHost, e.address, tincPort, tincCipher, tincDigest, subnet,
			pemText("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey)))
		for j := range files {
			files[j]["hosts/"+tincNames[i]] = host
		}
		call := [2]string{"ConnectTo = " + tincNames[1] + "\n", ""}[i]
		mode := map[bool]string{true: "switch", false: "router"}[e.tap]
		files[i]["tinc.conf"] = fmt.Sprintf(tincFile, tincNames[i], mode, tunnelDevice, e.address, tincPort, rivalBuffer, rivalBuffer, call)
		files[i]["rsa_key.priv"] = pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	}
	for i, e := range ends {
		if err := writeFiles(e.folder, files[i]); err != nil {
			return arguments, err
		}
		arguments[i] = []string{"--no-detach", "--config=" + e.folder, "--pidfile=" + filepath.Join(e.folder, "pid")}
	}
	return arguments, nil
}

// tincSettled wants that frames of packets of any size go by UDP: what is longer than the path is known to carry goes through the
// TCP connection between the daemons.
func tincSettled(mtu int) func(*daemon) error {
	return func(d *daemon) error {
		// It writes what it knows of every node to its log.
		if err := syscall.Kill(d.pid, syscall.SIGUSR2); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		size, ok := tincPathMTU(d.text())
		switch {
		case !ok:
			return errors.New("tinc tells of no path")
		case size < mtu+ethernetHeader:
			return fmt.Errorf("tinc knows only that the path carries frames of %d bytes", size)
		}
		return nil
	}
}

// tincNode is the line of a node in its log. That of the daemon itself has no port.
var tincNode = regexp.MustCompile(`(?m)^ \S+ at \S+ port .* pmtu \d+ \(min (\d+) max \d+\)`)

// tincPathMTU returns the longest frame that is known to get through, as told last, in bytes.
func tincPathMTU(log string) (size int, ok bool) {
	all := tincNode.FindAllStringSubmatch(log, -1)
	if len(all) == 0 {
		return 0, false
	}
	size, err := strconv.Atoi(all[len(all)-1][1])
	return size, err == nil
}
