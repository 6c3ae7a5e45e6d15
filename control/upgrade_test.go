package control

import (
	"net"
	"os"
	"strings"
	"testing"
)

func TestUpgrade(t *testing.T) {
	dir, _ := listen(t, &everything{})
	c := NewClient(dir, "wg0")
	got, err := c.Upgrade(t.Context(), UpgradeRequest{Program: "/opt/culvert"})
	if err != nil || *got != (Upgraded{From: "1.4.0", To: "1.5.0", PID: 733, Pause: 0.02}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Upgrade(t.Context(), UpgradeRequest{}); err == nil || err.Error() != "which program?" {
		t.Errorf("refused: %v", err)
	}
	dir, _ = listen(t, &service{})
	if _, err := NewClient(dir, "wg0").Upgrade(t.Context(), UpgradeRequest{}); err == nil || !strings.Contains(err.Error(), "cannot be upgraded") {
		t.Errorf("of a daemon without: %v", err)
	}
}

// A listener passes on with its lock: who calls meanwhile is answered by the next, the name is never free, and it goes with the last.
func TestInherit(t *testing.T) {
	dir, first := listen(t, &service{})
	first.Pause(true)
	waiting, err := net.Dial("unix", SocketPath(dir, "wg0"))
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	lock, socket, err := first.Files()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Inherit(dir, "other", lock, socket); err == nil {
		t.Fatal("taken by another name")
	}
	if lock, socket, err = first.Files(); err != nil {
		t.Fatal(err)
	}
	second, err := Inherit(dir, "wg0", lock, socket)
	if err != nil {
		t.Fatal(err)
	}
	second.Program = "2.0"
	if err := first.Leave(); err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(lockPath(dir, "wg0")); err != ErrRunning {
		t.Errorf("the lock: %v", err)
	}
	done := make(chan struct{})
	go func() { defer close(done); second.Serve(&service{}) }()
	waiting.Write([]byte(`{"version":1,"op":"hello"}` + "\n"))
	b := make([]byte, 1000)
	if n, err := waiting.Read(b); err != nil || !strings.Contains(string(b[:n]), `"program":"2.0"`) {
		t.Errorf("%q, %v", b[:n], err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewClient(dir, "wg0").Hello(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	<-done
	for _, path := range []string{SocketPath(dir, "wg0"), lockPath(dir, "wg0")} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
