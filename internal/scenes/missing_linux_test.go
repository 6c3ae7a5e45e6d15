package scenes

import (
	"path/filepath"
	"testing"

	"culvert/internal/golden"
	"culvert/internal/lab"
)

// TestMissingFeatures applies a file with everything on a kernel that has next to nothing: what is missing is told with its line, the
// kernel's answer, its option and the modprobe to run, and nothing is touched.
func TestMissingFeatures(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a guest")
	}
	if inGuest() {
		t.Skip("this is the guest")
	}
	g := lab.NewGuest(t, lab.GuestOptions{
		Programs: []string{"ip"},
		Files:    map[string]string{"/opt/culvert": culvertProgram(t), "/opt/missing.yaml": filepath.Join("testdata", "missing.yaml")},
		Script: `mkdir -p /var/lib /run
ip link show >/tmp/before
/opt/culvert apply /opt/missing.yaml 2>&1 >/dev/null
echo "ended with $?"
ip link show >/tmp/after
cmp /tmp/before /tmp/after && echo 'the devices are the same'
find /var/lib/culvert -type f
`})
	out, _ := g.Run(t.Context())
	golden.Check(t, "testdata/missing.txt", out)
}
