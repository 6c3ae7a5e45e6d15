package handover

// Offer is the line of JSON that comes with the descriptors. Where Error is set there are none.
type Offer struct {
	Error   string `json:"error,omitempty"`
	Device  string `json:"device,omitempty"`
	Kind    string `json:"kind,omitempty"` // tap, macvtap, ipvtap
	MAC     string `json:"mac,omitempty"`  // a guest on a macvtap or ipvtap has to use it
	MTU     int    `json:"mtu,omitempty"`  // bytes
	Queues  int    `json:"queues,omitempty"`
	VNetHdr bool   `json:"vnet_hdr,omitempty"` // frames have a virtio-net header in front
}

// maxOffer bounds the line in bytes.
const maxOffer = 4096
