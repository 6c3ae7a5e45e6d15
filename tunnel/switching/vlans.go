package switching

import (
	"errors"
	"fmt"

	"culvert/tunnel/ethernet"
)

// ErrVID is returned for a VLAN that is not 1 to 4094.
var ErrVID = errors.New("is no VLAN, which are 1 to 4094")

// Action is what is done to a frame's tags where it crosses a port.
type Action uint8

const (
	Keep Action = iota
	Push        // put a tag of the VLAN in front
	Pop         // take the outermost tag away
	Set         // give the outermost tag, which has priority but no VLAN, the VLAN's VID
)

func (a Action) String() string { return [...]string{"keep", "push", "pop", "set"}[a] }

// Apply does it to the frame that starts at buf[lo], and returns where it starts then. Push needs lo >= [ethernet.TagSize].
func (a Action) Apply(buf []byte, lo int, vlan uint16) (newLo int) {
	switch a {
	case Push:
		return ethernet.PushTag(buf, lo, vlan, 0)
	case Pop:
		return len(buf) - len(ethernet.PopTag(buf[lo:]))
	case Set:
		ethernet.SetVID(buf[lo:], vlan)
	}
	return lo
}

// VLANs are those that cross a port (IEEE 802.1Q-2018 §8.6.2, §8.8.2), an immutable value. They are enforced where frames come
// in (Ingress) and, of what came in elsewhere, where they go out (Egress); in between, frames have the form they have at the
// device, which is a trunk: the VLAN is the outermost tag's.
//
//	port has     untagged, priority-tagged   tagged PVID   tagged, listed   other tags
//	None         as they are                 as they are   as they are      as they are
//	PVID         VLAN PVID                   dropped       crosses          dropped
//	no PVID      dropped                     -             crosses          dropped
//
// Frames of VLAN PVID leave by the port untagged. A PVID that is listed too has frames that are tagged with it accepted; they
// leave untagged nevertheless.
//
// Only IEEE 802.1Q tags are VLANs here: with anything configured, a frame whose outermost tag is IEEE 802.1ad's is dropped both
// ways. So is one that would leave or come untagged but with another tag behind: the far end would take it to be of the VLAN
// inside, to which nobody has admitted it.
type VLANs struct {
	pvid   uint16
	listed *[(ethernet.MaxVID + 64) / 64]uint64 // a bit for each; nil: none are
}

// None has frames of all kinds cross as they are.
var None VLANs

// Nothing has no frame cross.
var Nothing = VLANs{listed: new([(ethernet.MaxVID + 64) / 64]uint64)}

// NewVLANs makes a port's VLANs: pvid, or 0, is that of untagged frames, and tagged are those whose frames cross tagged. With
// neither it is None. Errors: ErrVID.
func NewVLANs(pvid uint16, tagged []uint16) (VLANs, error) {
	if pvid > ethernet.MaxVID {
		return None, fmt.Errorf("%d %w", pvid, ErrVID)
	}
	v := VLANs{pvid: pvid}
	for _, vid := range tagged {
		if vid == 0 || vid > ethernet.MaxVID {
			return None, fmt.Errorf("%d %w", vid, ErrVID)
		}
		if v.listed == nil {
			v.listed = new([(ethernet.MaxVID + 64) / 64]uint64)
		}
		v.listed[vid/64] |= 1 << (vid % 64)
	}
	return v, nil
}

func (v VLANs) lists(vlan uint16) bool {
	return v.listed != nil && vlan <= ethernet.MaxVID && v.listed[vlan/64]>>(vlan%64)&1 != 0
}

// Ingress says which VLAN a frame that comes in by the port belongs to, in the form of [ethernet.Header.VLAN] and for
// [KeyOf], and what gives it the device's form. ok is false for a frame that is dropped.
func (v VLANs) Ingress(h ethernet.Header) (vlan uint16, a Action, ok bool) {
	switch {
	case v == None:
		return h.VLAN, Keep, true
	case h.VLAN != 0:
		return h.VLAN, Keep, v.lists(h.VLAN)
	case v.pvid == 0 || h.Tags > 1:
		return 0, Keep, false
	case h.Tags == 1:
		return v.pvid, Set, true
	}
	return v.pvid, Push, true
}

// Egress says whether a frame of a VLAN that has the device's form, with so many tags, leaves by the port, and what is to be done
// to it. The action of the port it came in by must have been done: Push made it one tag more than its header said.
func (v VLANs) Egress(vlan uint16, tags int) (a Action, ok bool) {
	switch {
	case v == None:
		return Keep, true
	case vlan == 0 || tags == 0:
		return Keep, false
	case vlan == v.pvid:
		return Pop, tags == 1
	}
	return Keep, v.lists(vlan)
}
