package transport

import "strconv"

// kernelRelease is the leading "major.minor.patch" of a kernel release string.
type kernelRelease struct{ major, minor, patch int }

// parseKernelRelease reads the numbers at the front of uname's release ("7.0.3-generic", "7.1.0-rc4+"); what
// is missing or not a number is 0.
func parseKernelRelease(s string) (k kernelRelease) {
	for _, part := range []*int{&k.major, &k.minor, &k.patch} {
		end := 0
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(s[:end])
		if err != nil {
			return k
		}
		*part = n
		if end == len(s) || s[end] != '.' {
			return k
		}
		s = s[end+1:]
	}
	return k
}

func (k kernelRelease) before(o kernelRelease) bool {
	if k.major != o.major {
		return k.major < o.major
	}
	if k.minor != o.minor {
		return k.minor < o.minor
	}
	return k.patch < o.patch
}

// corruptsEqualTrains tells whether the kernel writes wrong UDP headers into the segments of a UDP_SEGMENT train whose
// last datagram is as long as the others. Introduced in Linux 7.0, gone since 7.1.5. Trains with a shorter tail
// are right on every kernel.
func (k kernelRelease) corruptsEqualTrains() bool {
	return !k.before(kernelRelease{7, 0, 0}) && k.before(kernelRelease{7, 1, 5})
}
