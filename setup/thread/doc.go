// Package thread runs what must not last on threads of its own: entering a namespace, a umask, mounts of its own.
package thread
