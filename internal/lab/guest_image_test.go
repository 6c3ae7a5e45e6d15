package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The archive is read back by busybox, whose cpio knows nothing of ours.
func TestArchiveUnpacks(t *testing.T) {
	t.Parallel()
	busybox := NeedProgram(t, "busybox")
	host := filepath.Join(t.TempDir(), "odd length")
	if err := os.WriteFile(host, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	a := newArchive(&buf)
	a.text("/etc/motd", 0o640, "hello\n")
	a.symlink("/bin/sh", "/bin/busybox")
	a.file("/opt/deep/er/file", host)
	a.directory("/etc")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	unpack := exec.Command(busybox, "cpio", "-i", "-d")
	unpack.Dir, unpack.Stdin = folder, &buf
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]string{"etc/motd": "hello\n", "opt/deep/er/file": "12345"} {
		if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	if target, err := os.Readlink(filepath.Join(folder, "bin/sh")); err != nil || target != "/bin/busybox" {
		t.Errorf("bin/sh points to %q (%v)", target, err)
	}
	if info, err := os.Stat(filepath.Join(folder, "opt/deep/er/file")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v: want an executable file", info, err)
	}
}

func TestArchiveRefusesTheSameFileTwice(t *testing.T) {
	t.Parallel()
	a := newArchive(&bytes.Buffer{})
	a.text("/a", 0o644, "one")
	a.text("//a", 0o644, "two")
	if err := a.close(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("error %v, want one about the second /a", err)
	}
}

func TestParseModinfo(t *testing.T) {
	t.Parallel()
	info := parseModinfo([]byte("license=GPL\x00alias=rtnl-link-wireguard\x00\x00depends=udp_tunnel,libchacha20poly1305\x00" +
		"softdep=pre: a b post: c\x00softdep=post: d\x00alias=net-pf-16\x00broken"))
	if want := []string{"udp_tunnel", "libchacha20poly1305"}; !slices.Equal(info.depends, want) {
		t.Errorf("depends %q, want %q", info.depends, want)
	}
	if want := []string{"a", "b"}; !slices.Equal(info.before, want) {
		t.Errorf("before %q, want %q", info.before, want)
	}
	if want := []string{"rtnl-link-wireguard", "net-pf-16"}; !slices.Equal(info.aliases, want) {
		t.Errorf("aliases %q, want %q", info.aliases, want)
	}
}

// What is needed by a module and by something it needs comes last, since modprobe inserts from the end.
func TestAllNeedsOrder(t *testing.T) {
	t.Parallel()
	byName := map[string]moduleInfo{
		"top":        {name: "top", path: "top.ko", depends: []string{"bottom", "middle-one"}},
		"middle_one": {name: "middle_one", path: "middle-one.ko", depends: []string{"bottom"}},
		"bottom":     {name: "bottom", path: "bottom.ko"},
	}
	if got, want := allNeeds(byName, byName["top"]), []string{"middle-one.ko", "bottom.ko"}; !slices.Equal(got, want) {
		t.Errorf("needs %q, want %q", got, want)
	}
}

func TestParseLDD(t *testing.T) {
	t.Parallel()
	got, err := parseLDD("ip", "\tlinux-vdso.so.1 (0x7ff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n"+
		"\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n")
	if want := []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("libraries %q (%v), want %q", got, err, want)
	}
	if _, err := parseLDD("ip", "\tlibx.so => not found\n"); err == nil {
		t.Error("a missing library is no error")
	}
}

func TestSplitExit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text, output string
		code         int
		ok           bool
	}{
		{"hi\n\nguest exit 0\n", "hi\n", 0, true},
		{"hi\nguest exit 12\n", "hi", 12, true},
		{"\nguest exit 1\nmore", "\nguest exit 1\nmore", 0, false},
		{"guest exit 0\n", "guest exit 0\n", 0, false},
		{"", "", 0, false},
	} {
		output, code, ok := splitExit(test.text)
		if output != test.output || code != test.code || ok != test.ok {
			t.Errorf("splitExit(%q) = %q, %d, %v", test.text, output, code, ok)
		}
	}
}
