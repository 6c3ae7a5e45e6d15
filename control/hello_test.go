package control

import (
	"context"
	"errors"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// everything is a service that has every operation.
type everything struct{ capturing }

func (s *everything) Log(LogRequest) (*Log, error)                           { return &Log{}, nil }
func (s *everything) Confirm() error                                         { return nil }
func (s *everything) Clients(ClientsRequest) (*ClientsAnswer, error)         { return &ClientsAnswer{}, nil }
func (s *everything) SignIn(context.Context, SignInRequest) (*SignIn, error) { return nil, nil }
func (s *everything) Upgrade(_ context.Context, r UpgradeRequest) (*Upgraded, error) {
	if r.Program == "" {
		return nil, errors.New("which program?")
	}
	return &Upgraded{From: "1.4.0", To: "1.5.0", PID: 733, Pause: 0.02}, nil
}
func (s *everything) Events(EventOptions) (func(context.Context) ([]Event, error), func()) {
	return nil, nil
}

func TestHello(t *testing.T) {
	for _, c := range []struct {
		service    Service
		operations []string
	}{
		{&service{}, []string{OpDown, OpHello, OpReload, OpStatus}},
		{&everything{}, []string{OpCapture, OpClients, OpConfirm, OpDown, OpEvents, OpHello, OpLog, OpReload, OpSignIn, OpStatus, OpUpgrade}},
	} {
		dir, _ := listen(t, c.service)
		got, err := NewClient(dir, "wg0").Hello(t.Context())
		want := Daemon{Instance: "wg0", Program: "1.2", PID: os.Getpid(), Versions: []int{Version}, Operations: c.operations}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Hello = %+v, %v\nwant %+v", got, err, want)
		}
		// Whatever the client's version is.
		for _, line := range []string{`{"version":99,"op":"hello","more":[]}`, `{"op":"hello"}`, `{"version":{},"op":"hello"}`} {
			if r := raw(t, dir, line+"\n"); r.Error != "" || !reflect.DeepEqual(r.Daemon, &want) {
				t.Errorf("answer to %s: %+v", line, r)
			}
		}
	}
}

// older is a daemon that answers as one of another time would.
func older(t *testing.T, answer string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := net.Listen("unix", SocketPath(dir, "wg0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte(answer + "\n"))
			c.Close()
		}
	}()
	return dir
}

// A client tells of which kind a failure is, and does not take an answer of another version for one of its own.
func TestFailuresAreTyped(t *testing.T) {
	for answer, want := range map[string]error{
		`{"version":1,"error":"no such operation","code":1,"reason":"operation"}`: errors.ErrUnsupported,
		`{"version":1,"error":"no such field","code":1,"reason":"field"}`:         errors.ErrUnsupported,
		`{"version":2,"error":"only version 2","code":1,"reason":"version"}`:      errors.ErrUnsupported,
		`{"version":2,"instance":{"instance":"wg0"}}`:                             errors.ErrUnsupported,
		`{"version":1,"error":"not you","code":1,"reason":"refused"}`:             os.ErrPermission,
		`{"version":1,"error":"later","code":1,"reason":"busy"}`:                  ErrBusy,
	} {
		_, err := NewClient(older(t, answer), "wg0").Status(t.Context())
		for _, kind := range []error{errors.ErrUnsupported, os.ErrPermission, ErrBusy, ErrNotRunning} {
			if errors.Is(err, kind) != (kind == want) {
				t.Errorf("%s: %v is %v: %v", answer, err, kind, kind != want)
			}
		}
	}
	for _, answer := range []string{`{"version":1}`, `[]`, `{"version":1,"error":"odd","code":1,"reason":"of tomorrow"}`, `{"version":1,"error":"of old","code":1}`} {
		_, err := NewClient(older(t, answer), "wg0").Status(t.Context())
		if err == nil || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

// A context ends the waiting, with its cause.
func TestContextEndsWaiting(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	dir, _ := listen(t, &service{reload: func() ([]string, error) { close(begun); <-release; return nil, nil }})
	defer close(release)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	go func() { <-begun; cancel(why) }()
	if _, err := NewClient(dir, "wg0").Reload(ctx); !errors.Is(err, why) {
		t.Errorf("Reload = %v", err)
	}
	if _, err := NewClient(dir, "wg0").Status(ctx); err == nil {
		t.Error("a context that had ended was not heeded")
	}
	s := &capturing{stream: untilEnd}
	dir, _ = listen(t, s)
	ctx, cancel = context.WithCancelCause(t.Context())
	stream, err := NewClient(dir, "wg0").Capture(ctx, CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel(why)
	for b := make([]byte, 64); err == nil; {
		_, err = stream.Read(b)
	}
	if !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("Read after the context's end: %v", err)
	}
}

func TestList(t *testing.T) {
	dir, _ := listen(t, &service{instance: Instance{Name: "wg0"}})
	l, err := Listen(dir, "alpha")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.patience = 50 * time.Millisecond
	go l.Serve(&service{instance: Instance{Name: "alpha"}})
	// Its process was killed.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(dir, "stale")})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if err := os.WriteFile(lockPath(dir, "stale"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := List(t.Context(), dir)
	if err != nil || len(list) != 2 || list[0].Name != "alpha" || list[1].Name != "wg0" {
		t.Errorf("List = %+v, %v", list, err)
	}
	if list, err := List(t.Context(), dir+"/none"); err != nil || len(list) != 0 {
		t.Errorf("List of nothing = %v, %v", list, err)
	}
	// A slow client's half a request is not waited for for ever, and disturbs nobody.
	c, err := net.Dial("unix", SocketPath(dir, "alpha"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(`{"version":1,`))
	if _, err := List(t.Context(), dir); err != nil {
		t.Error(err)
	}
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), `"reason":"request"`) || !strings.Contains(string(answer[:n]), "not there within 50ms") {
		t.Errorf("half a request was answered %q, %v", answer[:n], err)
	}
}
