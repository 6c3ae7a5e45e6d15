//go:build unix && !linux

package uapi

import "os"

// openInotify returns nil: inotify is Linux's.
func openInotify(string) *os.File { return nil }
