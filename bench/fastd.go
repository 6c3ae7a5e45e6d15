package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// fastd with its fastest method that encrypts. A datagram has 24 bytes of its own before the packet or frame, so that one of 1448
// bytes would fit an underlay of 1500.
var (
	fastd    = rival{name: "fastd tap", program: "fastd", debian: "fastd", settings: fastdMethod, configure: configureFastd}
	fastdTun = rival{name: "fastd", program: "fastd", debian: "fastd", settings: fastdMethod, configure: configureFastd}
)

const (
	fastdMethod = "salsa2012+umac"
	fastdPort   = 10000
)

// fastdFile is a configuration. The device's address is not its business: it runs a command for that, or as here none.
const fastdFile = `mode %s;
interface "%s";
mtu %d;
method "%s";
bind %v:%d;
secret "%s";
peer "far" {
	key "%s";
	remote %v:%d;
}
`

func configureFastd(program string, ends [2]rivalEnd) (arguments [2][]string, err error) {
	var secret, public [2]string
	for i := range ends {
		out, err := exec.Command(program, "--generate-key").Output()
		if err != nil {
			return arguments, fmt.Errorf("%s --generate-key: %w", program, err)
		}
		if secret[i], public[i], err = parseFastdKeys(string(out)); err != nil {
			return arguments, err
		}
	}
	for i, e := range ends {
		text := fmt.Sprintf(fastdFile, e.mode(), tunnelDevice, e.mtu, fastdMethod, e.address, fastdPort, secret[i], public[1-i],
			ends[1-i].address, fastdPort)
		if err := writeFiles(e.folder, map[string]string{"fastd.conf": text}); err != nil {
			return arguments, err
		}
		arguments[i] = []string{"--config", filepath.Join(e.folder, "fastd.conf"), "--log-level", "warn"}
	}
	return arguments, nil
}

// parseFastdKeys reads the lines "Secret: ..." and "Public: ..." of fastd --generate-key, 32 bytes in hexadecimal each.
func parseFastdKeys(text string) (secret, public string, err error) {
	for line := range strings.Lines(text) {
		switch key, value, _ := strings.Cut(line, ":"); key {
		case "Secret":
			secret = strings.TrimSpace(value)
		case "Public":
			public = strings.TrimSpace(value)
		}
	}
	if len(secret) != 64 || len(public) != 64 {
		return "", "", errors.New("fastd --generate-key printed no pair of keys")
	}
	return secret, public, nil
}
