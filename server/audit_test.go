package server

import (
	"bytes"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
)

// smallFile has room for so many bytes.
type smallFile struct {
	bytes.Buffer
	room int
}

func (f *smallFile) Write(b []byte) (int, error) {
	n := min(len(b), f.room-f.Len())
	f.Buffer.Write(b[:n])
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// Wherever a full disk cuts a line off: what is written once there is room again is a line of its own.
func TestAuditOnAFullDisk(t *testing.T) {
	first := &smallFile{room: 1 << 20}
	if err := NewAuditLog(first).Write(Event{Event: EventJoined, Tunnel: "office"}); err != nil {
		t.Fatal(err)
	}
	for room := range first.Len() {
		f := &smallFile{room: first.Len() + room}
		log := NewAuditLog(f)
		failed := 0
		for range 3 {
			if err := log.Write(Event{Event: EventJoined, Tunnel: "office"}); err != nil {
				failed++
			}
		}
		if failed != 2 {
			t.Errorf("room for %d bytes: %d of 3 failed", f.room, failed)
		}
		f.room = 1 << 20
		for range 2 {
			if err := log.Write(Event{Event: EventRefused, Tunnel: "office"}); err != nil {
				t.Error(err)
			}
		}
		refused := 0
		for line := range strings.Lines(f.String()) {
			var e Event
			if json.Unmarshal([]byte(line), &e) == nil && e.Event == EventRefused {
				refused++
			}
		}
		if refused != 2 {
			t.Errorf("room for %d bytes: %d lines of 2 after it:\n%s", first.Len()+room, refused, f.String())
		}
	}
}
