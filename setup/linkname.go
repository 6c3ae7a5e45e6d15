package setup

import "culvert/setup/spec"

// CheckLinkName reports why the kernel would refuse name for a device (dev_valid_name), or cut it silently.
func CheckLinkName(name string) error { return spec.CheckLinkName(name) }
