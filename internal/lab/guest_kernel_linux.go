package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// guestKernelPackage is Debian's kernel for virtual machines: small, and with every network device as a module.
const guestKernelPackage = "linux-image-cloud-amd64"

// guestKernel is an unpacked kernel package.
type guestKernel struct {
	image   string // boot/vmlinuz-*
	modules string // lib/modules/RELEASE
}

// FetchGuestKernel makes sure that the guests' kernel lies unpacked in the cache folder ($CULVERT_LAB_CACHE, or culvert-lab
// in the user's cache folder) and returns that folder. What is missing is downloaded with apt-get, as an ordinary user; nothing is
// installed. Test processes may call it at the same time.
func FetchGuestKernel(ctx context.Context) (string, error) {
	cache, err := guestCache()
	if err != nil {
		return "", err
	}
	unlock, err := lockFolder(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := findGuestKernel(cache); err == nil {
		return cache, nil
	}
	return cache, downloadGuestKernel(ctx, cache)
}

func guestCache() (string, error) {
	folder := os.Getenv("CULVERT_LAB_CACHE")
	if folder == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
		}
		folder = filepath.Join(base, "culvert-lab")
	}
	return folder, os.MkdirAll(folder, 0o700)
}

// findGuestKernel returns the kernel in the cache, the last one by name where there are several. A folder gets its final name only when it is complete.
func findGuestKernel(cache string) (guestKernel, error) {
	images, err := filepath.Glob(filepath.Join(cache, "kernel-*", "boot", "vmlinuz-*"))
	if err != nil {
		return guestKernel{}, err
	}
	slices.Sort(images)
	for _, image := range slices.Backward(images) {
		release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		modules := filepath.Join(filepath.Dir(image), "..", "lib", "modules", release)
		if info, err := os.Stat(modules); err == nil && info.IsDir() {
			return guestKernel{image: image, modules: filepath.Clean(modules)}, nil
		}
	}
	return guestKernel{}, fmt.Errorf("no kernel in %s", cache)
}

func downloadGuestKernel(ctx context.Context, cache string) error {
	for _, tool := range []string{"apt-cache", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("the guest's kernel comes from a Debian package: %w", err)
		}
	}
	name, err := resolveKernelPackage(ctx)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	// _apt, the user apt downloads as when run by root, has no access to the cache; root does it itself then.
	get := exec.CommandContext(ctx, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name)
	get.Dir = work
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s", name, err, lastLine(out))
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	if len(packages) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", name, len(packages))
	}
	unpacked := filepath.Join(work, "unpacked")
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", packages[0], unpacked).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb -x %s: %w: %s", packages[0], err, lastLine(out))
	}
	if err := os.Rename(unpacked, filepath.Join(cache, "kernel-"+name)); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	_, err = findGuestKernel(cache)
	return err
}

// resolveKernelPackage follows the meta package to the one that holds the kernel.
func resolveKernelPackage(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", "--important", guestKernelPackage).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache knows no %s (apt-get update?): %w", guestKernelPackage, err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s depends on no kernel", guestKernelPackage)
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
