// Package sleep tells when the machine has been suspended, and for how long. The monotonic clock, by which timers go, stands still meanwhile.
package sleep
