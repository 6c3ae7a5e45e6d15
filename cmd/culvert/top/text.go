package top

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// cell is text in exactly width columns, cut with a mark where it is longer.
func cell(text string, width int) string {
	if width <= 0 {
		return ""
	}
	n := ansi.StringWidth(text)
	if n > width {
		text = ansi.Truncate(text, width, "~")
		n = ansi.StringWidth(text)
	}
	return text + strings.Repeat(" ", max(0, width-n))
}

// right is the same, with the text at the right edge.
func right(text string, width int) string {
	n := ansi.StringWidth(text)
	if n >= width {
		return cell(text, width)
	}
	return strings.Repeat(" ", width-n) + text
}

// rate words bits or things a second in at most five columns: 0, 512, 9.99k, 99.9M, 999G.
func rate(v float32) string {
	if !known(v) {
		return "-"
	}
	return scaled(float64(v), 1000, []string{"", "k", "M", "G", "T", "P"})
}

// bytes words an amount in binary units, in at most five columns.
func bytes(n uint64) string {
	return scaled(float64(n), 1024, []string{"", "K", "M", "G", "T", "P", "E"})
}

// count words a number in at most five columns.
func count(n uint64) string {
	if n < 1e5 {
		return strconv.FormatUint(n, 10)
	}
	return scaled(float64(n), 1000, []string{"", "k", "M", "G", "T", "P", "E"})
}

func scaled(v, base float64, units []string) string {
	unit := 0
	for v >= 999.5 && unit < len(units)-1 {
		v /= base
		unit++
	}
	switch {
	case unit == 0 && (v >= 9.95 || v == math.Trunc(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v < 9.995 && unit > 0:
		return strconv.FormatFloat(v, 'f', 2, 64) + units[unit]
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64) + units[unit]
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + units[unit]
}

// seconds words a round trip, in seconds, in at most six columns.
func seconds(s float64) string {
	switch {
	case s <= 0:
		return "-"
	case s < 0.0001:
		return strconv.FormatFloat(s*1e6, 'f', 0, 64) + "us"
	case s < 0.01:
		return strconv.FormatFloat(s*1e3, 'f', 2, 64) + "ms"
	case s < 0.1:
		return strconv.FormatFloat(s*1e3, 'f', 1, 64) + "ms"
	case s < 1:
		return strconv.FormatFloat(s*1e3, 'f', 0, 64) + "ms"
	case s < 10:
		return strconv.FormatFloat(s, 'f', 2, 64) + "s"
	}
	return strconv.FormatFloat(min(s, 99999), 'f', 0, 64) + "s"
}

// percent words a share of 0 to 1 in at most five columns.
func percent(share float64) string {
	if share*100 < 9.95 {
		return strconv.FormatFloat(share*100, 'f', 1, 64) + "%"
	}
	return strconv.FormatFloat(share*100, 'f', 0, 64) + "%"
}

// age words how long ago something was in at most four columns.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 100*time.Second:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 100*time.Minute:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 100*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(min(int(d/(24*time.Hour)), 999)) + "d"
}
