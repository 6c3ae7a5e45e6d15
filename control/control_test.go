package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type service struct {
	instance Instance
	reloads  atomic.Int32
	reload   func() ([]string, error)
	down     func() error
}

func (s *service) Status() Instance { return s.instance }

func (s *service) Reload(context.Context) ([]string, error) {
	s.reloads.Add(1)
	return s.reload()
}

func (s *service) Down(context.Context) error { return s.down() }

func listen(t *testing.T, s Service) (dir string, l *Listener) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "run")
	l, err := Listen(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	l.Program = "1.2"
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(s) })
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return dir, l
}

func TestStatus(t *testing.T) {
	want := Instance{Name: "wg0", Kind: "up", PID: 7, Started: time.Unix(1e9, 0).UTC(), Tunnels: []Tunnel{{Interface: "wg0", MTU: 1420}}}
	dir, _ := listen(t, &service{instance: want})
	got, err := NewClient(dir, "wg0").Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// Where a device is handed over is no instance, also if it is in the same directory.
	handover, err := net.Listen("unix", filepath.Join(dir, "vm1.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer handover.Close()
	if names, err := Names(dir); err != nil || len(names) != 1 || names[0] != "wg0" {
		t.Errorf("Names = %v, %v", names, err)
	}
}

func TestReload(t *testing.T) {
	s := &service{reload: func() ([]string, error) { return []string{"one", "two"}, nil }}
	dir, _ := listen(t, s)
	if remarks, err := NewClient(dir, "wg0").Reload(t.Context()); err != nil || len(remarks) != 2 {
		t.Fatalf("Reload = %v, %v", remarks, err)
	}
	s.reload = func() ([]string, error) { return nil, &Error{Text: "wg0.yaml:3:4: wrong", Code: 78} }
	_, err := NewClient(dir, "wg0").Reload(t.Context())
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != 78 || e.Error() != "wg0.yaml:3:4: wrong" {
		t.Fatalf("error %#v", err)
	}
}

// The lock goes with the process, the socket and lock files go with Close, and the modes are private.
func TestExclusive(t *testing.T) {
	dir, l := listen(t, &service{})
	if _, err := Listen(dir, "wg0"); !errors.Is(err, ErrRunning) {
		t.Fatalf("second Listen: %v, want ErrRunning", err)
	}
	for path, want := range map[string]os.FileMode{
		dir: 0o700 | os.ModeDir, SocketPath(dir, "wg0"): 0o600 | os.ModeSocket, lockPath(dir, "wg0"): 0o600,
	} {
		st, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, st.Mode(), want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := NewClient(dir, "wg0").Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Status after Close: %v, want ErrNotRunning", err)
	}
	again, err := Listen(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// What a killed process left is taken over: its files are there, its lock is not.
func TestStale(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(dir, "wg0")})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if err := os.WriteFile(lockPath(dir, "wg0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(dir, "wg0").Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Status of a dead instance: %v, want ErrNotRunning", err)
	}
	l, err := Listen(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestRunDirOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir, "wg0"); err == nil || !strings.Contains(err.Error(), "writable by others") {
		t.Errorf("Listen in a world-writable directory: %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"wg0": true, "site-a_1.b=+": true, strings.Repeat("a", 64): true,
		"": false, ".": false, "..": false, ".a": false, "a/b": false, "a\x00": false, "ä": false, "a b": false, strings.Repeat("a", 65): false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) = %v", name, !want)
		}
	}
	if _, err := Listen(t.TempDir(), "../x"); err == nil {
		t.Error("Listen took a name with a slash")
	}
	if _, err := NewClient(t.TempDir(), "../x").Status(t.Context()); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("Status took a name with a slash: %v", err)
	}
}

// raw sends a line as it is and returns the answer.
func raw(t *testing.T, dir, line string) response {
	t.Helper()
	c, err := net.Dial("unix", SocketPath(dir, "wg0"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	// The server may answer and close before it has read all.
	c.Write([]byte(line))
	c.(*net.UnixConn).CloseWrite()
	answer, err := bufio.NewReader(c).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r response
	if err := json.Unmarshal(answer, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHostileRequests(t *testing.T) {
	s := &service{reload: func() ([]string, error) { return nil, nil }}
	dir, _ := listen(t, s)
	for _, c := range []struct{ line, want string }{
		{"\n", "not valid JSON"},
		{"", "request: "},
		{"{\"version\":1,\"op\":\"reload\"}", "request: "}, // no newline
		{"{\"version\":2,\"op\":\"reload\"}\n", "version 1"},
		{"{\"version\":\"1\",\"op\":\"reload\"}\n", "version 1"},
		{"{\"version\":1,\"op\":\"reload\",\"only_tell\":true}\n", "does not know the field \"only_tell\" of the operation reload"},
		{"{\"version\":1,\"op\":\"capture\",\"capture\":{\"x\":1}}\n", "does not know the field \"x\""},
		{"{\"version\":1,\"op\":\"format\",\"disk\":1}\n", "does not know the operation \"format\""},
		{"{\"version\":1,\"op\":\"reload\"} {}\n", "on one line"},
		{"{\"version\":1,\"op\":[]}\n", "array"},
		{"null\n", "version 1"},
		{"{\"op\":\"reload\"}\n", "version 1"},
		{"{\"version\":1,\"op\":\"format-disk\"}\n", "does not know"},
		{"{\"version\":1,\"op\":\"" + strings.Repeat("x", 2*maxRequest) + "\"}\n", "longer than"},
		{"[[[[[\n", "not valid JSON"},
		{"\x00\xff\xfe\n", "not valid JSON"},
	} {
		if r := raw(t, dir, c.line); !strings.Contains(r.Error, c.want) || r.Code != 1 {
			t.Errorf("answer to %.40q: %+v, want %q", c.line, r, c.want)
		}
	}
	if n := s.reloads.Load(); n != 0 {
		t.Errorf("%d reloads", n)
	}
}

// Clients beyond the bound are turned away, and those served are not disturbed.
func TestTooManyClients(t *testing.T) {
	dir, l := listen(t, &service{instance: Instance{Name: "wg0"}})
	var idle []net.Conn
	for range maxClients {
		c, err := net.Dial("unix", SocketPath(dir, "wg0"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	for len(l.slots) < maxClients {
		time.Sleep(time.Millisecond) // until all are accepted
	}
	if _, err := NewClient(dir, "wg0").Status(t.Context()); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "32 clients") {
		t.Fatalf("one client too many: %v, want ErrBusy", err)
	}
	if _, err := idle[0].Write([]byte("{\"version\":1,\"op\":\"status\"}\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(idle[0]).ReadBytes('\n'); err != nil {
		t.Fatal(err)
	}
}

// Down returns only at the end of the connection, which in a daemon is the end of its process.
func TestDown(t *testing.T) {
	stopped := make(chan struct{})
	dir, l := listen(t, &service{down: func() error { close(stopped); return errors.New("route stays") }})
	done := make(chan error, 1)
	go func() { done <- NewClient(dir, "wg0").Down(t.Context()) }()
	<-stopped
	l.Close()
	l.Wait(10 * time.Second)
	select {
	case err := <-done:
		t.Fatalf("Down returned while the process lives: %v", err)
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.held {
		c.Close() // what the end of the process does
	}
	err := <-done
	if e, ok := errors.AsType[*Error](err); !ok || e.Text != "route stays" || e.Code != 1 {
		t.Errorf("Down = %v", err)
	}
}

// A lock that is held by nobody who answers is waited for: its holder has been killed, or is just starting.
func TestLockOfDyingProcess(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	dying, err := takeLock(lockPath(dir, "wg0"))
	if err != nil {
		t.Fatal(err)
	}
	freed := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(freed); dying.Close() })
	l, err := Listen(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	select {
	case <-freed:
	default:
		t.Error("the lock was taken while it was held")
	}
}
