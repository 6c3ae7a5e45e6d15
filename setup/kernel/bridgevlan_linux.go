package kernel

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"culvert/setup/model"
	"culvert/setup/rtnl"
	"culvert/setup/spec"
)

// Attributes and flags of linux/if_bridge.h.
const (
	bridgeFlags    = 0 // IFLA_BRIDGE_FLAGS
	bridgeVLANInfo = 2 // IFLA_BRIDGE_VLAN_INFO
	bridgeSelf     = 2 // BRIDGE_FLAGS_SELF
	bridgeMaster   = 1 // BRIDGE_FLAGS_MASTER

	vlanPVID       = 1 << 1
	vlanUntagged   = 1 << 2
	vlanRangeBegin = 1 << 3
	vlanRangeEnd   = 1 << 4
)

// bridgeVLANs lists the VLANs of every bridge and port of the namespace by index; none without VLAN filtering in the kernel.
func (n *namespace) bridgeVLANs() (map[int]model.Value, error) {
	a := linkHead(unix.AF_BRIDGE, 0, 0, 0)
	a.Uint32(unix.IFLA_EXT_MASK, vlanRanges)
	messages, err := n.conn.Dump(unix.RTM_GETLINK, a.Bytes())
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := make(map[int]model.Value)
	for _, message := range messages {
		if len(message) < infoLength {
			continue
		}
		index := int(int32(binary.NativeEndian.Uint32(message[4:])))
		family, ok := rtnl.Parse(message[infoLength:])[unix.IFLA_AF_SPEC]
		if ok {
			m[index] = model.VLANs(readVLANInfo(family))
		}
	}
	return m, nil
}

func readVLANInfo(family []byte) (list []spec.PortVLAN) {
	var begin uint16
	for kind, b := range rtnl.All(family) {
		if kind != bridgeVLANInfo || len(b) < 4 {
			continue
		}
		flags, vid := binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])
		if flags&vlanRangeBegin != 0 {
			begin = vid
			continue
		}
		first := vid
		if flags&vlanRangeEnd != 0 {
			first = begin
		}
		for v := first; v <= vid && v != 0; v++ {
			list = append(list, spec.PortVLAN{VID: v, PVID: flags&vlanPVID != 0, Untagged: flags&vlanUntagged != 0})
		}
	}
	return list
}

// setBridgeVLANs makes the VLANs of a port, or of a bridge itself, those of a list: what is there besides goes, what lacks comes.
func (n *namespace) setBridgeVLANs(index int, self bool, want model.Value) error {
	wanted, err := parseVLANs(want)
	if err != nil {
		return err
	}
	all, err := n.bridgeVLANs()
	if err != nil {
		return err
	}
	have, err := parseVLANs(all[index])
	if err != nil {
		return err
	}
	stale := slices.DeleteFunc(slices.Clone(have), func(v spec.PortVLAN) bool {
		return slices.ContainsFunc(wanted, func(w spec.PortVLAN) bool { return w.VID == v.VID })
	})
	fresh := slices.DeleteFunc(slices.Clone(wanted), func(v spec.PortVLAN) bool { return slices.Contains(have, v) })
	// The one that untagged frames belong to comes last: it takes the place of the one before.
	slices.SortStableFunc(fresh, func(a, b spec.PortVLAN) int {
		switch {
		case a.PVID == b.PVID:
			return 0
		case a.PVID:
			return 1
		}
		return -1
	})
	if err := n.changeVLANs(unix.RTM_DELLINK, index, self, stale); err != nil {
		return err
	}
	return n.changeVLANs(unix.RTM_SETLINK, index, self, fresh)
}

// changeVLANs adds or deletes VLANs, consecutive ones as a range.
func (n *namespace) changeVLANs(kind uint16, index int, self bool, list []spec.PortVLAN) error {
	const most = 256 // VLANs a request names
	for len(list) > 0 {
		a := linkHead(unix.AF_BRIDGE, index, 0, 0)
		a.Nest(unix.IFLA_AF_SPEC, func(a *rtnl.Attributes) {
			whose := uint16(bridgeMaster)
			if self {
				whose = bridgeSelf
			}
			a.Uint16(bridgeFlags, whose)
			for i := 0; i < most && len(list) > 0; i++ {
				j := 1
				for ; j < len(list) && list[j].VID == list[j-1].VID+1 && list[j].Untagged == list[0].Untagged && !list[j].PVID && !list[0].PVID; j++ {
				}
				if j > 1 {
					putVLAN(a, list[0], vlanRangeBegin)
					putVLAN(a, list[j-1], vlanRangeEnd)
				} else {
					putVLAN(a, list[0], 0)
				}
				list = list[j:]
			}
		})
		if err := n.conn.Do(kind, 0, a.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func putVLAN(a *rtnl.Attributes, v spec.PortVLAN, flags uint16) {
	if v.PVID {
		flags |= vlanPVID
	}
	if v.Untagged {
		flags |= vlanUntagged
	}
	b := binary.NativeEndian.AppendUint16(nil, flags)
	a.Put(bridgeVLANInfo, binary.NativeEndian.AppendUint16(b, v.VID))
}
