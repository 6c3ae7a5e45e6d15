package main

import (
	"strings"
	"testing"

	"culvert/internal/lab"
)

// Peers that are reached over TCP connect anew, to the process that goes on.
func TestUpgradeOverTCP(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "nft")
	a, b := newSites(t)
	a.write(strings.Replace(bodyA(b, ""), `endpoints: ["192.0.2.2:2000"]`, `endpoints: ["192.0.2.2:2000"], tcp: 443`, 1))
	b.write(`    listen: 2000
    tcp: {listen: 443}
    addresses: [10.20.0.2/24, "fd20::2/64", 10.30.0.1/32]
    peers:
      a: {public_key: "` + a.pub + `", allowed_ips: [10.20.0.1/32, "fd20::1/128", 10.21.0.1/32]}
`)
	b.wall(true)
	a.must("up", a.file)
	b.must("up", b.file)
	movesTo(t, a, b, true)
	b.upgraded("site")
	movesTo(t, a, b, true)
	a.reaches("10.20.0.2")
}
