package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/crypto"
	"culvert/internal/lab"
)

func newKey(t *testing.T) crypto.PrivateKey {
	t.Helper()
	k, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func writeFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// refused loads path and gives the error's text, which must hold each of parts.
func refused(t *testing.T, path string, parts ...string) string {
	t.Helper()
	f, err := Load(path)
	if err == nil || f != nil {
		t.Fatalf("Load(%s) = %v, %v; want an error", path, f, err)
	}
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("%T is not Errors", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in:\n%v", part, err)
		}
	}
	return err.Error()
}

func TestLoadYAML(t *testing.T) {
	dir := t.TempDir()
	own, shared := newKey(t), newKey(t)
	writeFile(t, filepath.Join(dir, "own.key"), own.Base64()+"\n", 0o600)
	writeFile(t, filepath.Join(dir, "psk"), shared.Base64(), 0o400)
	path := filepath.Join(dir, "site.yaml")
	writeFile(t, path, `version: 1
tunnels:
  office:
    private_key_file: own.key
    addresses: [10.0.0.1/24]
    hooks: {post_up: [echo]}
    peers:
      branch:
        public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
        preshared_key_file: `+filepath.Join(dir, "psk")+`
        endpoints: ["a.example:1"]
        allowed_ips: [0.0.0.0/0]
        keepalive: 25s
`, 0o644)
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	tunnel := f.Tunnels[0]
	if f.Instance != "site" || f.Path != path || f.Format != FormatYAML || tunnel.Name != "office" {
		t.Errorf("instance %q, path %q, format %q, tunnel %q", f.Instance, f.Path, f.Format, tunnel.Name)
	}
	if !tunnel.PrivateKey.Equal(own) || tunnel.Peers[0].PresharedKey != crypto.PresharedKey(shared) {
		t.Error("the keys were not read from their files")
	}
	if got, want := tunnel.Peers[0].Endpoints[0].Pos, (Position{path, 11, 21}); got != want {
		t.Errorf("the endpoint is at %v, want %v", got, want)
	}
	late := f.ErrorAt(tunnel.Peers[0].Endpoints[0].Pos, "cannot resolve", "check it", fs.ErrClosed)
	want := path + `:11:21: cannot resolve
  11 |         endpoints: ["a.example:1"]
     |                     ^
     = check it`
	if late.Error() != want || !errors.Is(late, fs.ErrClosed) {
		t.Errorf("ErrorAt gives\n%v", late)
	}

	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	refused(t, path, "others than its owner can change the commands", "chmod go-w "+path)
}

func TestLoadWGQuick(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t)
	path := filepath.Join(dir, "wg0.conf")
	writeFile(t, path, "[Interface]\nPrivateKey = "+key.Base64()+"\n", 0o600)
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Format != FormatWGQuick || f.Tunnels[0].Name != "wg0" || !f.Tunnels[0].PrivateKey.Equal(key) {
		t.Errorf("read %+v", f)
	}
	link := filepath.Join(dir, "wg1.conf")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if f, err := Load(link); err != nil || f.Tunnels[0].Name != "wg1" {
		t.Errorf("through a symlink: %v, %v", f, err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		text := refused(t, path, fmt.Sprintf("%04o", mode), "chmod 600 "+path)
		if strings.Contains(text, key.Base64()[:20]) {
			t.Errorf("the key is shown:\n%s", text)
		}
	}
	long := filepath.Join(dir, "a-name-beyond-15.conf")
	writeFile(t, long, "[Interface]\nPrivateKey = "+key.Base64()+"\n", 0o600)
	refused(t, long, "at most 15", "rename the file")
}

func TestLoadRefusesFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.yaml"))
	var all Errors
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &all) {
		t.Errorf("a missing file gives %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, filepath.Join(dir, "dir.yaml"), "a directory")
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.conf"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, filepath.Join(dir, "fifo.conf"), "a named pipe") // and does not wait for a writer
	writeFile(t, filepath.Join(dir, "x.toml"), "", 0o600)
	refused(t, filepath.Join(dir, "x.toml"), "does not tell its format")
	writeFile(t, filepath.Join(dir, "big.yaml"), strings.Repeat("#\n", MaxFileSize/2)+"#", 0o600)
	refused(t, filepath.Join(dir, "big.yaml"), "larger than 4194304 bytes")
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	good := at("good")
	writeFile(t, good, key.Base64()+"\n", 0o600)
	for name, mode := range map[string]fs.FileMode{"g-r": 0o640, "o-r": 0o604, "g-w": 0o620, "o-x": 0o601, "all": 0o777} {
		writeFile(t, at(name), key.Base64(), mode)
	}
	writeFile(t, at("it's"), key.Base64(), 0o644)
	writeFile(t, at("empty"), "", 0o600)
	writeFile(t, at("short"), key.Base64()[:43], 0o600)
	writeFile(t, at("two"), key.Base64()+"\n"+key.Base64()+"\n", 0o600)
	writeFile(t, at("big"), strings.Repeat(key.Base64()+"\n", 100), 0o600)
	writeFile(t, at("zero"), crypto.PrivateKey{}.Base64(), 0o600)
	if err := os.Mkdir(at("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(good, at("link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, file string
		parts      []string
	}{
		{"missing", "none", []string{"none does not exist", "culvert genkey > " + at("none")}},
		{"group may read", "g-r", []string{"mode 0640", "chmod 600 " + at("g-r")}},
		{"others may read", "o-r", []string{"mode 0604"}},
		{"group may write", "g-w", []string{"mode 0620"}},
		{"others may execute", "o-x", []string{"mode 0601"}},
		{"open to all", "all", []string{"mode 0777"}},
		{"odd name", `it's`, []string{`chmod 600 '` + dir + `/it'\''s'`}},
		{"directory", "dir", []string{"a directory"}},
		{"symlink", "link", []string{"a symbolic link"}},
		{"pipe", "fifo", []string{"a named pipe"}},
		{"device", "/dev/zero", []string{"a device"}},
		{"empty", "empty", []string{"0 characters"}},
		{"short", "short", []string{"43 characters"}},
		{"two keys", "two", []string{"89 characters"}},
		{"large", "big", []string{"larger than 4096"}},
		{"zero", "zero", []string{"all zeros"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := at("conf.yaml")
			writeFile(t, path, "version: 1\ntunnels:\n  wg0:\n    private_key_file: \""+c.file+"\"\n", 0o644)
			text := refused(t, path, append(c.parts, "conf.yaml:4:23: ")...)
			if strings.Contains(text, key.Base64()[:12]) {
				t.Errorf("the key is shown:\n%s", text)
			}
		})
	}
}

func TestKeyFileOwner(t *testing.T) {
	if os.Getuid() != 0 {
		lab.Skip(t, "needs root to give a file away")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "wg0.conf")
	writeFile(t, path, "[Interface]\nPrivateKey = "+newKey(t).Base64()+"\n", 0o600)
	if err := os.Chown(path, 12345, 0); err != nil {
		t.Fatal(err)
	}
	refused(t, path, "belongs to user 12345", "chown root "+path)
	key := filepath.Join(dir, "key")
	writeFile(t, key, newKey(t).Base64(), 0o600)
	if err := os.Chown(key, 12345, 0); err != nil {
		t.Fatal(err)
	}
	site := filepath.Join(dir, "site.yaml")
	writeFile(t, site, "version: 1\ntunnels: {wg0: {private_key_file: key}}\n", 0o644)
	refused(t, site, "site.yaml:2:35: ", "belongs to user 12345", "chown root "+key)
	if err := os.Chown(key, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(site, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(site); err != nil {
		t.Errorf("without secrets and hooks the file's owner does not matter: %v", err)
	}
	writeFile(t, site, "version: 1\ntunnels: {wg0: {private_key_file: key, hooks: {pre_up: [x]}}}\n", 0o644)
	refused(t, site, "belongs to user 12345")
	writeFile(t, site, "version: 1\non: [{events: [peer], run: [/bin/true]}]\ntunnels: {wg0: {private_key_file: key}}\n", 0o644)
	refused(t, site, "belongs to user 12345")
}
