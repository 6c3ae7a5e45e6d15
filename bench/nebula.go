package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"culvert/internal/lab"
)

// nebula with one thread each way and AES-256-GCM, both its defaults. A datagram has 32 bytes of its own, 16 of header and 16 of tag.
// The device's address is in its certificate, and it sets that itself.
var nebula = rival{name: "Nebula", settings: "AES-256-GCM, routines 1", addresses: true, configure: configureNebula,
	build: func(s *stage) (string, error) {
		const programs = "github.com/slackhq/nebula/cmd/"
		return lab.BuildAt(s, nebulaVersion, programs+"nebula", programs+nebulaCert)
	}}

const (
	nebulaCert = "nebula-cert"
	nebulaPort = 4242
)

// nebulaFile is a configuration of two ends that know each other's address, and let everything pass.
const nebulaFile = `pki: {ca: %[1]s/ca.crt, cert: %[1]s/own.crt, key: %[1]s/own.key}
static_host_map: {"%[2]v": ["%[3]v:%[4]d"]}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: "%[5]v", port: %[4]d, read_buffer: %[6]d, write_buffer: %[6]d}
relay: {use_relays: false}
cipher: aes
routines: 1
tun: {dev: %[7]s, mtu: %[8]d}
logging: {level: error}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`

func configureNebula(program string, ends [2]rivalEnd) (arguments [2][]string, err error) {
	cert := filepath.Join(filepath.Dir(program), nebulaCert)
	// The authority's certificate and key are the first end's, which signs for both.
	authority := []string{"-ca-crt", filepath.Join(ends[0].folder, "ca.crt"), "-ca-key", filepath.Join(ends[0].folder, "ca.key")}
	if err := runQuietly(cert, "ca", "-name", "culvert bench", "-duration", "24h", "-out-crt", authority[1], "-out-key", authority[3]); err != nil {
		return arguments, err
	}
	known, err := os.ReadFile(authority[1])
	if err != nil {
		return arguments, err
	}
	for i, e := range ends {
		far := ends[1-i]
		text := fmt.Sprintf(nebulaFile, e.folder, far.inner.Addr(), far.address, nebulaPort, e.address, rivalBuffer, tunnelDevice, e.mtu)
		if err := writeFiles(e.folder, map[string]string{"nebula.yml": text, "ca.crt": string(known)}); err != nil {
			return arguments, err
		}
		sign := slices.Concat([]string{"sign"}, authority, []string{"-name", []string{"a", "b"}[i], "-networks", e.inner.String(),
			"-out-crt", filepath.Join(e.folder, "own.crt"), "-out-key", filepath.Join(e.folder, "own.key")})
		if err := runQuietly(cert, sign...); err != nil {
			return arguments, err
		}
		arguments[i] = []string{"-config", filepath.Join(e.folder, "nebula.yml")}
	}
	return arguments, nil
}

// runQuietly runs a program, whose output is in the error if it fails.
func runQuietly(program string, arguments ...string) error {
	if out, err := exec.Command(program, arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(program), arguments[0], err, out)
	}
	return nil
}
