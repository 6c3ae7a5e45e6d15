package kernel

import (
	"fmt"
	"strconv"
	"strings"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// parseVLANs reads a list of VID[-VID][,pvid][,untagged], one entry for each VLAN.
func parseVLANs(v model.Value) ([]spec.PortVLAN, error) {
	var list []spec.PortVLAN
	for _, word := range v.List() {
		span, rest, _ := strings.Cut(word, ",")
		first, last, isRange := strings.Cut(span, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil || a < 1 || b > 4094 || a > b {
			return nil, fmt.Errorf("%q is not a VLAN of 1 to 4094, or a range of them", word)
		}
		var vlan spec.PortVLAN
		for flag := range strings.SplitSeq(rest, ",") {
			switch flag {
			case "":
			case "pvid":
				vlan.PVID = true
			case "untagged":
				vlan.Untagged = true
			default:
				return nil, fmt.Errorf("%q: %q is neither pvid nor untagged", word, flag)
			}
		}
		for vid := a; vid <= b; vid++ {
			vlan.VID = uint16(vid)
			list = append(list, vlan)
		}
	}
	return list, nil
}
