package setup

import (
	"errors"
	"fmt"
)

// maxLinkName is the length of the longest device name in bytes (IFNAMSIZ without the closing zero).
const maxLinkName = 15

// CheckLinkName reports why the kernel would refuse name for a device (dev_valid_name), or cut it silently.
func CheckLinkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return errors.New("not a usable device name")
	case len(name) > maxLinkName:
		return fmt.Errorf("a device name has at most %d bytes, this one has %d", maxLinkName, len(name))
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c == '/' || c == ':' || c == '%' || c >= 0x7f {
			return fmt.Errorf("a device name cannot contain %q", c)
		}
	}
	return nil
}
