package config

import (
	"strconv"
	"strings"
	"unicode"
)

// unprintable tells characters that have no place in names and commands.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }

const plainPath = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_=+./:@%,-"

// quotePath shows a path in a message, in quotes only where it holds anything unusual.
func quotePath(path string) string {
	if path != "" && strings.Trim(path, plainPath) == "" {
		return path
	}
	return strconv.Quote(path)
}

// shellWord shows a path such that a shell takes it as one word.
func shellWord(path string) string {
	if path != "" && path[0] != '-' && strings.Trim(path, plainPath) == "" {
		return path
	}
	if path != "" && path[0] == '-' {
		path = "./" + path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
