package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"time"
)

// openVPN without its module for the kernel. A datagram has 24 bytes of its own (opcode and peer, counter, tag) and the
// packet or frame, so that one of 1448 bytes would fit an underlay of 1500.
var (
	openVPN    = rival{name: "OpenVPN tap", program: "openvpn", debian: "openvpn", settings: openVPNSettings, configure: configureOpenVPN}
	openVPNTun = rival{name: "OpenVPN", program: "openvpn", debian: "openvpn", settings: openVPNSettings, configure: configureOpenVPN}
)

const (
	openVPNSettings = "AES-256-GCM, without DCO, fast-io"
	openVPNPort     = 1194
)

// openVPNFile is a configuration of two ends that know each other's certificates and nobody else's. The device's address is
// not its business, and its segment sizes are the kernel's own, as the device's MTU says them.
const openVPNFile = `dev %s
dev-type %s
tun-mtu %d
mssfix 0
disable-dco
proto udp4
local %v
remote %v
port %d
%s
cert own.crt
key own.key
peer-fingerprint %s
data-ciphers AES-256-GCM
data-ciphers-fallback AES-256-GCM
fast-io
sndbuf %d
rcvbuf %d
verb 1
`

func configureOpenVPN(_ string, ends [2]rivalEnd) (arguments [2][]string, err error) {
	var certificate, key, fingerprint [2]string
	for i := range ends {
		if certificate[i], key[i], fingerprint[i], err = newCertificate(); err != nil {
			return arguments, err
		}
	}
	for i, e := range ends {
		role := [2]string{"tls-client", "tls-server\ndh none"}[i]
		text := fmt.Sprintf(openVPNFile, tunnelDevice, e.mode(), e.mtu, e.address, ends[1-i].address, openVPNPort, role, fingerprint[1-i],
			rivalBuffer, rivalBuffer)
		err := writeFiles(e.folder, map[string]string{"bench.conf": text, "own.crt": certificate[i], "own.key": key[i]})
		if err != nil {
			return arguments, err
		}
		arguments[i] = []string{"--cd", e.folder, "--config", filepath.Join(e.folder, "bench.conf")}
	}
	return arguments, nil
}

// newCertificate returns a certificate signed by its own key (P-256), the key, both in PEM, and the certificate's SHA-256
// in pairs of hexadecimal digits.
func newCertificate() (certificate, key, fingerprint string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return "", "", "", err
	}
	now := time.Now()
	template := x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "culvert bench"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		return "", "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", "", err
	}
	sum := sha256.Sum256(der)
	fingerprint = strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
	return pemText("CERTIFICATE", der), pemText("PRIVATE KEY", pkcs8), fingerprint, nil
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
