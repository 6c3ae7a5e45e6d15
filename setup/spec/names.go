package spec

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxLinkName  = 15  // bytes; IFNAMSIZ without the closing zero
	maxNetnsName = 128 // bytes; with the rest of a link's mark within an alias (IFALIASZ, 256)
	maxInstance  = 64  // bytes
)

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

// CheckNetnsName reports why name cannot be that of a network namespace: it is a file's name, a part of marks, and a word of IDs.
func CheckNetnsName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || name == "-":
		return errors.New("not a usable name")
	case len(name) > maxNetnsName:
		return fmt.Errorf("the name of a namespace has at most %d bytes, this one has %d", maxNetnsName, len(name))
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c == '/' || c >= 0x7f {
			return fmt.Errorf("the name of a namespace cannot contain %q", c)
		}
	}
	return nil
}

// CheckInstance reports why name cannot be that of an instance: it is a file's name and a part of marks.
func CheckInstance(name string) error {
	const more = "-_.@+"
	switch {
	case name == "" || strings.Trim(name, ".") == "":
		return errors.New("not a usable name")
	case len(name) > maxInstance:
		return fmt.Errorf("the name of an instance has at most %d bytes, this one has %d", maxInstance, len(name))
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(more, rune(c)) {
			return fmt.Errorf("the name of an instance cannot contain %q", c)
		}
	}
	return nil
}
