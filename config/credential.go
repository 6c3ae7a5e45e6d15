package config

import (
	"os"
	"path/filepath"
	"strings"
)

const (
	// credentialPrefix begins the name of a file that the service manager hands over: a credential of systemd.
	credentialPrefix = "credential:"
	credentialsEnv   = "CREDENTIALS_DIRECTORY"
	// The service culvert@.service is handed every file of the folder keys beside its configuration, NAME as the credential key_NAME.
	keysFolder     = "keys"
	keysCredential = "key_"
)

// credential returns the path of a credential. Where no service manager has handed any over, as with "culvert check" by hand, one that the
// unit takes from a file beside the configuration is read from there.
func credential(name, folder string) (string, *problem) {
	if name == "" || len(name) > 255 || name == "." || name == ".." || strings.Contains(name, "/") || strings.ContainsFunc(name, unprintable) {
		return "", wrong("write credential:NAME with the name that LoadCredential= of the unit gives it", "%s is not a credential's name", quote(name))
	}
	if dir := os.Getenv(credentialsEnv); dir != "" {
		return filepath.Join(dir, name), nil
	}
	if file, ok := strings.CutPrefix(name, keysCredential); ok && file != "" {
		return filepath.Join(folder, keysFolder, file), nil
	}
	return "", wrong("start it as the service culvert@, or, for a trial, with CREDENTIALS_DIRECTORY set to a folder that has it",
		"the credential %s is one of systemd's, and %s is not set", quotePath(name), credentialsEnv)
}

// isCredential reports whether a path is that of a credential handed over by systemd, which lets the service's user read it by an access list
// where the file is root's. Linux shows that list's mask as the group's permissions.
func isCredential(path string) bool {
	dir := os.Getenv(credentialsEnv)
	return dir != "" && filepath.IsAbs(dir) && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir)
}
