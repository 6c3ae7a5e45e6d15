package setup

import "path/filepath"

// netnsDir is where named network namespaces are mounted; ip-netns(8) knows the same place as /var/run/netns.
const netnsDir = "/run/netns"

// NamespacePath is the file the namespace of that name is mounted on, as ip-netns(8) has it; "" stays "".
func NamespacePath(name string) string {
	if name == "" {
		return ""
	}
	return filepath.Join(netnsDir, name)
}
