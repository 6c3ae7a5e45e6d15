package lab

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands and sizes of the ethtool ioctl (include/uapi/linux/ethtool.h) that x/sys/unix leaves out.
const (
	ethtoolGetSetInfo  = 0x37 // ETHTOOL_GSSET_INFO
	ethtoolGetStrings  = 0x1b // ETHTOOL_GSTRINGS
	ethtoolSetFeatures = 0x3b // ETHTOOL_SFEATURES
	stringSetFeatures  = 4    // ETH_SS_FEATURES
	stringLength       = 32   // ETH_GSTRING_LEN
)

// offloadFeatures are the prefixes of the features that make one packet seen on a wire differ from one sent: checksums
// left to the device, segmentation, and coalescing.
var offloadFeatures = []string{"tx-checksum", "tx-tcp", "tx-udp", "tx-generic-segmentation", "tx-gso", "rx-checksum",
	"rx-gro", "rx-lro", "tx-gre", "tx-ipxip", "tx-esp", "tx-sctp-segmentation", "tx-scatter-gather"}

// SetOffloads switches a device's checksum, segmentation and coalescing offloads on or off, as ethtool -K does.
func (h *Host) SetOffloads(device string, on bool) {
	h.t.Helper()
	h.Must(func() error { return setOffloads(device, on, offloadFeatures) })
}

// udpTrainFeature is what a device needs to be handed a train of datagrams whole.
const udpTrainFeature = "tx-udp-segmentation"

// SetUDPTrains says whether a device is handed trains of datagrams (UDP_SEGMENT) whole, where it can take them, or each datagram
// by itself: the kernel cuts the trains before it then.
func (h *Host) SetUDPTrains(device string, on bool) {
	h.t.Helper()
	h.Must(func() error { return setOffloads(device, on, []string{udpTrainFeature}) })
}

func setOffloads(device string, on bool, features []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := featureNames(fd, device)
	if err != nil {
		return fmt.Errorf("%s: read feature names: %w", device, err)
	}
	// struct ethtool_sfeatures: cmd, size, then a block of (valid, requested) for each 32 features.
	words := (len(names) + 31) / 32
	req := make([]uint32, 2+2*words)
	req[0], req[1] = ethtoolSetFeatures, uint32(words)
	for i, name := range names {
		for _, prefix := range features {
			if strings.HasPrefix(name, prefix) {
				bit := uint32(1) << (i % 32)
				req[2+2*(i/32)] |= bit
				if on {
					req[3+2*(i/32)] |= bit
				}
			}
		}
	}
	if err := ethtool(fd, device, unsafe.Pointer(&req[0])); err != nil {
		return fmt.Errorf("%s: set features: %w", device, err)
	}
	return nil
}

// featureNames returns the names of a device's features by their index.
func featureNames(fd int, device string) ([]string, error) {
	info := struct {
		cmd, reserved uint32
		mask          uint64
		count         uint32
	}{cmd: ethtoolGetSetInfo, mask: 1 << stringSetFeatures}
	if err := ethtool(fd, device, unsafe.Pointer(&info)); err != nil {
		return nil, err
	}
	count := int(info.count)
	// struct ethtool_gstrings: cmd, set, length, then the strings.
	buf := make([]uint32, 3+count*stringLength/4)
	buf[0], buf[1], buf[2] = ethtoolGetStrings, stringSetFeatures, uint32(count)
	if err := ethtool(fd, device, unsafe.Pointer(&buf[0])); err != nil {
		return nil, err
	}
	text := unsafe.Slice((*byte)(unsafe.Pointer(&buf[3])), count*stringLength)
	names := make([]string, count)
	for i := range names {
		name, _, _ := bytes.Cut(text[i*stringLength:(i+1)*stringLength], []byte{0})
		names[i] = string(name)
	}
	return names, nil
}

// ethtool does the SIOCETHTOOL ioctl with the request data points to.
func ethtool(fd int, device string, data unsafe.Pointer) error {
	// struct ifreq of 64-bit systems: 16 bytes of name, 24 of union.
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	if len(device) >= len(ifr.name) {
		return unix.EINVAL
	}
	copy(ifr.name[:], device)
	ifr.data = data
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return errno
	}
	return nil
}
