package main

import (
	"net/netip"

	"culvert/config"
	"culvert/tunnel/access"
)

// wholeTunnel is a tunnel's configuration with what clients or a server add to it.
type wholeTunnel struct {
	config.Tunnel
	apart *apart // whom those of its peers are kept from that are; nil where none is
}

// apart is where clients are that others are kept from. It is made once for all of them.
type apart struct {
	networks, except []netip.Prefix // what of these is somebody else's

	region *access.Region
	err    error
}

func newApart(networks, except []netip.Prefix) *apart {
	a := &apart{networks: networks, except: except}
	a.region, a.err = access.NewRegion(networks, except)
	return a
}
