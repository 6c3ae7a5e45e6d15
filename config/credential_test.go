package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// loadKeyed writes a file whose key is at the given place, and loads it.
func loadKeyed(t *testing.T, dir, name string) (*File, string) {
	t.Helper()
	path := filepath.Join(dir, "office.yaml")
	text := "version: 1\ntunnels:\n  wg0:\n    private_key_file: " + name + "\n    addresses: [10.0.0.1/24]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil {
		return nil, err.Error()
	}
	return f, ""
}

func putKey(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// Keys come from the folder that systemd hands over, with the mode that it gives them; nobody else may have any right to them.
func TestCredentials(t *testing.T) {
	dir, credentials := t.TempDir(), t.TempDir()
	t.Setenv(credentialsEnv, credentials)
	for _, c := range []struct {
		mode  os.FileMode
		wrong string
	}{{0o400, ""}, {0o440, ""}, {0o600, ""}, {0o460, "chmod 600"}, {0o444, "chmod 600"}, {0o404, "chmod 600"}, {0o450, "chmod 600"}} {
		putKey(t, filepath.Join(credentials, "key_office"), c.mode)
		f, wrong := loadKeyed(t, dir, "credential:key_office")
		switch {
		case c.wrong == "" && (f == nil || f.Tunnels[0].PrivateKey.IsZero() || f.Tunnels[0].PrivateKeyFile != "credential:key_office"):
			t.Errorf("mode %04o: %s", c.mode, wrong)
		case !strings.Contains(wrong, c.wrong):
			t.Errorf("mode %04o: %q", c.mode, wrong)
		}
	}
	// Outside the folder the group has no right, whatever the variable says.
	putKey(t, filepath.Join(dir, "plain"), 0o440)
	if _, wrong := loadKeyed(t, dir, "plain"); !strings.Contains(wrong, "0440") {
		t.Errorf("a key file of mode 0440: %q", wrong)
	}
	if os.Geteuid() == 0 {
		putKey(t, filepath.Join(credentials, "theirs"), 0o400)
		if err := os.Chown(filepath.Join(credentials, "theirs"), 1234, 1234); err != nil {
			t.Fatal(err)
		}
		if _, wrong := loadKeyed(t, dir, "credential:theirs"); !strings.Contains(wrong, "belongs to user 1234") {
			t.Errorf("somebody else's credential: %q", wrong)
		}
	}
	for name, want := range map[string]string{
		"credential:none":       "LoadCredential=none:",
		"\"credential:\"":       "is not a credential's name",
		"credential:../office":  "is not a credential's name",
		"credential:..":         "is not a credential's name",
		"\"credential:a\\x07\"": "is not a file's name",
	} {
		if _, wrong := loadKeyed(t, dir, name); !strings.Contains(wrong, want) {
			t.Errorf("%s: %q, want %q", name, wrong, want)
		}
	}
	if err := syscall.Symlink("key_office", filepath.Join(credentials, "link")); err != nil {
		t.Fatal(err)
	}
	if _, wrong := loadKeyed(t, dir, "credential:link"); !strings.Contains(wrong, "symbolic link") {
		t.Errorf("a link: %q", wrong)
	}
}

// By hand, what the unit takes from the folder of keys is read from there.
func TestCredentialsByHand(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(credentialsEnv, "")
	putKey(t, filepath.Join(dir, "keys", "office"), 0o600)
	if f, wrong := loadKeyed(t, dir, "credential:key_office"); f == nil {
		t.Error(wrong)
	}
	putKey(t, filepath.Join(dir, "keys", "office"), 0o440)
	if _, wrong := loadKeyed(t, dir, "credential:key_office"); !strings.Contains(wrong, "0440") {
		t.Errorf("a key file of mode 0440: %q", wrong)
	}
	if _, wrong := loadKeyed(t, dir, "credential:other"); !strings.Contains(wrong, "CREDENTIALS_DIRECTORY") {
		t.Errorf("a credential of which nothing is known: %q", wrong)
	}
}
